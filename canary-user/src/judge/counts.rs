//! Rare events on both sides: an exact conditional test.
//!
//! Given the total of a window, the canary's count is binomial; its share under "no worse" follows from the exposures.
//! The e-value is the mean over four alternative ratios of the likelihood ratio, with restarts, so that a late burst is
//! found although the past was quiet. Source: the conditional test of two Poisson rates (Przyborowski and Wilenski,
//! 1940), as an e-process (Lindon, Sanden and Shirikian, arXiv 2205.14762).

use super::{
    clumping::Clumping,
    exposure::{Block, Exposures, MERGED_WINDOWS, Side, Work},
    pace::{Restarts, Stakes},
    parameters::{BETS, Parameters},
    verdict::EventState,
};
use crate::window::{Event, Window};

/// Ratios of rates, canary over stable, that are bet on where [`USUAL_NULL_RATIO`] is allowed, and the share of the stake on
/// each.
const RATIOS: [f64; BETS] = [1.5, 2.0, 4.0, 8.0];
const SHARES: [f64; BETS] = [0.15, 0.15, 0.5, 0.2];
/// Where another ratio is allowed they all move with it: a bet on less than what is allowed would win by fewer events.
const USUAL_NULL_RATIO: f64 = 1.1;
/// Share of the stake that is bet from the first window on. The rest is for what begins late.
const START_WEIGHT: f64 = 0.85;
/// Windows without an event of the canary after which the next one is the beginning of something else.
const QUIET_WINDOWS: u64 = 300;

/// The counts of all kinds of event since the canary's warm-up ended.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    kinds: [Kind; Event::COUNT],
    restarts: Restarts,
    work: Work,
}

#[derive(Clone, Debug, Default)]
struct Kind {
    canary: u64,
    stable: u64,
    purse: Purse,
    /// How stable's events clump from second to second, window by window.
    by_time: Clumping,
    /// The same from turnaround to turnaround, over windows that were added up until stable had one. Not of how
    /// processes end.
    by_work: Clumping,
    /// What is not learned from yet because stable had no work, and of how many windows.
    unlearned: Option<(Side, u32)>,
    /// Both sides counted this kind at least once (zero is a count).
    seen: bool,
    /// What is not judged yet, because one side had no work.
    waiting: Option<Block>,
    /// One for each bet.
    runs: [Run; BETS],
}

/// The stakes on one kind.
///
/// A canary that answers nothing has no events of those that answers bring, and would lose all of its stake beside a stable that
/// does. So from the first time on half of what there is is bet while it answers nothing, and the other half while it answers.
#[derive(Clone, Debug)]
struct Purse {
    usual: Stakes,
    idle: Option<Stakes>,
}

/// Which of them is bet.
#[derive(Clone, Copy, Debug)]
enum Stake {
    Usual,
    Idle,
}

/// By what it was learned how events clump.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Time,
    Work,
}

impl Default for Purse {
    fn default() -> Self {
        Self { usual: Stakes::NONE, idle: None }
    }
}

impl Purse {
    fn put_in(&mut self, weight: f64) {
        match &mut self.idle {
            Some(idle) => {
                self.usual.put_in(0.5 * weight, &SHARES);
                idle.put_in(0.5 * weight, &SHARES);
            }
            None => self.usual.put_in(weight, &SHARES),
        }
    }

    fn of(&mut self, stake: Stake) -> &mut Stakes {
        match stake {
            Stake::Usual => &mut self.usual,
            Stake::Idle => self.idle.get_or_insert_with(|| {
                self.usual.settle(&[0.5; BETS]);
                self.usual.clone()
            }),
        }
    }

    fn e_value(&self, restarts: &Restarts) -> f64 {
        self.usual.e_value(restarts) + self.idle.as_ref().map_or(0.0, Stakes::sum)
    }
}

/// How far one bet has won since it last had won least: what it won in belongs together.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    gain_ln: f64,
    began: Option<u64>,
    latest_event: Option<u64>,
}

impl Run {
    fn add(&mut self, gain_ln: f64, event: Option<u64>) {
        // Where stable has no events nothing is lost between the canary's, however far they are apart.
        if let (Some(event), Some(latest)) = (event, self.latest_event)
            && event.saturating_sub(latest) > QUIET_WINDOWS
        {
            *self = Run::default();
        }
        self.latest_event = event.or(self.latest_event);
        self.gain_ln = (self.gain_ln + gain_ln).max(0.0);
        self.began = if self.gain_ln > 0.0 { self.began.or(event) } else { None };
    }
}

