//! `canary run` on a real Docker and a real Podman: containers found in systemd's cgroups, a canary that crashes stopped for good, refusals.

use std::{fs, process::Command};

use anyhow::Context as _;
use canary_e2e::{
    guard::{Configuration, Guard, PATIENCE, program},
    machine::{Engine, Machine},
    wait_until,
};
use canary_user::{
    guard::{
        Action,
        Stage::{self, *},
    },
    journal::HistoryEntry,
};

/// Ends on SIGTERM; its children crash once it is told so, and where it is fragile it ends with them, or some time later; a broken
/// one crashes at once.
const SERVICE: &str = "trap 'echo TERM >> /shared/terms; exit 0' TERM; touch /shared/ready; \
                       [ -n \"$BROKEN\" ] && { sh -c 'kill -SEGV $$'; exit 139; }; \
                       while :; do [ -e /shared/crash ] && sh -c 'kill -SEGV $$'; [ -e /shared/crash ] && [ -n \"$FRAGILE\" ] && { sleep $FRAGILE; exit 139; }; sleep 0.1; done";

struct Shop {
    engine: Engine,
    machine: Machine,
    configuration: Configuration,
    guard: Guard,
}

impl Shop {
    /// `options` are those of `docker run` for the canary.
    fn open(engine: Engine, test: &str, options: &[&str]) -> anyhow::Result<Option<Self>> {
        Self::open_with(engine, test, "mode = \"rollback\"", options)
    }

    /// `keys`: mode and what else the deployment has in the configuration.
    fn open_with(engine: Engine, test: &str, keys: &str, options: &[&str]) -> anyhow::Result<Option<Self>> {
        let Some(machine) = Machine::boot_with(engine, test)? else { return Ok(None) };
        machine.image(engine, "shop:1")?;
        for (name, options) in [("shop-v1", &[][..]), ("shop-v2", options)] {
            let shared = format!("/run/{name}:/shared");
            machine.inside("mkdir", &["-p", &format!("/run/{name}")])?;
            let run = ["run", "--detach", "--name", name, "--network", "none", "--volume", &shared];
            machine.engine(engine, &[&run[..], options, &["shop:1", "/bin/sh", "-c", SERVICE]].concat())?;
            let ready = machine.run_dir().join(name).join("ready");
            wait_until("the service listens for SIGTERM", PATIENCE, || ready.exists())?;
        }
        let configuration = Configuration::new(&format!(
            "docker_socket = {:?}\n[[deployment]]\nname = \"shop\"\n{keys}\norchestrator = \"docker\"\n\
             budget = {{ per_hour = 60, cooldown = \"0s\" }}\n\
             stable = {{ container = \"shop-v1*\" }}\ncanary = {{ container = \"shop-v2*\" }}\n",
            machine.engine_socket(engine)
        ))?;
        let guard = Guard::start(&configuration)?;
        let found = |role| guard.pages.version(role).is_ok_and(|version| !version.is_null());
        // A broken one is hardly ever there to be found.
        let both = wait_until("both containers are found", PATIENCE, || {
            found("stable") && (options.contains(&"BROKEN=1") || found("canary"))
        });
        both.with_context(|| guard.said())?;
        Ok(Some(Self { engine, machine, configuration, guard }))
    }

    fn until(&self, stage: Stage, words: &str) -> anyhow::Result<()> {
        self.configuration.until(stage, words, PATIENCE).with_context(|| self.guard.said())
    }

    /// The decision that was carried out.
    fn entry(&self) -> anyhow::Result<HistoryEntry> {
        let carried_out = |e: &HistoryEntry| e.stages.iter().any(|s| s.stage == Applied);
        self.configuration.history().into_iter().find(carried_out).context("a decision was carried out")
    }

    /// Decisions for which the orchestrator was called.
    fn carried_out(&self) -> usize {
        let called = |e: &HistoryEntry| e.stages.iter().any(|s| s.stage == Applying);
        self.configuration.history().iter().filter(|e| called(e)).count()
    }

    fn crash(&self) -> anyhow::Result<()> {
        fs::write(self.machine.run_dir().join("shop-v2/crash"), "").context("tell the canary to crash its children")
    }

    /// SIGTERMs that reached the canary's process.
    fn terms(&self) -> usize {
        fs::read_to_string(self.machine.run_dir().join("shop-v2/terms")).unwrap_or_default().lines().count()
    }

    fn approve(&self, id: &str) -> anyhow::Result<()> {
        let mut command = Command::new(program());
        let socket = self.configuration.dir.path().join("canary.sock");
        let output = command.args(["approve", id]).env("CANARY_SOCKET", socket).output()?;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        anyhow::ensure!(output.status.success(), "canary approve {id}: {said}");
        Ok(())
    }

