//! `canary status`: how each deployment stands, and what keeps the guard from acting.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Output, guard::ToGuard};
use crate::{
    control::{Status, nearest, status::DeploymentStatus},
    judge::Outcome,
    watch::{api::NextStep, units},
};

pub const NOTES: &str = "\
Asks the running guard. Under `blocked by` stands every gate that would keep
it from acting now; where nothing stands there, the next window that condemns
the canary is acted on. Under `next` stands what to do, as on the page.
Exit code: 0 told, whatever the verdict; 1 no guard can be reached.

Examples:
  canary status
  canary status shop
  canary status --output json   one object: version, pid, paused, deployments
                                with verdict, blocked_by, decision, hold, next";

/// Show how each deployment stands: verdict, P(t), evidence, mode, pause, the last decision, the gates that block, and what
/// to do next.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Only this deployment [default: all]
    pub deployment: Option<String>,
    #[command(flatten)]
    pub guard: ToGuard,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut status = args.guard.status()?;
    if let Some(name) = &args.deployment {
        if !status.deployments.iter().any(|d| *d.name == **name) {
            let known = status.deployments.iter().map(|d| &*d.name);
            bail!("there is no deployment '{name}': {}", nearest(name, known));
        }
        status.deployments.retain(|d| *d.name == **name);
    }
    let next = args.guard.next().unwrap_or_else(|error| {
        tracing::warn!("what to do next is not told: {error:#}");
        Vec::new()
    });
    match args.guard.output {
        Output::Json => println!("{}", object(&status, &next)?),
        Output::Text => print!("{}", text(&status, &next)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do about a deployment; `None` where the guard did not say.
fn of<'a>(next: &'a [NextStep], deployment: &str) -> Option<&'a NextStep> {
    next.iter().find(|step| step.deployment == deployment)
}

fn object(status: &Status, next: &[NextStep]) -> anyhow::Result<String> {
    let mut whole = serde_json::to_value(status).context("write JSON")?;
    for (i, deployment) in status.deployments.iter().enumerate() {
        let step = of(next, &deployment.name);
        whole["deployments"][i]["next"] =
            json!(step.map(|s| json!({ "what": s.what, "why": s.why, "commands": s.commands })));
    }
    serde_json::to_string_pretty(&whole).context("write JSON")
}

fn text(status: &Status, next: &[NextStep]) -> String {
    let window = units::duration_ns(status.span_ns as f64);
    let mut text = format!("canary {}, process {}, windows of {window}\n", status.version, status.pid);
    if let Some(why) = &status.paused {
        text += &entry("paused", why);
    }
    if let Some(why) = &status.journal_failure {
        text += &entry(
            "journal",
            &format!("cannot be relied on, nothing is begun until the guard is started again: {why}"),
        );
    }
    for deployment in &status.deployments {
        text += &format!("\n{}\n{}", deployment.name, lines(deployment, of(next, &deployment.name)));
    }
    text
}

