//! Containers of Docker, and of Podman through the same interface, over a unix socket.
//!
//! Goes in: a decision on targets that are containers. Rollback: the stable sibling is started where none runs, and only once it
//! has settled the canary is stopped. Drain: the canary is stopped while a healthy stable sibling runs. Before it is stopped
//! its restart policy is set to `no`; with Podman, which cannot do that, it is stopped until it stays down. Refused: what would
//! be deleted by the stop, and what somebody else looks after.
//!
//! Before the first change every step is worked out anew and has to be what the plan in the journal says.

pub mod container;
mod podman;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bollard::{
    errors::Error as ApiError,
    models::{ContainerUpdateBody, RestartPolicy},
    query_parameters::{StartContainerOptions, StopContainerOptionsBuilder},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use self::container::{Api, Container};
use super::{
    BoxFuture, Error, Found, Orchestrator, Plan, State, hold,
    pause::{LastLook, Paused, STABLE_STARTED},
};
use crate::{
    config::{DeploymentConfig, Selector},
    guard::{Action, Decision},
    targets::{Identity, Target},
};

pub const NAME: &str = "docker";
/// How often a container that has to settle is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// What Docker may take beyond the grace: to kill, to unmount, to answer.
const MARGIN: Duration = Duration::from_secs(20);

/// Starts and stops containers.
pub struct Docker {
    socket: PathBuf,
    grace: Duration,
    settle: Duration,
    stable: Selector,
    last_look: LastLook,
}

/// One thing to do. Containers are named by their ids: a name may come to mean another. `insist`: until it stays down, where its
/// restart policy goes on starting it.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Start { name: String, id: String },
    Settle { name: String, id: String, settle: Duration },
    NoRestart { name: String, id: String },
    Stop { name: String, decided_on: Identity, grace: Duration, insist: bool },
}

/// What [`Docker::go_back`] needs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Undo {
    /// Restart policies that were there before, by container id.
    restart_policies: Vec<(String, RestartPolicy)>,
    start: Vec<String>,
}

impl Docker {
    /// `socket` is Docker's, or Podman's.
    pub fn new(socket: &Path, deployment: &DeploymentConfig) -> Self {
        Self {
            socket: socket.to_owned(),
            grace: whole_seconds(deployment.grace),
            settle: deployment.settle,
            stable: deployment.stable.selector.clone(),
            last_look: LastLook::default(),
        }
    }

    async fn open(&self) -> anyhow::Result<Api> {
        // A stop is answered only when it is done.
        Api::open(&self.socket, self.grace + MARGIN).await
    }

    async fn steps(&self, api: &Api, decision: &Decision) -> Result<(Vec<Step>, Undo), Error> {
        match decision.action {
            Action::Drain | Action::Rollback => {}
            Action::Quarantine => {
                return Err(Error::refused(
                    "Docker cannot end a quarantine by itself, should the guard die: use mode drain or rollback",
                ));
            }
            Action::Hold => return Err(Error::Refused(hold::no_rollout(NAME))),
            Action::Promote => {
                return Err(Error::refused(format!("Docker has nothing that means '{}'", decision.action)));
            }
        }
        let mut steps = self.stable_steps(api, decision).await?;
        let mut undo = Undo::default();
        for target in &decision.canary {
            let decided_on = named(target)?;
            let (name, id) = (&decided_on.name, container::id_of(&decided_on.run));
            let now = api.container(id).await.map_err(Error::refused)?;
            let Some(now) = now else {
                return Err(Error::refused(format!("container {name} ({}) is gone", short(id))));
            };
            if let Some(why) = now.obstacle(decided_on) {
                return Err(Error::Refused(why));
            }
            // Podman keeps stopped what was stopped by somebody while it ran, and has no way to change a policy.
            let insist = api.is_podman && now.restarts().is_some();
            if let Some(policy) = now.restarts().filter(|_| !api.is_podman) {
                undo.restart_policies.push((id.to_owned(), policy));
                steps.push(Step::NoRestart { name: now.name.clone(), id: id.to_owned() });
            }
            undo.start.push(id.to_owned());
            steps.push(Step::Stop { name: now.name, decided_on: decided_on.clone(), grace: self.grace, insist });
        }
        Ok((steps, undo))
    }