    fn inspect(&self, name: &str, field: &str) -> anyhow::Result<String> {
        Ok(self.machine.engine(self.engine, &["inspect", "--format", field, name])?.trim().to_owned())
    }
}

/// Nobody but a person brings it back, and that is noticed. Podman cannot change a restart policy, and does not start what was
/// stopped by it.
fn is_stopped_for_good(engine: Engine, test: &str, policy_then: &str) -> anyhow::Result<()> {
    let Some(shop) = Shop::open(engine, test, &["--restart", "always"])? else { return Ok(()) };
    shop.crash()?;
    shop.until(Verified, "")?;
    let entry = shop.entry()?;
    let stages: Vec<Stage> = entry.stages.iter().map(|s| s.stage).collect();
    assert!(stages.starts_with(&[Planned, Applying, Applied, Verified]), "{stages:?}");
    let now = shop.inspect("shop-v2", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}")?;
    assert_eq!(now, format!("false {policy_then}"));
    assert_eq!(shop.inspect("shop-v1", "{{.State.Running}}")?, "true");
    let undo = entry.plan.undo.clone().context("the way back")?;
    let was_changed = policy_then != "always";
    assert_eq!(undo["restart_policies"][0][1]["Name"] == "always", was_changed, "{undo}");

    shop.machine.engine(engine, &["start", "shop-v2"])?;
    shop.until(Reverted, "the canary is back")?;
    assert_eq!(shop.inspect("shop-v2", "{{.State.Running}}")?, "true", "nobody is fought");
    Ok(())
}

#[test]
fn a_canary_that_crashes_is_stopped_for_good_and_its_return_is_noticed() -> anyhow::Result<()> {
    let test = "a_canary_that_crashes_is_stopped_for_good_and_its_return_is_noticed";
    is_stopped_for_good(Engine::Docker, test, "no")
}

#[test]
fn a_canary_of_podman_that_crashes_is_stopped_for_good_and_its_return_is_noticed() -> anyhow::Result<()> {
    let test = "a_canary_of_podman_that_crashes_is_stopped_for_good_and_its_return_is_noticed";
    is_stopped_for_good(Engine::Podman, test, "always")
}

/// With a healthy stable sibling beside it, and a person's word where that is asked for.
fn is_drained(engine: Engine, test: &str, approval: bool) -> anyhow::Result<()> {
    let keys = if approval { "mode = \"drain\"\napproval = \"required\"" } else { "mode = \"drain\"" };
    let Some(shop) = Shop::open_with(engine, test, keys, &[])? else { return Ok(()) };
    let stable = shop.inspect("shop-v1", "{{.State.StartedAt}}")?;
    shop.crash()?;
    if approval {
        shop.until(Planned, "")?;
        assert_eq!((shop.carried_out(), shop.terms()), (0, 0), "it waits");
        let id = shop.configuration.history().remove(0).decision.id;
        wait_until("it is approved", PATIENCE, || shop.approve(&id).is_ok()).with_context(|| shop.guard.said())?;
    }
    shop.until(Verified, "")?;
    let stages: Vec<Stage> = shop.entry()?.stages.iter().map(|s| s.stage).collect();
    let before = if approval { &[Planned, Approved][..] } else { &[Planned][..] };
    assert!(stages.starts_with(&[before, &[Applying, Applied, Verified][..]].concat()), "{stages:?}");
    assert_eq!(shop.entry()?.decision.action, Action::Drain);
    assert_eq!((shop.carried_out(), shop.terms()), (1, 1), "one stop, heard by the service itself");
    assert_eq!(shop.inspect("shop-v2", "{{.State.Running}} {{.State.ExitCode}}")?, "false 0");
    let now = shop.inspect("shop-v1", "{{.State.Running}} {{.State.StartedAt}}")?;
    assert_eq!(now, format!("true {stable}"), "stable ran on");
    Ok(())
}

#[test]
fn a_canary_of_docker_is_drained_once_a_person_approved_it() -> anyhow::Result<()> {
    is_drained(Engine::Docker, "a_canary_of_docker_is_drained_once_a_person_approved_it", true)
}

#[test]
fn a_canary_of_podman_is_drained() -> anyhow::Result<()> {
    is_drained(Engine::Podman, "a_canary_of_podman_is_drained", false)
}

