//! From windows to verdicts: who takes part in the comparison, and what it is fed with.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    counts::Counts,
    earlier::{Earlier, Known, Learned},
    environment::Surroundings,
    forecast::Growth,
    hard::HardFacts,
    instances::{self, Changes, Instances},
    level::{Before, Level},
    load::Load,
    pace::{Differences, Pace, Phase, Track},
    pairing::Pairing,
    parameters::{IndicatorParameters, Parameters, Tolerance},
    promotion::{self, KeptControl, Resumed},
    stretch::{Moment, Stretches},
    traffic::Traffic,
    verdict::{Cause, HardFact, Promotion, Sign, SignKind, Stretch, Verdict},
};
use crate::{
    targets::Role,
    window::{Indicator, Reading, Window},
};

/// Where cgroup2 is mounted, unless [`Judge::at_mount`] says otherwise.
const USUAL_MOUNT: &str = "/sys/fs/cgroup";

/// Compares the canary of one deployment with its stable instances, window by window.
///
/// Same windows in, same verdicts out, bit for bit. A canary that was condemned stays condemned until
/// [`Judge::reset_evidence`].
#[derive(Clone, Debug)]
pub struct Judge {
    pub(super) parameters: Parameters,
    pub(super) pace: Pace,
    pub(super) instances: Instances,
    pub(super) counts: Counts,
    pub(super) hard: HardFacts,
    pub(super) levels: [Level; Indicator::COUNT],
    pub(super) seen: [Seen; Indicator::COUNT],
    pub(super) traffic: Traffic,
    pub(super) load: Load,
    pub(super) phase: Phase,
    pub(super) judged_windows: u64,
    last_window: Option<u64>,
    /// What was said of it, for those who come with it once more.
    last_verdict: Option<Verdict>,
    /// Index of the last window with a canary reading.
    pub(super) last_canary_window: u64,
    pub(super) decided: Option<Decided>,
    pub(super) surroundings: Surroundings,
    pub(super) growth: Growth,
    /// Beside the comparison: nothing is decided by it.
    stretches: Stretches,
    promotion: promotion::Watch,
    /// The environment explained what would have condemned the canary, and lasts.
    pub(super) held: bool,
    /// What stable was like before that began.
    pub(super) before: [Option<Before>; Indicator::COUNT],
    /// Where cgroup2 is mounted: for commands that name a cgroup's files.
    pub(super) mount: Arc<str>,
}

/// Which sides ever had a reading of an indicator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) canary: bool,
    pub(super) stable: bool,
}

/// What condemned the canary, as it was at that moment.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) window: u64,
    pub(super) hard: Option<HardFact>,
    pub(super) onset: Option<u64>,
    pub(super) causes: Vec<Cause>,
    pub(super) reasons: Vec<String>,
}

impl Judge {
    pub fn new(parameters: Parameters) -> Judge {
        Self::knowing(parameters, &Earlier::default())
    }

    /// A judge that knows the service from earlier rollouts.
    pub fn knowing(parameters: Parameters, earlier: &Earlier) -> Judge {
        // What is muted is followed and weighs nothing.
        let tolerances =
            parameters.indicators.map(|i| if i.mute { Tolerance { weight: 0.0, ..i.tolerance } } else { i.tolerance });
        Judge {
            pace: Pace::new(parameters.clone(), &tolerances).knowing(Indicator::ALL.map(|i| earlier.of(i))),
            stretches: Stretches::new(Indicator::COUNT, &parameters),
            promotion: promotion::Watch::default(),
            parameters,
            instances: Instances::default(),
            counts: Counts::default(),
            hard: HardFacts::default(),
            levels: Default::default(),
            seen: Default::default(),
            traffic: Traffic::default(),
            load: Load::default(),
            phase: Phase::Baseline,
            judged_windows: 0,
            last_window: None,
            last_verdict: None,
            last_canary_window: 0,
            decided: None,
            surroundings: Surroundings::default(),
            growth: Growth::default(),
            held: false,
            before: [None; Indicator::COUNT],
            mount: USUAL_MOUNT.into(),
        }
    }

