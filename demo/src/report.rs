//! The end of a run: what happened, whether it was what the scenario calls for, as text or JSON.

use std::{io::Write, time::Duration};

use anyhow::Context;
use canary_user::{
    guard::{Mode, Stage},
    judge::Outcome,
    targets::Role,
    watch::{
        json,
        summary::{self, Run, ServiceTotals, Traffic},
    },
};
use serde_json::json;

use crate::{
    fleet::Instance,
    load::{self, InstanceTotals, Phase},
    observer::Seen,
    orchestrator::Kind,
    run::{self, Output},
    scenario::{Expected, Scenario, TimeLine},
};

const DEPLOYMENT: &str = "demo";
/// Windows of the canary, after its warm-up, that a run must have judged before "healthy" is demanded of it.
const HEALTHY_AFTER: u64 = 400;

/// Windows since the onset that a run must have seen before a sign of what is around the canary is demanded of it.
const SIGNS_AFTER: u64 = 50;

/// What the demo knows of its own run.
pub struct Report {
    pub scenario: Scenario,
    pub severity: f64,
    pub orchestrator: Kind,
    pub mode: Mode,
    pub expected: Expected,
    pub time_line: TimeLine,
    pub window: Duration,
    /// Whether a signal ended the run before its time.
    pub interrupted: bool,
    pub instances: Vec<Instance>,
    pub load: Vec<InstanceTotals>,
}

impl Report {
    /// Prints it; true where the guard did what the scenario calls for.
    pub fn print(&self, seen: &Seen, output: Output) -> anyhow::Result<bool> {
        let judged = self.judge(seen);
        let mut out = std::io::stdout().lock();
        match output {
            Output::Json => writeln!(out, "{}", self.object(seen, &judged)?)?,
            Output::Text => self.text(seen, &judged, &mut out)?,
        }
        out.flush().context("print the summary")?;
        Ok(judged.is_ok())
    }

    /// In words, what was right, or what was wrong.
    fn judge(&self, seen: &Seen) -> Result<String, String> {
        if self.interrupted {
            return Err("the run was interrupted before its end".into());
        }
        let begun = |stage: Stage| seen.decisions.iter().any(|d| d.stage == stage);
        let acted = begun(Stage::Planned) || begun(Stage::Applying);
        let right = match self.expected {
            Expected::StayQuiet if acted => Err("the guard acted although the canary was not to blame".into()),
            Expected::StayQuiet => self.quiet(seen),
            Expected::RollBack => self.rolled_back(seen, acted),
        }?;
        self.signs(seen)?;
        Ok(right)
    }

    /// Whether what is around the canary was seen.
    fn signs(&self, seen: &Seen) -> Result<(), String> {
        let wanted = self.scenario.signs();
        let since_ns = seen.onset_ns.map_or(0, |onset_ns| seen.last.t_ns.saturating_sub(onset_ns));
        let long_enough = u128::from(since_ns) >= u128::from(SIGNS_AFTER) * self.window.as_nanos();
        if wanted.is_empty() || !long_enough || wanted.iter().any(|kind| seen.signs.contains(kind)) {
            return Ok(());
        }
        Err(match self.scenario.limits_cpu() {
            true => "the judge did not see that the CPU limit holds the canary back".into(),
            false => "the judge saw no neighbour: was the machine as busy before it came?".into(),
        })
    }

    fn quiet(&self, seen: &Seen) -> Result<String, String> {
        let Some(view) = seen.last.deployments.get(DEPLOYMENT) else { return Err("the guard saw nothing".into()) };
        let outcome = view.verdict.outcome;
        let long_enough = view.verdict.judged_windows >= HEALTHY_AFTER;
        if self.scenario == Scenario::Healthy && long_enough && outcome != Outcome::Healthy {
            return Err(format!("the canary is healthy, and the verdict is {}", outcome.name()));
        }
        Ok(format!("nothing was done to the canary, as it should be; verdict: {}", outcome.name()))
    }

