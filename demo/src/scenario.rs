//! What happens in a run, and when. Times are in windows, because the judge counts in windows.

use std::time::Duration;

use anyhow::ensure;
use canary_user::judge::SignKind;
use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::fault::Fault;

/// The canary starts here: 240 windows of stable alone, and 60 of its own warm-up, give the judge its 300 of history.
const CANARY_START: u32 = 240;
/// The canary goes wrong here: 100 windows after its warm-up.
const ONSET: u32 = 400;
/// So long before, a neighbour comes that is there besides: what it does to stable is over as a change by then.
const NEIGHBOUR_BEFORE: u32 = 60;
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
    /// The working set just fits the memory limit, and grows
    Thrash,
    /// Memory is kept with each request
    Leak,
    /// More memory is in use, and no more after that
    WorkingSet,
    /// Answers are larger
    Network,
    /// Answers come later
    Latency,
    /// What both versions ask answers the canary later
    Dependency,
    /// The same work comes in bursts: some waits for a CPU are long
    Tail,
    /// Some connections are reset
    Errors,
    /// Some answers say that the service failed
    ServerErrors,
    /// Some of what it asks cannot be reached
    Unreachable,
    /// Some packets that it sends are lost on the way
    PacketLoss,
    /// Some programs that it starts end with an error
    Exits,
    /// The process aborts, again and again
    Crash,
    /// The kernel kills the process for its memory, again and again
    Oom,
    /// Nothing goes wrong
    Healthy,
    /// A CPU limit holds the canary back: not the version's fault
    Quota,
    /// Someone else takes the CPUs; both versions suffer alike
    NoisyNeighbour,
    /// Someone else takes the CPUs, and answers come later besides
    NeighbourAndLatency,
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
            Scenario::Thrash => "the canary's working set, which just fitted its memory limit, grows",
            Scenario::Leak => "the canary keeps memory with each request",
            Scenario::WorkingSet => "the canary has more memory in use",
            Scenario::Network => "the canary's answers are larger",
            Scenario::Latency => "the canary answers later",
            Scenario::Dependency => "what both versions ask answers the canary later",
            Scenario::Tail => "the canary does the same work in bursts",
            Scenario::Errors => "the canary resets some connections",
            Scenario::ServerErrors => "the canary answers some requests with status 500",
            Scenario::Unreachable => "the canary asks where nobody listens",
            Scenario::PacketLoss => "some of the canary's packets are lost on the way",
            Scenario::Exits => "programs that the canary starts end with an error",
            Scenario::Crash => "the canary aborts, again and again",
            Scenario::Oom => "the kernel kills the canary for its memory, again and again",
            Scenario::Healthy => "the canary is as good as stable",
            Scenario::Quota => "a CPU limit holds the canary back",
            Scenario::NoisyNeighbour => "another program takes the CPUs from both versions",
            Scenario::NeighbourAndLatency => {
                "the canary answers later, and another program has the CPUs of both versions"
            }
        }
    }

    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().expect("no scenario is hidden").get_name().to_owned()
    }

    /// The fault of the canary's program from the onset on, where that is what goes wrong.
    pub fn fault(self) -> Option<Fault> {
        match self {
            Scenario::Cpu => Some(Fault::Cpu),
            Scenario::Memory => Some(Fault::Memory),
            Scenario::Thrash => Some(Fault::Thrash),
            Scenario::Leak => Some(Fault::Leak),
            Scenario::WorkingSet => Some(Fault::WorkingSet),
            Scenario::Network => Some(Fault::Network),
            Scenario::Latency | Scenario::NeighbourAndLatency => Some(Fault::Latency),
            Scenario::Dependency => Some(Fault::Dependency),
            Scenario::Tail => Some(Fault::Tail),
            Scenario::Errors => Some(Fault::Errors),
            Scenario::ServerErrors => Some(Fault::ServerErrors),
            Scenario::Unreachable => Some(Fault::Unreachable),
            Scenario::Exits => Some(Fault::Exits),
            Scenario::Crash => Some(Fault::Crash),
            Scenario::Oom => Some(Fault::Oom),
            Scenario::PacketLoss | Scenario::Healthy | Scenario::Quota | Scenario::NoisyNeighbour => None,
        }
    }

    pub fn default_severity(self) -> f64 {
        2.0
    }

    pub fn expected(self) -> Expected {
        match self.fault() {
            Some(_) => Expected::RollBack,
            // Its users wait for what is sent again, whosever fault that is.
            None if self.loses_packets() => Expected::RollBack,
            None => Expected::StayQuiet,
        }
    }

    /// What the judge has to see around the canary once it goes wrong: one of these, where there are any.
    pub fn signs(self) -> &'static [SignKind] {
        match self {
            Scenario::Quota => &[SignKind::Throttled],
            Scenario::NoisyNeighbour | Scenario::NeighbourAndLatency => &[SignKind::Neighbour, SignKind::CpuPressure],
            _ => &[],
        }
    }

    /// The memory that each instance may use, where the scenario needs a limit. A healthy instance takes about 36 MiB, besides
    /// what it reads.
    pub fn memory_limit_bytes(self) -> Option<u64> {
        match self {
            Scenario::Memory | Scenario::Oom => Some(48 << 20),
            // A few MiB more than it takes: filling them is no change in memory that would count.
            Scenario::Thrash => Some(86 << 20),
            _ => None,
        }
    }

    /// Whether the canary gets a CPU limit once it goes wrong.
    pub fn limits_cpu(self) -> bool {
        self == Scenario::Quota
    }

    /// Whether packets from the canary are lost once it goes wrong.
    pub fn loses_packets(self) -> bool {
        self == Scenario::PacketLoss
    }

    /// What instances read from, where the scenario needs it.
    pub fn reads(self) -> Option<Reads> {
        match self {
            // More than the limit leaves room for.
            Scenario::Memory => Some(Reads { file_bytes: 16 << 20, usual_bytes: 0 }),
            Scenario::Thrash => Some(Reads { file_bytes: 64 << 20, usual_bytes: 48 << 20 }),
            _ => None,
        }
    }

    /// Whether each request asks an upstream.
    pub fn has_upstream(self) -> bool {
        self == Scenario::Dependency
    }

    /// Whether each request leaves a thread of low priority something to do.
    pub fn has_log_thread(self) -> bool {
        self == Scenario::Tail
    }

    /// Whether instances start a program now and then.
    pub fn has_helpers(self) -> bool {
        self == Scenario::Exits
    }
}

