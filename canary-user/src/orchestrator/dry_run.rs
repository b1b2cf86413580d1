//! The default backend: says what it would do and does nothing.

use super::{BoxFuture, Error, Found, Orchestrator, Plan, State};
use crate::guard::{Action, Decision};

/// Says what it would do and does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct DryRun;

/// The name by which the guard knows that nothing is to be journalled as done.
pub const NAME: &str = "dry-run";

/// How the end of a decision begins that would have been carried out.
pub const SAID: &str = "dry run, nothing was done";

impl Orchestrator for DryRun {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cannot_hold(&self) -> Option<String> {
        None
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
        let inverse = Some(way_back(decision));
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

    fn undo<'a>(&'a self, decision: &'a Decision, _plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        let why = format!("there is nothing to undo: {}", way_back(decision));
        Box::pin(async { Err(Error::refused(why)) })
    }
}

/// What an undo would do, had anything been done.
fn way_back(decision: &Decision) -> String {
    let verb = match decision.action {
        Action::Hold => "no longer hold",
        Action::Quarantine => "give its resources back to",
        Action::Drain | Action::Rollback => "start again",
        Action::Promote => "take back the promotion of",
    };
    let canary = decision.canary.iter().map(|t| format!("{} {} in {}", t.deployment, t.version, t.cgroup));
    let canary: Vec<String> = canary.collect();
    format!("a dry run changes nothing; an undo would {verb} {}", canary.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        orchestrator::decided,
        targets::{Role, Target},
    };

    fn decision(action: Action) -> Decision {
        let canary = |cgroup: &str| Target {
            deployment: "shop".into(),
            role: Role::Canary,
            version: "v2".into(),
            cgroup: cgroup.into(),
            incarnation: 7,
            identity: None,
        };
        decided::decision(action, vec![canary("/shop/a"), canary("/shop/b")], Vec::new())
    }

    #[tokio::test]
    async fn each_action_is_described_with_its_way_back() {
        for (action, step, undo) in [
            (Action::Hold, "would hold shop v2 in /shop/a (incarnation 7)", "no longer hold"),
            (
                Action::Quarantine,
                "would take resources from shop v2 in /shop/a (incarnation 7)",
                "give its resources back to",
            ),
            (Action::Drain, "would drain and stop shop v2 in /shop/a (incarnation 7)", "start again"),
            (Action::Rollback, "would roll back shop v2 in /shop/a (incarnation 7)", "start again"),
            (Action::Promote, "would promote shop v2 in /shop/a (incarnation 7)", "take back the promotion of"),
        ] {
            let decision = decision(action);
            let plan = DryRun.describe(&decision).await.expect("a plan");
            assert_eq!((plan.steps.len(), plan.steps[0].as_str()), (2, step));
            let words =
                format!("a dry run changes nothing; an undo would {undo} shop v2 in /shop/a, shop v2 in /shop/b");
            assert_eq!(plan.inverse.as_deref(), Some(words.as_str()));
            assert_eq!(plan.undo, None, "the guard has nothing to apply");
            let error = DryRun.undo(&decision, &plan).await.expect_err("nothing was done");
            assert!(matches!(&error, Error::Refused(why) if why.ends_with(&words)), "{error}");
        }
    }
}