    /// For a machine that has cgroup2 mounted elsewhere. Recommended commands name it; no verdict depends on it.
    pub fn at_mount(mut self, mount: &str) -> Judge {
        self.mount = mount.trim_end_matches('/').into();
        self
    }

    /// Takes one window in and says what is known after it. Windows come in order of their index.
    ///
    /// A window that does not come after the one before it, as a duplicate or one out of order, changes nothing, and nothing is
    /// said of it: the answer is the latest verdict.
    pub fn observe(&mut self, window: &Window) -> Verdict {
        if self.last_window.is_some_and(|last| window.index <= last) {
            return self.last_verdict.clone().unwrap_or_else(|| self.verdict(window));
        }
        self.last_window = Some(window.index);
        let changes = self.instances.observe(window, &self.parameters);
        self.apply(&changes, window.index);
        self.phase = match (self.phase, self.instances.canary_warmup_left()) {
            (Phase::Judged, _) | (_, Some(0)) => Phase::Judged,
            (_, Some(_)) => Phase::WarmUp,
            (phase, None) => phase,
        };
        self.hard.observe(window);
        self.traffic.observe(window);
        if window.clean {
            let is_compared = !window.canary.is_empty() || self.promotion.is_under_way(&self.parameters);
            self.surroundings.observe(window, is_compared, &self.parameters);
            self.growth.observe(window, Indicator::MemoryInUse as usize);
            if self.phase == Phase::Judged {
                self.load.observe(window, &self.parameters);
            }
        }
        if window.canary.iter().any(instances::reports) {
            self.last_canary_window = window.index;
        }
        if self.phase == Phase::Judged {
            self.counts.observe(window, &self.parameters);
        } else {
            self.counts.learn(window);
        }
        if window.clean {
            self.compare(window);
        }
        let verdict = self.verdict(window);
        self.last_verdict = Some(verdict.clone());
        verdict
    }

    /// For another version in the canary's place: drops evidence and the decision, keeps what was learned about noise.
    pub fn reset_evidence(&mut self) {
        self.last_verdict = None;
        self.instances.forget_canary();
        self.start_over();
    }

    fn start_over(&mut self) {
        self.pace.reset_evidence();
        self.counts.forget_canary();
        self.hard = HardFacts::default();
        self.traffic = Traffic::default();
        self.load = Load::default();
        self.seen.iter_mut().for_each(|s| s.canary = false);
        self.phase = Phase::Baseline;
        self.judged_windows = 0;
        self.decided = None;
        self.held = false;
        self.before = [None; Indicator::COUNT];
        self.growth = Growth::default();
        self.surroundings.forget_canary();
        self.stretches.forget_canary(&self.parameters);
    }

    fn apply(&mut self, changes: &Changes, index: u64) {
        if changes.another_canary {
            self.start_over();
        }
        if changes.stable || self.promotion.is_empty() {
            // Before the bands are softened: they are those of the instances that were there.
            let (stretches, p) = (&self.stretches, &self.parameters);
            self.promotion.members(self.instances.stable(), |i| stretches.norm(Role::Stable, i, p), index, p);
        }
        for place in &changes.freed {
            self.pace.free(*place);
            self.levels.iter_mut().for_each(|level| level.free(*place));
            self.before.iter_mut().flatten().for_each(|before| before.free(*place));
        }
        if changes.membership {
            self.pace.soften();
            self.stretches.soften(Role::Stable, &self.parameters);
        }
        if changes.canary_membership {
            self.stretches.soften(Role::Canary, &self.parameters);
        }
    }

