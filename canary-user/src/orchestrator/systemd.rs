//! Units of systemd, through its own D-Bus interface.
//!
//! Goes in: a decision on targets that are units. Rollback: stable is started where it is down, and only once it has settled the
//! canary is stopped. Drain: the user's drain unit, or the canary's own socket, and then the canary. Stopped is always by a
//! job, never by a signal: after a kill `Restart=` would bring it back. Quarantine: runtime properties, which a timer
//! unit takes back whether or not the guard lives.
//!
//! Before the first change every step is worked out anew and has to be what the plan in the journal says.

pub mod bus;
mod check;
pub mod jobs;
mod quarantine;
mod step;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use self::{bus::Session, jobs::Verb, quarantine::Limits, step::Step};
use super::{
    BoxFuture, Error, Found, Orchestrator, Plan, State, hold,
    pause::{LastLook, Paused, STABLE_STARTED},
};
use crate::{
    config::{DeploymentConfig, QuarantineConfig},
    guard::{Action, Decision},
    targets::{Identity, Target, cgroup::Root},
};

pub const NAME: &str = "systemd";
/// What a job may take where the unit sets no limit of its own.
const UNLIMITED: Duration = Duration::from_secs(300);

/// Starts, stops and limits units.
pub struct Systemd {
    bus: String,
    root: Root,
    grace: Duration,
    settle: Duration,
    /// The stable unit, where the configuration names exactly one.
    stable: Option<String>,
    drain_unit: Option<Arc<str>>,
    quarantine: QuarantineConfig,
    last_look: LastLook,
}

/// What [`Systemd::undo`] needs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Undo {
    /// In this order.
    start: Vec<String>,
    /// Timers that would take a quarantine back, which is done at once instead.
    stop: Vec<String>,
    limits: Vec<(String, Limits)>,
}

impl Systemd {
    /// `bus` is a D-Bus address, `root` tells which controllers there are.
    pub fn new(bus: &str, root: Root, deployment: &DeploymentConfig) -> Self {
        Self {
            bus: bus.to_owned(),
            root,
            grace: deployment.grace,
            settle: deployment.settle,
            stable: deployment.stable.units().and_then(|p| p.only()).map(str::to_owned),
            drain_unit: deployment.drain_unit.clone(),
            quarantine: deployment.quarantine.clone(),
            last_look: LastLook::default(),
        }
    }

    /// Everything that has to be done now, and the way back.
    async fn steps(&self, session: &Session, decision: &Decision) -> Result<(Vec<Step>, Undo), Error> {
        match decision.action {
            Action::Quarantine => self.quarantine_steps(session, decision).await,
            Action::Drain | Action::Rollback => self.stop_steps(session, decision).await,
            Action::Hold => Err(Error::Refused(hold::no_rollout(NAME))),
            Action::Promote => Err(Error::refused(format!("systemd has nothing that means '{}'", decision.action))),
        }
    }

    async fn stop_steps(&self, session: &Session, decision: &Decision) -> Result<(Vec<Step>, Undo), Error> {
        let mut steps = self.stable_steps(session, decision).await?;
        let mut undo = Undo::default();
        for target in &decision.canary {
            let decided_on = named(target)?;
            let name = &*decided_on.name;
            let unit = check::settled_from_restart(session, decided_on).await.map_err(Error::refused)?;
            let sockets = check::own_sockets(session, &unit).await.map_err(Error::refused)?;
            if let Some(why) = check::obstacle(&unit, decided_on, &sockets) {
                return Err(Error::Refused(why));
            }
            if let Some(drain) = self.drain_unit.as_deref().filter(|_| decision.action == Action::Drain) {
                steps.push(Step::Drain { unit: drain.replace("%i", instance(name)), limit: self.grace });
            }
            for socket in &sockets {
                undo.start.push(socket.clone());
                steps.push(Step::StopSocket { unit: socket.clone(), limit: UNLIMITED });
            }
            undo.start.push(name.to_owned());
            let limit = unit.time("TimeoutStopUSec").unwrap_or(self.grace.max(UNLIMITED));
            steps.push(Step::Stop { decided_on: decided_on.clone(), sockets, limit });
        }
        Ok((steps, undo))
    }

