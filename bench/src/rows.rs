//! What the judge has to reach, row by row, and how each figure is measured.

use serde::Serialize;

use crate::{
    counts::Events,
    experiments::{Class, Effect, Experiment, Outcome},
    service::{self, AR3, AR7, AR9, BURSTY, DIURNAL, IID, Kind, LOGN, LOWCOUNT, ORDINARY, Shape, Size, T3, TAU2},
    whole::Life,
};

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Runs of equal versions, in all kinds together; the other figures of full and quick.
    pub equal: usize,
    /// The same with one stable instance.
    pub pair: usize,
    /// The same before the whole judge, in all lives and kinds together.
    pub whole: usize,
    /// Runs of each change whose first cause the whole judge tells.
    pub told: usize,
    pub harder: usize,
    pub step: usize,
    pub counts: usize,
    pub compared: usize,
    /// Days of one indicator in which no stretch is to be found.
    pub days: usize,
}

pub const FULL: Scale = Scale {
    equal: 6000,
    pair: 20_000,
    whole: 5760,
    told: 100,
    harder: 4800,
    step: 100,
    counts: 20_000,
    compared: 100,
    days: 120,
};
/// For a test: so few equal versions that one of them condemned is more than the limit, and as many steps as in full.
pub const CHECK: Scale =
    Scale { equal: 960, pair: 480, whole: 384, told: 20, harder: 0, step: 100, counts: 0, compared: 0, days: 0 };
pub const QUICK: Scale =
    Scale { equal: 240, pair: 80, whole: 48, told: 4, harder: 40, step: 12, counts: 400, compared: 10, days: 12 };

/// Kinds of service before the whole judge: it takes some ten times as long as its core.
const WHOLE: [Kind; 4] = [IID, AR7, T3, DIURNAL];
/// Changes whose cause it tells.
const TOLD: [(Class, i32); 5] =
    [(Class::Quiet, 50), (Class::Quiet, 100), (Class::Medium, 50), (Class::Medium, 100), (Class::Loud, 100)];

/// One figure with what it has to be.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub row: &'static str,
    pub what: String,
    pub value: f64,
    /// At most this, or at least it where `at_least`.
    pub limit: f64,
    pub at_least: bool,
    pub unit: Unit,
    /// The figure rests on so many runs.
    pub runs: usize,
    /// What the figure was before the mark: e.g. "3 of 600".
    pub detail: String,
    /// A goal beyond what is required: it does not decide the exit code.
    pub stretch: bool,
    pub holds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Of one.
    Share,
    Windows,
    Nanoseconds,
    Bytes,
    Number,
    PerDay,
}

/// The experiments that [`rows`] asks for, in a fixed order.
pub fn experiments(scale: Scale) -> Vec<Experiment> {
    let mut list = Vec::new();
    let mut add = |name: String, kind: Kind, size: Size, effect: Effect, runs: usize, compared: usize| {
        list.push(Experiment { name, kind, size, effect, runs, compared, life: None });
    };
    let usual = Size::default();
    let pair = Size { stable: 1, ..usual };
    let own = Size { own_past: true, ..usual };
    let earlier = Size { earlier: 5, ..usual };
    for kind in ORDINARY {
        add(format!("equal {}", kind.name), kind, usual, Effect::Equal, scale.equal / ORDINARY.len(), scale.compared);
        add(format!("pair {}", kind.name), kind, pair, Effect::Equal, scale.pair / ORDINARY.len(), 0);
    }
    add("equal bursty".into(), BURSTY, usual, Effect::Equal, scale.harder, scale.compared);
    add("equal tau2".into(), TAU2, usual, Effect::Equal, scale.harder / 2, scale.compared);
    add("own tau2".into(), TAU2, own, Effect::Equal, scale.harder / 2, 0);
    add("known tau2".into(), TAU2, earlier, Effect::Equal, scale.harder / 2, 0);
    add("known bursty".into(), BURSTY, earlier, Effect::Equal, scale.harder / 4, 0);
    for kind in [IID, AR3, AR7, AR9, T3, LOGN, DIURNAL] {
        for class in Class::ALL {
            for (percent, size) in [(10, 0.1), (20, 0.2), (50, 0.5), (100, 1.0)] {
                let name = format!("+{percent} {} {}", class.name(), kind.name);
                let compared = if percent == 50 { scale.compared } else { 0 };
                add(name, kind, usual, Effect::Step { class, size }, scale.step, compared);
            }
        }
    }
    let step = Effect::Step { class: Class::Quiet, size: 0.5 };
    add("pair +50 quiet iid".into(), IID, pair, step.clone(), scale.step, 0);
    add("pair +50 quiet ar0.7".into(), AR7, pair, step, scale.step, 0);
    for (kind, percent) in [(AR7, 12), (LOWCOUNT, 12), (IID, 20), (AR7, 20), (T3, 20), (LOWCOUNT, 20)] {
        let effect = Effect::FromTheStart(f64::from(percent) / 100.0);
        add(format!("from the start +{percent} {}", kind.name), kind, usual, effect, 2 * scale.step, 0);
    }
    for (name, parts) in shapes() {
        add(name.into(), AR3, usual, Effect::Shape(parts), scale.step, 0);
    }
    list.extend(wholes(scale));
    list
}

