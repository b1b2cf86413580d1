//! Decisions that a running guard hands over: to a program, and to a service.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, ensure};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use canary_e2e::{
    guarded::{Guarded, Life, script},
    kernel_available,
    program::program,
};
use canary_user::guard::Stage::*;
use ring::hmac;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");
const KEY: &[u8] = b"the key of the tests";

/// Which decision it was, where it was carried out and is closed or verified.
fn carried_out(guarded: &Guarded) -> anyhow::Result<String> {
    guarded.until(Verified)?;
    let stages = guarded.stages();
    ensure!(stages.last().is_some_and(|s| s.starts_with(&[Planned, Applying, Applied, Verified])), "{stages:?}");
    Ok(guarded.history().remove(0).decision.id)
}

fn undo(guarded: &Guarded, id: &str) -> anyhow::Result<()> {
    let undo = Command::new(program("canary")?)
        .args(["undo", id])
        .env("CANARY_SOCKET", guarded.file("canary.sock"))
        .output()?;
    ensure!(undo.status.success(), "{}", String::from_utf8_lossy(&undo.stderr));
    guarded.until(Undone)
}

#[test]
fn a_program_takes_the_canary_away_and_brings_it_back() -> anyhow::Result<()> {
    if !kernel_available("a_program_takes_the_canary_away_and_brings_it_back") {
        return Ok(());
    }
    let mut guarded = Guarded::by(VICTIM, "end", |dir, cgroup| {
        let (shown, cgroup) = (dir.display(), cgroup.display());
        let run = script(dir, "run", &format!("cat >{shown}/decision; kill -TERM $(cat {cgroup}/cgroup.procs)"))?;
        let state = script(dir, "state", &format!("grep -q 'populated 0' {cgroup}/cgroup.events"))?;
        let undo = script(dir, "undo", &format!("cat >{shown}/undone"))?;
        Ok(format!(
            "orchestrator = \"command\"\ncommand = {{ run = [{run:?}], state = [{state:?}], undo = [{undo:?}] }}"
        ))
    })?;
    let life = guarded.start()?;
    life.sees(3)?;
    guarded.crash()?;
    let id = carried_out(&guarded)?;
    ensure!(!guarded.lives()? && guarded.terms() == 1, "{} SIGTERMs", guarded.terms());
    let decision = told(&guarded, "decision")?;
    assert_eq!((&decision["id"], &decision["action"]), (&json!(id), &json!("rollback")), "{decision}");
    assert_eq!(decision["canary"].as_array().map(Vec::len), Some(1), "{decision}");

    undo(&guarded, &id)?;
    assert_eq!(told(&guarded, "undone")?["id"], json!(id));
    Ok(())
}

/// What a program was given on its standard input, and put into this file.
fn told(guarded: &Guarded, file: &str) -> anyhow::Result<Value> {
    let text = fs::read(guarded.file(file)).with_context(|| format!("read {file}"))?;
    serde_json::from_slice(&text).with_context(|| String::from_utf8_lossy(&text).into_owned())
}

/// Its work is taken away from it, and nothing else: it runs on.
#[test]
fn a_program_drains_a_canary_which_runs_on_without_work() -> anyhow::Result<()> {
    if !kernel_available("a_program_drains_a_canary_which_runs_on_without_work") {
        return Ok(());
    }
    let mut guarded = Guarded::in_mode("drain", VICTIM, "end", |dir, _| {
        let dir_text = dir.display();
        let words = format!("cat >{dir_text}/decision; echo $CANARY_ACTION >{dir_text}/action; rm {dir_text}/crash");
        let run = script(dir, "run", &words)?;
        let state = script(dir, "state", &format!("test ! -e {dir_text}/crash"))?;
        let undo = script(dir, "undo", &format!("cat >{dir_text}/undone"))?;
        Ok(format!(
            "orchestrator = \"command\"\ncommand = {{ run = [{run:?}], state = [{state:?}], undo = [{undo:?}] }}"
        ))
    })?;
    let life = guarded.start()?;
    life.sees(3)?;
    guarded.crash()?;
    let id = carried_out(&guarded)?;
    let decision = told(&guarded, "decision")?;
    assert_eq!((&decision["id"], &decision["action"]), (&json!(id), &json!("drain")), "{decision}");
    assert_eq!(fs::read_to_string(guarded.file("action"))?, "drain\n");
    runs_on(&mut guarded)?;

    undo(&guarded, &id)?;
    assert_eq!(told(&guarded, "undone")?["id"], json!(id));
    Ok(())
}

/// Drained, and neither stopped nor asked to stop.
fn runs_on(guarded: &mut Guarded) -> anyhow::Result<()> {
    let verified = guarded.detail(Verified);
    ensure!(verified.contains("% of a CPU"), "quiet with its processes: {verified}");
    ensure!(guarded.lives()? && guarded.terms() == 0, "{} SIGTERMs", guarded.terms());
    Ok(())
}

/// A try: signature, idempotency key and body.
type Try = (String, String, Bytes);

/// Carries decisions out, as their action says: for a rollback it ends the canary, for a drain it takes its work away.
#[derive(Clone)]
struct Service {
    cgroup: PathBuf,
    /// The canary's work.
    crash: PathBuf,
    /// The answer to the first try.
    first: StatusCode,
    tries: Arc<Mutex<Vec<Try>>>,
    undone: Arc<AtomicBool>,
}

