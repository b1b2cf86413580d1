//! The container image: the last stage of `deploy/Dockerfile`, built by a real Docker around the guard of this build, and run as
//! docs/operations.md says. The stage before it begins with an image of a registry, which nothing here asks; what it does is
//! done here as far as it takes no second compilation: the last step of `cargo xtask dist`, and the script that lays the files out.
//! Where it is asked for, all of it is done.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    guard::{PATIENCE, Pages, canary, program},
    machine::{Engine, Machine},
    names::{Requests, answer_for},
    wait_until,
};
use serde_json::Value;

#[path = "../../xtask/src/dist/statically.rs"]
mod statically;

const IMAGE: &str = "canary-guard:0.1.0";
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9847);
const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const DNS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);
/// Known to the machine's name server alone.
const BY_DNS: &str = "receiver.canary.test";

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

/// The guard of this build as one file, in `dir`: the last step of `cargo xtask dist`.
fn one_file(dir: &Path) -> anyhow::Result<PathBuf> {
    let target = program().ancestors().nth(2).context("a test lies in target/release/deps")?.to_owned();
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository()).env("CARGO_TARGET_DIR", &target);
    command.args(["rustc", "--release", "--locked", "--offline", "--package", "canary-user", "--bin", "canary"]);
    // What it is linked from is there: as `cargo xtask test` builds it, with the features that the tests ask for.
    command.args(["--features", "tokio/test-util", "--"]).args(statically::WORDS);
    // Set for tests, and not where the rest was compiled: build scripts that ask for them would have it compiled anew.
    for (name, _) in env::vars() {
        if name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    run(&mut command)?;
    let canary = dir.join("canary");
    run(Command::new("cp").arg(target.join("release/canary")).arg(&canary))?;
    Ok(canary)
}