/// Each run of it has another start and another cgroup.
#[test]
fn a_canary_that_docker_starts_again_after_each_crash_is_stopped() -> anyhow::Result<()> {
    let test = "a_canary_that_docker_starts_again_after_each_crash_is_stopped";
    let options = ["--restart", "always", "--env", "FRAGILE=0"];
    let Some(shop) = Shop::open(Engine::Docker, test, &options)? else { return Ok(()) };
    shop.crash()?;
    shop.until(Verified, "")?;
    assert_eq!(shop.inspect("shop-v2", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}")?, "false no");
    assert_eq!(shop.inspect("shop-v1", "{{.State.Running}}")?, "true");
    Ok(())
}

/// Podman starts it again in the moment in which it has ended, and heeds a stop only while it runs.
#[test]
fn a_canary_that_podman_starts_again_after_each_crash_is_stopped() -> anyhow::Result<()> {
    let test = "a_canary_that_podman_starts_again_after_each_crash_is_stopped";
    let options = ["--restart", "always", "--env", "FRAGILE=1"];
    let Some(mut shop) = Shop::open(Engine::Podman, test, &options)? else { return Ok(()) };
    shop.crash()?;
    shop.until(Verified, "")?;
    let life = shop.inspect("shop-v2", "{{.RestartCount}} {{.State.StartedAt}}")?;
    for _ in 0..30 {
        shop.guard.next_window()?;
    }
    assert_eq!(shop.inspect("shop-v2", "{{.RestartCount}} {{.State.StartedAt}}")?, life, "it stays down");
    assert_eq!(shop.inspect("shop-v2", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}")?, "false always");
    assert_eq!(shop.inspect("shop-v1", "{{.State.Running}}")?, "true");
    assert_eq!(shop.carried_out(), 1);
    let steps = shop.entry()?.plan.steps;
    assert!(steps[0].ends_with("; again while its policy starts it, for up to 1m"), "{steps:?}");
    Ok(())
}

/// It is there for milliseconds: whether a stop falls into one of them is luck. Either way it is called once, and how it ended is
/// told.
#[test]
fn a_canary_of_podman_that_crashes_at_every_start_is_stopped_or_said_not_to_be() -> anyhow::Result<()> {
    let test = "a_canary_of_podman_that_crashes_at_every_start_is_stopped_or_said_not_to_be";
    let Some(mut shop) = Shop::open(Engine::Podman, test, &["--restart", "always", "--env", "BROKEN=1"])? else {
        return Ok(());
    };
    let told = |stage: Stage| {
        let all = shop.configuration.history();
        all.into_iter().flat_map(|e| e.stages).find(|s| s.stage == stage).map(|s| s.detail)
    };
    let ended = wait_until("the action ends", 3 * PATIENCE, || told(Verified).or(told(Failed)).is_some());
    ended.with_context(|| format!("{:#?}\n{}", shop.configuration.history(), shop.guard.said()))?;
    match told(Failed) {
        None => assert!(shop.inspect("shop-v2", "{{.State.Running}}")? == "false"),
        Some(why) => assert!(why.contains("Podman goes on starting shop-v2 by its restart policy"), "{why}"),
    }
    for _ in 0..30 {
        shop.guard.next_window()?;
    }
    assert_eq!(shop.carried_out(), 1);
    assert_eq!(shop.inspect("shop-v1", "{{.State.Running}}")?, "true");
    Ok(())
}

/// Docker waits longer from one start to the next, and the container lives for milliseconds.
#[test]
fn a_canary_that_crashes_at_every_start_is_stopped_though_it_was_never_seen() -> anyhow::Result<()> {
    let test = "a_canary_that_crashes_at_every_start_is_stopped_though_it_was_never_seen";
    let Some(shop) = Shop::open(Engine::Docker, test, &["--restart", "always", "--env", "BROKEN=1"])? else {
        return Ok(());
    };
    shop.until(Verified, "")?;
    assert_eq!(shop.inspect("shop-v2", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}")?, "false no");
    assert_eq!(shop.inspect("shop-v1", "{{.State.Running}}")?, "true");
    Ok(())
}

#[test]
fn what_belongs_to_others_or_would_be_deleted_is_refused() -> anyhow::Result<()> {
    for (options, words) in [
        (&["--rm"][..], "shop-v2 was made with --rm"),
        (&["--label", "com.docker.compose.project=web"], "belongs to the compose project web"),
        (&["--label", "PODMAN_SYSTEMD_UNIT=shop.service"], "belongs to the unit shop.service"),
        (&["--label", "com.docker.swarm.service.name=web"], "belongs to the swarm service web"),
        (&["--label", "io.kubernetes.pod.name=web-0"], "belongs to the pod web-0"),
    ] {
        let test = "what_belongs_to_others_or_would_be_deleted_is_refused";
        let Some(shop) = Shop::open(Engine::Docker, test, options)? else { return Ok(()) };
        shop.crash()?;
        shop.until(Blocked, words)?;
        assert_eq!(shop.inspect("shop-v2", "{{.State.Running}}")?, "true");
    }
    Ok(())
}