impl Service {
    async fn take(State(service): State<Self>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let action = serde_json::from_slice::<Value>(&body).map(|decision| decision["action"].clone());
        let mut tries = service.tries.lock().expect("nobody panicked");
        tries.push((header("x-canary-signature"), header("idempotency-key"), body));
        if tries.len() == 1 {
            return (service.first, "a deployment is under way");
        }
        match action.unwrap_or_default().as_str() {
            Some("rollback") => {
                let pids = fs::read_to_string(service.cgroup.join("cgroup.procs")).unwrap_or_default();
                for pid in pids.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            Some("drain") => fs::remove_file(&service.crash).expect("the canary has work"),
            _ => return (StatusCode::BAD_REQUEST, "no such action"),
        }
        (StatusCode::ACCEPTED, "")
    }

    async fn state(State(service): State<Self>) -> Json<Value> {
        let events = fs::read_to_string(service.cgroup.join("cgroup.events")).unwrap_or_default();
        let is_done = events.contains("populated 0") || !service.crash.exists();
        let state = if is_done { "in_effect" } else { "in_progress" };
        Json(json!({ "state": state, "detail": events.trim() }))
    }
}

/// A guard that calls a service, which runs as long as this is there.
struct Served {
    life: Life,
    guarded: Guarded,
    service: Service,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    /// The canary is at work, and its crashes condemn it; the first try is answered by `first`.
    fn new(mode: &str, first: StatusCode) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let mut cgroup_of_canary = PathBuf::new();
        let guarded = Guarded::in_mode(mode, VICTIM, "end", |dir, cgroup| {
            cgroup_of_canary = cgroup.to_owned();
            let secret = dir.join("secret");
            fs::write(&secret, KEY)?;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
            Ok(format!(
                "orchestrator = \"webhook\"\nwebhook = {{ url = \"http://{address}/take\", state_url = \"http://{address}/state/{{id}}\", \
                 undo_url = \"http://{address}/undo\", secret_file = {:?} }}",
                secret.display().to_string()
            ))
        })?;
        let (cgroup, crash) = (cgroup_of_canary, guarded.file("crash"));
        let service = Service { cgroup, crash, first, tries: Arc::default(), undone: Arc::default() };
        let routes = Router::new()
            .route("/take", post(Service::take))
            .route("/state/{id}", get(Service::state))
            .route("/undo", post(async |State(service): State<Service>| service.undone.store(true, Relaxed)))
            .with_state(service.clone());
        runtime.spawn(axum::serve(listener, routes).into_future());
        let life = guarded.start()?;
        life.sees(3)?;
        guarded.crash()?;
        Ok(Self { life, guarded, service, _runtime: runtime })
    }

    fn tries(&self) -> Vec<Try> {
        self.service.tries.lock().expect("nobody panicked").clone()
    }

    /// Both tries were the same words under the same key, signed; the decision, of this id, that they had.
    fn signed_twice(&self, id: &str) -> anyhow::Result<Value> {
        let tries = self.tries();
        let [first, second] = tries.as_slice() else { anyhow::bail!("{} tries", tries.len()) };
        assert_eq!(first, second, "the same words, under the same key");
        assert_eq!(second.1, id);
        let signature = second.0.strip_prefix("sha256=").context("it is signed")?;
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &second.2);
        assert_eq!(signature, mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let decision: Value = serde_json::from_slice(&second.2)?;
        assert_eq!(decision["id"], json!(id));
        Ok(decision)
    }

    fn undo(&self, id: &str) -> anyhow::Result<()> {
        undo(&self.guarded, id)?;
        ensure!(self.service.undone.load(Relaxed), "the service was told to undo it");
        Ok(())
    }
}

/// It is not ready at the first try, as services are that are just being deployed.
#[test]
fn a_service_takes_the_canary_away_though_it_answers_at_the_second_try_only() -> anyhow::Result<()> {
    let test = "a_service_takes_the_canary_away_though_it_answers_at_the_second_try_only";
    if !kernel_available(test) {
        return Ok(());
    }
    let mut served = Served::new("rollback", StatusCode::SERVICE_UNAVAILABLE)?;
    let id = carried_out(&served.guarded)?;
    let guarded = &mut served.guarded;
    ensure!(!guarded.lives()? && guarded.terms() == 1, "{} SIGTERMs", guarded.terms());
    assert_eq!(served.signed_twice(&id)?["action"], "rollback");
    served.undo(&id)
}

#[test]
fn a_service_drains_a_canary_which_runs_on_without_work() -> anyhow::Result<()> {
    if !kernel_available("a_service_drains_a_canary_which_runs_on_without_work") {
        return Ok(());
    }
    let mut served = Served::new("drain", StatusCode::SERVICE_UNAVAILABLE)?;
    let id = carried_out(&served.guarded)?;
    assert_eq!(served.signed_twice(&id)?["action"], "drain");
    runs_on(&mut served.guarded)?;
    served.undo(&id)
}

#[test]
fn a_service_that_refuses_is_asked_once_and_the_canary_runs_on() -> anyhow::Result<()> {
    if !kernel_available("a_service_that_refuses_is_asked_once_and_the_canary_runs_on") {
        return Ok(());
    }
    let mut served = Served::new("rollback", StatusCode::CONFLICT)?;
    served.guarded.until(Failed)?;
    let failed = served.guarded.detail(Failed);
    ensure!(failed.contains("refused, nothing was done") && failed.contains("a deployment is under way"), "{failed}");
    served.life.condemns_again(20)?;
    assert_eq!((served.guarded.calls(), served.tries().len()), (1, 1), "once, though it stands condemned");
    ensure!(served.guarded.lives()? && served.guarded.terms() == 0, "{} SIGTERMs", served.guarded.terms());
    Ok(())
}