/// Those before the whole judge.
fn wholes(scale: Scale) -> Vec<Experiment> {
    let mut list = Vec::new();
    for life in Life::ALL {
        let usual = Size::default();
        let size = Size { stable: if life == Life::Leaves { 2 } else { usual.stable }, ..usual };
        let runs = scale.whole / (Life::ALL.len() * WHOLE.len());
        list.extend(WHOLE.map(|kind| {
            let name = whole(life, kind);
            Experiment { name, kind, size, effect: Effect::Equal, runs, compared: 0, life: Some(life) }
        }));
    }
    for kind in [IID, AR3] {
        list.extend(TOLD.map(|(class, percent)| Experiment {
            name: format!("told +{percent} {} {}", class.name(), kind.name),
            kind,
            size: Size::default(),
            effect: Effect::Step { class, size: f64::from(percent) / 100.0 },
            runs: scale.told,
            compared: 0,
            life: Some(Life::Usual),
        }));
    }
    list
}

/// The name of equal versions before the whole judge.
fn whole(life: Life, kind: Kind) -> String {
    format!("whole {} {}", life.name(), kind.name)
}

fn shapes() -> [(&'static str, Vec<(usize, Shape)>); 6] {
    [
        ("leak", vec![(1, Shape::Leak(0.5))]),
        ("slow leak", vec![(1, Shape::Leak(0.1))]),
        ("diffuse", (0..6).map(|i| (i, Shape::Step(0.1))).collect()),
        ("behind an improvement", vec![(1, Shape::Step(-0.2)), (2, Shape::Step(0.2))]),
        ("noisier", vec![(2, Shape::Noisier(3.0))]),
        ("spikes", vec![(2, Shape::Spikes { size: 2.0, one_in: 8.0 })]),
    ]
}

/// Outcomes by the name of their experiment.
pub struct Results<'a> {
    pub experiments: &'a [Experiment],
    pub outcomes: &'a [Vec<Outcome>],
}

