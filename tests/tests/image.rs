//! The container image: the last stage of `deploy/Dockerfile`, built by a real Docker around the guard of this build, and run as
//! docs/operations.md says. The stage before it begins with an image of a registry, which nothing here asks; what it does is
//! what CI does: `cargo xtask setup`, `cargo build`, and the script that lays the files out, which is run here.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    guard::{PATIENCE, Pages, canary, program},
    machine::{Engine, Machine},
    wait_until,
};
use serde_json::Value;

const IMAGE: &str = "canary-guard:0.1.0";
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9847);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// From its FROM on.
fn last_stage() -> anyhow::Result<String> {
    let text = fs::read_to_string(repository().join("deploy/Dockerfile"))?;
    let from = text.rfind("\nFROM ").context("a stage after the first")?;
    Ok(text[from + 1..].to_owned())
}

/// The words of the `docker run` on the page.
fn documented_run() -> anyhow::Result<Vec<String>> {
    let page = fs::read_to_string(repository().join("docs/operations.md"))?;
    let begin = page.find("    docker run ").context("the page says how the image is run")?;
    let mut command = String::new();
    for line in page[begin..].lines() {
        command += line.trim_end_matches('\\');
        if !line.ends_with('\\') {
            break;
        }
    }
    Ok(command.split_whitespace().skip(1).map(str::to_owned).collect())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A machine whose Docker has the image; `None` where there cannot be one, after saying why.
fn machine_with_image(test: &str) -> anyhow::Result<Option<Machine>> {
    let Some(machine) = Machine::boot_with(Engine::Docker, test)? else { return Ok(None) };
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("canary");
    run(Command::new("strip").arg("-o").arg(&stripped).arg(program()))?;
    let files = dir.path().join("files");
    run(Command::new(repository().join("deploy/image.sh"))
        .arg(&stripped)
        .arg(files.join("image"))
        .current_dir(repository()))?;
    run(Command::new("tar").arg("-C").arg(&files).arg("-cf").arg(machine.run_dir().join("builder.tar")).arg("."))?;
    // `COPY --from=builder` takes an image of that name where no stage has it.
    machine.docker(&["import", "/run/builder.tar", "builder"])?;
    let context = machine.run_dir().join("context");
    fs::create_dir(&context)?;
    fs::write(context.join("Dockerfile"), last_stage()?)?;
    // As the page has it put there. What is not allowed by it is refused, whatever capabilities there are.
    let profile = repository().join("deploy/seccomp/canary-guard.json");
    fs::copy(profile, machine.run_dir().join("seccomp.json"))?;
    machine.inside("install", &["-D", "-m", "644", "/run/seccomp.json", "/etc/canary/seccomp.json"])?;
    // BuildKit would take its frontend, or its client, from elsewhere.
    machine.inside("env", &["DOCKER_BUILDKIT=0", "docker", "build", "--tag", IMAGE, "/run/context"])?;
    Ok(Some(machine))
}

/// Whether each hook is live, from `canary check --output json`.
fn hooks(findings: &[u8]) -> anyhow::Result<BTreeMap<String, bool>> {
    let findings: Vec<Value> =
        serde_json::from_slice(findings).with_context(|| String::from_utf8_lossy(findings).into_owned())?;
    let hook = |f: &Value| Some((f["what"].as_str()?.strip_prefix("hook ")?.to_owned(), f["ok"].as_bool()?));
    Ok(findings.iter().filter_map(hook).collect())
}

#[test]
fn the_image_holds_a_guard_that_loads_every_hook_and_no_other_program() -> anyhow::Result<()> {
    let test = "the_image_holds_a_guard_that_loads_every_hook_and_no_other_program";
    let Some(machine) = machine_with_image(test)? else { return Ok(()) };
    let version = machine.docker(&["run", "--rm", "--network", "none", IMAGE, "--version"])?;
    assert_eq!(version.trim(), format!("canary {}", env!("CARGO_PKG_VERSION")));
    machine.docker(&["run", "--rm", "--network", "none", IMAGE, "config", "--config", "/etc/canary/canary.toml"])?;

    machine.docker(&["create", "--name", "files", IMAGE])?;
    let files = machine.inside("sh", &["-c", "docker export files | tar -t"])?;
    let programs: Vec<&str> = files.lines().filter(|f| f.contains("bin/") && !f.ends_with('/')).collect();
    assert_eq!(programs, ["usr/bin/canary"]);
    for needed in ["etc/ssl/certs/ca-certificates.crt", "etc/canary/canary.toml", "var/lib/canary/", "run/canary/"] {
        assert!(files.lines().any(|f| f == needed), "{needed} is not in\n{files}");
    }

    // With the rights that the page gives it.
    let command = documented_run()?.join(" ").replace("--detach --name canary-guard --restart on-failure", "--rm");
    let check: Vec<&str> = command.split(' ').chain(["check", "--output", "json"]).collect();
    let inside = hooks(machine.docker(&check)?.as_bytes())?;
    let here = hooks(&canary(&[]).args(["check", "--output", "json"]).output()?.stdout)?;
    assert!(here.len() > 10, "{here:?}");
    assert_eq!(inside, here, "the same hooks are live as without a container");
    Ok(())
}

#[test]
fn run_as_the_page_says_it_watches_other_containers() -> anyhow::Result<()> {
    let test = "run_as_the_page_says_it_watches_other_containers";
    let Some(machine) = machine_with_image(test)? else { return Ok(()) };
    machine.image(Engine::Docker, "shop:1")?;
    for name in ["shop-v1", "shop-v2"] {
        let service = "while :; do sleep 0.01; done";
        machine.docker(&[
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            "none",
            "shop:1",
            "/bin/sh",
            "-c",
            service,
        ])?;
    }
    // The receiver is never sent to; with it TLS is set up.
    let configuration = format!(
        "window = \"100ms\"\nlisten = \"{}\"\n[api]\ngroup = \"4242\"\n[[notify]]\nkind = \"webhook\"\nurl = \"https://localhost:1/\"\n\
         [[deployment]]\nname = \"shop\"\nstable = {{ container = \"shop-v1*\" }}\ncanary = {{ container = \"shop-v2*\" }}\n",
        SocketAddr::from(LISTEN)
    );
    fs::write(machine.run_dir().join("canary.toml"), configuration)?;
    machine.inside("sh", &["-c", "mkdir -p /etc/canary && cp /run/canary.toml /etc/canary/"])?;
    let command = documented_run()?;
    assert!(command.iter().any(|word| word == IMAGE), "{command:?}");
    machine.docker(&command.iter().map(String::as_str).collect::<Vec<_>>())?;

    let said = || machine.inside("sh", &["-c", "docker logs canary-guard 2>&1"]).unwrap_or_else(|e| format!("{e:#}"));
    let counted = |role: &'static str| {
        let version = machine.in_its_network(move || Pages(LISTEN.into()).version(role));
        version.is_ok_and(|v| v["cpu_usage"].as_f64().is_some_and(|cpus| cpus > 0.0))
    };
    let both = wait_until("both versions use CPU", PATIENCE, || counted("stable") && counted("canary"));
    both.with_context(said)?;
    let status = machine.docker(&["exec", "canary-guard", "canary", "status", "--output", "json"])?;
    let status: Value = serde_json::from_str(&status).with_context(|| status.clone())?;
    assert_eq!(status["deployments"][0]["name"], "shop", "{status:#}");
    assert!(machine.run_dir().join("canary/canary.sock").exists(), "the host's verbs reach it, too");
    let group = machine.inside("stat", &["--format", "%g", "/run/canary/canary.sock"])?;
    assert_eq!(group.trim(), "4242", "it is given to the group of the configuration");
    assert!(!said().contains("certificate authorities"), "{}", said());
    let pid = machine.docker(&["inspect", "--format", "{{.State.Pid}}", "canary-guard"])?;
    let limits = machine.inside("cat", &[&format!("/proc/{}/status", pid.trim())])?;
    assert!(limits.lines().any(|line| line == "Seccomp:\t2"), "its system calls are filtered: {limits}");

    machine.docker(&["stop", "canary-guard"])?;
    let code = machine.docker(&["inspect", "--format", "{{.State.ExitCode}}", "canary-guard"])?;
    assert_eq!(code.trim(), "0", "{}", said());
    Ok(())
}
