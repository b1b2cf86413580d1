//! The default backend: says what it would do and does nothing.

use super::{BoxFuture, Error, Found, Orchestrator, Plan, State};
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

    fn describe<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>> {
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
        let inverse = Some("nothing to undo: a dry run changes nothing".into());
        Box::pin(async { Ok(Plan { orchestrator: NAME.into(), steps, inverse, ..Plan::default() }) })
    }

    fn apply<'a>(&'a self, decision: &'a Decision, plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            for step in &plan.steps {
                tracing::info!(decision = %decision.id, "dry run: {step}");
            }
            Ok(())
        })
    }

    fn state<'a>(&'a self, _decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<Found>> {
        let detail = "a dry run changes nothing".into();
        Box::pin(async { Ok(Found { state: State::NotInEffect, detail }) })
    }

    fn undo<'a>(&'a self, _decision: &'a Decision, _plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Err(Error::refused("a dry run changed nothing: there is nothing to undo")) })
    }
}