    /// A healthy stable sibling has to run when the canary is taken away: started where none does, for a rollback.
    async fn stable_steps(&self, api: &Api, decision: &Decision) -> Result<Vec<Step>, Error> {
        let all = api.select(&self.stable, true).await.map_err(Error::refused)?;
        if let Some(sick) = all.iter().find(|c| c.is_running() && c.is_unhealthy()) {
            return Err(Error::refused(format!("stable container {} is not healthy", sick.name)));
        }
        if all.iter().any(Container::serves) {
            return Ok(Vec::new());
        }
        if let Some(frozen) = all.iter().find(|c| c.is_paused()) {
            let name = &frozen.name;
            return Err(Error::refused(format!(
                "stable container {name} is paused and answers nobody: docker unpause {name}"
            )));
        }
        if decision.action == Action::Drain {
            return Err(Error::refused(format!(
                "no stable container of {} runs to take the load",
                decision.deployment
            )));
        }
        match all.as_slice() {
            [] => Err(Error::refused(format!("there is no stable container of {} to start", decision.deployment))),
            [one] => {
                if let Some(why) = one.owner() {
                    return Err(Error::Refused(why));
                }
                let (name, id) = (one.name.clone(), one.id.clone());
                let settle = Step::Settle { name: name.clone(), id: id.clone(), settle: self.settle };
                Ok(vec![Step::Start { name, id }, settle])
            }
            [one, other, ..] => Err(Error::refused(format!(
                "no stable container runs, and which to start is not known: {} or {}",
                one.name, other.name
            ))),
        }
    }

    async fn plan(&self, decision: &Decision) -> Result<Plan, Error> {
        let api = self.open().await.map_err(Error::refused)?;
        let (steps, undo) = self.steps(&api, decision).await?;
        let ids: Vec<&str> = undo.start.iter().map(|id| short(id)).collect();
        let policies = undo.restart_policies.iter().map(|(id, policy)| {
            let name = policy.name.map(|n| n.to_string()).unwrap_or_default();
            format!("docker update --restart {name} {}; ", short(id))
        });
        Ok(Plan {
            orchestrator: NAME.into(),
            steps: steps.iter().map(Step::to_string).collect(),
            inverse: Some(format!("{}docker start {}", policies.collect::<String>(), ids.join(" "))),
            undo: Some(serde_json::to_value(&undo).context("write the way back")?),
            takes_at_most_ms: Some(steps.iter().map(Step::takes_at_most).sum::<Duration>().as_millis() as u64),
            ends_after_ms: None,
            background: None,
            takes_away: None,
        })
    }

    async fn carry_out(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        let api = self.open().await.map_err(Error::refused)?;
        let (steps, _) = self.steps(&api, decision).await?;
        let now: Vec<String> = steps.iter().map(Step::to_string).collect();
        if now != plan.steps {
            return Err(Error::refused(format!(
                "what there is to do has changed since it was planned; now: {}",
                now.join("; ")
            )));
        }
        let mut taken = false;
        for (done, step) in steps.iter().enumerate() {
            if step.takes_away() && !std::mem::replace(&mut taken, true) {
                self.last_look.ask(&decision.deployment, (done > 0).then_some(STABLE_STARTED))?;
            }
            step.run(&api).await.map_err(|e| match e {
                Error::Refused(why) if done > 0 => anyhow!("after a part was done: {why}").into(),
                other => other,
            })?;
        }
        Ok(())
    }

    async fn found(&self, decision: &Decision) -> anyhow::Result<Found> {
        let api = self.open().await?;
        let mut said = Vec::new();
        for target in &decision.canary {
            let Identity { name, run, .. } = named(target)?;
            match api.container(container::id_of(run)).await? {
                None => said.push(format!("{name} is gone")),
                Some(now) if now.is_running() || now.is_restarting() => {
                    let again = if now.run() == **run { "" } else { ", started again since the decision" };
                    let more = if now.is_restarting() { ", and its restart policy may start it again" } else { "" };
                    return Ok(Found { state: State::NotInEffect, detail: format!("{now}{again}{more}") });
                }
                Some(now) => said.push(now.to_string()),
            }
        }
        Ok(Found { state: State::InEffect, detail: said.join(", ") })
    }

    async fn go_back(&self, plan: &Plan) -> Result<(), Error> {
        let undo = plan.undo.clone().ok_or_else(|| Error::refused("the journal has no way back for it"))?;
        let undo: Undo = serde_json::from_value(undo).map_err(|e| Error::refused(format!("read the way back: {e}")))?;
        let api = self.open().await.map_err(Error::refused)?;
        for (id, policy) in undo.restart_policies {
            restart_policy(&api, &id, policy).await?;
        }
        for id in undo.start {
            let started = api.client.start_container(&id, None::<StartContainerOptions>).await;
            started.map_err(|e| answered("start", short(&id), e))?;
        }
        Ok(())
    }
}

async fn restart_policy(api: &Api, id: &str, policy: RestartPolicy) -> Result<(), Error> {
    let update = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
    api.client.update_container(id, update).await.map_err(|e| answered("update", short(id), e))
}

/// Docker's own unit, rounded up: nobody is killed before the grace is over.
fn whole_seconds(grace: Duration) -> Duration {
    Duration::from_secs(grace.as_secs() + u64::from(grace.subsec_nanos() > 0))
}

/// What the daemon answers with an error it has not done; silence proves nothing.
fn answered(verb: &str, name: &str, error: ApiError) -> Error {
    match error {
        ApiError::DockerResponseServerError { status_code, message } => {
            Error::Refused(format!("Docker does not {verb} {name}: {message} (status {status_code})"))
        }
        other => anyhow!(other).context(format!("have Docker {verb} {name}")).into(),
    }
}

