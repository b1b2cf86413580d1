//! `canary approve`, `rollback`, `hold` and `undo`: what a person has the running guard do to a canary.

use std::process::ExitCode;

use serde_json::json;

use super::guard::ToGuard;
use crate::http_client::percent_encoded;

const APPROVE_NOTES: &str = "\
Where the configuration says approval = \"required\", a decision is planned and
waits; `canary status` shows its ID. All gates are asked again when it is
approved. No answer within approval_timeout is a no, and these instances are
left alone from then on.
Exit code: 0 approved and begun, 1 not.

Examples:
  canary approve shop-1795000000000-0001";

const ROLLBACK_NOTES: &str = "\
Takes the canary away through the deployment's orchestrator, in any mode and
whatever the verdict. Asked all the same are the gates that protect stable and
the record: pause, owner, incarnation, capacity, rollback_possible, the
journal, leadership.
Exit code: 0 begun, 1 not.

Examples:
  canary rollback shop --reason 'wrong prices'";

const HOLD_NOTES: &str = "\
Sets spec.paused of the canary's Deployment or Rollout, in any mode and
whatever the verdict: the rollout goes no further, and the canary serves on.
It is judged all the while, and may still be rolled back, which ends the hold.
Asked all the same are pause, owner, incarnation, rollback_possible, the
journal, leadership. Only the orchestrator \"kubernetes\" can do that.
Exit code: 0 begun, 1 not.

Examples:
  canary hold shop --reason 'a look at the prices'
  canary undo shop-1795000000000-0001          lets the rollout go on";

const UNDO_NOTES: &str = "\
Applies the inverse that was recorded with the action, where the orchestrator
can do that; else it says how a person gets back. What comes back is left
alone from then on; where a hold is undone, the canary is judged and acted on
as before. Only the hold's own pause is ended. Where a Deployment got its old
template back, the canary's version is rolled out again, to all pods, unless
it was paused before: then it is paused again. Also while the guard is paused.
Exit code: 0 begun, 1 not.

Examples:
  canary undo shop-1795000000000-0001";

/// Let the decision that waits for approval be carried out.
#[derive(Debug, clap::Args)]
#[command(after_help = APPROVE_NOTES)]
pub struct ApproveArgs {
    /// ID of the decision
    pub id: String,
    #[command(flatten)]
    pub guard: ToGuard,
}

/// Take the canary of a deployment away, whatever the verdict.
#[derive(Debug, clap::Args)]
#[command(after_help = ROLLBACK_NOTES)]
pub struct RollbackArgs {
    /// Name of the deployment
    pub deployment: String,
    /// Why, for those who look later [default: none]
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub guard: ToGuard,
}

/// Have the rollout of a deployment stand still; its canary serves on.
#[derive(Debug, clap::Args)]
#[command(after_help = HOLD_NOTES)]
pub struct HoldArgs {
    /// Name of the deployment
    pub deployment: String,
    /// Why, for those who look later [default: none]
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub guard: ToGuard,
}

/// Take an action back, as was recorded with it.
#[derive(Debug, clap::Args)]
#[command(after_help = UNDO_NOTES)]
pub struct UndoArgs {
    /// ID of the decision
    pub id: String,
    #[command(flatten)]
    pub guard: ToGuard,
}

pub fn approve(args: &ApproveArgs) -> anyhow::Result<ExitCode> {
    args.guard.command(&format!("/api/v1/approve/{}", percent_encoded(&args.id)), &json!({}))
}

pub fn rollback(args: &RollbackArgs) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/rollback/{}", percent_encoded(&args.deployment));
    args.guard.command(&path, &json!({ "reason": args.reason }))
}

pub fn hold(args: &HoldArgs) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/hold/{}", percent_encoded(&args.deployment));
    args.guard.command(&path, &json!({ "reason": args.reason }))
}

pub fn undo(args: &UndoArgs) -> anyhow::Result<ExitCode> {
    args.guard.command(&format!("/api/v1/undo/{}", percent_encoded(&args.id)), &json!({}))
}
