//! Whether the canary is quiet after an action, and stays so, by the kernel's own counts. Pure.

use std::sync::Arc;

use crate::{
    guard::facts::samples,
    orchestrator::Background,
    targets::{Role, Target},
    telemetry::{Sample, Tick},
};

/// Consecutive quiet windows that prove it.
pub const QUIET_WINDOWS: u32 = 3;
/// A process that waits for work wakes up for timers: below this share of one CPU it is quiet.
const QUIET_CPU_SHARE: f64 = 0.01;
/// Connections that close send a few segments without payload: below this many bytes a second it is quiet.
const QUIET_BYTES_PER_SECOND: f64 = 1024.0;
/// Twice the background that is known of: a sidecar passes a probe on, which makes it two, and others look besides.
const BACKGROUND: f64 = 2.0;
/// What one turnaround of the background may send. A kubelet reads 10 KiB of an answer (`pkg/probe/http` of kubernetes), and
/// a page of metrics has more.
const BACKGROUND_BYTES: f64 = 65_536.0;

/// What one tick adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not decided yet.
    Watching,
    /// Quiet for long enough, in words. Said again with every further quiet window.
    Quiet(String),
    /// Someone brought the canary back: in words, and the instances that came.
    CameBack(String, Vec<Target>),
    /// Not quiet when the deadline came, in words.
    Overdue(String),
}

/// One instance in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// The cgroup or its processes are gone.
    Empty,
    Quiet,
    Busy,
    /// Counts are missing or cannot be trusted: neither quiet nor busy.
    Unknown,
}

/// What the canary did in the windows since it was last seen busy.
#[derive(Clone, Copy, Debug, Default)]
struct Residue {
    turnarounds: u64,
    tx_bytes: u64,
    /// Payload for those who asked; of `tx_bytes`.
    answer_bytes: u64,
    on_cpu_ns: u64,
    span_ns: u64,
}

/// Watches the canary's counts after an action.
#[derive(Debug)]
pub struct Verification {
    deployment: Arc<str>,
    targets: Vec<Target>,
    /// `None` = the instances end, and nothing may go on.
    background: Option<Background>,
    deadline_t_ns: u64,
    quiet_run: u32,
    residue: Residue,
    /// Turnarounds beyond the rate of the background, since they were last within it: a leaky bucket, which is full with the
    /// most that may come at once.
    beyond: f64,
    /// Quiet for long enough at least once.
    was_quiet: bool,
    /// No process at all in the last window that was known.
    was_empty: bool,
    last_trouble: String,
}

impl Verification {
    /// `background`: what goes on at targets that run on; they are quiet where there is no more than that.
    /// `deadline_t_ns`: CLOCK_MONOTONIC by which they have to be quiet.
    pub fn new(targets: &[Target], background: Option<Background>, deadline_t_ns: u64) -> Self {
        Self {
            deployment: targets.first().map_or_else(|| "".into(), |t| t.deployment.clone()),
            targets: targets.to_vec(),
            background,
            deadline_t_ns,
            quiet_run: 0,
            residue: Residue::default(),
            beyond: 0.0,
            was_quiet: false,
            was_empty: false,
            last_trouble: "no window was counted".into(),
        }
    }

    pub fn is_overdue(&self, t_ns: u64) -> bool {
        t_ns >= self.deadline_t_ns
    }

    /// Takes in one tick.
    pub fn observe(&mut self, tick: &Tick) -> Progress {
        let canary = || samples(tick, &self.deployment, Role::Canary);
        // The same version under another incarnation: restarted or redeployed. Another version is a new rollout, also where the
        // configuration calls it by the same name.
        let is_same_version = |s: &Sample| self.targets.iter().any(|target| target.is_same_version(&s.target));
        let newcomers: Vec<&Sample> =
            canary().filter(|s| !self.targets.contains(&s.target) && is_same_version(s)).collect();
        // Where instances are left running one may take another's place, and does no harm with no more to do than that had.
        let runs_on = self.background.is_some();
        let back: Vec<Target> = (newcomers.iter().filter(|_| !runs_on))
            .filter(|s| matches!(see(s, tick, runs_on), Seen::Busy) || s.populated == Some(true))
            .map(|s| s.target.clone())
            .collect();
        if let Some(first) = back.first() {
            let text = format!(
                "the canary is back: {} runs version {} as another instance (incarnation {})",
                first.cgroup, first.version, first.incarnation
            );
            return Progress::CameBack(text, back);
        }
        // A sensor that brings nothing at all cannot prove that the canary is gone.
        let trusted = tick.quality.is_complete() && !tick.samples.is_empty();
        let gone = if trusted { Seen::Empty } else { Seen::Unknown };
        let mut now = Residue { span_ns: tick.span_ns, ..Residue::default() };
        let own = self.targets.iter().map(|target| canary().find(|s| s.target == *target));
        let seen = own.chain(newcomers.into_iter().filter(|_| runs_on).map(Some));
        let seen: Vec<Seen> = seen
            .map(|sample| match sample {
                None => gone,
                Some(sample) => {
                    now.turnarounds += sample.network.as_ref().map_or(0, |n| n.turnarounds);
                    now.tx_bytes += sample.network.as_ref().map_or(0, |n| n.tx_bytes);
                    now.answer_bytes += answer_bytes(sample);
                    now.on_cpu_ns += sample.cpu.as_ref().map_or(0, |c| c.on_cpu_ns);
                    see(sample, tick, runs_on)
                }
            })
            .collect();
        self.step(&seen, now, tick.t_ns)
    }