    /// Feeds the comparison with one clean window.
    fn compare(&mut self, window: &Window) {
        let p = &self.parameters;
        let pairing = Pairing::of(window, &self.instances, self.phase, p);
        // Of a neighbour's doing, stable is not guilty.
        let signs: Vec<Sign> = if self.promotion.is_under_way(p) {
            self.surroundings.signs(p).into_iter().filter(|sign| sign.kind.is_of_the_machine()).collect()
        } else {
            Vec::new()
        };
        let mut stable_levels = [f64::NAN; Indicator::COUNT];
        let mut differences = [Differences::MISSING; Indicator::COUNT];
        for indicator in Indicator::ALL {
            let i = indicator as usize;
            let IndicatorParameters { epsilon, direction, .. } = p.indicators[i];
            // As a logarithm of which more is worse.
            let ln = |r: &Reading| {
                let value = r.values[i];
                let ln = if value >= 0.0 { direction.sign() * libm::log(value + epsilon) } else { f64::NAN };
                // That of nothing is none either.
                if ln.is_finite() { ln } else { f64::NAN }
            };
            let stable = window.stable.iter().map(&ln);
            let paired = pairing.pair(i, stable, window.canary.iter().map(&ln), &mut self.pace);
            differences[i] = paired.differences;
            self.levels[i].observe(window.index, &differences[i].levels);
            // What the canary's load explains says nothing about stable.
            let about_stable = |sign: &&Sign| sign.kind != SignKind::UnequalLoad;
            if !signs.iter().filter(about_stable).any(|sign| sign.explains.contains(&indicator)) {
                stable_levels[i] = paired.stable;
            }
            let at = Moment { index: window.index, t_ns: window.t_ns };
            for (role, level) in [(Role::Stable, paired.stable), (Role::Canary, paired.canary)] {
                // A reader of a stretch sees which way the indicator itself went.
                self.stretches.observe(role, i, direction.sign() * level, at, p.indicators[i].tolerance.delta, p);
            }
            self.seen[i].stable |= window.stable.iter().any(|r| r.values[i].is_finite());
            self.seen[i].canary |= window.canary.iter().any(|r| r.values[i].is_finite());
        }
        let frame = pairing.frame(window.index, &differences, self.traffic.canary_step_scale());
        self.pace.observe(&frame);
        self.promotion.observe(&stable_levels, window.index, p);
        if self.phase == Phase::Judged && differences.iter().any(|d| !d.canary.is_nan()) {
            self.judged_windows += 1;
        }
    }

    pub(super) fn promotion(&self) -> Option<Promotion> {
        self.promotion.promotion(&self.parameters)
    }

    /// How far stable has been held against what it was before a promotion, for a later life of the guard; `None` while it is not.
    pub fn control(&self) -> Option<KeptControl> {
        self.promotion.kept(&self.parameters)
    }

    /// Goes on with a comparison of an earlier life of the guard, after `missed` windows in which nobody compared.
    pub fn resume(&mut self, kept: KeptControl, missed: u64) -> Resumed {
        self.promotion.resume(kept, missed, &self.parameters)
    }

    /// When one version left its own usual band, and in what: the latest.
    pub(super) fn stretches(&self) -> Vec<Stretch> {
        let words = |i: usize| (Indicator::ALL[i].name(), Indicator::ALL[i].title());
        self.stretches.told(words, &self.parameters)
    }

    /// Noise, margin and stakes by [`Indicator`] as index, for those who ask more than the verdict tells.
    pub fn tracks(&self) -> &[Track] {
        self.pace.indicators()
    }

    /// What later rollouts should know of this service; `None` while it is little.
    pub fn learned(&self) -> Option<Learned> {
        let known: BTreeMap<Indicator, Known> =
            Indicator::ALL.into_iter().filter_map(|i| Some((i, self.pace.known(i as usize)?))).collect();
        (!known.is_empty()).then(|| Learned { instances: self.instances.placebos(), known: Earlier(known) })
    }

    /// Stable instances that are remembered: those seen lately.
    pub fn known_stable(&self) -> usize {
        self.instances.known_stable()
    }

    /// Index of the window at which the canary was condemned.
    pub fn decided_at(&self) -> Option<u64> {
        self.decided.as_ref().map(|d| d.window)
    }
}

/// Mean of what is not NaN; NaN if nothing is.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.filter(|v| !v.is_nan()).fold((0.0, 0.0), |(s, n), v| (s + v, n + 1.0));
    sum / n
}
