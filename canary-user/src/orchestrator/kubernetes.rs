//! Deployments and Argo Rollouts of Kubernetes, through its API server.
//!
//! Goes in: a decision on targets that are pods. Stable and canary as two Deployments: the canary's weight in an HTTPRoute
//! becomes 0 (drain, where one is named), or it is scaled to 0. One Deployment in the middle of a rollout: it gets the template
//! of the ReplicaSet that stable runs. An Argo Rollout is aborted. A hold pauses the Deployment or the Rollout, and what takes the
//! canary away ends that. Refused: what somebody else would change back, and what was replaced since the decision.
//!
//! Every change holds for one version of one object only (`test` of uid and resourceVersion in a JSON Patch), and is made
//! only while that object's `spec` is the one that was planned on. Before it is planned the API server is asked by a dry run
//! whether it would take it.

pub mod api;
mod change;
mod event;
mod hold;
mod inverse;
pub mod lease;
mod owner;
mod patch;
mod plan;
mod probes;
mod state;
mod workload;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use self::{api::Api, change::Change, inverse::Inverse, lease::Lease, plan::Work};
use super::{
    BoxFuture, Error, Found, Orchestrator, Plan, State,
    pause::{LastLook, Paused},
};
use crate::{
    config::{DeploymentConfig, HttpRouteConfig, KubernetesConfig},
    guard::{Action, Decision, Stage},
    judge::Outcome,
    targets::Target,
};

pub use self::workload::template_hash;

pub const NAME: &str = "kubernetes";
/// How often the cluster is asked whether it has carried a change out.
const LOOK: Duration = Duration::from_millis(500);
/// What the cluster may take beyond what its objects say.
const MARGIN: Duration = Duration::from_secs(30);

/// Changes Deployments, HTTPRoutes and Rollouts.
pub struct Kubernetes {
    kubeconfig: Option<PathBuf>,
    node: String,
    minimum_healthy: usize,
    http_route: Option<HttpRouteConfig>,
    /// `None` = this guard acts alone.
    lease: Option<Lease>,
    last_look: LastLook,
    api: OnceCell<Api>,
}

impl Kubernetes {
    /// Has to be called in a runtime where a Lease is asked for.
    pub fn new(config: &KubernetesConfig, deployment: &DeploymentConfig) -> Self {
        let node = config.node_name();
        let lease = config.lease_namespace.as_ref().map(|namespace| {
            let name = format!("canary-guard-{}", deployment.name);
            Lease::campaign(config.kubeconfig.clone(), namespace.clone(), name, lease::holder(&node))
        });
        Self {
            kubeconfig: config.kubeconfig.clone(),
            node,
            minimum_healthy: deployment.minimum_healthy,
            http_route: deployment.http_route.clone(),
            lease,
            last_look: LastLook::default(),
            api: OnceCell::new(),
        }
    }

    async fn open(&self) -> anyhow::Result<&Api> {
        self.api.get_or_try_init(|| Api::open(self.kubeconfig.as_deref())).await
    }

    async fn plan(&self, decision: &Decision) -> Result<Plan, Error> {
        let api = self.open().await.map_err(Error::refused)?;
        let Work { changes, takes_seconds, background, takes_away } = self.work(api, decision).await?;
        let (changes, stays) = taken(api, changes, decision).await?;
        let inverses: Option<Vec<Inverse>> = changes.iter().rev().map(Change::inverse).collect();
        let back: Vec<String> = changes.iter().rev().map(Change::way_back).collect();
        Ok(Plan {
            orchestrator: NAME.into(),
            steps: steps(&changes, stays.as_deref()),
            inverse: Some(back.join("; ")),
            undo: inverses.map(|all| serde_json::to_value(all).context("write the way back")).transpose()?,
            takes_at_most_ms: Some((Duration::from_secs(takes_seconds) + MARGIN).as_millis() as u64),
            ends_after_ms: None,
            background,
            takes_away,
        })
    }

