//! A table of indicators before the judge of columns, with what the configuration and the command line set of each column.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail};

use super::{Args, Judged, POINTS};
use crate::{
    judge::{
        Direction, IndicatorParameters, Parameters, Tolerance,
        columns::{Column, Columns},
        settings::IndicatorKey,
    },
    telemetry::table::Table,
    watch::chart::Timeline,
    window::Indicator,
};

/// What keys of one indicator begin with.
const INDICATOR: &str = "indicator.";
/// What can be set of a column. The others are about what a recording has and a table has not.
const OF_A_COLUMN: [IndicatorKey; 6] = [
    IndicatorKey::Direction,
    IndicatorKey::Weight,
    IndicatorKey::Delta,
    IndicatorKey::DeltaHealthy,
    IndicatorKey::Epsilon,
    IndicatorKey::Steps,
];

/// Whether the file is a table.
pub(super) fn is_one(args: &Args) -> bool {
    args.file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"))
}

/// Whether a `--what-if` is about one indicator, which in a table is a column.
pub(super) fn is_of_a_column(pair: &str) -> bool {
    pair.trim_start().starts_with(INDICATOR)
}

/// A table has one deployment, by the name of its file. `pairs`: those of `--what-if` that are about one column.
pub(super) fn judge(
    args: &Args,
    parameters: Parameters,
    pairs: &[String],
) -> anyhow::Result<BTreeMap<Arc<str>, Judged>> {
    let path = &args.file;
    let file = std::fs::File::open(path).with_context(|| format!("open table {}", path.display()))?;
    let table = Table::read(std::io::BufReader::new(file), &path.display().to_string())?;
    let mut judge = Columns::new(parameters.clone(), columns(&table, args, &parameters, pairs)?);
    let mut course = Timeline::new(POINTS);
    let mut last = None;
    for (index, moment) in table.moments.iter().enumerate() {
        let t_ns = (moment.t_s * 1e9) as u64;
        let verdict = judge.observe(index as u64, t_ns, &moment.stable, &moment.canary);
        course.push(&verdict, t_ns);
        last = Some(verdict);
    }
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let verdict = last.context("a table has at least one moment")?;
    let name: Arc<str> = args.deployment.clone().unwrap_or(name).into();
    Ok(BTreeMap::from([(name, Judged { verdict, course, columns: Some(judge.states()) })]))
}

/// The columns as they are judged: by default, as configured, as the command line has it. The last one holds.
fn columns(table: &Table, args: &Args, parameters: &Parameters, pairs: &[String]) -> anyhow::Result<Vec<Column>> {
    let name = args.file.display().to_string();
    let epsilons = table.epsilons(parameters.warmup_windows);
    let mut columns: Vec<Column> = table
        .indicators
        .iter()
        .zip(epsilons)
        .map(|(name, epsilon)| Column {
            name: name.clone(),
            direction: Direction::Up,
            tolerance: Tolerance::default(),
            epsilon,
        })
        .collect();
    for (what, column, key, value) in configured(parameters) {
        set(&mut columns, &name, (column, key), &value).context(what)?;
    }
    for pair in pairs {
        let what = || format!("--what-if {pair}");
        let (column, key, value) = parse(pair).context("write indicator.COLUMN.KEY=VALUE").with_context(what)?;
        let known = IndicatorKey::ALL.into_iter().find(|k| k.name() == key);
        let key = known.with_context(|| format!("{key}: unknown key: {}", known_keys())).with_context(what)?;
        set(&mut columns, &name, (column, key), &value).with_context(what)?;
    }
    for column in &args.lower_is_worse {
        let what = || format!("--lower-is-worse {column}");
        let down = toml::Value::from(Direction::Down.name());
        set(&mut columns, &name, (column.as_str(), IndicatorKey::Direction), &down).with_context(what)?;
    }
    Ok(columns)
}

/// What a configuration sets of indicators otherwise than the judge by itself, each with its place in words.
fn configured(parameters: &Parameters) -> Vec<(String, &'static str, IndicatorKey, toml::Value)> {
    let usual = Parameters::default();
    let mut set = Vec::new();
    for indicator in Indicator::ALL {
        let (here, usual) = (&parameters.indicators[indicator as usize], &usual.indicators[indicator as usize]);
        for key in IndicatorKey::ALL.into_iter().filter(|key| key.value(here) != key.value(usual)) {
            let what = format!("indicator.{}.{} of the configuration", indicator.name(), key.name());
            set.push((what, indicator.name(), key, key.value(here)));
        }
    }
    set
}

/// "indicator.COLUMN.KEY=VALUE" in its parts. The name of a column may have dots of its own.
fn parse(pair: &str) -> Option<(&str, &str, toml::Value)> {
    let (key, value) = pair.rsplit_once('=')?;
    let (column, key) = key.trim().strip_prefix(INDICATOR)?.rsplit_once('.')?;
    // A word needs no quotes on the command line.
    let parsed = toml::from_str::<toml::Table>(&format!("x = {value}")).ok().and_then(|mut table| table.remove("x"));
    Some((column, key, parsed.unwrap_or_else(|| value.trim().into())))
}

fn set(
    columns: &mut [Column],
    table: &str,
    (name, key): (&str, IndicatorKey),
    value: &toml::Value,
) -> anyhow::Result<()> {
    let Some(at) = columns.iter().position(|column| *column.name == *name) else {
        let known: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        bail!("{table} has no such column; it has {}", known.join(", "));
    };
    if !OF_A_COLUMN.contains(&key) {
        bail!("{} is for recordings: {}", key.name(), known_keys());
    }
    let column = &mut columns[at];
    let (tolerance, epsilon, direction) = (column.tolerance, column.epsilon, column.direction);
    let mut as_indicator = IndicatorParameters { tolerance, epsilon, direction, ..IndicatorParameters::default() };
    key.apply(&mut as_indicator, value).map_err(|write| anyhow::anyhow!("{value} is not allowed: {write}"))?;
    let IndicatorParameters { tolerance, epsilon, direction, .. } = as_indicator;
    (column.tolerance, column.epsilon, column.direction) = (tolerance, epsilon, direction);
    Ok(())
}

fn known_keys() -> String {
    format!("a column of a table has {}", OF_A_COLUMN.map(IndicatorKey::name).join(", "))
}