    fn step(&mut self, seen: &[Seen], now: Residue, t_ns: u64) -> Progress {
        let empty = seen.iter().all(|s| *s == Seen::Empty);
        let runs_again = self.was_empty && seen.iter().any(|s| matches!(s, Seen::Quiet | Seen::Busy));
        let populated_again = runs_again && self.background.is_none();
        let beyond = self.beyond_rate(now);
        if seen.contains(&Seen::Busy) || populated_again || self.is_more_than_background(beyond, now) {
            let more = self.explained().map(|explained| format!(", more than {explained}")).unwrap_or_default();
            self.last_trouble = format!("{} in the last window{more}", activity(now, false));
            if self.was_quiet || populated_again {
                let text = format!("the canary is back after it had been quiet: {}{more}", activity(now, false));
                return Progress::CameBack(text, self.targets.clone());
            }
            (self.quiet_run, self.residue, self.beyond) = (0, Residue::default(), 0.0);
        } else if seen.contains(&Seen::Unknown) {
            self.last_trouble =
                "its counts are missing or events were lost, so that it is not known to be quiet".into();
        } else {
            self.was_empty = empty;
            self.quiet_run += 1;
            self.beyond = beyond;
            self.residue.turnarounds += now.turnarounds;
            self.residue.tx_bytes += now.tx_bytes;
            self.residue.on_cpu_ns += now.on_cpu_ns;
            self.residue.span_ns += now.span_ns;
            if self.quiet_run >= QUIET_WINDOWS && (empty || self.has_seen_a_round()) {
                self.was_quiet = true;
                let explained = self.explained().filter(|_| self.residue.turnarounds > 0);
                let within = explained.map(|explained| format!(", no more than {explained}")).unwrap_or_default();
                let words = activity(self.residue, empty);
                return Progress::Quiet(format!("{words} in {} windows{within}", self.quiet_run));
            }
        }
        if !self.was_quiet && self.is_overdue(t_ns) {
            return Progress::Overdue(format!("the canary did not become quiet: {}", self.last_trouble));
        }
        Progress::Watching
    }

    /// Turnarounds beyond the rate of the background, with those of one more window.
    fn beyond_rate(&self, now: Residue) -> f64 {
        let Some(background) = &self.background else { return 0.0 };
        let expected = BACKGROUND * background.turnarounds_per_second * now.span_ns as f64 / 1e9;
        (self.beyond + now.turnarounds as f64 - expected).max(0.0)
    }

    fn is_more_than_background(&self, beyond: f64, now: Residue) -> bool {
        let Some(background) = &self.background else { return false };
        let bytes = QUIET_BYTES_PER_SECOND * now.span_ns as f64 / 1e9 + BACKGROUND_BYTES * now.turnarounds as f64;
        beyond > BACKGROUND * background.burst as f64 || now.answer_bytes as f64 > bytes
    }

    /// Until then, what a few users ask for could pass for the burst that a background may begin with.
    fn has_seen_a_round(&self) -> bool {
        self.background.as_ref().is_none_or(|b| u128::from(self.residue.span_ns) >= b.round().as_nanos())
    }

    /// "the kubelet's probes explain (twice 0.2 a second)"; `None` where nothing is known to go on.
    fn explained(&self) -> Option<String> {
        let background = self.background.as_ref().filter(|b| b.burst > 0)?;
        let rate = (100.0 * background.turnarounds_per_second).round() / 100.0;
        Some(format!("{} explain (twice {rate} a second)", background.whose))
    }
}

/// What it sends to services that it asks itself is none.
fn answer_bytes(s: &Sample) -> u64 {
    let asks = s.dependency.as_ref().map_or(0, |d| d.tx_payload_bytes);
    s.network.as_ref().map_or(0, |n| n.tx_payload_bytes.saturating_sub(asks))
}

/// `runs_on`: what it answers is looked at for all instances together; its CPU, and what it asks others, are its own affair.
fn see(s: &Sample, tick: &Tick, runs_on: bool) -> Seen {
    let seconds = s.span_ns as f64 / 1e9;
    let busy_network = s
        .network
        .as_ref()
        .map(|n| !runs_on && (n.turnarounds > 0 || n.tx_bytes as f64 > QUIET_BYTES_PER_SECOND * seconds));
    let busy_cpu = s.cpu.as_ref().map(|c| c.on_cpu_ns as f64 > QUIET_CPU_SHARE * s.span_ns as f64);
    let busy_cpu = if runs_on { Some(false) } else { busy_cpu };
    if busy_network == Some(true) || busy_cpu == Some(true) {
        // What an instance did before its last process ended is in the same tick: that is not a canary that runs.
        return if s.populated == Some(false) { Seen::Empty } else { Seen::Busy };
    }
    match (s.populated, busy_network, busy_cpu) {
        (Some(false), _, _) => Seen::Empty,
        (_, Some(false), Some(false)) if tick.quality.is_complete() && s.span_ns > 0 => Seen::Quiet,
        _ => Seen::Unknown,
    }
}

/// "no process is left; no turnaround and 0 bytes", or "no turnaround, 156 bytes and 0.2 % of a CPU".
fn activity(r: Residue, empty: bool) -> String {
    let turnarounds = match r.turnarounds {
        0 => "no turnaround".to_string(),
        1 => "1 turnaround".to_string(),
        n => format!("{n} turnarounds"),
    };
    if empty {
        // First what proves it: what was under way when it ended is in these counts, too.
        return format!("no process is left; {turnarounds} and {} bytes", r.tx_bytes);
    }
    let busy = 100.0 * r.on_cpu_ns as f64 / r.span_ns.max(1) as f64;
    format!("{turnarounds}, {} bytes and {busy:.1} % of a CPU", r.tx_bytes)
}
