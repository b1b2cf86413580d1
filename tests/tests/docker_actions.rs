//! What the orchestrator "docker" does to containers of a real Docker, step by step and in which order.

use std::sync::Arc;

use anyhow::Context as _;
use canary_e2e::{
    decided,
    machine::{Engine, Machine},
};
use canary_user::{
    config::Config,
    guard::{Action, Decision},
    orchestrator::{Error, Orchestrator, Plan, State, docker::Docker},
    targets::{Identity, Role, Target},
};
use tokio::runtime::Runtime;

const STABLE: &str = "shop-v1";
const CANARY: &str = "shop-v2";
/// Ends on SIGTERM; where it is slow, some time later.
const SERVICE: &str = "trap '[ -n \"$SLOW\" ] && sleep $SLOW; exit 0' TERM; touch /ready; while :; do sleep 0.1; done";

struct Bench {
    machine: Machine,
    docker: Docker,
    runtime: Runtime,
}

impl Bench {
    /// Both versions run; `stable` and `canary` are further options of `docker run` for each.
    fn new(test: &str, stable: &[&str], canary: &[&str]) -> anyhow::Result<Option<Self>> {
        Self::with_keys(test, "", stable, canary)
    }

    /// `keys`: what else the deployment has in the configuration.
    fn with_keys(test: &str, keys: &str, stable: &[&str], canary: &[&str]) -> anyhow::Result<Option<Self>> {
        let Some(machine) = Machine::boot_with(Engine::Docker, test)? else { return Ok(None) };
        machine.image(Engine::Docker, "shop:1")?;
        for (name, version, options) in [(STABLE, "1", stable), (CANARY, "2", canary)] {
            let label = format!("version={version}");
            let run = ["run", "--detach", "--name", name, "--label", &label, "--network", "none"];
            machine.docker(&[&run[..], options, &["shop:1", "/bin/sh", "-c", SERVICE]].concat())?;
        }
        let text = format!(
            "docker_socket = {:?}\n[[deployment]]\nname = \"shop\"\nmode = \"rollback\"\norchestrator = \"docker\"\nsettle = \"500ms\"\n{keys}\n\
             stable = {{ label = \"version=1\" }}\ncanary = {{ label = \"version=2\" }}\n",
            machine.engine_socket(Engine::Docker)
        );
        let config = Config::parse(&text, "the test")?;
        let docker = Docker::new(&config.docker_socket, &config.deployments[0]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Some(Self { machine, docker, runtime }))
    }

    fn inspect(&self, name: &str, field: &str) -> anyhow::Result<String> {
        Ok(self.machine.docker(&["inspect", "--format", field, name])?.trim().to_owned())
    }

    fn decision(&self, action: Action) -> anyhow::Result<Decision> {
        let target = |name: &str, role| -> anyhow::Result<Target> {
            Ok(Target {
                deployment: "shop".into(),
                role,
                version: role.name().into(),
                cgroup: format!("/{name}").into(),
                incarnation: 1,
                identity: Some(Identity {
                    name: name.into(),
                    run: self.inspect(name, "{{.Id}} {{.State.StartedAt}}")?.into(),
                    restarts: self.inspect(name, "{{.RestartCount}}")?.parse().ok(),
                }),
            })
        };
        Ok(decided::decision(action, vec![target(CANARY, Role::Canary)?], vec![target(STABLE, Role::Stable)?]))
    }

    fn describe(&self, decision: &Decision) -> Result<Plan, Error> {
        self.runtime.block_on(self.docker.describe(decision))
    }

    fn apply(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        self.runtime.block_on(self.docker.apply(decision, plan))
    }