    /// Stable has to run when the canary is taken away: started where it is down, for a rollback.
    async fn stable_steps(&self, session: &Session, decision: &Decision) -> Result<Vec<Step>, Error> {
        let mut names: Vec<&str> = decision.stable.iter().flat_map(|t| t.identity.as_ref()).map(|i| &*i.name).collect();
        names.extend(self.stable.as_deref());
        names.sort_unstable();
        names.dedup();
        let (mut steps, mut running) = (Vec::new(), 0);
        for name in names {
            let unit = session.unit(name).await.map_err(Error::refused)?;
            if unit.is_active() {
                running += 1;
            } else if decision.action == Action::Rollback {
                if unit.text("LoadState") != "loaded" {
                    return Err(Error::refused(format!(
                        "stable unit {name} cannot be started: it is {}",
                        unit.text("LoadState")
                    )));
                }
                if let Some(job) = unit.job() {
                    return Err(Error::refused(format!(
                        "job {job} of {name} is under way: somebody else is acting on it"
                    )));
                }
                let limit = unit.time("TimeoutStartUSec").unwrap_or(UNLIMITED);
                steps.push(Step::Start { unit: name.to_owned(), limit });
                steps.push(Step::Settle { unit: name.to_owned(), settle: self.settle });
            }
        }
        if running == 0 && steps.is_empty() {
            return Err(Error::refused(format!(
                "no stable unit of {} is active to take the load",
                decision.deployment
            )));
        }
        Ok(steps)
    }

    async fn quarantine_steps(&self, session: &Session, decision: &Decision) -> Result<(Vec<Step>, Undo), Error> {
        let limits = Limits::wanted(&self.quarantine);
        limits.possible(&self.root.dir(&session.cgroup_prefix().await)).map_err(Error::refused)?;
        let (mut steps, mut undo) = (Vec::new(), Undo::default());
        for (number, target) in decision.canary.iter().enumerate() {
            let Identity { name, run, .. } = named(target)?;
            let unit = session.unit(name).await.map_err(Error::refused)?;
            if unit.invocation() != **run {
                return Err(Error::refused(format!("{name} was started again since the decision: it is not touched")));
            }
            let before = limits.those_of(&unit);
            let releases = quarantine::releases(session, name).await.map_err(Error::refused)?;
            if let Some(why) = quarantine::obstacle(name, &before, &limits, &releases) {
                return Err(Error::Refused(why));
            }
            let timer = quarantine::timer(&decision.id, number);
            undo.limits.push((name.to_string(), before));
            undo.stop.push(timer.clone());
            let lasts = self.quarantine.lasts;
            steps.push(Step::Limit {
                unit: name.to_string(),
                run: run.to_string(),
                limits: limits.clone(),
                lasts,
                timer,
            });
        }
        Ok((steps, undo))
    }

    async fn plan(&self, decision: &Decision) -> Result<Plan, Error> {
        let session = Session::open(&self.bus).await.map_err(Error::refused)?;
        let (steps, undo) = self.steps(&session, decision).await?;
        let quarantine = decision.action == Action::Quarantine;
        let inverse = if quarantine {
            let lasts = humantime::format_duration(self.quarantine.lasts);
            format!("ends by itself after {lasts}, by a timer unit; `canary undo {}` ends it at once", decision.id)
        } else {
            format!("systemctl start {}", undo.start.join(" "))
        };
        Ok(Plan {
            orchestrator: NAME.into(),
            steps: steps.iter().map(Step::to_string).collect(),
            inverse: Some(inverse),
            undo: Some(serde_json::to_value(&undo).context("write the way back")?),
            takes_at_most_ms: Some(steps.iter().map(Step::takes_at_most).sum::<Duration>().as_millis() as u64),
            ends_after_ms: quarantine.then_some(self.quarantine.lasts.as_millis() as u64),
            background: None,
            takes_away: None,
        })
    }

    async fn carry_out(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        let session = Session::open(&self.bus).await.map_err(Error::refused)?;
        let (steps, undo) = self.steps(&session, decision).await?;
        let now: Vec<String> = steps.iter().map(Step::to_string).collect();
        if now != plan.steps {
            return Err(Error::refused(format!(
                "what there is to do has changed since it was planned; now: {}",
                now.join("; ")
            )));
        }
        let (mut begun, mut taken) = (false, false);
        for step in &steps {
            if step.takes_away() && !std::mem::replace(&mut taken, true) {
                self.last_look.ask(&decision.deployment, begun.then_some(STABLE_STARTED))?;
            }
            step.run(&session, &undo, begun).await?;
            begun = true;
        }
        Ok(())
    }

