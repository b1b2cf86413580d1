//! Decisions that a running guard hands over: to a program, and to a service.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
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
use canary_e2e::{guarded::Guarded, kernel_available, program::program};
use canary_user::guard::Stage::*;
use ring::hmac;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");
const KEY: &[u8] = b"the key of the tests";

fn script(dir: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    Ok(path.display().to_string())
}

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
    let told = |name: &str| -> anyhow::Result<Value> { Ok(serde_json::from_slice(&fs::read(guarded.file(name))?)?) };
    let decision = told("decision")?;
    assert_eq!((&decision["id"], &decision["action"]), (&json!(id), &json!("rollback")), "{decision}");
    assert_eq!(decision["canary"].as_array().map(Vec::len), Some(1), "{decision}");

    undo(&guarded, &id)?;
    assert_eq!(told("undone")?["id"], json!(id));
    Ok(())
}

/// What reached the service: signature, idempotency key and body of each try.
#[derive(Clone)]
struct Service {
    cgroup: PathBuf,
    tries: Arc<Mutex<Vec<(String, String, Bytes)>>>,
    undone: Arc<AtomicBool>,
}

impl Service {
    /// It is not ready at the first try, as services are that are just being deployed.
    async fn take(State(service): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let mut tries = service.tries.lock().expect("nobody panicked");
        tries.push((header("x-canary-signature"), header("idempotency-key"), body));
        if tries.len() == 1 {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let pids = fs::read_to_string(service.cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        StatusCode::ACCEPTED
    }

    async fn state(State(service): State<Self>) -> Json<Value> {
        let events = fs::read_to_string(service.cgroup.join("cgroup.events")).unwrap_or_default();
        let state = if events.contains("populated 0") { "in_effect" } else { "in_progress" };
        Json(json!({ "state": state, "detail": events.trim() }))
    }
}

#[test]
fn a_service_takes_the_canary_away_though_it_answers_at_the_second_try_only() -> anyhow::Result<()> {
    let test = "a_service_takes_the_canary_away_though_it_answers_at_the_second_try_only";
    if !kernel_available(test) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let mut cgroup_of_canary = PathBuf::new();
    let mut guarded = Guarded::by(VICTIM, "end", |dir, cgroup| {
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
    let service = Service { cgroup: cgroup_of_canary, tries: Arc::default(), undone: Arc::default() };
    let (tries, undone) = (service.tries.clone(), service.undone.clone());
    let routes = Router::new()
        .route("/take", post(Service::take))
        .route("/state/{id}", get(Service::state))
        .route("/undo", post(async |State(service): State<Service>| service.undone.store(true, Relaxed)))
        .with_state(service);
    runtime.spawn(axum::serve(listener, routes).into_future());

    let life = guarded.start()?;
    life.sees(3)?;
    guarded.crash()?;
    let id = carried_out(&guarded)?;
    ensure!(!guarded.lives()? && guarded.terms() == 1, "{} SIGTERMs", guarded.terms());
    let tries = tries.lock().expect("nobody panicked");
    let [first, second] = tries.as_slice() else { anyhow::bail!("{} tries", tries.len()) };
    assert_eq!(first, second, "the same words, under the same key");
    assert_eq!(second.1, id);
    let signature = second.0.strip_prefix("sha256=").context("it is signed")?;
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &second.2);
    assert_eq!(signature, mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let decision: Value = serde_json::from_slice(&second.2)?;
    assert_eq!(decision["id"], json!(id));
    undo(&guarded, &id)?;
    ensure!(undone.load(Relaxed), "the service was told to undo it");
    Ok(())
}
