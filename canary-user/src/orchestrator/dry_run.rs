//! The default backend: says what it would do and does nothing.

use anyhow::Result;

use super::{BoxFuture, Orchestrator, Plan, State};
use crate::guard::{Action, Decision};

/// Says what it would do and does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct DryRun;

/// The name by which the guard knows that nothing is to be journalled as done.
pub const NAME: &str = "dry-run";

impl Orchestrator for DryRun {
    fn name(&self) -> &'static str {
        NAME
    }

    fn plan(&self, decision: &Decision) -> Plan {
        let verb = match decision.action {
            Action::Hold => "hold",
            Action::Quarantine => "take resources from",
            Action::Drain => "drain and stop",
            Action::Rollback => "roll back",
            Action::Promote => "promote",
        };
        let steps = decision
            .canary
            .iter()
            .map(|t| {
                format!("would {verb} {} {} in {} (incarnation {})", t.deployment, t.version, t.cgroup, t.incarnation)
            })
            .collect();
        Plan { orchestrator: NAME.into(), steps, inverse: Some("nothing to undo: a dry run changes nothing".into()) }
    }

    fn apply<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for step in self.plan(decision).steps {
                tracing::info!(decision = %decision.id, "dry run: {step}");
            }
            Ok(())
        })
    }

    fn state<'a>(&'a self, _decision: &'a Decision) -> BoxFuture<'a, Result<State>> {
        Box::pin(async { Ok(State::NotInEffect) })
    }
}