/// The container, and the run of it that was decided on.
fn named(target: &Target) -> Result<&Identity, Error> {
    target.identity.as_ref().filter(|i| i.run.contains(' ')).ok_or_else(|| {
        Error::refused(format!(
            "{} was not found as a container: name the versions by container, label or image to have Docker act on them",
            target.cgroup
        ))
    })
}

/// As `docker ps` shows them.
fn short(id: &str) -> &str {
    &id[..id.len().min(12)]
}

impl Step {
    fn takes_at_most(&self) -> Duration {
        match self {
            Step::Start { .. } | Step::NoRestart { .. } => MARGIN,
            Step::Settle { settle, .. } => *settle + MARGIN,
            Step::Stop { grace, insist: true, .. } => 2 * *grace + podman::INSISTS_FOR + MARGIN,
            Step::Stop { grace, .. } => *grace + MARGIN,
        }
    }

    /// Whether it takes anything from the canary, be it the restart after a crash.
    fn takes_away(&self) -> bool {
        match self {
            Step::Start { .. } | Step::Settle { .. } => false,
            Step::NoRestart { .. } | Step::Stop { .. } => true,
        }
    }

    async fn run(&self, api: &Api) -> Result<(), Error> {
        match self {
            Step::Start { id, name } => {
                let started = api.client.start_container(id, None::<StartContainerOptions>).await;
                started.map_err(|e| answered("start", name, e))
            }
            Step::Settle { id, settle, .. } => settled(api, id, *settle).await,
            Step::NoRestart { id, .. } => {
                let name = Some(bollard::models::RestartPolicyNameEnum::NO);
                restart_policy(api, id, RestartPolicy { name, maximum_retry_count: None }).await
            }
            Step::Stop { decided_on, name, grace, insist: true } => {
                podman::stop_for_good(api, name, decided_on, *grace).await
            }
            Step::Stop { decided_on, name, grace, insist: false } => {
                still(api, name, decided_on).await?;
                stop(api, name, decided_on, *grace).await
            }
        }
    }
}

/// The container, where it is the one that was decided on.
async fn still(api: &Api, name: &str, decided_on: &Identity) -> Result<Container, Error> {
    match api.container(container::id_of(&decided_on.run)).await? {
        Some(now) if now.is_run_of(decided_on) => Ok(now),
        _ => Err(Error::refused(format!("{name} was started again or removed just now: it is not touched"))),
    }
}

async fn stop(api: &Api, name: &str, decided_on: &Identity, grace: Duration) -> Result<(), Error> {
    let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::new().t(seconds).build();
    let id = container::id_of(&decided_on.run);
    api.client.stop_container(id, Some(options)).await.map_err(|e| answered("stop", name, e))
}

/// Waits until a container has been up, and healthy where it says so, for `settle` without having been restarted.
async fn settled(api: &Api, id: &str, settle: Duration) -> Result<(), Error> {
    let gone = || Error::from(anyhow!("the stable container is gone: the canary was not stopped"));
    let run = api.container(id).await?.ok_or_else(gone)?.run();
    let (mut since, until) = (Instant::now(), Instant::now() + settle + MARGIN);
    loop {
        let now: Container = api.container(id).await?.ok_or_else(gone)?;
        if !now.is_running() || now.is_paused() || now.run() != run || now.is_unhealthy() || Instant::now() > until {
            return Err(anyhow!("stable does not stay up ({now}): the canary was not stopped").into());
        }
        if !now.is_healthy() {
            since = Instant::now();
        } else if since.elapsed() >= settle {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        match self {
            Step::Start { name, id } => write!(f, "start container {name} ({}), for no stable one runs", short(id)),
            Step::Settle { name, settle, .. } => {
                write!(
                    f,
                    "wait until {name} has been up for {} without a restart, and healthy if it has a check",
                    time(*settle)
                )
            }
            Step::NoRestart { name, id } => write!(f, "set the restart policy of {name} ({}) to no", short(id)),
            Step::Stop { name, decided_on: Identity { run, .. }, grace, insist } => {
                write!(
                    f,
                    "stop container {name} ({}), if it still runs since {} or was restarted by its policy; killed after {}",
                    short(container::id_of(run)),
                    container::started_of(run),
                    time(*grace)
                )?;
                match insist {
                    true => write!(f, "; again while its policy starts it, for up to {}", time(podman::INSISTS_FOR)),
                    false => Ok(()),
                }
            }
        }
    }
}

impl Orchestrator for Docker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn knows_runs(&self) -> bool {
        true
    }

    fn heed_pauses(&self, paused: Paused) {
        self.last_look.heed(paused);
    }

    fn describe<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>> {
        Box::pin(self.plan(decision))
    }

    fn apply<'a>(&'a self, decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.carry_out(decision, plan))
    }

    fn state<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<Found>> {
        Box::pin(self.found(decision))
    }

    fn undo<'a>(&'a self, _decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.go_back(plan))
    }
}