impl Counts {
    /// Takes one window after the warm-up in. One in which data was lost is counted and not bet on: what was lost may be stable's.
    pub fn observe(&mut self, window: &Window, p: &Parameters) {
        let sides = Event::ALL.map(|event| Some((Side::of(&window.canary, event)?, Side::of(&window.stable, event)?)));
        if !window.clean {
            for (kind, sides) in self.kinds.iter_mut().zip(sides) {
                if let Some((canary, stable)) = sides {
                    kind.count(canary, stable);
                }
            }
            return;
        }
        self.work.observe(window);
        if self.restarts.age() >= p.horizon_windows && self.e_values().iter().all(|e| *e <= 1.0) {
            self.restarts = Restarts::default();
            self.kinds.iter_mut().for_each(|kind| kind.purse = Purse::default());
        }
        let weight = self.restarts.next_weight(START_WEIGHT, p.horizon_windows);
        for ((event, kind), sides) in Event::ALL.into_iter().zip(&mut self.kinds).zip(sides) {
            kind.purse.put_in(weight);
            if let Some((canary, stable)) = sides {
                kind.count(canary, stable);
                let block = Block {
                    canary,
                    stable,
                    windows: 1,
                    first_event: (canary.count > 0).then_some(window.index),
                    clumps_by_time: kind.by_time.clumps(),
                    clumps_by_work: kind.by_work.clumps(),
                };
                kind.judge(event, block, &self.work, p);
                kind.learn(event, stable);
            }
        }
    }

    /// Takes one window before that in: nothing is bet, but how stable's events clump is learned.
    pub fn learn(&mut self, window: &Window) {
        if !window.clean {
            return;
        }
        self.work.observe(window);
        for (event, kind) in Event::ALL.into_iter().zip(&mut self.kinds) {
            if let Some(stable) = Side::of(&window.stable, event) {
                kind.learn(event, stable);
            }
        }
    }

    /// For another canary: what was counted is dropped, how stable's events clump is kept.
    pub fn forget_canary(&mut self) {
        self.drop_evidence();
        self.work = Work::default();
    }

    /// The same for the canary that is there: when it last had work is known.
    pub fn drop_evidence(&mut self) {
        self.restarts = Restarts::default();
        for kind in &mut self.kinds {
            let Kind { by_time, by_work, unlearned, .. } = std::mem::take(kind);
            *kind = Kind { by_time, by_work, unlearned, ..Kind::default() };
        }
    }

    /// ln of the e-value of one kind.
    pub fn evidence_ln(&self, event: Event) -> f64 {
        libm::log(self.e_value(&self.kinds[event as usize]))
    }

    /// The e-values of the kinds that both sides counted.
    pub fn e_values(&self) -> Vec<f64> {
        self.kinds.iter().filter(|k| k.seen).map(|k| self.e_value(k)).collect()
    }

    fn e_value(&self, kind: &Kind) -> f64 {
        kind.purse.e_value(&self.restarts)
    }

    /// Window of the first event of the current evidence: of the bet that has won most since it last had won least.
    pub fn onset(&self, event: Event) -> Option<u64> {
        let runs = self.kinds[event as usize].runs;
        runs.into_iter().max_by(|a, b| a.gain_ln.total_cmp(&b.gain_ln)).and_then(|run| run.began)
    }

    pub fn states(&self) -> Vec<EventState> {
        let state = |event: Event| {
            let kind = &self.kinds[event as usize];
            EventState {
                event,
                canary: kind.canary,
                stable: kind.stable,
                evidence_ln: libm::log(self.e_value(kind)),
                missing: !kind.seen,
            }
        };
        Event::ALL.into_iter().map(state).collect()
    }
}

/// Whether this kind of event comes of what a service is asked. Processes end without that, too.
fn comes_of_work(event: Event) -> bool {
    match event {
        Event::ResetsOut | Event::Retransmits | Event::ServerErrors | Event::ConnectFailures => true,
        Event::Crashes | Event::ErrorExits | Event::OomKills => false,
    }
}

