//! The story as lines, for pipes, logs and CI: at most one line per second and deployment, and one for every change of
//! verdict and every stage of a decision.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
    sync::Arc,
};

use super::{DeploymentView, Snapshot, units};
use crate::{
    guard::Stage,
    judge::{IndicatorState, Outcome, Verdict},
    telemetry::Quality,
};

const SECOND_NS: u64 = 1_000_000_000;

/// Writes lines to `W`; the clock is that of the Snapshots.
#[derive(Debug)]
pub struct PlainView<W> {
    writer: W,
    footer: Vec<String>,
    started_ns: Option<u64>,
    now_ns: u64,
    /// The caution that was last said.
    caution: Option<String>,
    told: BTreeMap<Arc<str>, Told>,
}

/// What was last said about a deployment.
#[derive(Debug, Default)]
struct Told {
    line_ns: Option<u64>,
    outcome: Option<Outcome>,
    decision: Option<(String, Stage)>,
    hold: Option<(String, Stage)>,
}

impl<W: Write> PlainView<W> {
    pub fn new(writer: W) -> Self {
        Self { writer, footer: Vec::new(), started_ns: None, now_ns: 0, caution: None, told: BTreeMap::new() }
    }

    /// Said at the end of each regular line.
    pub fn set_footer(&mut self, footer: Vec<String>) {
        self.footer = footer;
    }

    /// Writes what is new in this Snapshot.
    ///
    /// # Errors
    /// If the writer fails, as a closed pipe does.
    pub fn draw(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.now_ns = snapshot.t_ns;
        self.started_ns.get_or_insert(snapshot.t_ns.saturating_sub(snapshot.span_ns));
        let mut second = false;
        for (name, view) in &snapshot.deployments {
            let told = self.told.entry(name.clone()).or_default();
            let mut lines = told.changes(name, view);
            if told.line_ns.is_none_or(|last| snapshot.t_ns >= last + SECOND_NS) {
                told.line_ns = Some(snapshot.t_ns);
                second = true;
                let footer: String = self.footer.iter().map(|f| format!("; {}", squeeze(f))).collect();
                lines.push(format!("{name}: {}{footer}", state(&view.verdict)));
            }
            for line in lines {
                self.log(&line)?;
            }
        }
        // With the regular lines only: the number of lost events may change with every window.
        let caution = caution(&snapshot.quality);
        if second && caution != self.caution {
            self.log(caution.as_deref().unwrap_or("the data is complete again"))?;
            self.caution = caution;
        }
        Ok(())
    }

    /// Writes a line of its own, stamped with the time since the start.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn log(&mut self, line: &str) -> io::Result<()> {
        let since = self.now_ns.saturating_sub(self.started_ns.unwrap_or(self.now_ns));
        writeln!(self.writer, "{:>7.1} s  {line}", since as f64 / 1e9)?;
        self.writer.flush()
    }
}

impl Told {
    fn changes(&mut self, name: &str, view: &DeploymentView) -> Vec<String> {
        let mut lines = Vec::new();
        let verdict = &view.verdict;
        if self.outcome != Some(verdict.outcome) {
            let mut line = format!("{name}: verdict {}", verdict.outcome.name());
            if let Some(before) = self.outcome {
                let _ = write!(line, " (was {})", before.name());
            }
            if let Some(reason) = verdict.reasons.first() {
                let _ = write!(line, ": {reason}");
            }
            lines.push(line);
            self.outcome = Some(verdict.outcome);
        }
        for (told, latest) in [(&mut self.decision, &view.decision), (&mut self.hold, &view.hold)] {
            let Some(d) = latest else { continue };
            let now = (d.decision.id.clone(), d.stage);
            if told.as_ref() != Some(&now) {
                let action = d.decision.action;
                let mut line = format!("{name}: decision {action} {}", d.stage.name());
                if let Some(gate) = d.decision.held_back_by(d.stage) {
                    let _ = write!(line, " by gate {}: {}", gate.gate, gate.reason);
                } else if !d.detail.is_empty() {
                    let _ = write!(line, ": {}", d.detail);
                }
                lines.push(line);
                *told = Some(now);
            }
        }
        lines
    }
}

/// Without the blanks that align a line in the live view.
fn squeeze(line: &str) -> String {
    line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The verdict, both P(t), the evidence and the indicator that uses most of its margin, in one line.
fn state(verdict: &Verdict) -> String {
    let mut line = format!(
        "{}, P(t) stable {} canary {}, evidence {} of {}",
        verdict.outcome.name(),
        units::p(verdict.p_stable),
        units::p(verdict.p_canary),
        units::evidence(verdict.evidence_ln),
        units::evidence(verdict.threshold_ln),
    );
    if let Some((state, effect, margin)) = most_used(verdict) {
        let title = state.indicator.title();
        let _ = write!(line, ", most: {title} {} (allowed {})", units::change(effect), units::change(margin));
    }
    line
}

/// The indicator whose averaged effect is largest against its margin, with effect and margin.
fn most_used(verdict: &Verdict) -> Option<(&IndicatorState, f64, f64)> {
    verdict
        .indicators
        .iter()
        .filter_map(|i| Some((i, i.effect?, i.margin.filter(|m| *m > 0.0)?)))
        .filter(|(_, effect, _)| effect.is_finite())
        .max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)))
}