/// A machine whose Docker has the image; `None` where there cannot be one, after saying why.
fn machine_with_image(test: &str) -> anyhow::Result<Option<Machine>> {
    let Some(machine) = Machine::boot_with(Engine::Docker, test)? else { return Ok(None) };
    let dir = tempfile::tempdir()?;
    let canary = one_file(dir.path())?;
    let (_, wants_loader) = elf(&fs::read(&canary)?)?;
    ensure!(!wants_loader, "it needs libraries, which the image has not");
    let files = dir.path().join("files");
    run(Command::new(repository().join("deploy/image.sh"))
        .arg(&canary)
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
    let libraries: Vec<&str> = files.lines().filter(|f| f.contains("lib/") && !f.starts_with("var/lib/")).collect();
    assert!(libraries.is_empty(), "{libraries:?}");
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
    rights_that_it_takes(&machine, &here)
}

/// The least capabilities with which every hook is live, by the seccomp profile that Docker has itself; and what is said where one
/// is missing, or where a profile keeps `bpf()` from who holds them.
fn rights_that_it_takes(machine: &Machine, here: &BTreeMap<String, bool>) -> anyhow::Result<()> {
    let check = |rights: &[&str], form: &str| {
        let run = ["run", "--rm", "--network", "none", "--cgroupns", "host", "--cap-drop", "ALL"];
        let apparmor = ["--security-opt", "apparmor=unconfined"];
        machine.docker(&[&run[..], &apparmor, rights, &[IMAGE, "check", "--output", form]].concat())
    };
    let least = ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"];
    assert_eq!(&hooks(check(&least, "json")?.as_bytes())?, here, "with Docker's own profile");
    let shipped = fs::read_to_string(repository().join("deploy/seccomp/canary-guard.json"))?;
    let without = shipped.replace("\"bpf\", ", "");
    ensure!(without != shipped, "the profile allows bpf()");
    fs::write(machine.run_dir().join("without-bpf.json"), without)?;
    let forbidden = [&least[..], &["--security-opt", "seccomp=/run/without-bpf.json"]].concat();
    for (rights, words) in [
        (&forbidden[..], "its system calls are filtered (seccomp): allow bpf() in its profile"),
        (&least[..2], "MISSING  CAP_NET_ADMIN"),
        (&least[2..], "MISSING  CAP_BPF"),
    ] {
        let said =
            check(rights, "text").map_or_else(|error| format!("{error:#}"), |said| format!("it can run: {said}"));
        assert!(said.contains(words) && said.contains("The guard cannot run here"), "{rights:?}: {said}");
    }
    Ok(())
}

/// The type of machine of an ELF file, and whether it wants a loader (which brings libraries).
fn elf(file: &[u8]) -> anyhow::Result<(u16, bool)> {
    const INTERPRETER: u32 = 3;
    let bytes = |at: usize, length: usize| file.get(at..at + length).context("an ELF file of 64 bits");
    let two = |at: usize| anyhow::Ok(u16::from_le_bytes(bytes(at, 2)?.try_into()?));
    ensure!(bytes(0, 5)? == b"\x7fELF\x02", "no ELF file of 64 bits");
    let headers = usize::try_from(u64::from_le_bytes(bytes(32, 8)?.try_into()?))?;
    let (size, count) = (usize::from(two(54)?), usize::from(two(56)?));
    let kinds = (0..count).map(|n| anyhow::Ok(u32::from_le_bytes(bytes(headers + n * size, 4)?.try_into()?)));
    let kinds = kinds.collect::<anyhow::Result<Vec<_>>>()?;
    Ok((two(18)?, kinds.contains(&INTERPRETER)))
}

/// All of deploy/Dockerfile, in an image of Debian's packages instead of the registry's: it compiles the guard, which takes minutes.
#[test]
fn the_dockerfile_compiles_a_guard() -> anyhow::Result<()> {
    let test = "the_dockerfile_compiles_a_guard";
    let Ok(architectures) = env::var("CANARY_IMAGE") else {
        println!(
            "SKIP {test}: it compiles the guard once more, for the architectures that CANARY_IMAGE names, such as amd64,arm64"
        );
        return Ok(());
    };
    if Command::new("mmdebstrap").arg("--version").output().is_err() {
        println!("SKIP {test}: there is no mmdebstrap: apt-get install mmdebstrap");
        return Ok(());
    }
    let Some(machine) = Machine::boot_to_build(test)? else { return Ok(()) };
    for architecture in architectures.split(',') {
        let socket = format!("unix://{}", machine.engine_socket(Engine::Docker).display());
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.current_dir(repository()).env("DOCKER_HOST", socket).env("DOCKER_BUILDKIT", "0");
        run(build.args(["xtask", "image", "--base", "debian", "--arch", architecture]))?;
        machine.docker(&["create", "--name", architecture, IMAGE])?;
        let guard = format!("/run/{architecture}");
        machine.docker(&["cp", &format!("{architecture}:/usr/bin/canary"), &guard])?;
        let (kind, wants_loader) = elf(&fs::read(machine.run_dir().join(architecture))?)?;
        assert_eq!(kind, if architecture == "arm64" { 183 } else { 62 }, "{architecture}");
        assert!(!wants_loader, "{architecture}: it needs libraries");
        let inspected = machine.docker(&["inspect", "--format", "{{.Architecture}}", IMAGE])?;
        assert_eq!(inspected.trim(), architecture);
        let emulator: &[&str] = if architecture == "arm64" { &["qemu-aarch64-static"] } else { &[] };
        let words = [emulator, &[&guard, "--version"]].concat();
        let version = machine.inside(words[0], &words[1..])?;
        assert_eq!(version.trim(), format!("canary {}", env!("CARGO_PKG_VERSION")));
        machine.docker(&["rm", architecture])?;
    }
    Ok(())
}

#[test]
fn an_executable_that_needs_libraries_is_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut script = Command::new(repository().join("deploy/image.sh"));
    let output = script.arg(program()).arg(dir.path().join("image")).current_dir(repository()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cargo xtask dist"), "{said}");
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
    // Receivers by a name of /etc/hosts, and by one of the DNS. The third is never sent to; with it TLS is set up.
    let (receiver, server) = machine.in_its_network(|| Ok((TcpListener::bind(ANY_PORT)?, UdpSocket::bind(DNS)?)))?;
    let port = receiver.local_addr()?.port();
    let requests = Requests::of(receiver);
    answer_for(server, BY_DNS);
    let nameserver = "rm -f /etc/resolv.conf && echo 'nameserver 127.0.0.1' >/etc/resolv.conf";
    machine.inside("sh", &["-c", nameserver])?;
    let webhook = |url: &str| format!("[[notify]]\nkind = \"webhook\"\nurl = \"{url}\"\n");
    let receivers = [
        webhook(&format!("http://localhost:{port}/by-hosts")),
        webhook(&format!("http://{BY_DNS}:{port}/by-dns")),
        webhook("https://localhost:1/"),
    ];
    let configuration = format!(
        "window = \"100ms\"\nlisten = \"{}\"\n[api]\ngroup = \"4242\"\n{}\
         [[deployment]]\nname = \"shop\"\nstable = {{ container = \"shop-v1*\" }}\ncanary = {{ container = \"shop-v2*\" }}\n",
        SocketAddr::from(LISTEN),
        receivers.concat()
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

    // What a person asks for is told, also where the guard only says what it would do.
    machine.docker(&["exec", "canary-guard", "canary", "rollback", "shop"])?;
    for path in ["/by-hosts", "/by-dns"] {
        wait_until("its receiver is told", PATIENCE, || requests.saw(path))
            .with_context(|| format!("{path}: {}", said()))?;
    }

    machine.docker(&["stop", "canary-guard"])?;
    let code = machine.docker(&["inspect", "--format", "{{.State.ExitCode}}", "canary-guard"])?;
    assert_eq!(code.trim(), "0", "{}", said());
    Ok(())
}