    fn state(&self, decision: &Decision) -> anyhow::Result<State> {
        Ok(self.runtime.block_on(self.docker.state(decision))?.state)
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, words: &str) {
    match result {
        Err(Error::Refused(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_stable_container_that_is_down_comes_up_before_the_canary_goes() -> anyhow::Result<()> {
    let test = "a_stable_container_that_is_down_comes_up_before_the_canary_goes";
    let Some(bench) = Bench::new(test, &[], &["--restart", "unless-stopped"])? else { return Ok(()) };
    bench.machine.docker(&["stop", STABLE])?;
    let decision = bench.decision(Action::Rollback)?;
    refused(bench.describe(&bench.decision(Action::Drain)?), "no stable container of shop runs");
    let plan = bench.describe(&decision)?;
    assert_eq!(plan.steps.len(), 4, "{:?}", plan.steps);
    assert_eq!(bench.state(&decision)?, State::NotInEffect);
    bench.apply(&decision, &plan)?;
    assert_eq!(bench.state(&decision)?, State::InEffect);
    assert_eq!(bench.inspect(STABLE, "{{.State.Running}}")?, "true");
    assert_eq!(bench.inspect(CANARY, "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}")?, "false no");
    let (started, finished) =
        (bench.inspect(STABLE, "{{.State.StartedAt}}")?, bench.inspect(CANARY, "{{.State.FinishedAt}}")?);
    assert!(started < finished, "stable started at {started}, the canary ended at {finished}");

    bench.runtime.block_on(bench.docker.undo(&decision, &plan))?;
    assert_eq!(bench.inspect(CANARY, "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}")?, "true unless-stopped");
    Ok(())
}

#[test]
fn a_pause_that_begins_while_the_stable_container_settles_keeps_the_canary() -> anyhow::Result<()> {
    let test = "a_pause_that_begins_while_the_stable_container_settles_keeps_the_canary";
    let Some(bench) = Bench::new(test, &[], &["--restart", "unless-stopped"])? else { return Ok(()) };
    bench.machine.docker(&["stop", STABLE])?;
    // It is asked for the first time when stable has settled.
    bench.docker.heed_pauses(Arc::new(|deployment: &str| Some(format!("{deployment} by a test"))));
    let decision = bench.decision(Action::Rollback)?;
    let plan = bench.describe(&decision)?;
    let failed = bench.apply(&decision, &plan).expect_err("it is paused by then").to_string();
    assert!(failed.contains("paused: shop by a test") && failed.contains("was not touched"), "{failed}");
    assert_eq!(bench.inspect(STABLE, "{{.State.Running}}")?, "true");
    assert_eq!(bench.inspect(CANARY, "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}")?, "true unless-stopped");
    Ok(())
}

#[test]
fn a_container_that_was_restarted_or_made_again_since_the_decision_is_not_touched() -> anyhow::Result<()> {
    let test = "a_container_that_was_restarted_or_made_again_since_the_decision_is_not_touched";
    let Some(bench) = Bench::new(test, &[], &[])? else { return Ok(()) };
    let decision = bench.decision(Action::Drain)?;
    let plan = bench.describe(&decision)?;
    bench.machine.docker(&["restart", CANARY])?;
    refused(bench.describe(&decision), "started again since the decision");
    refused(bench.apply(&decision, &plan), "started again since the decision");
    assert_eq!(bench.inspect(CANARY, "{{.State.Running}}")?, "true");

    let decision = bench.decision(Action::Drain)?;
    let plan = bench.describe(&decision)?;
    bench.machine.docker(&["rm", "--force", CANARY])?;
    let run = ["run", "--detach", "--name", CANARY, "--label", "version=2", "--network", "none", "shop:1"];
    bench.machine.docker(&[&run[..], &["/bin/sh", "-c", SERVICE]].concat())?;
    refused(bench.apply(&decision, &plan), "is gone");
    assert_eq!(bench.inspect(CANARY, "{{.State.Running}}")?, "true");
    Ok(())
}

#[test]
fn a_stable_container_that_is_not_healthy_keeps_the_canary() -> anyhow::Result<()> {
    let test = "a_stable_container_that_is_not_healthy_keeps_the_canary";
    let check = ["--health-cmd", "test -e /healthy", "--health-interval", "200ms", "--health-retries", "1"];
    let Some(bench) = Bench::new(test, &check, &[])? else { return Ok(()) };
    let health = || bench.inspect(STABLE, "{{.State.Health.Status}}");
    let sick = || health().is_ok_and(|h| h == "unhealthy");
    canary_e2e::wait_until("the check fails", canary_e2e::guard::PATIENCE, sick)?;
    refused(bench.describe(&bench.decision(Action::Rollback)?), "stable container shop-v1 is not healthy");
    bench.machine.docker(&["exec", STABLE, "touch", "/healthy"])?;
    let well = || health().is_ok_and(|h| h == "healthy");
    canary_e2e::wait_until("the check passes", canary_e2e::guard::PATIENCE, well)?;
    let decision = bench.decision(Action::Rollback)?;
    bench.apply(&decision, &bench.describe(&decision)?)?;
    assert_eq!(bench.inspect(CANARY, "{{.State.Running}}")?, "false");
    Ok(())
}

#[test]
fn a_stable_container_that_is_paused_keeps_the_canary() -> anyhow::Result<()> {
    let test = "a_stable_container_that_is_paused_keeps_the_canary";
    let Some(bench) = Bench::new(test, &[], &[])? else { return Ok(()) };
    let decisions = [bench.decision(Action::Drain)?, bench.decision(Action::Rollback)?];
    bench.machine.docker(&["pause", STABLE])?;
    assert_eq!(bench.inspect(STABLE, "{{.State.Running}}")?, "true", "as Docker says it");
    for decision in &decisions {
        refused(bench.describe(decision), "stable container shop-v1 is paused and answers nobody");
    }
    bench.machine.docker(&["unpause", STABLE])?;
    for decision in &decisions {
        bench.describe(decision)?;
    }
    Ok(())
}

#[test]
fn a_grace_below_a_second_is_given() -> anyhow::Result<()> {
    let slow = ["--env", "SLOW=0.3"];
    let test = "a_grace_below_a_second_is_given";
    let Some(bench) = Bench::with_keys(test, "grace = \"500ms\"", &[], &slow)? else { return Ok(()) };
    let ready = || bench.machine.docker(&["exec", CANARY, "test", "-e", "/ready"]).is_ok();
    canary_e2e::wait_until("the canary listens for SIGTERM", canary_e2e::guard::PATIENCE, ready)?;
    let decision = bench.decision(Action::Drain)?;
    let plan = bench.describe(&decision)?;
    assert!(plan.steps[0].ends_with("killed after 1s"), "Docker counts in seconds: {:?}", plan.steps);
    bench.apply(&decision, &plan)?;
    assert_eq!(bench.inspect(CANARY, "{{.State.Running}} {{.State.ExitCode}}")?, "false 0", "it was not killed");
    Ok(())
}

#[test]
fn a_container_that_is_made_anew_is_another_rollout() -> anyhow::Result<()> {
    let test = "a_container_that_is_made_anew_is_another_rollout";
    let Some(bench) = Bench::new(test, &[], &[])? else { return Ok(()) };
    let decision = bench.decision(Action::Drain)?;
    bench.apply(&decision, &bench.describe(&decision)?)?;
    bench.machine.docker(&["rename", CANARY, "shop-v2-old"])?;
    let run = ["run", "--detach", "--name", CANARY, "--label", "version=2", "--network", "none", "shop:1"];
    bench.machine.docker(&[&run[..], &["/bin/sh", "-c", SERVICE]].concat())?;
    assert_eq!(bench.state(&decision)?, State::InEffect);
    assert!(!decision.canary[0].is_same_version(&bench.decision(Action::Drain)?.canary[0]));
    // The same one again is its return.
    bench.machine.docker(&["start", "shop-v2-old"])?;
    assert_eq!(bench.state(&decision)?, State::NotInEffect);
    Ok(())
}

#[test]
fn a_quarantine_is_refused_because_nothing_would_end_it() -> anyhow::Result<()> {
    let test = "a_quarantine_is_refused_because_nothing_would_end_it";
    let Some(bench) = Bench::new(test, &[], &[])? else { return Ok(()) };
    refused(bench.describe(&bench.decision(Action::Quarantine)?), "cannot end a quarantine by itself");
    refused(bench.describe(&bench.decision(Action::Hold)?), "docker has no rollout to hold; `canary pause` keeps");
    let image = bench.inspect(CANARY, "{{.Config.Image}}").context("the canary is there")?;
    assert_eq!(image, "shop:1");
    Ok(())
}
