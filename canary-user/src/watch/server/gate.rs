//! `/gate`: answers for controllers that run the rollout themselves. Argo Rollouts' web metric reads a result,
//! Flagger's webhooks a status code. What is not known never takes a canary away.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::{Value, json};

use super::{Api, Freshness, freshness, monotonic_ns};
use crate::{
    judge::Outcome,
    watch::{DeploymentView, Snapshot, json::number},
};

/// What Flagger asks with, by the type of its webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Before the canary is scaled up; not 200 waits.
    ConfirmRollout,
    /// At each step of the analysis; not 200 counts as a failed check, and enough of those roll back.
    Rollout,
    /// Before each step of weight, the first one included; not 200 waits.
    ConfirmTrafficIncrease,
    /// Before the promotion; not 200 waits.
    ConfirmPromotion,
    /// While the rollout goes on; 200 rolls back.
    Rollback,
}

impl Hook {
    pub const ALL: [Hook; 5] =
        [Hook::ConfirmRollout, Hook::Rollout, Hook::ConfirmTrafficIncrease, Hook::ConfirmPromotion, Hook::Rollback];

    /// As Flagger writes the type.
    pub fn name(self) -> &'static str {
        match self {
            Hook::ConfirmRollout => "confirm-rollout",
            Hook::Rollout => "rollout",
            Hook::ConfirmTrafficIncrease => "confirm-traffic-increase",
            Hook::ConfirmPromotion => "confirm-promotion",
            Hook::Rollback => "rollback",
        }
    }
}

/// What is known about the canary, as far as someone else's next step depends on it.
enum Standing<'a> {
    /// No window of this deployment, or none lately, in words.
    Unknown(String),
    Seen(&'a DeploymentView),
}

impl<'a> Standing<'a> {
    fn of(snapshot: &'a Snapshot, deployment: &str, freshness: Freshness) -> Self {
        match (freshness, snapshot.deployments.get(deployment)) {
            (Freshness::Fresh { .. }, Some(view)) => Self::Seen(view),
            (Freshness::Fresh { .. }, None) => {
                let known: Vec<&str> = snapshot.deployments.keys().map(|name| &**name).collect();
                Self::Unknown(format!("no deployment '{deployment}' is watched here; watched: {}", known.join(", ")))
            }
            (other, _) => Self::Unknown(other.answer().1.trim_end().to_owned()),
        }
    }

    /// Whether the canary should go on, be taken away, or neither is known; and why.
    fn result(&self) -> (&'static str, String) {
        let view = match self {
            Self::Unknown(why) => return (INCONCLUSIVE, why.clone()),
            Self::Seen(view) => view,
        };
        let reason = view.verdict.reasons.first().cloned().unwrap_or_else(|| view.verdict.outcome.name().to_owned());
        match view.verdict.outcome {
            Outcome::Healthy => (SUCCESSFUL, reason),
            Outcome::InsufficientData | Outcome::Inconclusive => (INCONCLUSIVE, reason),
            Outcome::Regressed if view.advice.condemns() => (FAILED, reason),
            Outcome::Regressed => match view.advice.objection() {
                Some(gate) => (INCONCLUSIVE, format!("{reason}; but {}: {}", gate.gate, gate.reason)),
                None => (INCONCLUSIVE, format!("{reason}; not confirmed yet")),
            },
        }
    }
}

const SUCCESSFUL: &str = "successful";
const FAILED: &str = "failed";
const INCONCLUSIVE: &str = "inconclusive";

/// `GET /gate/<deployment>`: 200 in every case, for Argo Rollouts takes other codes for failures of its own that end in
/// an abort.
pub(super) async fn metric(State(api): State<Api>, Path(deployment): Path<String>) -> Json<Value> {
    let snapshot = api.snapshots.borrow().clone();
    Json(measure(&snapshot, &deployment, freshness(&snapshot, monotonic_ns())))
}

/// `POST /gate/<deployment>/<hook>`: 200 or not, with the reason as text.
pub(super) async fn hook(
    State(api): State<Api>,
    Path((deployment, hook)): Path<(String, String)>,
) -> (StatusCode, String) {
    let Some(hook) = Hook::ALL.into_iter().find(|h| h.name() == hook) else {
        let known = Hook::ALL.map(Hook::name).join(", ");
        return (StatusCode::NOT_FOUND, format!("no hook '{hook}' is answered here; there are {known}\n"));
    };
    let snapshot: Arc<Snapshot> = api.snapshots.borrow().clone();
    let (go, why) = answer(hook, &snapshot, &deployment, freshness(&snapshot, monotonic_ns()));
    (if go { StatusCode::OK } else { StatusCode::FORBIDDEN }, format!("{why}\n"))
}

/// Flagger sends POST to the address it is given. One without a hook could only be answered alike for all of them, and
/// what lets a promotion go on would roll back.
pub(super) async fn hook_is_missing(Path(deployment): Path<String>) -> (StatusCode, String) {
    let known = Hook::ALL.map(|h| format!("/gate/{deployment}/{}", h.name())).join(", ");
    (StatusCode::METHOD_NOT_ALLOWED, format!("name the hook: {known}\n"))
}

pub(super) fn measure(snapshot: &Snapshot, deployment: &str, freshness: Freshness) -> Value {
    let standing = Standing::of(snapshot, deployment, freshness);
    let (result, reason) = standing.result();
    let verdict = match standing {
        Standing::Seen(view) => Some(&view.verdict),
        Standing::Unknown(_) => None,
    };
    json!({
        "deployment": deployment,
        "result": result,
        "reason": reason,
        "verdict": verdict.map(|v| v.outcome),
        "evidence_ln": number(verdict.map(|v| v.evidence_ln)),
        "threshold_ln": number(verdict.map(|v| v.threshold_ln)),
        "window": verdict.map(|v| v.window),
        "unix_ms": verdict.map(|_| snapshot.unix_ms),
    })
}

/// Whether the answer is 200, and why.
pub(super) fn answer(hook: Hook, snapshot: &Snapshot, deployment: &str, freshness: Freshness) -> (bool, String) {
    let standing = Standing::of(snapshot, deployment, freshness);
    let (result, reason) = standing.result();
    let said = format!("{result}: {reason}");
    match (hook, standing) {
        (Hook::Rollback, _) => (result == FAILED, said),
        (Hook::Rollout, _) => (result != FAILED, said),
        (Hook::ConfirmPromotion, _) => (result == SUCCESSFUL, said),
        (Hook::ConfirmRollout | Hook::ConfirmTrafficIncrease, Standing::Unknown(why)) => (false, why),
        (Hook::ConfirmRollout, Standing::Seen(view)) => match view.advice.stable_instances {
            0 => (false, "no instance of stable is there to compare a canary with".to_owned()),
            n => (true, format!("watching: a canary will be compared with {n} of stable")),
        },
        (Hook::ConfirmTrafficIncrease, Standing::Seen(view)) => {
            match (view.advice.canary_served, view.verdict.healthy_at_load) {
                // It takes requests to be judged: the first step of weight has to come before any verdict.
                (Some(false), _) if result == INCONCLUSIVE => {
                    (true, "the canary had no request yet to be judged by".to_owned())
                }
                // And more of them to be called healthy at more.
                (_, Some(_)) => (true, format!("healthy at the load that it has: {said}")),
                (_, None) => (result == SUCCESSFUL, said),
            }
        }
    }
}

#[cfg(test)]
mod snippets;
#[cfg(test)]
mod tests;
