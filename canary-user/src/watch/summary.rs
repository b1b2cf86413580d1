//! The end of a run, told as a short text: what was seen, by how much, since when, the likely cause, what was done about
//! it and how that was verified, and that the service went on.

use std::fmt::Write as _;

use super::{DecisionView, DeploymentView, Snapshot, text::wrap, units};
use crate::{
    guard::Stage,
    judge::{Cause, IndicatorState, Outcome, Recommendation, Verdict},
};

/// Requests as the clients of the service counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub served: u64,
    pub failed: u64,
}

/// The service around the guard's action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTotals {
    pub before: Traffic,
    pub during: Traffic,
    pub after: Traffic,
}

/// What a run leaves behind about one deployment.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub deployment: &'a str,
    pub last: &'a Snapshot,
    /// Every stage of every decision, in order of time.
    pub decisions: &'a [DecisionView],
    /// `None` where no one counted.
    pub service: Option<ServiceTotals>,
}

/// Columns of a line, and of the label at its left.
const WIDTH: usize = 80;
const LABEL: usize = 14;

/// The summary as lines of at most 80 columns, each ending in a newline.
pub fn render(run: &Run<'_>) -> String {
    let Some(view) = run.last.deployments.get(run.deployment) else {
        return format!("{}: nothing was seen of this deployment\n", run.deployment);
    };
    let verdict = &view.verdict;
    let reasons: Vec<String> = verdict.reasons.iter().take(3).cloned().collect();
    let mut text = String::new();
    block(&mut text, "Deployment", &[deployment(run, view)]);
    block(&mut text, "Verdict", &[outcome(verdict)]);
    block(&mut text, "Because", &reasons);
    if verdict.outcome == Outcome::Regressed {
        block(&mut text, "Changed", &changed(verdict));
        block(&mut text, "Since", since(run, view).as_slice());
        block(&mut text, "Likely cause", &causes(verdict, &reasons));
    }
    let advice: Vec<String> = verdict.recommendations.iter().take(2).map(|r| advice(r, verdict)).collect();
    block(&mut text, "Advice", &advice);
    block(&mut text, "Action", &actions(run, &reasons));
    block(&mut text, "Service", &run.service.as_ref().map_or_else(Vec::new, service));
    text
}

/// One labelled entry in the form of the summary, for those who add to it.
pub fn entry(label: &str, text: &str) -> String {
    let mut entry = String::new();
    block(&mut entry, label, &[text.to_owned()]);
    entry
}

/// Entries under one label; the second line of an entry is indented. Nothing where there is no entry.
fn block(text: &mut String, label: &str, entries: &[String]) {
    for (i, entry) in entries.iter().enumerate() {
        for (j, line) in wrap(entry, WIDTH - LABEL - 2).iter().enumerate() {
            let label = if i == 0 && j == 0 { label } else { "" };
            let indent = if j == 0 { "" } else { "  " };
            // Strings take every write.
            let _ = writeln!(text, "{label:<LABEL$}{indent}{line}");
        }
    }
}

/// Mechanisms, each with the numbers that speak for it unless they were told already.
fn causes(verdict: &Verdict, told: &[String]) -> Vec<String> {
    let cause = |c: &Cause| {
        if told.iter().any(|t| t.contains(&c.text)) {
            c.mechanism.clone()
        } else {
            format!("{}: {}", c.mechanism, c.text)
        }
    };
    verdict.causes.iter().take(3).map(cause).collect()
}

/// A step with its command; its reason only where it is not one of the causes told above.
fn advice(step: &Recommendation, verdict: &Verdict) -> String {
    let (risk, confidence) = (step.risk.name(), step.confidence.name());
    let mut text = format!("{} (risk {risk}, confidence {confidence})", step.step.name());
    let told = verdict.causes.iter().any(|c| step.because.contains(&c.text)) || verdict.reasons.contains(&step.because);
    if !told && !step.because.is_empty() {
        let _ = write!(text, ": {}", step.because);
    }
    if let Some(command) = &step.command {
        let _ = write!(text, ": {command}");
    }
    text
}

