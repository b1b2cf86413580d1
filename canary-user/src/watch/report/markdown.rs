//! The report for a chat: short, and without pictures.

use std::fmt::Write as _;

use super::{GONE, Report, data, ending, outcome, since, sure};
use crate::watch::{
    html::{ADVICE, AFTER_THE_FACT, SINCE, STRETCHES, ruled_out},
    units,
};

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let life = report.life;
    let decision = &life.decision;
    let mut text = format!("## {}: {}\n\n", decision.deployment, outcome(life));
    let mut line = |written: std::fmt::Arguments| {
        // Strings take every write.
        let _ = writeln!(text, "{written}");
    };
    line(format_args!("**{}**\n", decision.reason));
    line(format_args!("{}\n", ending(life)));
    match report.evidence {
        None => line(format_args!("{GONE}\n")),
        Some(evidence) => {
            let verdict = &evidence.deployment.verdict;
            line(format_args!("### Verdict: {}\n\n{}", verdict.outcome.name(), sure(evidence)));
            if let Some(since) = since(evidence, life) {
                line(format_args!("{since}"));
            }
            line(format_args!("\n| indicator | stable | canary | difference | allowed | |\n|---|---|---|---|---|---|"));
            for state in &verdict.indicators {
                let value = |v| units::indicator(state.indicator, v);
                let change = |v: Option<f64>| v.map_or(units::MISSING.to_owned(), units::change);
                let proven = if state.confirmed { "proven" } else { state.missing.as_deref().unwrap_or("") };
                line(format_args!(
                    "| {} | {} | {} | {} | {} | {} |",
                    state.indicator.title(),
                    value(state.stable),
                    value(state.canary),
                    change(state.effect),
                    change(state.margin),
                    proven.replace('|', "\\|")
                ));
            }
            line(format_args!("\n### Likely causes\n"));
            for (n, cause) in verdict.causes.iter().enumerate() {
                line(format_args!("{}. **{}**: {}", n + 1, cause.mechanism, cause.text));
            }
            if !verdict.stretches.is_empty() {
                line(format_args!("\n### {STRETCHES}\n"));
            }
            for stretch in &verdict.stretches {
                line(format_args!("- {}", stretch.text));
            }
            let out = ruled_out(verdict);
            if !out.is_empty() {
                line(format_args!("\nRuled out, being no worse than allowed: {}.", out.join(", ")));
            }
            if !verdict.recommendations.is_empty() {
                line(format_args!("\n### {ADVICE}\n"));
            }
            for (n, step) in verdict.recommendations.iter().enumerate() {
                let (name, risk, confidence) = (step.step.name(), step.risk.name(), step.confidence.name());
                line(format_args!("{}. **{name}** (risk {risk}, confidence {confidence}): {}", n + 1, step.because));
                if let Some(command) = &step.command {
                    line(format_args!("   - command: `{command}`"));
                }
                line(format_args!("   - undo: {}", step.undo));
                if !step.would_change.is_empty() {
                    line(format_args!("   - what would change this advice: {}", step.would_change));
                }
            }
            line(format_args!("\n### Counts\n\n| {SINCE} | stable | canary |\n|---|---|---|"));
            for event in &verdict.events {
                let told = |n| if event.missing { "not measured".to_owned() } else { units::count(n) };
                line(format_args!("| {} | {} | {} |", event.event.title(), told(event.stable), told(event.canary)));
            }
            if verdict.hard.is_some() {
                line(format_args!("\n{AFTER_THE_FACT}"));
            }
        }
    }
    line(format_args!("\n### The action's life\n"));
    for stage in &life.stages {
        line(format_args!("- {} **{}** {}", units::when(stage.unix_ms), stage.stage.name(), stage.detail));
    }
    line(format_args!("\n### Gates that were asked\n"));
    for gate in &decision.gates {
        let passed = if gate.passed { "passed" } else { "**blocked**" };
        line(format_args!("- {} {passed}: {}", gate.gate.replace('_', " "), gate.reason));
    }
    line(format_args!("\nWay back: {}", life.plan.inverse.as_deref().unwrap_or("there is none")));
    if let Some(evidence) = report.evidence {
        line(format_args!("\n### Quality of the data\n"));
        data(evidence).iter().for_each(|d| line(format_args!("- {d}")));
    }
    line(format_args!("\n`{}`", decision.id));
    text
}
