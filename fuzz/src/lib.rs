//! What becomes of bytes that anybody may have written: they are refused, or read and judged as the guard does it. Whatever
//! they are, nothing here panics, and no evidence is NaN.
//!
//! The targets in `fuzz_targets/` call this with what libFuzzer finds; `canary-user/tests/fuzz.rs`, which includes this file,
//! with what proptest makes up. So a target that no longer fits the library is found by the tests, which build no fuzzer.

mod counts;

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{Arc, LazyLock},
};

use canary_user::{
    config::{self, Config},
    daemon::Recorded,
    judge::{
        Direction, Earlier, Parameters, Tolerance, Verdict,
        columns::{Column, Columns},
    },
    telemetry::{recording::Reader, table::Table},
    watch::chart::{self, Timeline},
};

/// The least that may be configured, so that a few windows are bet on and condemned or called healthy.
const FEW_WINDOWS: [&str; 6] = [
    "baseline_windows=30",
    "initial_windows=10",
    "warmup_windows=1",
    "soak_windows=1",
    "stretch_baseline_windows=60",
    "stretch_lag_windows=0",
];

/// Reads a recording and judges what can be read of it. Answers the last verdict on each deployment.
pub fn recording(bytes: &[u8]) -> Vec<Verdict> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("write");
    let Ok(reader) = Reader::open(file.path()) else { return Vec::new() };
    let earlier = reader.header().earlier.iter().map(|(name, known)| (name, serde_json::from_value(known.clone())));
    let earlier = earlier.map(|(name, known)| Ok((name.as_str().into(), known?)));
    let Ok(mut earlier): serde_json::Result<BTreeMap<Arc<str>, Earlier>> = earlier.collect() else { return Vec::new() };
    let mut lines: BTreeMap<Arc<str>, (Recorded, Told)> = BTreeMap::new();
    'ticks: for tick in reader.map_while(Result::ok) {
        for sample in &tick.samples {
            let name = &sample.target.deployment;
            if !lines.contains_key(name) {
                let known = earlier.remove(name).unwrap_or_default();
                let line = Recorded::new(name.clone(), of_few_windows(), &known);
                lines.insert(name.clone(), (line, Told::default()));
            }
        }
        for (line, told) in lines.values_mut() {
            // It does not say what it refers to: `canary replay` ends here.
            let Ok(verdict) = line.push(&tick) else { break 'ticks };
            told.verdict(verdict, tick.t_ns);
        }
    }
    lines.into_values().filter_map(|(_, told)| told.end()).collect()
}

/// Judges counts that the bytes stand for, window by window. Answers the last verdict.
pub fn counts(bytes: &[u8]) -> Option<Verdict> {
    let mut line = Recorded::new("s".into(), of_few_windows(), &Earlier::default());
    let mut told = Told::default();
    for tick in counts::ticks(bytes) {
        told.verdict(line.push(&tick).expect("what is referred to is said"), tick.t_ns);
    }
    told.end()
}

/// Reads a table and judges it, every other column in the other direction. Answers how many windows were bet on.
pub fn table(bytes: &[u8]) -> u64 {
    let Ok(table) = Table::read(bytes, "t.csv") else { return 0 };
    assert!(table.moments.windows(2).all(|m| m[0].t_s < m[1].t_s), "time goes on");
    let rows = || table.moments.iter().flat_map(|moment| moment.stable.iter().chain(&moment.canary));
    assert!(rows().all(|row| row.values.len() == table.indicators.len()), "a reading of each column");
    let parameters = of_few_windows();
    let epsilons = table.epsilons(parameters.warmup_windows);
    let column = |(i, (name, epsilon)): (usize, (&Arc<str>, f64))| Column {
        name: name.clone(),
        direction: if i % 2 == 0 { Direction::Up } else { Direction::Down },
        tolerance: Tolerance::default(),
        epsilon,
    };
    let columns = table.indicators.iter().zip(epsilons).enumerate().map(column).collect();
    let mut judge = Columns::new(parameters, columns);
    let mut told = Told::default();
    for (index, moment) in table.moments.iter().enumerate() {
        let t_ns = (moment.t_s * 1e9) as u64;
        told.verdict(judge.observe(index as u64, t_ns, &moment.stable, &moment.canary), t_ns);
        assert!(judge.states().iter().all(|state| !state.evidence_ln.is_nan()), "of each column, too: {moment:?}");
    }
    told.end();
    judge.tracks().iter().map(|track| track.bets()).max().unwrap_or(0)
}

/// Reads a configuration. One that is accepted says the same again where it is printed. Answers whether it was.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let config = match Config::parse(text, "canary.toml") {
        Ok(config) => config,
        Err(error) => {
            assert!(error.to_string().starts_with("canary.toml:"), "a mistake has its place: {error}");
            return false;
        }
    };
    let printed = config.to_string();
    let again = Config::parse(&printed, "printed.toml").unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.to_string(), printed, "what is printed says the same");
    let paths =
        ["/system.slice/shop-1.service", "/system.slice/shop-1.service/worker", "/shop/canary"].map(String::from);
    // Whether these overlap is not the question.
    let _ = config.overlap(&paths);
    config.unmatched(&paths);
    true
}

/// The judge's settings for all of this.
fn of_few_windows() -> Parameters {
    static PARAMETERS: LazyLock<Parameters> = LazyLock::new(|| {
        config::what_if(&Parameters::default(), &FEW_WINDOWS.map(String::from)).expect("they may be configured")
    });
    PARAMETERS.clone()
}

/// What is told of one deployment: its verdicts, and how it went.
struct Told {
    last: Option<Verdict>,
    course: Timeline,
}

impl Default for Told {
    fn default() -> Self {
        Self { last: None, course: Timeline::new(100) }
    }
}

impl Told {
    fn verdict(&mut self, verdict: Verdict, t_ns: u64) {
        assert!(!verdict.evidence_ln.is_nan(), "evidence is a number: {verdict:?}");
        if self.last.as_ref().is_none_or(|last| last.outcome != verdict.outcome) {
            tell(&verdict);
        }
        self.course.push(&verdict, t_ns);
        self.last = Some(verdict);
    }

    /// The last verdict, with a drawing and a picture of the way there.
    fn end(self) -> Option<Verdict> {
        let chart = self.course.chart("course");
        chart::terminal(&chart, 100, 30, true);
        chart::svg(&chart, 960, 560);
        self.last.inspect(tell)
    }
}

/// In words, and as JSON that is read back.
fn tell(verdict: &Verdict) {
    verdict.forecast.iter().for_each(|forecast| drop(forecast.in_words()));
    verdict.recommendations.iter().for_each(|step| drop(step.in_words()));
    let text = serde_json::to_string(verdict).expect("a verdict is JSON");
    let back: Verdict = serde_json::from_str(&text).expect("and is read back");
    assert_eq!(back.outcome, verdict.outcome);
}