fn deployment(run: &Run<'_>, view: &DeploymentView) -> String {
    let mut versions: Vec<String> =
        view.samples.iter().map(|s| format!("{} {}", s.target.role, s.target.version)).collect();
    // The canary may be gone by now: the decision still knows it.
    versions.extend(
        run.decisions
            .iter()
            .flat_map(|d| &d.decision.canary)
            .map(|target| format!("{} {}", target.role, target.version)),
    );
    versions.sort();
    versions.dedup();
    let windows = view.verdict.judged_windows;
    format!(
        "{}: {}; mode {}, {} {} of the canary judged",
        run.deployment,
        versions.join(", "),
        view.mode,
        units::count(windows),
        if windows == 1 { "window" } else { "windows" },
    )
}

fn outcome(verdict: &Verdict) -> String {
    let (evidence, threshold) = (units::evidence(verdict.evidence_ln), units::evidence(verdict.threshold_ln));
    let word = verdict.outcome.name().to_uppercase();
    match verdict.hard {
        Some(fact) => {
            let fact = match fact {
                crate::judge::HardFact::OomKill => "the canary ran out of memory and was killed",
                crate::judge::HardFact::CrashLoop => "the canary keeps crashing",
                crate::judge::HardFact::Silent => "the canary is silent while stable is not",
            };
            format!("{word}: {fact} (a rule, whatever the evidence; that is {evidence} of {threshold})")
        }
        None => format!("{word}, evidence {evidence} of {threshold} needed to call it worse"),
    }
}

/// Indicators with evidence of their own, or beyond their margin as a whole interval; the largest change first.
fn changed(verdict: &Verdict) -> Vec<String> {
    let mut changed: Vec<(&IndicatorState, f64)> = verdict
        .indicators
        .iter()
        .filter(|i| i.confirmed || i.effect_low.zip(i.margin).is_some_and(|(low, margin)| low > margin))
        .filter_map(|i| Some((i, i.effect.filter(|e| e.is_finite())?)))
        .collect();
    changed.sort_by(|a, b| b.1.total_cmp(&a.1));
    changed
        .iter()
        .map(|(i, effect)| {
            let mut line = format!("{} {}", i.indicator.title(), units::change(*effect));
            if let Some((low, high)) = i.effect_low.zip(i.effect_high) {
                let _ = write!(line, " ({} to {})", units::change(low), units::change(high));
            }
            if let Some(margin) = i.margin {
                let _ = write!(line, ", {} allowed", units::change(margin));
            }
            if let Some((stable, canary)) = i.stable.zip(i.canary) {
                let value = |v| units::indicator(i.indicator, Some(v));
                let _ = write!(line, ": stable {}, canary {}", value(stable), value(canary));
            }
            line
        })
        .collect()
}

fn since(run: &Run<'_>, view: &DeploymentView) -> Option<String> {
    let onset = view.verdict.onset?;
    let decided = run.decisions.first().map(|d| d.decision.window);
    let until = decided.unwrap_or(view.window.index);
    let ns = until.checked_sub(onset)? as f64 * view.window.span_ns as f64;
    let until = if decided.is_some() { "before the decision" } else { "before the end" };
    Some(format!("window {}, {} {until}", units::count(onset), units::duration_ns(ns)))
}

/// One line per decision, and one per stage that it went through.
fn actions(run: &Run<'_>, told: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut known: Option<(&str, u64)> = None;
    for view in run.decisions {
        let decision = &view.decision;
        let first_ns = match known {
            Some((id, first_ns)) if id == decision.id => first_ns,
            _ => {
                let why = if told.iter().any(|t| t.contains(&decision.reason)) {
                    String::new()
                } else {
                    format!(": {}", decision.reason)
                };
                lines.push(format!("{} decided in window {}{why}", decision.action, units::count(decision.window)));
                known = Some((&decision.id, view.t_ns));
                view.t_ns
            }
        };
        let after = format!("{:+.1} s", view.t_ns.saturating_sub(first_ns) as f64 / 1e9);
        lines.push(match (view.stage, decision.blocked_by()) {
            (Stage::Blocked, Some(gate)) => format!("not done, gate {} blocked it: {}", gate.gate, gate.reason),
            (stage, _) => format!("{after} {}: {}", stage.name(), view.detail),
        });
    }
    if lines.is_empty() { vec!["none".to_owned()] } else { lines }
}

