//! Who may command the guard, over which way, and what is said to the others.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use axum::Router;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{config::ApiConfig, http_client::percent_encoded};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A loop that grants everything and tells what it was asked for, and by whom.
fn granting() -> Control {
    let (control, mut requests) = channel();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let said = format!("{}: {}", request.by, serde_json::to_string(&request.command).unwrap());
            let _ = request.answer.send(Ok(Reply::done(said)));
        }
    });
    control
}

fn api(dir: &TempDir, group: Option<&str>) -> ApiConfig {
    let socket = dir.path().join("run/canary.sock");
    ApiConfig { socket, group: group.map(str::to_owned), ..ApiConfig::default() }
}

async fn serve_socket(api: &ApiConfig) -> PathBuf {
    let socket = bind(api).await.expect("a free place");
    let routes = routes(granting(), Access::Peer { group: socket.group() }, None);
    tokio::spawn(socket.serve(routes, std::future::pending()));
    api.socket.clone()
}

async fn serve_http(access: Access, journal: Option<PathBuf>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().merge(routes(granting(), access, journal));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Sends a POST and gives status code and body.
fn post(stream: impl std::io::Read + std::io::Write, path: &str, headers: &str, body: &str) -> (u16, Value) {
    send(stream, &format!("POST {path}"), headers, body)
}

fn send(mut stream: impl std::io::Read + std::io::Write, request: &str, headers: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    if code == 401 {
        assert!(head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{head}");
    }
    (code, serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}")))
}

/// The same as another user, with what the kernel says when it may not even connect. Identity is a thread's own.
fn post_as(socket: &Path, uid: u32, gid: u32) -> Result<(u16, Value), std::io::ErrorKind> {
    let socket = socket.to_owned();
    let ask = move || {
        let (uid, gid) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(gid));
        set_thread_groups(&[]).expect("root may");
        set_thread_res_gid(gid, gid, gid).expect("root may");
        set_thread_res_uid(uid, uid, uid).expect("root may");
        let stream = UnixStream::connect(&socket).map_err(|e| e.kind())?;
        Ok(post(stream, "/api/v1/pause", "", ""))
    };
    std::thread::spawn(ask).join().expect("no panic")
}

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP {test}: needs root, to be others");
    }
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verbs_reach_the_guard_over_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = serve_socket(&api(&dir, None)).await;
    let asked = tokio::task::spawn_blocking(move || {
        client::ask::<Reply>(
            &socket,
            "/api/v1/pause",
            Some(&json!({ "deployment": "shop", "for": "1h", "reason": "why" })),
        )
    });
    let Reply::Done(Done { said }) = asked.await.unwrap().expect("granted") else { panic!("no status was asked for") };
    assert!(said.ends_with(r#"{"command":"pause","deployment":"shop","for_ms":3600000,"reason":"why"}"#), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_of_a_deployment_reaches_the_guard_with_its_name_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let socket = serve_socket(&api(&dir, None)).await;
    for verb in ["rollback", "hold"] {
        let (socket, path) = (socket.clone(), format!("/api/v1/{verb}/{}", percent_encoded("shop eu")));
        let asked = tokio::task::spawn_blocking(move || {
            client::ask::<Reply>(&socket, &path, Some(&json!({ "reason": " why " })))
        });
        let Reply::Done(Done { said }) = asked.await.unwrap().expect("granted") else {
            panic!("no status was asked for")
        };
        assert!(said.ends_with(&format!(r#"{{"command":"{verb}","deployment":"shop eu","reason":"why"}}"#)), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_keeps_strangers_out_and_lets_root_in() {
    let test = "the_kernel_keeps_strangers_out_and_lets_root_in";
    if !is_root(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = serve_socket(&api(&dir, None)).await;
    let ask = move || (post_as(&socket, 0, 0), post_as(&socket, 65534, 65534));
    let (root, stranger) = tokio::task::spawn_blocking(ask).await.unwrap();
    let (code, body) = root.unwrap();
    assert_eq!(code, 200);
    assert!(body["said"].as_str().is_some_and(|said| said.starts_with("root: ")), "{body}");
    assert_eq!(stranger, Err(std::io::ErrorKind::PermissionDenied));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_through_is_still_checked_by_credentials() {
    let test = "who_gets_through_is_still_checked_by_credentials";
    if !is_root(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = serve_socket(&api(&dir, Some("4242"))).await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    // Somebody opened it to all.
    let open = fs::Permissions::from_mode(0o666);
    fs::set_permissions(&socket, open).unwrap();
    let ask = move || [(65534, 65534), (65534, 4242)].map(|(uid, gid)| post_as(&socket, uid, gid).unwrap());
    let [stranger, (code, body)] = tokio::task::spawn_blocking(ask).await.unwrap();
    assert_eq!(stranger.0, 403);
    assert!(stranger.1["error"].as_str().unwrap().contains("name one of its groups as group under [api]"));
    assert_eq!(code, 200, "{body}");
    assert!(body["said"].as_str().is_some_and(|said| said.starts_with("uid 65534: ")), "{body}");
}

/// As a user that may not give files away, which is what root without CAP_CHOWN may not either.
#[test]
fn a_socket_that_cannot_be_given_to_the_group_is_its_owners_alone() {
    let test = "a_socket_that_cannot_be_given_to_the_group_is_its_owners_alone";
    if !is_root(test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let bound = move |group: &'static str| {
        let api = api(&dir, Some(group));
        let taken = move || {
            let (uid, gid) = (rustix::process::Uid::from_raw(65534), rustix::process::Gid::from_raw(65534));
            set_thread_groups(&[]).expect("root may");
            set_thread_res_gid(gid, gid, gid).expect("root may");
            set_thread_res_uid(uid, uid, uid).expect("root may");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let socket = runtime.block_on(bind(&api)).expect("the socket is there all the same");
            (socket.group(), fs::metadata(&api.socket).unwrap().permissions().mode() & 0o777)
        };
        std::thread::spawn(taken).join().expect("no panic")
    };
    assert_eq!(bound("4242"), (None, 0o600));
    assert_eq!(bound("no-such-group"), (None, 0o600));
    assert_eq!(bound("65534"), (Some(65534), 0o660), "who is in a group may give files to it");
}

#[test]
fn the_further_groups_of_a_process_are_found() {
    let test = "the_further_groups_of_a_process_are_found";
    if !is_root(test) {
        return;
    }
    let other = ["--reuid", "65534", "--regid", "65534", "--groups", "4242,4243", "cat"];
    let mut child =
        std::process::Command::new("setpriv").args(other).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    // Until it is `cat` it is still setpriv, on its way.
    while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() != "cat" {
        std::thread::yield_now();
    }
    assert_eq!(socket::further_groups(pid), [4242, 4243]);
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[tokio::test]
async fn a_socket_is_taken_once_and_one_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let api = api(&dir, None);
    let first = bind(&api).await.unwrap();
    let error = format!("{:#}", bind(&api).await.unwrap_err());
    assert!(error.starts_with("another guard answers at ") && error.contains("set socket under [api]"), "{error}");
    drop(first);
    assert!(!api.socket.exists(), "a guard that ends leaves no file");
    // As after a kill: the file is there and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&api.socket).unwrap());
    let second = bind(&api).await.unwrap();
    drop(second);
    fs::write(&api.socket, "mine").unwrap();
    let error = format!("{:#}", bind(&api).await.unwrap_err());
    assert!(error.contains("is there and is no socket"), "{error}");
    assert_eq!(fs::read_to_string(&api.socket).unwrap(), "mine");
    let error = format!("{:#}", socket::group_id("no-such-group").unwrap_err());
    assert!(error.contains("/etc/group has no 'no-such-group'"), "{error}");
}

#[test]
fn without_a_guard_the_verbs_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("canary.sock");
    let error = client::ask::<Reply>(&socket, "/api/v1/status", None).unwrap_err().to_string();
    assert!(error.starts_with("no guard listens at ") && error.contains("--socket"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = client::ask::<Reply>(&socket, "/api/v1/status", None).unwrap_err().to_string();
    assert!(error.contains("is gone: start `canary run`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_only_the_token_opens() {
    let closed = serve_http(Access::Nobody, None).await;
    let open = serve_http(Access::Bearer(token(TOKEN, 0o600).unwrap()), None).await;
    tokio::task::spawn_blocking(move || {
        let ask = |address, headers: &str, body: &str| {
            post(TcpStream::connect(address).unwrap(), "/api/v1/pause", headers, body)
        };
        let (code, body) = ask(closed, &format!("Authorization: Bearer {TOKEN}\r\n"), "");
        assert_eq!(code, 403);
        assert!(body["error"].as_str().unwrap().contains("set token_file under [api]"), "{body}");
        for (headers, why) in [
            ("", "Authorization: Bearer TOKEN"),
            ("Authorization: Bearer 0123456789abcdef0123456789abcdee\r\n", "not the token"),
            ("Authorization: Bearer 0123456789abcdef\r\n", "not the token"),
            ("Authorization: Basic 0123456789abcdef0123456789abcdef\r\n", "not the token"),
        ] {
            let (code, body) = ask(open, headers, "");
            assert_eq!(code, 401, "{headers}");
            assert!(body["error"].as_str().unwrap().contains(why), "{body}");
        }
        let shown = format!("Authorization: bearer {TOKEN}\r\n");
        let (code, body) = ask(open, &shown, r#"{"deployment": "shop"}"#);
        assert_eq!(code, 200);
        assert!(body["said"].as_str().is_some_and(|said| said.starts_with("the API token: ")), "{body}");
        for (sent, why) in [
            (r#"{"deploymnt": "shop"}"#, "unknown field `deploymnt`"),
            (r#"{"for": "soon"}"#, "for: \"soon\" is no duration"),
            ("{", "the body: "),
        ] {
            let (code, body) = ask(open, &shown, sent);
            assert_eq!(code, 400, "{sent}");
            assert!(body["error"].as_str().unwrap().contains(why), "{body}");
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_the_token_shows_how_things_stand_and_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let mut journal = crate::journal::Journal::open(&path).unwrap();
    let command = Command::Resume { deployment: None };
    journal.record_command(&command, "root", Ok("Resumed"), 7).unwrap();
    let open = serve_http(Access::Bearer(token(TOKEN, 0o600).unwrap()), Some(path)).await;
    let closed = serve_http(Access::Nobody, None).await;
    tokio::task::spawn_blocking(move || {
        let get = |address, path: &str, headers: &str| {
            send(TcpStream::connect(address).unwrap(), &format!("GET {path}"), headers, "")
        };
        let shown = format!("Authorization: Bearer {TOKEN}\r\n");
        for path in ["/api/v1/status", "/api/v1/history"] {
            assert_eq!(get(open, path, "").0, 401, "{path}");
            assert_eq!(get(closed, path, &shown).0, 403, "{path}");
        }
        let (code, body) = get(open, "/api/v1/status", &shown);
        assert_eq!((code, &body["said"]), (200, &json!("the API token: {\"command\":\"status\"}")));
        let (code, body) = get(open, "/api/v1/history", &shown);
        assert_eq!((code, &body["decisions"], &body["commands"][0]["said"]), (200, &json!([]), &json!("Resumed")));
        for (query, why) in [("limit=1000001", "write 0 to 1000000"), ("limit=-1", "limit")] {
            let (code, body) = get(open, &format!("/api/v1/history?{query}"), &shown);
            assert!(code == 400 && body["error"].as_str().is_some_and(|e| e.contains(why)), "{query}: {body}");
        }
    })
    .await
    .unwrap();
}

fn token(text: &str, mode: u32) -> anyhow::Result<Token> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("token");
    fs::write(&file, format!("{text}\n"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    Token::read(&file)
}

#[test]
fn a_token_that_others_can_read_or_guess_is_refused() {
    let error = |text, mode| token(text, mode).unwrap_err().to_string();
    assert!(error(TOKEN, 0o644).contains("can be used by everybody (mode 644): chmod 600"));
    assert!(error("short", 0o600).contains("shorter than 16 characters: make one with"));
    assert!(error("two words are not one token", 0o600).contains("not one word"));
    assert!(token(TOKEN, 0o640).is_ok(), "a group may be meant to read it");
    let missing = Token::read(Path::new("/no-such-directory/token")).unwrap_err();
    assert!(format!("{missing:#}").contains("make one with"), "{missing:#}");
}

#[test]
fn a_mistyped_name_gets_the_nearest_one() {
    let names = ["shop", "cart"];
    assert_eq!(nearest("shp", names.into_iter()), "did you mean 'shop'?");
    assert_eq!(nearest("billing", names.into_iter()), "there is shop, cart");
}