    async fn found(&self, decision: &Decision) -> anyhow::Result<Found> {
        let session = Session::open(&self.bus).await?;
        if decision.action == Action::Quarantine {
            return self.found_limited(&session, decision).await;
        }
        let mut said = Vec::new();
        let mut state = State::InEffect;
        for target in &decision.canary {
            let Identity { name, run, .. } = named(target)?;
            let unit = session.unit(name).await?;
            match unit.text("ActiveState") {
                _ if unit.is_down() => said.push(unit.to_string()),
                "deactivating" => {
                    state = State::InProgress;
                    said.push(unit.to_string());
                }
                _ => {
                    let again = unit.invocation() != **run;
                    let again = if again { ", started again since the decision" } else { "" };
                    return Ok(Found { state: State::NotInEffect, detail: format!("{unit}{again}") });
                }
            }
        }
        Ok(Found { state, detail: said.join(", ") })
    }

    /// By the limits, and not by the timer: that may be stopped, and what it starts may fail. They stay with a unit that was
    /// restarted or is down; one whose file is gone has none.
    async fn found_limited(&self, session: &Session, decision: &Decision) -> anyhow::Result<Found> {
        let wanted = Limits::wanted(&self.quarantine);
        let (mut said, mut all, mut outlived) = (Vec::new(), true, false);
        for (number, target) in decision.canary.iter().enumerate() {
            let Identity { name, .. } = named(target)?;
            let unit = session.unit(name).await?;
            let timer = session.unit(&quarantine::timer(&decision.id, number)).await?;
            let has = wanted.those_of(&unit);
            // Where another decision's release is there, the limits are that decision's.
            let own = [timer.name.clone(), quarantine::service(&timer.name)];
            let is_own = quarantine::releases(session, name).await?.iter().all(|release| own.contains(release));
            let limited = has == wanted && is_own;
            all &= limited;
            outlived |= limited && !timer.is_active();
            said.push(format!("{name} has {has}; {timer}"));
        }
        // One unit whose limits nothing else will end is enough for the guard to end them.
        let state = if all || outlived { State::InEffect } else { State::NotInEffect };
        Ok(Found { state, detail: said.join(", ") })
    }

    async fn go_back(&self, plan: &Plan) -> Result<(), Error> {
        let undo = plan.undo.clone().ok_or_else(|| Error::refused("the journal has no way back for it"))?;
        let undo: Undo = serde_json::from_value(undo).map_err(|e| Error::refused(format!("read the way back: {e}")))?;
        let session = Session::open(&self.bus).await.map_err(Error::refused)?;
        for (unit, limits) in &undo.limits {
            limits.set(&session, unit).await?;
        }
        for timer in &undo.stop {
            // It may have elapsed, or somebody stopped it.
            if !session.unit(timer).await?.is_down() {
                jobs::run(&session, Verb::Stop, timer, UNLIMITED).await?;
            }
            // One that failed would be taken for a quarantine that goes on. Errs where it did not.
            let _ = session.manager.reset_failed_unit(&quarantine::service(timer)).await;
        }
        for unit in &undo.start {
            jobs::run(&session, Verb::Start, unit, UNLIMITED).await?;
        }
        Ok(())
    }
}

/// The unit, and the run of it that was decided on.
fn named(target: &Target) -> Result<&Identity, Error> {
    target.identity.as_ref().filter(|i| i.name.ends_with(".service")).ok_or_else(|| {
        Error::refused(format!(
            "{} was not found as a unit: name the versions as {{ systemd = \"…@*.service\" }} to have systemd act on them",
            target.cgroup
        ))
    })
}

/// What stands between '@' and the suffix, which unit files know as %i.
fn instance(unit: &str) -> &str {
    unit.split_once('@').and_then(|(_, rest)| rest.rsplit_once('.')).map_or("", |(instance, _)| instance)
}

impl Orchestrator for Systemd {
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