fn lines(d: &DeploymentStatus, next: Option<&NextStep>) -> String {
    let reason = d.reasons.first().map_or(String::new(), |reason| format!(": {reason}"));
    let instances = |n: usize| if n == 1 { "1 instance".to_owned() } else { format!("{n} instances") };
    let mut text = entry("mode", &format!("{}, orchestrator {}", d.mode, d.orchestrator));
    text +=
        &entry("runs", &format!("stable {}, canary {}", instances(d.stable_instances), instances(d.canary_instances)));
    text += &entry("verdict", &format!("{}{reason}", d.verdict.name()));
    text += &entry("P(t)", &format!("stable {}, canary {}", units::p(d.p_stable), units::p(d.p_canary)));
    let evidence = d.evidence_ln.map_or("none".to_owned(), units::evidence);
    // A fact condemns whatever the evidence is, and a verdict stands whatever is seen since.
    let condemned = d.verdict == Outcome::Regressed && d.evidence_ln.is_none_or(|ln| ln < d.threshold_ln);
    let about = if condemned { "by now; it stands condemned, whatever that is" } else { "needed to call it worse" };
    text += &entry("evidence", &format!("{evidence} of {} {about}", units::evidence(d.threshold_ln)));
    if let Some(pause) = &d.paused {
        text += &entry("paused", &pause.to_string());
    }
    for (label, told) in [("decision", &d.decision), ("hold", &d.hold)] {
        let Some(decision) = told else { continue };
        text += &entry(label, &format!("{} {}: {}", decision.action, decision.stage.name(), decision.detail));
        text += &entry("", &format!("because {}", decision.reason));
        text += &entry("", &format!("`canary explain {}`", decision.id));
    }
    match d.blocked_by.split_first() {
        None => text += &entry("blocked by", "nothing"),
        Some((first, others)) => {
            text += &entry("blocked by", &format!("{}: {}", first.gate, first.reason));
            for gate in others {
                text += &entry("", &format!("{}: {}", gate.gate, gate.reason));
            }
        }
    }
    if let Some(next) = next {
        text += &entry("next", &next.what);
        let why = Some(&next.why).filter(|why| !why.is_empty());
        for line in why.into_iter().chain(&next.commands) {
            text += &entry("", line);
        }
    }
    text
}

fn entry(label: &str, text: &str) -> String {
    format!("  {label:<11} {text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{GateResult, Mode};

    fn status() -> Status {
        let gate = GateResult { gate: "mode".into(), passed: false, reason: "mode is observe".into() };
        let shop = DeploymentStatus {
            name: "shop".into(),
            mode: Mode::Observe,
            orchestrator: "dry-run".into(),
            stable_instances: 2,
            canary_instances: 1,
            verdict: Outcome::Regressed,
            reasons: vec!["CPU per turnaround +31 %".into()],
            p_stable: Some(0.0),
            p_canary: Some(1.5),
            evidence_ln: Some(9.0),
            threshold_ln: 6.9,
            paused: None,
            blocked_by: vec![gate],
            decision: None,
            hold: None,
        };
        Status {
            version: "0.1.0".into(),
            pid: 7,
            unix_ms: 1_800_000_000_000,
            span_ns: 1_000_000_000,
            paused: None,
            journal_failure: None,
            deployments: vec![shop.clone(), DeploymentStatus { name: "cart".into(), ..shop }],
        }
    }

    fn step() -> NextStep {
        NextStep {
            deployment: "shop".into(),
            what: "Take the canary back".into(),
            why: "The guard may not do it in this mode.".into(),
            commands: vec!["systemctl stop 'shop-canary-1.service'".into()],
        }
    }

    #[test]
    fn what_to_do_next_stands_below_what_blocks_with_its_command() {
        let text = text(&status(), &[step()]);
        let told = "  blocked by  mode: mode is observe\n  next        Take the canary back\n              \
                    The guard may not do it in this mode.\n              systemctl stop 'shop-canary-1.service'\n";
        assert!(text.contains(told), "{text}");
        assert_eq!(text.matches("  next  ").count(), 1, "nothing is known of the other: {text}");
    }

    #[test]
    fn json_has_what_to_do_next_and_null_where_it_is_not_known() {
        let whole: serde_json::Value =
            serde_json::from_str(&object(&status(), &[step()]).expect("JSON")).expect("JSON");
        let [shop, cart] = [0_usize, 1].map(|i| &whole["deployments"][i]);
        assert_eq!((&shop["name"], &shop["verdict"]), (&json!("shop"), &json!("regressed")));
        assert_eq!(shop["next"]["what"], "Take the canary back");
        assert_eq!(shop["next"]["commands"][0], "systemctl stop 'shop-canary-1.service'");
        assert!(cart["next"].is_null() && cart.get("next").is_some(), "{cart}");
    }
}