/// Whether what a canary that answers nothing has of this kind of event is its own doing, where it was asked before or
/// never was.
fn is_told_without_answers(event: Event, was_asked: bool) -> bool {
    match event {
        // It may break off all that it is asked, or not reach what it needs for any answer.
        Event::ResetsOut | Event::ConnectFailures => true,
        // Of a canary that was asked before, they are of its last answers: who was to get them is gone.
        Event::Retransmits => !was_asked,
        // Without an answer none fails. How processes end waits for none.
        Event::ServerErrors | Event::Crashes | Event::ErrorExits | Event::OomKills => false,
    }
}

impl Kind {
    fn count(&mut self, canary: Side, stable: Side) {
        self.seen = true;
        self.canary = self.canary.saturating_add(canary.count);
        self.stable = self.stable.saturating_add(stable.count);
    }

    /// Learns from a window of stable, whatever a canary does meanwhile: those without work are added up with the next
    /// one that has some. What is judged at once is as long or longer, and varies less than this says.
    fn learn(&mut self, event: Event, stable: Side) {
        self.by_time.learn(stable.count as f64, stable.seconds);
        if comes_of_work(event) && !stable.is_uncounted {
            let (mut side, windows) = self.unlearned.take().unwrap_or_default();
            side.add(stable);
            if side.turnarounds > 0 || windows + 1 >= MERGED_WINDOWS {
                self.by_work.learn(side.count as f64, side.turnarounds as f64);
            } else {
                self.unlearned = Some((side, windows + 1));
            }
        }
    }

    /// A window with those before it that wait for work.
    fn with_waiting(&mut self, window: Block) -> Block {
        match self.waiting.take() {
            Some(mut waiting) => {
                waiting.add(&window);
                waiting
            }
            None => window,
        }
    }

    /// Judges a window, or adds it to those that wait for work. Which of both, and by what, is decided by turnarounds and time, and
    /// never by the events: given the exposures, what is judged stays binomial.
    fn judge(&mut self, event: Event, window: Block, work: &Work, p: &Parameters) {
        // Where turnarounds are not counted, how they were shared out lately may be known all the same.
        if !comes_of_work(event) || window.is_uncounted() {
            // By time also where it is by work that most is expected: what clumps by work clumps by time as well.
            self.settle(Stake::Usual, &window, work.most_expected(&window), Unit::Time, p);
            return;
        }
        let block = self.with_waiting(window);
        let answers_nothing = block.canary.turnarounds == 0 && work.canary_answers_nothing();
        if block.both_work() {
            self.settle(Stake::Usual, &block, block.by_work(), Unit::Work, p);
        } else if answers_nothing && is_told_without_answers(event, work.canary_worked()) {
            // It has no more reason for events than one with as much work as stable: by time it is not wronged.
            self.settle(Stake::Idle, &block, block.by_time(), Unit::Time, p);
        } else if block.windows < MERGED_WINDOWS {
            self.waiting = Some(block);
        }
    }

    /// Bets on a block, by what both sides were exposed to, as far as stable's events clump in this unit.
    fn settle(&mut self, stake: Stake, block: &Block, exposed: Exposures, unit: Unit, p: &Parameters) {
        if !exposed.are_of_both() {
            return;
        }
        let (canary, stable) = (block.canary.count as f64, block.stable.count as f64);
        let (null, null_rest) = exposed.shares(p.event_null_ratio);
        let (clumps, of_stable) = match unit {
            Unit::Time => (block.clumps_by_time, block.stable.seconds),
            Unit::Work => (block.clumps_by_work, block.stable.turnarounds as f64),
        };
        let gains_ln = RATIOS.map(|ratio| {
            let (bet, bet_rest) = exposed.shares(ratio * (p.event_null_ratio / USUAL_NULL_RATIO));
            let gain = canary * libm::log(bet / null) + stable * libm::log(bet_rest / null_rest);
            // Events that come in one clump are one fact.
            let gain = gain / (1.0 + clumps.excess(of_stable, (null, null_rest), (bet, bet_rest)));
            // Beside an exposure that takes all of a float's range the other one is nothing, and so is what they tell.
            let gain = if gain.is_nan() { 0.0 } else { gain };
            // Less gain keeps it an e-process.
            gain.min(p.event_gain_limit_ln)
        });
        self.purse.of(stake).settle(&gains_ln.map(libm::exp));
        for (run, gain_ln) in self.runs.iter_mut().zip(gains_ln) {
            run.add(gain_ln, block.first_event);
        }
    }
}