impl Results<'_> {
    /// None where it was not asked for.
    pub fn of(&self, name: &str) -> &[Outcome] {
        let at = self.experiments.iter().position(|e| e.name == name);
        at.map_or(&[], |at| &self.outcomes[at])
    }

    fn pool(&self, prefix: &str, kinds: &[Kind]) -> Vec<&Outcome> {
        kinds.iter().flat_map(|kind| self.of(&format!("{prefix} {}", kind.name))).collect()
    }

    /// Every row that is measured on generated services.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let alarms = |row, what: &str, outcomes: &[&Outcome], limit| {
            let n = outcomes.iter().filter(|o| o.delay.is_some()).count();
            Row::share(row, what, n, outcomes.len(), limit, false)
        };
        let of = |name: &str| -> Vec<&Outcome> { self.of(name).iter().collect() };
        rows.push(alarms("1", "equal versions condemned, 12 kinds of service", &self.pool("equal", &ORDINARY), 0.001));
        for life in Life::ALL {
            let what = format!("equal condemned by the whole judge{}, 4 kinds", life.in_words());
            rows.push(alarms("1", &what, &WHOLE.map(|kind| of(&whole(life, kind))).concat(), 0.001));
        }
        rows.push(alarms("2", "equal condemned, one-sided bursts, 900 windows of history", &of("equal bursty"), 0.005));
        rows.push(alarms("2", "equal condemned, spread 2 % never seen before", &of("equal tau2"), 0.02));
        rows.push(alarms("2", "equal condemned, spread 2 %, told the canary's own past", &of("own tau2"), 0.002));
        rows.push(alarms("2", "equal condemned, spread 2 %, after 5 earlier rollouts", &of("known tau2"), 0.002));
        rows.push(alarms(
            "2",
            "equal condemned, one-sided bursts, after 5 earlier rollouts",
            &of("known bursty"),
            0.005,
        ));

        for (name, limit) in [("+20 quiet iid", 18.0), ("+20 quiet ar0.7", 53.0)] {
            rows.push(self.all_found("4", name));
            rows.push(self.delay("4", name, 0.5, limit));
        }
        for (name, limit) in [("+50 medium iid", 16.0), ("+50 medium ar0.7", 54.0), ("+50 medium ar0.9", 145.0)] {
            rows.push(self.delay("5", name, 0.5, limit));
        }
        for kind in [IID, T3, LOGN] {
            for class in Class::ALL {
                let name = format!("+100 {} {}", class.name(), kind.name);
                rows.push(self.delay("6", &name, 0.5, 14.0));
                rows.push(self.delay("6", &name, 0.95, 30.0));
            }
        }
        for kind in [IID, AR3, T3, DIURNAL] {
            let name = format!("+10 quiet {}", kind.name);
            rows.push(self.found("7", &name, 1800, 0.99));
            rows.push(self.delay("7", &name, 0.5, 116.0));
        }
        rows.push(self.all_found("8", "leak"));
        rows.push(self.delay("8", "leak", 0.95, 286.0));
        rows.push(self.delay("9", "diffuse", 0.5, 55.0));
        rows.push(self.all_found("9", "behind an improvement"));
        rows.push(self.causes("the first cause is right", |e| e.life.is_none()));
        rows.push(self.causes("the first cause is right as the whole judge tells it", |e| e.life.is_some()));
        for kind in ORDINARY.into_iter().chain([BURSTY]) {
            let outcomes = self.of(&format!("equal {}", kind.name));
            let n = outcomes.iter().filter(|o| o.healthy).count();
            rows.push(Row::share("11", &format!("equal called healthy, {}", kind.name), n, outcomes.len(), 0.98, true));
        }
        for experiment in self.experiments.iter().filter(|e| e.name.starts_with("from the start")) {
            let outcomes = self.of(&experiment.name);
            let n = outcomes.iter().filter(|o| o.healthy).count();
            let what = format!("called healthy, {}", experiment.name);
            rows.push(Row::share("11", &what, n, outcomes.len(), 0.05, false));
        }
        rows.push(self.delay("12", "noisier", 0.5, 140.0));
        rows.push(self.found("12", "spikes", 1000, 0.95));
        rows.push(alarms("13", "equal condemned, one stable instance, 12 kinds", &self.pool("pair", &ORDINARY), 0.002));
        rows.push(self.delay("13", "pair +50 quiet iid", 0.5, 60.0));
        rows.push(self.delay("13", "pair +50 quiet ar0.7", 0.5, 60.0).stretch());
        let moved = self.outcomes.iter().flatten().filter(|o| o.moved).count();
        let checked = self.outcomes.iter().map(|o| o.iter().step_by(10).filter(|o| o.delay.is_some()).count()).sum();
        rows.push(
            Row::new("15", "verdicts that moved without the windows after them", moved as f64, 0.0, Unit::Number)
                .on(checked),
        );
        let half = [
            ("+20 quiet iid", 9.0),
            ("+20 quiet ar0.7", 26.0),
            ("+50 medium iid", 8.0),
            ("+50 medium ar0.7", 27.0),
            ("+50 medium ar0.9", 72.0),
            ("+100 quiet iid", 7.0),
            ("+100 loud iid", 7.0),
        ];
        rows.extend(half.map(|(name, limit)| self.delay("16", name, 0.5, limit).stretch()));
        rows.retain(|row| row.runs > 0);
        rows
    }

    fn delay(&self, row: &'static str, name: &str, quantile: f64, limit: f64) -> Row {
        let outcomes = self.of(name);
        let mut delays: Vec<f64> = outcomes.iter().map(|o| o.delay.map_or(f64::INFINITY, |d| d as f64)).collect();
        delays.sort_by(f64::total_cmp);
        let place = (quantile * delays.len().saturating_sub(1) as f64).ceil() as usize;
        let which = if quantile == 0.5 { "median".to_owned() } else { format!("p{:.0}", 100.0 * quantile) };
        Row::new(
            row,
            &format!("windows until found, {which}: {name}"),
            delays.get(place).copied().unwrap_or(f64::NAN),
            limit,
            Unit::Windows,
        )
        .on(outcomes.len())
    }

    fn found(&self, row: &'static str, name: &str, within: usize, least: f64) -> Row {
        let outcomes = self.of(name);
        let n = outcomes.iter().filter(|o| o.delay.is_some_and(|d| d <= within)).count();
        Row::share(row, &format!("found within {within} windows: {name}"), n, outcomes.len(), least, true)
    }

    fn all_found(&self, row: &'static str, name: &str) -> Row {
        let outcomes = self.of(name);
        let n = outcomes.iter().filter(|o| o.delay.is_some()).count();
        Row::share(row, &format!("found: {name}"), n, outcomes.len(), 1.0, true)
    }

    fn causes(&self, what: &str, of: fn(&Experiment) -> bool) -> Row {
        let is_step = |e: &Experiment| matches!(e.effect, Effect::Step { .. }) && of(e);
        let single = self.experiments.iter().zip(self.outcomes).filter(|(e, _)| is_step(e));
        let found: Vec<&Outcome> = single.flat_map(|(_, o)| o).filter(|o| o.delay.is_some()).collect();
        let right = found.iter().filter(|o| o.cause_right).count();
        Row::share("10", what, right, found.len(), 0.999, true)
    }
}