/// A file that instances read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    pub file_bytes: u64,
    /// At its beginning, what every request reads from. With 0 the canary alone reads, and one file is enough; else each
    /// instance has its own, as a page counts as memory of whoever read it first.
    pub usual_bytes: u64,
}

/// When what happens, from the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeLine {
    #[serde(rename = "canary_start_s", serialize_with = "seconds")]
    pub canary_start: Duration,
    /// When another program begins to take the CPUs; `None` where none does.
    #[serde(rename = "neighbour_start_s", serialize_with = "optional_seconds")]
    pub neighbour_start: Option<Duration>,
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
        let neighbour_start = match scenario {
            Scenario::NoisyNeighbour => onset,
            Scenario::NeighbourAndLatency => Some(window * (ONSET - NEIGHBOUR_BEFORE)),
            _ => None,
        };
        let end = duration.unwrap_or(window * DURATION);
        let line = Self { canary_start: window * CANARY_START, neighbour_start, onset, end };
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
        let cpu =
            TimeLine { canary_start: seconds(24), neighbour_start: None, onset: Some(seconds(40)), end: seconds(85) };
        assert_eq!(line, cpu);
        assert_eq!(line.canary_windows(Duration::from_millis(100)), 610);
        let fast = TimeLine::new(Scenario::Healthy, Duration::from_millis(50), Some(seconds(20))).expect("fits");
        let healthy = TimeLine { canary_start: seconds(12), neighbour_start: None, onset: None, end: seconds(20) };
        assert_eq!(fast, healthy);
    }

    #[test]
    fn a_neighbour_that_is_there_besides_comes_first() {
        let line = |scenario| TimeLine::new(scenario, Duration::from_millis(100), None).expect("default");
        let besides = line(Scenario::NeighbourAndLatency);
        assert_eq!(besides.neighbour_start, Some(Duration::from_secs(34)));
        assert!(besides.canary_start < Duration::from_secs(34) && besides.onset > besides.neighbour_start);
        let alone = line(Scenario::NoisyNeighbour);
        assert_eq!(alone.neighbour_start, alone.onset);
    }

    #[test]
    fn too_short_a_run_is_refused_with_the_time_that_it_needs() {
        let error = TimeLine::new(Scenario::Cpu, Duration::from_millis(100), Some(Duration::from_secs(40)));
        assert!(error.expect_err("onset at the end").to_string().contains("the onset comes at 40s"));
        assert!(TimeLine::new(Scenario::Healthy, Duration::ZERO, None).is_err());
    }
}
