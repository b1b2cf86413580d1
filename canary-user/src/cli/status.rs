//! `canary status`: how each deployment stands, and what keeps the guard from acting.

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::{Output, guard::ToGuard};
use crate::{
    control::{Status, nearest, status::DeploymentStatus},
    judge::Outcome,
    watch::units,
};

pub const NOTES: &str = "\
Asks the running guard. Under `blocked by` stands every gate that would keep
it from acting now; where nothing stands there, the next window that condemns
the canary is acted on.
Exit code: 0 told, whatever the verdict; 1 no guard can be reached.

Examples:
  canary status
  canary status shop
  canary status --output json   one object: version, pid, paused, deployments
                                with verdict, blocked_by, decision and hold";

/// Show how each deployment stands: verdict, P(t), evidence, mode, pause, the last decision, and the gates that block.
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
    match args.guard.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status).context("write JSON")?),
        Output::Text => print!("{}", text(&status)),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status) -> String {
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
        text += &format!("\n{}\n{}", deployment.name, lines(deployment));
    }
    text
}

fn lines(d: &DeploymentStatus) -> String {
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
    text
}

fn entry(label: &str, text: &str) -> String {
    format!("  {label:<11} {text}\n")
}
