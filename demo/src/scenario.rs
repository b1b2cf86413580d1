//! What happens in a run, and when. Times are in windows, because the judge counts in windows.

use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::fault::Fault;

/// The canary starts here: 240 windows of stable alone, and 60 of its own warm-up, give the judge its 300 of history.
const CANARY_START: u32 = 240;
/// The canary goes wrong here: 100 windows after its warm-up.
const ONSET: u32 = 400;
/// A run is this long unless told otherwise: 85 s with windows of 100 ms.
const DURATION: u32 = 850;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Each request costs more CPU
    Cpu,
    /// The working set no longer fits the memory limit
    Memory,
    /// Memory is kept with each request
    Leak,
    /// Answers are larger
    Network,
    /// Answers come later
    Latency,
    /// Some connections are reset
    Errors,
    /// The process aborts, again and again
    Crash,
    /// The kernel kills the process for its memory, again and again
    Oom,
    /// Nothing goes wrong
    Healthy,
    /// Someone else takes the CPUs; both versions suffer alike
    NoisyNeighbour,
}

/// What the guard should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    RollBack,
    StayQuiet,
}

impl Expected {
    /// In words, to follow "the guard should".
    pub fn title(self) -> &'static str {
        match self {
            Expected::RollBack => "roll the canary back",
            Expected::StayQuiet => "stay quiet",
        }
    }
}

impl Scenario {
    /// In words, for the heading.
    pub fn title(self) -> &'static str {
        match self {
            Scenario::Cpu => "each request costs the canary more CPU",
            Scenario::Memory => "the canary's working set no longer fits its memory limit",
            Scenario::Leak => "the canary keeps memory with each request",
            Scenario::Network => "the canary's answers are larger",
            Scenario::Latency => "the canary answers later",
            Scenario::Errors => "the canary resets some connections",
            Scenario::Crash => "the canary aborts, again and again",
            Scenario::Oom => "the kernel kills the canary for its memory, again and again",
            Scenario::Healthy => "the canary is as good as stable",
            Scenario::NoisyNeighbour => "another program takes the CPUs from both versions",
        }
    }

    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().expect("no scenario is hidden").get_name().to_owned()
    }

    /// The canary's fault from the onset on.
    pub fn fault(self) -> Option<Fault> {
        match self {
            Scenario::Cpu => Some(Fault::Cpu),
            Scenario::Memory => Some(Fault::Memory),
            Scenario::Leak => Some(Fault::Leak),
            Scenario::Network => Some(Fault::Network),
            Scenario::Latency => Some(Fault::Latency),
            Scenario::Errors => Some(Fault::Errors),
            Scenario::Crash => Some(Fault::Crash),
            Scenario::Oom => Some(Fault::Oom),
            Scenario::Healthy | Scenario::NoisyNeighbour => None,
        }
    }

    pub fn default_severity(self) -> f64 {
        2.0
    }

    pub fn expected(self) -> Expected {
        match self.fault() {
            Some(_) => Expected::RollBack,
            None => Expected::StayQuiet,
        }
    }

    /// The memory that each instance may use, where the scenario needs a limit. A healthy instance takes about 36 MiB.
    pub fn memory_limit_bytes(self) -> Option<u64> {
        matches!(self, Scenario::Memory | Scenario::Oom).then_some(48 << 20)
    }

    /// Size of the file that the canary reads, where the scenario needs one: more than the limit leaves room for.
    pub fn working_set_bytes(self) -> Option<u64> {
        (self == Scenario::Memory).then_some(16 << 20)
    }
}

/// When what happens, from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeLine {
    #[serde(rename = "canary_start_s", serialize_with = "seconds")]
    pub canary_start: Duration,
    /// `None` where nothing goes wrong.
    #[serde(rename = "onset_s", serialize_with = "optional_seconds")]
    pub onset: Option<Duration>,
    #[serde(rename = "end_s", serialize_with = "seconds")]
    pub end: Duration,
}

fn seconds<S: Serializer>(time: &Duration, s: S) -> Result<S::Ok, S::Error> {
    time.as_secs_f64().serialize(s)
}

fn optional_seconds<S: Serializer>(time: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    time.as_ref().map(Duration::as_secs_f64).serialize(s)
}

impl TimeLine {
    /// Refuses a duration that ends before the onset.
    pub fn new(scenario: Scenario, window: Duration, duration: Option<Duration>) -> anyhow::Result<Self> {
        ensure!(!window.is_zero(), "a window of 0 is no window: try --window 100ms");
        let onset = (scenario != Scenario::Healthy).then_some(window * ONSET);
        let line = Self { canary_start: window * CANARY_START, onset, end: duration.unwrap_or(window * DURATION) };
        let last = line.onset.unwrap_or(line.canary_start);
        ensure!(
            line.end > last,
            "--duration {} is too short: with windows of {} the {} comes at {}",
            humantime::format_duration(line.end),
            humantime::format_duration(window),
            if line.onset.is_some() { "onset" } else { "canary" },
            humantime::format_duration(last)
        );
        Ok(line)
    }

    /// Windows of the canary, from its start to the end of the run.
    pub fn canary_windows(&self, window: Duration) -> u64 {
        ((self.end - self.canary_start).as_nanos() / window.as_nanos().max(1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_line_is_counted_in_windows() {
        let line = TimeLine::new(Scenario::Cpu, Duration::from_millis(100), None).expect("default");
        let seconds = Duration::from_secs;
        assert_eq!(line, TimeLine { canary_start: seconds(24), onset: Some(seconds(40)), end: seconds(85) });
        assert_eq!(line.canary_windows(Duration::from_millis(100)), 610);
        let fast = TimeLine::new(Scenario::Healthy, Duration::from_millis(50), Some(seconds(20))).expect("fits");
        assert_eq!(fast, TimeLine { canary_start: seconds(12), onset: None, end: seconds(20) });
    }

    #[test]
    fn too_short_a_run_is_refused_with_the_time_that_it_needs() {
        let error = TimeLine::new(Scenario::Cpu, Duration::from_millis(100), Some(Duration::from_secs(40)));
        assert!(error.expect_err("onset at the end").to_string().contains("the onset comes at 40s"));
        assert!(TimeLine::new(Scenario::Healthy, Duration::ZERO, None).is_err());
    }
}
