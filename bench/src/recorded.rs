//! A service that was recorded: ten replicas of a small HTTP server in Python, side by side on a busy machine with two CPUs, in
//! windows of half a second (`bench/data/replicas.csv`). Six are equal; three are worse from the start, each in another way. The tenth
//! (`cpu10`: ten per cent more work for each request, which is some 2 % more CPU and 5 % more bytes) is in no row: that is about what
//! the margins allow, so that neither to condemn it nor to let it pass would be wrong.
//!
//! Every choice of three stable replicas, and of the canary, is a rollout. They share their replicas, so that they are many looks
//! at few instances: what is none here may be some elsewhere. One parameter was left as it was for them: with `wander_noise_share` 1
//! one of the 30 pairs of equal ones was condemned.

use anyhow::{Context, Result};
use canary_user::{
    judge::{Parameters, Tolerance},
    window::Indicator,
};

use crate::{
    rows::{Row, Unit},
    trial::Trial,
};

const DATA: &str = include_str!("../data/replicas.csv");
/// The indicators stand after the window and the replica, in these units over the guard's: resident memory is in KiB, and latencies
/// are in microseconds.
const READ: [(Indicator, f64); INDICATORS] = [
    (Indicator::CpuPerWork, 1.0),
    (Indicator::RunQueueWait, 1.0),
    (Indicator::MemoryInUse, 1024.0),
    (Indicator::BytesPerWork, 1.0),
    (Indicator::TurnaroundMean, 1e3),
    (Indicator::TurnaroundP95, 1e3),
];
const INDICATORS: usize = 6;
const EQUAL: [&str; 6] = ["a1", "a2", "a3", "a4", "a5", "a6"];
/// Thirty per cent more work for each request (5 % more CPU, 13 % more bytes), 2.5 KB that each request leaves behind, and 20 ms
/// more for three requests in a hundred; with the indicators in which that shows.
const WORSE: [(&str, &[usize]); 3] = [("cpu30", &[0, 3]), ("leak", &[2]), ("slow", &[1, 4, 5])];
/// Windows in which the replicas start, and those of stable alone.
const STARTING: usize = 40;
const BEFORE: usize = 400;
/// Within so many windows what is worse has to be found.
const WITHIN: usize = 250;

