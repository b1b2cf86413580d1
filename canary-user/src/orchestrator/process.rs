//! Stops a canary by its cgroup: for services that no init system or cluster looks after.
//!
//! Goes in: a decision to drain or roll back. Comes out: canary cgroups without a process, or an error that says what
//! is left. Where the service's own supervisor listens on a [`Control`] channel, it first takes the canary out of the
//! routes and promises not to restart it. Refused: a cgroup that was replaced since the decision, a canary whose
//! cgroup overlaps a stable one, and any decision without a stable instance that runs.

mod cgroup;

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use self::cgroup::CgroupDir;
use super::{BoxFuture, Error, Found, Orchestrator, Plan, State, hold};
use crate::{
    guard::{Action, Decision},
    targets::Target,
};

const NAME: &str = "process";
/// How often `cgroup.events` is read while waiting.
const POLL: Duration = Duration::from_millis(20);
/// How often a canary's processes are looked for to be sent SIGTERM. One that ignores it and goes on forking has new ones each time.
const ROUNDS: u32 = 20;
/// How long the kernel may take to remove killed processes.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the supervisor may take to answer.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the service's own supervisor is asked to do. It answers on `done` once it has been done.
#[derive(Debug)]
pub enum Control {
    /// Send no more work to these instances; others take their share.
    RouteAway { cgroups: Vec<Arc<str>>, done: oneshot::Sender<()> },
    /// Do not start these instances again when they end. Once answered, no new process enters their cgroups.
    Retire { cgroups: Vec<Arc<str>>, done: oneshot::Sender<()> },
}

/// Sends SIGTERM to the canary's processes, and SIGKILL to those that are left after `grace`.
pub struct Process {
    cgroup2_root: PathBuf,
    grace: Duration,
    control: Option<mpsc::Sender<Control>>,
}

impl Process {
    /// `cgroup2_root` is where cgroup2 is mounted; `grace` is the time between SIGTERM and SIGKILL (10 s is usual);
    /// `control` reaches the service's supervisor, where it has one.
    pub fn new(cgroup2_root: PathBuf, grace: Duration, control: Option<mpsc::Sender<Control>>) -> Self {
        Self { cgroup2_root, grace, control }
    }

    fn open(&self, target: &Target) -> anyhow::Result<Option<CgroupDir>> {
        CgroupDir::open(&self.cgroup2_root, &target.cgroup)
    }

    /// The canary cgroups that exist, opened, all of them proven to be the ones that were decided on.
    fn checked(&self, decision: &Decision) -> anyhow::Result<Vec<CgroupDir>> {
        for target in &decision.canary {
            check_path(&target.cgroup)?;
            for stable in &decision.stable {
                ensure!(
                    !overlaps(&target.cgroup, &stable.cgroup),
                    "canary cgroup {} overlaps stable cgroup {}: stopping one would stop the other",
                    target.cgroup,
                    stable.cgroup
                );
            }
        }
        self.check_stable(decision)?;
        let mut open = Vec::new();
        for target in &decision.canary {
            let Some(dir) = self.open(target)? else { continue };
            ensure!(
                dir.incarnation() == target.incarnation,
                "cgroup {} was replaced since the decision (incarnation {} now, {} then): it is not touched",
                target.cgroup,
                dir.incarnation(),
                target.incarnation
            );
            open.push(dir);
        }
        Ok(open)
    }

    fn check_stable(&self, decision: &Decision) -> anyhow::Result<()> {
        for target in &decision.stable {
            if let Some(dir) = self.open(target)?
                && dir.incarnation() == target.incarnation
                && dir.is_populated()?
            {
                return Ok(());
            }
        }
        bail!(
            "no stable instance of {} has a running process to take the load: the canary is left alone",
            decision.deployment
        )
    }

    async fn ask(
        &self,
        what: &str,
        make: impl FnOnce(Vec<Arc<str>>, oneshot::Sender<()>) -> Control,
        decision: &Decision,
    ) -> anyhow::Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        let cgroups = decision.canary.iter().map(|t| t.cgroup.clone()).collect();
        let (done, answer) = oneshot::channel();
        let exchange = async {
            control.send(make(cgroups, done)).await.map_err(|_| anyhow::anyhow!("the service's supervisor is gone"))?;
            answer.await.context("the service's supervisor dropped the request")
        };
        timeout(CONTROL_TIMEOUT, exchange)
            .await
            .with_context(|| format!("the service's supervisor did not answer in {CONTROL_TIMEOUT:?}"))
            .flatten()
            .with_context(|| format!("{what} of {}: nothing was stopped", decision.deployment))
    }

    fn plan(&self, decision: &Decision) -> Result<Plan, Error> {
        require_stopping(decision.action).map_err(Error::refused)?;
        let mut steps = Vec::new();
        if self.control.is_some() {
            for target in &decision.canary {
                steps.push(format!("route no more work to {}; stable takes its share", target.cgroup));
            }
            for target in &decision.canary {
                steps.push(format!("do not start {} again when it ends", target.cgroup));
            }
        }
        for target in &decision.canary {
            steps.push(format!(
                "send SIGTERM to every process in {}{} and below, if it is still incarnation {}",
                self.cgroup2_root.display(),
                target.cgroup,
                target.incarnation
            ));
        }
        steps.push(format!(
            "wait up to {} until cgroup.events says 'populated 0', then SIGKILL what is left",
            humantime::format_duration(self.grace)
        ));
        let inverse = format!(
            "start version {} again in the same way as before; files and configuration are not changed",
            decision.canary.first().map_or("of the canary", |t| &t.version)
        );
        Ok(Plan { orchestrator: self.name().into(), steps, inverse: Some(inverse), ..Plan::default() })
    }

    async fn stop(&self, decision: &Decision) -> Result<(), Error> {
        // Everything is checked before the first change, and again after the supervisor had its turn.
        require_stopping(decision.action).and_then(|()| self.checked(decision)).map_err(Error::refused)?;
        self.ask("taking the canary out of the routes", |cgroups, done| Control::RouteAway { cgroups, done }, decision)
            .await?;
        self.ask("retiring the canary", |cgroups, done| Control::Retire { cgroups, done }, decision).await?;
        let canary = self.checked(decision)?;
        let me = Pid::as_raw(Some(rustix::process::getpid()));
        for dir in &canary {
            if dir.pids()?.contains(&me) {
                return Err(anyhow!("the guard itself runs in canary cgroup {}", dir.path()).into());
            }
        }
        for dir in &canary {
            terminate(dir).await?;
        }
        if !wait_until_empty(&canary, self.grace).await? {
            for dir in &canary {
                dir.kill()?;
            }
            if !wait_until_empty(&canary, KILL_TIMEOUT).await? {
                return Err(anyhow!("processes outlived SIGKILL for {KILL_TIMEOUT:?}: {}", left_over(&canary)).into());
            }
        }
        Ok(())
    }
}