    async fn carry_out(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        let until = Instant::now() + plan.takes_at_most(Duration::ZERO);
        let api = self.open().await.map_err(Error::refused)?;
        let Work { mut changes, .. } = self.work(api, decision).await?;
        let mut stays = None;
        // A single one is taken or not; of several none is made where a later one would be refused.
        if changes.len() > 1 {
            (changes, stays) = taken(api, changes, decision).await?;
        }
        let now = steps(&changes, stays.as_deref());
        if now != plan.steps {
            return Err(Error::refused(format!(
                "what there is to do has changed since it was planned; now: {}",
                now.join("; ")
            )));
        }
        // By uid: the generation that this decision's own changes have left.
        let mut left: BTreeMap<&str, i64> = BTreeMap::new();
        for (done, change) in changes.iter().enumerate() {
            // What was begun is finished.
            let look = || if done == 0 { self.look_once_more(decision) } else { Ok(()) };
            let object = change.object();
            let expected = left.get(&*object.uid).copied().unwrap_or(object.generation);
            let generation = change.make(api, &decision.id, expected, look).await.map_err(|e| match e {
                Error::Refused(why) if done > 0 => anyhow!("after a part was done: {why}").into(),
                other => other,
            })?;
            left.insert(&object.uid, generation);
        }
        // A route and a pause are what they are at once; pods take their time.
        loop {
            match self.found(api, decision).await {
                Ok(Found { state: State::InEffect, .. }) => return Ok(()),
                Ok(found) if Instant::now() >= until => {
                    return Err(anyhow!("the cluster has not carried it out: {}", found.detail).into());
                }
                Err(e) if Instant::now() >= until => return Err(e.into()),
                Ok(_) | Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Many questions to the API server, and a dry run, lie between the guard's own last look and the first change.
    fn look_once_more(&self, decision: &Decision) -> Result<(), Error> {
        self.last_look.ask(&decision.deployment, None)?;
        self.standing().map(drop).map_err(|why| Error::Refused(format!("it does not lead any more: {why}")))
    }

    async fn apply_and_tell(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        let result = self.carry_out(decision, plan).await;
        let (kind, said) = match &result {
            Ok(()) => (event::Type::Normal, plan.steps.join("; ")),
            Err(e) => (event::Type::Warning, e.to_string()),
        };
        self.tell_end(decision, kind, decision.action.name(), &said).await;
        result
    }

    async fn go_back(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        let undo = plan.undo.clone().ok_or_else(|| Error::refused("the way back is for people: see the plan"))?;
        let undo: Vec<Inverse> =
            serde_json::from_value(undo).map_err(|e| Error::refused(format!("read the way back: {e}")))?;
        let api = self.open().await.map_err(Error::refused)?;
        // A single one is taken or not; of several none is made where another would be refused.
        if undo.len() > 1 {
            try_back(api, &undo, decision).await?;
        }
        for (done, inverse) in undo.iter().enumerate() {
            inverse.make(api, &decision.id).await.map_err(|e| match e {
                Error::Refused(why) if done > 0 => anyhow!("after a part was undone: {why}").into(),
                other => other,
            })?;
        }
        Ok(())
    }

    async fn undo_and_tell(&self, decision: &Decision, plan: &Plan) -> Result<(), Error> {
        let result = self.go_back(decision, plan).await;
        let (kind, said) = match &result {
            Ok(()) => (event::Type::Normal, plan.inverse.clone().unwrap_or_default()),
            Err(e) => (event::Type::Warning, e.to_string()),
        };
        self.tell_end(decision, kind, "undo", &said).await;
        result
    }

    /// Tells what came of a call.
    async fn tell_end(&self, decision: &Decision, kind: event::Type, action: &str, said: &str) {
        let failed = if kind == event::Type::Warning { "Failed" } else { "" };
        self.tell(decision, kind, (action, event::reason(action) + failed), said).await;
    }

    /// Writes an Event on the object that people look at. One that cannot be written holds nothing up.
    async fn tell(&self, decision: &Decision, kind: event::Type, (action, reason): (&str, String), said: &str) {
        let text = format!("{action} by decision {}: {said} ({})", decision.id, decision.reason);
        self.tell_of(&decision.canary, event::Note { kind, action, reason, text, node: &self.node }).await;
    }

    /// The same of a canary, whether or not anything was decided.
    async fn tell_of(&self, canary: &[Target], note: event::Note<'_>) {
        let told = async {
            let api = self.open().await?;
            let Some(about) = state::workload(api, canary).await? else { return Ok(()) };
            event::write(api, &about, &note).await
        };
        if let Err(e) = told.await {
            let e: anyhow::Error = e;
            tracing::warn!("no Event was written that says \"{}\": {e:#}", note.text);
        }
    }

    fn drains_by_route(&self, decision: &Decision) -> Option<&HttpRouteConfig> {
        self.http_route.as_ref().filter(|_| decision.action == Action::Drain)
    }
}

/// The changes that the API server would take: all of them, or all but the end of a hold, with the decision whose hold that is. It keeps
/// nothing of the canary, so that a condemned one is not left at work for its sake.
///
/// # Errors
/// As [`try_out`] has them.
async fn taken(
    api: &Api,
    mut changes: Vec<Change>,
    decision: &Decision,
) -> Result<(Vec<Change>, Option<String>), Error> {
    let hold = changes.last().and_then(Change::ends_a_hold_that_keeps_nothing).map(str::to_owned);
    let end = changes.pop_if(|_| hold.is_some());
    try_out(api, &changes, decision).await?;
    let Some(end) = end else { return Ok((changes, None)) };
    if let Err(e) = try_out(api, std::slice::from_ref(&end), decision).await {
        tracing::warn!(decision = %decision.id, "what takes the canary away leaves its rollout held: {e}");
        return Ok((changes, hold));
    }
    changes.push(end);
    Ok((changes, None))
}

/// Has the API server judge all changes without making any.
///
/// # Errors
/// The first that would not be taken, and why. Nothing was changed, whatever it is.
async fn try_out(api: &Api, changes: &[Change], decision: &Decision) -> Result<(), Error> {
    let api = api.dry_run();
    for change in changes {
        // None of them is made: each object stays as it was planned on.
        let tried = change.make(&api, &decision.id, change.object().generation, || Ok(())).await;
        tried.map_err(|e| Error::Refused(format!("{change}: {}", only_tried(e))))?;
    }
    Ok(())
}

/// The same of the way back.
async fn try_back(api: &Api, undo: &[Inverse], decision: &Decision) -> Result<(), Error> {
    let api = api.dry_run();
    for inverse in undo {
        inverse.make(&api, &decision.id).await.map_err(|e| Error::Refused(only_tried(e)))?;
    }
    Ok(())
}

fn only_tried(error: Error) -> String {
    let why = match error {
        Error::Refused(why) => why,
        Error::Failed(e) => format!("{e:#}"),
    };
    format!("tried out first (dryRun=All), which ended so: {why}")
}

/// What was tried out, in words. `stays`: the decision whose hold is not ended. Why is not said: two plans are the same by their words.
fn steps(changes: &[Change], stays: Option<&str>) -> Vec<String> {
    let tried = "tried out beforehand at the API server, which takes it (dryRun=All)".to_owned();
    let stays = stays.map(|hold| {
        format!(
            "the hold by decision {hold} stays, whose end the API server does not take, as the log says: spec.paused false, by hand, \
             lets the next version be rolled out"
        )
    });
    changes.iter().map(Change::to_string).chain([tried]).chain(stays).collect()
}

fn alone() -> Result<String, String> {
    Ok("this guard acts alone: no lease_namespace is set".into())
}

impl Orchestrator for Kubernetes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn knows_runs(&self) -> bool {
        true
    }

    fn cannot_hold(&self) -> Option<String> {
        None
    }

    fn keeps_notes(&self) -> bool {
        true
    }

    fn note<'a>(&'a self, decision: &'a Decision, stage: Stage, detail: &'a str) -> BoxFuture<'a, ()> {
        let kind = match stage {
            Stage::Planned | Stage::Approved | Stage::Verified | Stage::Recovered | Stage::Closed => {
                event::Type::Normal
            }
            Stage::Blocked | Stage::Declined | Stage::NotRecovered | Stage::Reverted => event::Type::Warning,
            // Calls tell by themselves what came of them.
            Stage::Applying | Stage::Applied | Stage::Failed | Stage::Undoing | Stage::Undone => {
                return Box::pin(async {});
            }
        };
        Box::pin(self.tell(decision, kind, (stage.name(), event::reason(stage.name())), detail))
    }