impl Row {
    pub fn new(row: &'static str, what: &str, value: f64, limit: f64, unit: Unit) -> Self {
        let holds = value <= limit;
        let (what, detail) = (what.to_owned(), String::new());
        Self { row, what, value, limit, at_least: false, unit, runs: 0, detail, stretch: false, holds }
    }

    /// `n` of `of`, at most (or at least) `limit`. So few runs that the limit is below one of them allow none.
    pub fn share(row: &'static str, what: &str, n: usize, of: usize, limit: f64, at_least: bool) -> Self {
        let value = n as f64 / of as f64;
        Self {
            at_least,
            detail: format!("{n} of {of}"),
            holds: if at_least { value >= limit } else { value <= limit },
            ..Self::new(row, what, value, limit, Unit::Share).on(of)
        }
    }

    pub fn on(self, runs: usize) -> Self {
        Self { runs, ..self }
    }

    pub fn stretch(self) -> Self {
        Self { stretch: true, ..self }
    }
}

/// What the count test is asked, with the name of each.
pub fn events() -> [(&'static str, Events); 7] {
    let equal = |per_window, ratio, clumping| Events { per_window, canary_share: 0.25, ratio, clumping, windows: 3600 };
    let uneven = Events { canary_share: 0.1, ..equal(5.0, 1.0, Some(0.5)) };
    [
        ("equal condemned by events, 5 a window", equal(5.0, 1.0, None)),
        ("the same at the allowed ratio of 1.1, 0.5 a window", equal(0.5, 1.1, None)),
        ("the same at 1.1 and clumped (gamma 5), 5 a window", equal(5.0, 1.1, Some(5.0))),
        ("the same at 1.1 and clumped (gamma 5), 0.5 a window", equal(0.5, 1.1, Some(5.0))),
        ("equal condemned by events that vary much (gamma 0.5), 5 a window, a tenth of the work", uneven),
        ("the same with a quarter of the work", Events { canary_share: 0.25, ..uneven }),
        ("windows until found, median: 0.5 events a window, four times as many", equal(0.5, 4.0, None)),
    ]
}

/// Kinds of which equal versions are compared with the other detectors.
pub fn compared() -> impl Iterator<Item = Kind> {
    ORDINARY.into_iter().chain([BURSTY, service::TAU2])
}