/// One SIGTERM to each process in the cgroup and below. Looks again until it finds no process that it has not
/// signalled, so that one forked while it looked is reached as well. What is left after the last look is for SIGKILL.
async fn terminate(dir: &CgroupDir) -> anyhow::Result<()> {
    let mut signalled = HashSet::new();
    for _ in 0..ROUNDS {
        let mut news = false;
        for group in dir.subtree()? {
            for raw in group.own_pids()? {
                if signalled.contains(&raw) {
                    continue;
                }
                let pid = Pid::from_raw(raw).with_context(|| {
                    format!("a process in cgroup {} belongs to a pid namespace that cannot be seen", group.path())
                })?;
                let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(fd) => fd,
                    Err(rustix::io::Errno::SRCH) => continue,
                    Err(e) => return Err(e).with_context(|| format!("open a pidfd of process {raw}")),
                };
                // The number may have gone to another process since it was read. From here on the pidfd cannot.
                if !group.own_pids()?.contains(&raw) {
                    continue;
                }
                signalled.insert(raw);
                news = true;
                match pidfd_send_signal(&pidfd, Signal::TERM) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(e) => return Err(e).with_context(|| format!("send SIGTERM to process {raw}")),
                }
            }
        }
        if !news {
            break;
        }
        // Whoever gives the call up has to get a word in.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn wait_until_empty(canary: &[CgroupDir], limit: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let mut empty = true;
        for dir in canary {
            empty &= !dir.is_populated()?;
        }
        if empty || Instant::now() >= deadline {
            return Ok(empty);
        }
        sleep(POLL).await;
    }
}

fn left_over(canary: &[CgroupDir]) -> String {
    let each = canary.iter().map(|d| format!("{} {:?}", d.path(), d.pids().unwrap_or_default()));
    each.collect::<Vec<_>>().join(", ")
}

fn require_stopping(action: Action) -> anyhow::Result<()> {
    match action {
        Action::Drain | Action::Rollback => Ok(()),
        Action::Quarantine => bail!(
            "the process backend cannot quarantine: it has no resources to take away; use mode drain or rollback, or an \
             orchestrator with limits (systemd, docker)"
        ),
        Action::Hold => bail!(hold::no_rollout(NAME)),
        Action::Promote => bail!("the process backend has nothing to do for '{action}'"),
    }
}

fn check_path(cgroup: &str) -> anyhow::Result<()> {
    let plain = cgroup.strip_prefix('/').is_some_and(|rest| {
        !rest.is_empty() && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    });
    ensure!(
        plain,
        "'{cgroup}' cannot be a canary cgroup: it must be a path below the cgroup2 root, such as /app/canary"
    );
    Ok(())
}

/// Whether one is the other or an ancestor of it.
fn overlaps(a: &str, b: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(a, b) || within(b, a)
}

impl Orchestrator for Process {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>> {
        Box::pin(async { self.plan(decision) })
    }

    fn apply<'a>(&'a self, decision: &'a Decision, _plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.stop(decision))
    }

    /// In effect when every canary cgroup is empty or gone. A cgroup that was replaced and has processes again
    /// means that the canary runs.
    fn state<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<Found>> {
        Box::pin(async move {
            for target in &decision.canary {
                if let Some(dir) = self.open(target)?
                    && dir.is_populated()?
                {
                    let detail = format!("{} has processes", target.cgroup);
                    return Ok(Found { state: State::NotInEffect, detail });
                }
            }
            Ok(Found { state: State::InEffect, detail: "no process in the canary's cgroups".into() })
        })
    }

    fn undo<'a>(&'a self, _decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        let inverse = plan.inverse.as_deref().unwrap_or("start it in the same way as before");
        Box::pin(async move { Err(Error::refused(format!("it is not known how the canary is started: {inverse}"))) })
    }
}

#[cfg(test)]
mod tests;