    fn note_verdict<'a>(
        &'a self,
        canary: &'a [Target],
        before: Outcome,
        now: Outcome,
        why: &'a str,
    ) -> BoxFuture<'a, ()> {
        let kind = if now == Outcome::Regressed { event::Type::Warning } else { event::Type::Normal };
        let reason = event::reason(&now.name().replace(' ', "_"));
        let text = format!("canary {} (was {}): {why}", now.name(), before.name());
        Box::pin(self.tell_of(canary, event::Note { kind, action: "verdict", reason, text, node: &self.node }))
    }

    fn leader(&self) -> Result<String, String> {
        self.lease.as_ref().map_or_else(alone, Lease::ask)
    }

    fn standing(&self) -> Result<String, String> {
        self.lease.as_ref().map_or_else(alone, Lease::standing)
    }

    fn heed_pauses(&self, paused: Paused) {
        self.last_look.heed(paused);
    }

    fn describe<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>> {
        Box::pin(self.plan(decision))
    }

    fn apply<'a>(&'a self, decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.apply_and_tell(decision, plan))
    }

    fn state<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<Found>> {
        Box::pin(async { self.found(self.open().await?, decision).await })
    }

    fn undo<'a>(&'a self, decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.undo_and_tell(decision, plan))
    }
}