/// By replica: its windows, each with the logarithm of every indicator, as the judge takes it.
struct Recorded(Vec<(&'static str, Vec<[f64; INDICATORS]>)>);

/// Who is compared with whom.
struct Rollout<'a> {
    canary: &'a [[f64; INDICATORS]],
    stable: Vec<&'a [[f64; INDICATORS]]>,
    /// Whether the canary is known from before, as an upgrade in place is.
    in_place: bool,
}

/// The rows of all rollouts.
pub fn rows() -> Result<Vec<Row>> {
    let recorded = Recorded::read(DATA)?;
    let condemned = |stable: usize, in_place: bool| {
        let rollouts = EQUAL.iter().flat_map(|canary| recorded.rollouts(canary, stable, in_place)).collect::<Vec<_>>();
        let n = rollouts.iter().filter(|r| r.judge().regressed_at.is_some()).count();
        (n, rollouts.len())
    };
    let mut rows = Vec::new();
    for (what, stable, in_place) in [
        ("equal replicas of a recorded service condemned", 3, false),
        ("equal replicas of a recorded service condemned, upgraded in place", 3, true),
        ("equal replicas of a recorded service condemned, one stable", 1, false),
    ] {
        let (n, of) = condemned(stable, in_place);
        rows.push(Row::share("3", what, n, of, 0.0, false));
    }
    for (name, shows_in) in WORSE {
        let trials: Vec<Trial> = recorded.rollouts(name, 3, false).iter().map(Rollout::judge).collect();
        let mut delays: Vec<usize> = trials.iter().map(|t| t.regressed_at.unwrap_or(usize::MAX)).collect();
        delays.sort_unstable();
        let found = delays.iter().filter(|d| **d <= WITHIN).count();
        let named = trials.iter().filter(|t| t.causes().first().is_some_and(|i| shows_in.contains(i))).count();
        let what = |what: &str| format!("{what}: {name}, recorded");
        rows.push(Row::share("3", &what(&format!("found within {WITHIN} windows")), found, trials.len(), 1.0, true));
        let slowest = delays.last().map_or(f64::NAN, |d| if *d == usize::MAX { f64::INFINITY } else { *d as f64 });
        rows.push(
            Row::new("3", &what("windows until found, slowest"), slowest, WITHIN as f64, Unit::Windows)
                .on(trials.len()),
        );
        rows.push(Row::share("3", &what("the first cause is right"), named, trials.len(), 1.0, true));
    }
    Ok(rows)
}

impl Recorded {
    fn read(data: &'static str) -> Result<Self> {
        let shipped = Parameters::default();
        let mut replicas: Vec<(&str, Vec<[f64; INDICATORS]>)> = Vec::new();
        for line in data.lines().skip(1) {
            let mut cells = line.split(',').skip(1);
            let name = cells.next().with_context(|| format!("no replica in {line:?}"))?;
            let mut row = [f64::NAN; INDICATORS];
            for ((reading, (indicator, unit)), cell) in row.iter_mut().zip(READ).zip(cells) {
                let value: f64 = cell.parse().with_context(|| format!("parse {cell:?} of {line:?}"))?;
                *reading = libm::log(value * unit + shipped.indicators[indicator as usize].epsilon);
            }
            match replicas.iter_mut().find(|(known, _)| *known == name) {
                Some((_, windows)) => windows.push(row),
                None => replicas.push((name, vec![row])),
            }
        }
        Ok(Self(replicas))
    }

    fn of(&self, name: &str) -> &[[f64; INDICATORS]] {
        self.0.iter().find(|(known, _)| *known == name).map_or(&[], |(_, windows)| windows)
    }

    /// This replica against each choice of `stable` of the equal ones that it is not among.
    fn rollouts(&self, canary: &str, stable: usize, in_place: bool) -> Vec<Rollout<'_>> {
        let others: Vec<&str> = EQUAL.into_iter().filter(|name| *name != canary).collect();
        (0u32..1 << others.len())
            .filter(|choice| choice.count_ones() as usize == stable)
            .map(|choice| {
                let chosen = others.iter().enumerate().filter(|(i, _)| choice >> i & 1 == 1);
                let stable = chosen.map(|(_, name)| self.of(name)).collect();
                Rollout { canary: self.of(canary), stable, in_place }
            })
            .collect()
    }
}

impl Rollout<'_> {
    /// As the judge ships, but that what starts was left out already, and a window is half a second.
    fn judge(&self) -> Trial {
        let parameters = Parameters { warmup_windows: 0, ..Parameters::default() };
        let tolerances: [Tolerance; INDICATORS] =
            READ.map(|(indicator, _)| parameters.indicators[indicator as usize].tolerance);
        let mut trial = Trial::of(parameters, &tolerances, 1, self.stable.len());
        let (mut before, mut readings, mut own) = (Vec::new(), Vec::new(), [0.0; INDICATORS]);
        for (t, canary) in self.canary.iter().enumerate().skip(STARTING) {
            before.clear();
            readings.clear();
            for i in 0..INDICATORS {
                own[i] = canary[i];
                before.extend(self.stable.iter().map(|replica| replica[t][i]));
                readings.push(canary[i]);
                readings.extend(self.stable.iter().map(|replica| replica[t][i]));
            }
            if t < STARTING + BEFORE {
                trial.before(&before, self.in_place.then_some(&own[..]));
            } else if !trial.window(&readings) {
                break;
            }
        }
        trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replica_has_every_window() {
        let recorded = Recorded::read(DATA).expect("the file is part of the program");
        let names: Vec<&str> = recorded.0.iter().map(|(name, _)| *name).collect();
        assert!(EQUAL.iter().chain(WORSE.map(|(name, _)| name).iter()).all(|name| names.contains(name)), "{names:?}");
        for (name, windows) in &recorded.0 {
            assert_eq!(windows.len(), 1759, "{name}");
            assert!(windows.iter().flatten().all(|x| x.is_finite()), "{name}");
        }
        assert_eq!((recorded.rollouts("a1", 3, false).len(), recorded.rollouts("leak", 3, false).len()), (10, 20));
    }

    #[test]
    fn equal_replicas_are_not_condemned_and_worse_ones_are() {
        for row in rows().expect("the file is part of the program") {
            assert!(row.holds, "{}: {} ({}), limit {}", row.what, row.value, row.detail, row.limit);
        }
    }
}