/// What is wrong with the data of this tick, in words.
pub(super) fn caution(quality: &Quality) -> Option<String> {
    if quality.lost_events > 0 {
        return Some(match quality.lost_events {
            1 => "1 kernel event was lost in this window: it is not judged".to_owned(),
            n => format!("{n} kernel events were lost in this window: it is not judged"),
        });
    }
    if quality.suspended_ns > 0 {
        return Some("the machine slept in this window: it is not judged".to_owned());
    }
    if quality.targets_without_slot > 0 {
        return Some(match quality.targets_without_slot {
            1 => "1 instance is not counted: all slots are taken".to_owned(),
            n => format!("{n} instances are not counted: all slots are taken"),
        });
    }
    let missing = quality.hooks_missing.first()?;
    let more = match quality.hooks_missing.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    Some(format!("not measured here: {missing}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guard::GateResult, watch::story};

    fn lines(windows: impl Iterator<Item = u64>) -> Vec<String> {
        let mut view = PlainView::new(Vec::new());
        for index in windows {
            view.draw(&story::snapshot(index)).expect("writes to memory");
        }
        String::from_utf8(view.writer).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_line_a_second_and_one_for_each_change() {
        let lines = lines(0..story::WINDOWS);
        let regular = lines.iter().filter(|l| l.contains("P(t)")).count() as u64;
        assert_eq!(regular, story::WINDOWS * story::SPAN_NS / SECOND_NS, "four windows make a second");
        let verdicts: Vec<_> = lines.iter().filter(|l| l.contains(": verdict")).collect();
        assert_eq!(verdicts.len(), 5, "{verdicts:#?}");
        assert!(verdicts[4].contains("verdict regressed (was inconclusive): CPU per turnaround +31 %"));
        let stages: Vec<_> = lines.iter().filter(|l| l.contains("decision rollback")).collect();
        assert_eq!(stages.len(), 4, "{stages:#?}");
        assert!(stages[3].contains("rollback verified: the canary's cgroup is empty"));
        assert!(stages[0].trim_start().starts_with("20.2 s"), "time since the start: {}", stages[0]);
    }

    #[test]
    fn a_regular_line_says_what_uses_most_of_its_margin() {
        let lines = lines(70..71);
        assert!(lines[1].contains("most: CPU per turnaround +3"), "{}", lines[1]);
        assert!(lines[1].contains("of 1\u{202f}000"), "{}", lines[1]);
    }

    #[test]
    fn incomplete_data_is_told_once_and_so_is_its_end() {
        let mut view = PlainView::new(Vec::new());
        view.set_footer(vec!["requests      7 served".to_owned()]);
        for index in 0..16 {
            let mut snapshot = story::snapshot(index);
            snapshot.quality.lost_events = if index < 8 { 3 } else { 0 };
            view.draw(&snapshot).expect("writes to memory");
        }
        let text = String::from_utf8(view.writer).expect("text");
        assert_eq!(text.matches("3 kernel events were lost").count(), 1, "{text}");
        assert_eq!(text.matches("the data is complete again").count(), 1, "{text}");
        assert!(text.contains("; requests 7 served"), "{text}");
    }

    #[test]
    fn a_hold_beside_an_action_is_told_once_at_each_stage() {
        let mut view = PlainView::new(Vec::new());
        for index in story::DECIDED..story::WINDOWS {
            let mut snapshot = story::snapshot(index);
            let deployment = snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
            let mut hold = deployment.decision.clone().expect("decided");
            (hold.decision.action, hold.decision.id) = (crate::guard::Action::Hold, "checkout-hold".to_owned());
            hold.stage = if index < story::DECIDED + 5 { Stage::Applied } else { Stage::Verified };
            deployment.hold = Some(hold);
            view.draw(&snapshot).expect("writes to memory");
        }
        let text = String::from_utf8(view.writer).expect("text");
        for (action, stages) in [("hold", 2), ("rollback", 4)] {
            assert_eq!(text.matches(&format!(": decision {action} ")).count(), stages, "{text}");
        }
    }

    #[test]
    fn a_blocked_decision_names_its_gate() {
        let mut snapshot = story::snapshot(story::DECIDED);
        let view = snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment");
        let d = view.decision.as_mut().expect("decided");
        d.stage = Stage::Blocked;
        d.decision.gates.push(GateResult {
            gate: "pause".into(),
            passed: false,
            reason: "paused by an operator".into(),
        });
        let mut view = PlainView::new(Vec::new());
        view.draw(&snapshot).expect("writes to memory");
        let text = String::from_utf8(view.writer).expect("text");
        assert!(text.contains("decision rollback blocked by gate pause: paused by an operator"), "{text}");
    }

    #[test]
    fn what_was_approved_is_no_longer_held_back() {
        let mut view = PlainView::new(Vec::new());
        let mut snapshot = story::snapshot(story::DECIDED);
        for (stage, detail) in [(Stage::Planned, ""), (Stage::Approved, "by root"), (Stage::Applying, "it is called")] {
            let d = snapshot.deployments.get_mut(story::DEPLOYMENT).and_then(|d| d.decision.as_mut()).expect("decided");
            let reason = "a person has to approve it".to_owned();
            d.decision.gates = vec![GateResult { gate: "approval".into(), passed: false, reason }];
            (d.stage, d.detail) = (stage, detail.to_owned());
            view.draw(&snapshot).expect("writes to memory");
        }
        let text = String::from_utf8(view.writer).expect("text");
        assert!(text.contains("decision rollback planned by gate approval: a person has to approve it"), "{text}");
        for after in ["decision rollback approved: by root", "decision rollback applying: it is called"] {
            assert!(text.contains(after), "no '{after}' in {text}");
        }
    }
}
