//! A small strict reader of OpenMetrics text, after the specification's section on the text format.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};

/// One line of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: bool,
}

/// Reads a whole page.
///
/// # Errors
/// The first line that a strict parser would not take, with its reason.
pub fn parse(page: &str) -> anyhow::Result<Vec<Series>> {
    let body = page.strip_suffix("# EOF\n").context("the page does not end in '# EOF' and a newline")?;
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name) = (words.next().unwrap_or_default(), words.next().context(line.to_owned())?);
            let rest = words.next().with_context(|| format!("nothing said: {line}"))?;
            ensure!(name == current || !families.contains_key(name), "{name} is told in two places");
            name.clone_into(&mut current);
            let family = families.entry(current.clone()).or_default();
            let first = match kind {
                "TYPE" => std::mem::replace(&mut family.kind, rest.to_owned()).is_empty(),
                "UNIT" => family.unit.replace(rest.to_owned()).is_none(),
                "HELP" => !std::mem::replace(&mut family.help, true),
                _ => bail!("neither TYPE, UNIT nor HELP: {line}"),
            };
            ensure!(first, "{name} has two lines of {kind}");
        } else {
            let series = series(line).with_context(|| line.to_owned())?;
            let family = families.get(&current).with_context(|| format!("before any family: {line}"))?;
            belongs(&series, &current, family).with_context(|| line.to_owned())?;
            ensure!(seen.insert((series.name.clone(), series.labels.clone())), "told twice: {line}");
            all.push(series);
        }
    }
    for (name, family) in &families {
        ensure!(!family.kind.is_empty() && family.help, "{name} lacks TYPE or HELP");
        ensure!(
            family.unit.as_ref().is_none_or(|u| name.ends_with(&format!("_{u}"))),
            "{name} does not end in its unit"
        );
    }
    buckets(&all)?;
    Ok(all)
}

/// `name{label="value",...} number`
fn series(line: &str) -> anyhow::Result<Series> {
    let (head, value) = line.rsplit_once(' ').context("no value")?;
    let (name, inner) = match head.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').context("no closing brace")?),
        None => (head, ""),
    };
    ensure!(is_name(name), "{name:?} is no name");
    let mut labels = BTreeMap::new();
    let mut rest = inner;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").context("a label without a quoted value")?;
        ensure!(is_name(label), "{label:?} is no name of a label");
        // No value of ours needs escapes: a backslash would mean that something strange got into a label.
        let (text, after) = after.split_once('"').context("a quote is not closed")?;
        ensure!(!text.is_empty() && !text.contains('\\'), "the value of {label} is {text:?}");
        ensure!(labels.insert(label.to_owned(), text.to_owned()).is_none(), "{label} is there twice");
        rest = after.strip_prefix(',').unwrap_or(after);
        ensure!(rest.len() < after.len() || after.is_empty(), "no comma after {label}");
    }
    let value: f64 = value.parse().context("not a number")?;
    ensure!(value.is_finite(), "{value}: what is not known has to be absent");
    Ok(Series { name: name.to_owned(), labels, value })
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(good)
}

/// Whether the kind of the family has series of this name.
fn belongs(series: &Series, family: &str, of: &Family) -> anyhow::Result<()> {
    let suffix = series.name.strip_prefix(family).with_context(|| format!("not of the family {family}"))?;
    let allowed: &[&str] = match of.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => bail!("{family} is of kind {other:?}"),
    };
    ensure!(allowed.contains(&suffix), "a {} has no {suffix:?}", of.kind);
    ensure!((suffix == "_bucket") == series.labels.contains_key("le"), "le belongs to buckets, and to them alone");
    ensure!(of.kind != "counter" || series.value >= 0.0, "a counter below zero");
    Ok(())
}

/// Buckets grow with their bounds, and the last holds the count.
fn buckets(all: &[Series]) -> anyhow::Result<()> {
    let mut last: BTreeMap<(String, BTreeMap<String, String>), (f64, f64)> = BTreeMap::new();
    for series in all {
        let Some(stem) = series.name.strip_suffix("_bucket") else { continue };
        let mut labels = series.labels.clone();
        let le = labels.remove("le").context("a bucket has a bound")?;
        let bound: f64 = le.replace("+Inf", "inf").parse().with_context(|| format!("le={le:?}"))?;
        let before = last.insert((stem.to_owned(), labels), (bound, series.value));
        if let Some((below, count)) = before {
            ensure!(bound > below && series.value >= count, "buckets out of order at {series:?}");
        }
    }
    for ((stem, labels), (bound, count)) in last {
        let total = all.iter().find(|s| s.name == format!("{stem}_count") && s.labels == labels);
        ensure!(bound.is_infinite(), "{stem} has no bucket +Inf");
        ensure!(total.is_some_and(|t| t.value == count), "{stem}_count is not what the buckets hold");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_seconds A.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{role=\"stable\"} 1.5\n\
        # HELP h H.\n# TYPE h histogram\nh_sum 3\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn takes_what_is_good_and_nothing_else() {
        assert_eq!(parse(GOOD).expect("good").len(), 5);
        for (from, to) in [
            ("# EOF\n", ""),
            ("a_seconds_total", "a_seconds"),
            ("1.5", "NaN"),
            ("1.5", "-1.5"),
            ("role=\"stable\"", "role=\"stable"),
            ("role=\"stable\"", "role=\"stable\",role=\"x\""),
            ("UNIT a_seconds seconds", "UNIT a_seconds bytes"),
            ("# HELP h H.\n", ""),
            ("le=\"+Inf\"} 2", "le=\"+Inf\"} 0"),
            ("h_count 2", "h_count 3"),
            ("h_sum 3\n", "h_sum 3\nh_sum 3\n"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert!(parse(&bad).is_err(), "taken with {to:?} in the place of {from:?}");
        }
    }
}