fn service(totals: &ServiceTotals) -> Vec<String> {
    let phases = [
        ("before the action", totals.before),
        ("during the action", totals.during),
        ("after the action", totals.after),
    ];
    let mut lines: Vec<String> = phases
        .iter()
        .filter(|(_, t)| t.served + t.failed > 0)
        .map(|(name, t)| {
            format!("{name:<17} {:>9} requests served, {} failed", units::count(t.served), units::count(t.failed))
        })
        .collect();
    let (served, failed) = phases.iter().fold((0, 0), |(s, f), (_, t)| (s + t.served, f + t.failed));
    lines.push(if served + failed == 0 {
        "no request was counted".to_owned()
    } else if totals.after.served == 0 {
        "nothing was served after the action".to_owned()
    } else if failed == 0 {
        "no request failed".to_owned()
    } else {
        format!("{} of all requests failed", units::share(failed as f64 / (served + failed) as f64))
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guard::GateResult, watch::story};

    fn history(snapshot: &Snapshot) -> DecisionView {
        snapshot.deployments[story::DEPLOYMENT].decision.clone().expect("decided")
    }

    #[test]
    fn a_rollback_is_told_from_cause_to_proof() {
        let decisions: Vec<_> = [0, 2, 4, 8].map(|i| history(&story::snapshot(story::DECIDED + i))).to_vec();
        let last = story::snapshot(story::WINDOWS - 1);
        let service = Some(ServiceTotals {
            before: Traffic { served: 120_000, failed: 0 },
            during: Traffic { served: 6_000, failed: 0 },
            after: Traffic { served: 30_000, failed: 0 },
        });
        let text = render(&Run { deployment: story::DEPLOYMENT, last: &last, decisions: &decisions, service });
        for part in [
            "checkout: canary v1.5.0, stable v1.4.2; mode rollback",
            "REGRESSED, evidence 4\u{202f}024 of 1\u{202f}000",
            "CPU per turnaround +3",
            "window 60, 5.00 s before the decision",
            "Likely cause",
            "more work per request",
            "rollback decided in window 80",
            "+2.0 s verified: the canary's cgroup is empty",
            "no request failed",
        ] {
            assert!(text.contains(part), "'{part}' is missing in\n{text}");
        }
        assert_eq!(text.matches("27 to 36").count(), 1, "said once:\n{text}");
        assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn a_blocked_decision_and_a_broken_service_are_told_as_such() {
        let mut blocked = history(&story::snapshot(story::DECIDED));
        blocked.stage = Stage::Blocked;
        let reason = "mode is observe".to_owned();
        blocked.decision.gates = vec![GateResult { gate: "mode".to_owned(), passed: false, reason }];
        let last = story::snapshot(story::DECIDED);
        let service = Some(ServiceTotals { before: Traffic { served: 900, failed: 100 }, ..ServiceTotals::default() });
        let text = render(&Run { deployment: story::DEPLOYMENT, last: &last, decisions: &[blocked], service });
        assert!(text.contains("not done, gate mode blocked it: mode is observe"), "{text}");
        assert!(text.contains("nothing was served after the action"), "{text}");
    }

    #[test]
    fn a_healthy_run_claims_no_cause_and_no_action() {
        let last = story::snapshot(50);
        let text = render(&Run { deployment: story::DEPLOYMENT, last: &last, decisions: &[], service: None });
        assert!(text.contains("HEALTHY") && text.contains("Action        none"), "{text}");
        assert!(!text.contains("Likely cause") && !text.contains("Changed") && !text.contains("Service"), "{text}");
        let text = render(&Run { deployment: "other", last: &last, decisions: &[], service: None });
        assert_eq!(text, "other: nothing was seen of this deployment\n");
    }
}