    fn rolled_back(&self, seen: &Seen, acted: bool) -> Result<String, String> {
        let Some(first) = seen.decisions.first() else { return Err("the guard did not see the regression".into()) };
        let (Some(onset_ns), Some(windows)) = (seen.onset_ns, seen.windows_to_decide) else {
            return Err("the guard condemned the canary before anything went wrong".into());
        };
        if first.t_ns < onset_ns {
            return Err("the guard condemned the canary before anything went wrong".into());
        }
        if matches!(self.mode, Mode::Observe | Mode::Advise) {
            return match acted {
                true => Err(format!("the guard acted in mode {}", self.mode)),
                false => Ok(format!("seen {windows:.0} windows after the onset; mode {} does nothing", self.mode)),
            };
        }
        let last = seen.decisions.last().unwrap_or(first);
        if !matches!(last.stage, Stage::Verified | Stage::Recovered) {
            return Err(format!("the action is {}: {}", last.stage.name(), last.detail));
        }
        let after = load::sum(&self.load, Role::Stable, Some(Phase::AfterDrain));
        if after.served == 0 || after.failed * 100 > after.served {
            return Err(format!("after it {} requests were served and {} failed", after.served, after.failed));
        }
        let drained = seen.windows_to_drain.unwrap_or(windows);
        Ok(format!("the canary was condemned {windows:.0} windows after the onset and stopped after {drained:.0}"))
    }

    fn traffic(&self, phase: Phase) -> Traffic {
        [Role::Stable, Role::Canary].into_iter().fold(Traffic::default(), |sum, role| {
            let of_role = load::sum(&self.load, role, Some(phase));
            Traffic { served: sum.served + of_role.served, failed: sum.failed + of_role.failed }
        })
    }

    fn text(&self, seen: &Seen, judged: &Result<String, String>, out: &mut impl Write) -> anyhow::Result<()> {
        let service = ServiceTotals {
            before: self.traffic(Phase::BeforeOnset),
            during: self.traffic(Phase::AfterOnset),
            after: self.traffic(Phase::AfterDrain),
        };
        let run = Run { deployment: DEPLOYMENT, last: &seen.last, decisions: &seen.decisions, service: Some(service) };
        writeln!(out)?;
        let scenario = format!("{}, at {}x", self.scenario.title(), self.severity);
        write!(out, "{}", summary::entry("Scenario", &scenario))?;
        write!(out, "{}", summary::entry("Orchestrator", &self.orchestrated()))?;
        write!(out, "{}", summary::render(&run))?;
        for instance in self.instances.iter().filter(|i| i.starts > 1) {
            let ends: Vec<String> = instance.ends.iter().map(|(how, times)| format!("{times} × {how}")).collect();
            let ends = if ends.is_empty() { String::new() } else { format!(", ended by {}", ends.join(", ")) };
            let text = format!("{}: {} starts{ends}", instance.name, instance.starts);
            write!(out, "{}", summary::entry("Restarts", &text))?;
        }
        let result = match judged {
            Ok(right) => format!("as it should be: {right}"),
            Err(wrong) => format!("NOT as it should be: {wrong}"),
        };
        write!(out, "{}", summary::entry("Result", &result))?;
        Ok(())
    }

    /// Who ran the instances, what they were called there, and what became of them.
    fn orchestrated(&self) -> String {
        let (stable, canary) = (run::names(&self.instances, Role::Stable), run::names(&self.instances, Role::Canary));
        let removed = match self.orchestrator {
            Kind::Process => "their cgroups are removed",
            Kind::Systemd => "the units are stopped and their files removed",
            Kind::Docker => "the containers and their image are removed",
        };
        let canary = if canary.is_empty() { String::new() } else { format!("; canary {canary}") };
        format!("{}: stable {stable}{canary}; {removed}", self.orchestrator)
    }

    fn object(&self, seen: &Seen, judged: &Result<String, String>) -> anyhow::Result<serde_json::Value> {
        let view = seen.last.deployments.get(DEPLOYMENT);
        json::summary(json!({
            "scenario": self.scenario,
            "severity": self.severity,
            "orchestrator": self.orchestrator,
            "mode": self.mode,
            "expected": self.expected,
            "as_expected": judged.is_ok(),
            "result": judged.as_ref().unwrap_or_else(|wrong| wrong),
            "time_line": self.time_line,
            "window_s": self.window.as_secs_f64(),
            "windows_to_decide": seen.windows_to_decide,
            "windows_to_drain": seen.windows_to_drain,
            "signs": seen.signs,
            "held": seen.held,
            "verdict": view.map(|v| &v.verdict),
            "decisions": seen.decisions.iter().map(json::decision).collect::<Vec<_>>(),
            "instances": self.instances,
            "load": self.load,
        }))
    }
}
