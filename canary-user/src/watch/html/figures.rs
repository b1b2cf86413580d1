//! The charts' data: from windows to lines. More windows than pixels are drawn together, several to a point.

use super::View;
use crate::{
    guard::Stage,
    journal::StageEntry,
    watch::{
        api::{DecisionLife, IndicatorPoint, WindowPoint},
        chart::{Axis, Band, Chart, Line, Mark, Panel, Scale, Tone, without_p},
        units,
    },
    window::Indicator,
};

/// Below this many pixels of width a chart needs more height: captions wrap, and names of moments stand above each other.
pub const NARROW: u32 = 600;
/// Pixels of a point: closer ones cannot be told apart.
const PIXELS_PER_POINT: u32 = 3;
/// As many values as this are drawn as they are, however high a few others may be.
const USUAL_PERCENT: usize = 97;
/// The evidence axis, in powers of ten: less is no evidence, and more than this beyond what is needed tells nothing more.
const LEAST_LOG10: f64 = -1.0;
const MOST_BEYOND_LOG10: f64 = 3.0;

/// Evidence against its threshold and P(t) of both roles over time, with onset and actions marked; `None` before there
/// is anything to draw.
pub fn course(view: &View, width: u32) -> Option<Chart> {
    let groups = groups(view.windows, width);
    let threshold = view.windows.iter().rev().find_map(|w| w.threshold_ln).map(|ln| log10(f64::from(ln)));
    let line = |name: &str, tone, read: &dyn Fn(&WindowPoint) -> Option<f32>| Line {
        name: name.to_owned(),
        tone,
        points: groups.iter().map(|g| (x(g), mean(g, read))).collect(),
    };
    let most = threshold.unwrap_or(3.0).max(0.0) + MOST_BEYOND_LOG10;
    let strongest = |g: &[WindowPoint]| {
        let all = g.iter().filter_map(|w| w.evidence_ln).map(|ln| log10(f64::from(ln)).clamp(LEAST_LOG10, most));
        all.reduce(f64::max).unwrap_or(f64::NAN)
    };
    let evidence = Line {
        name: "evidence".to_owned(),
        tone: Tone::Evidence,
        points: groups.iter().map(|g| (x(g), strongest(g))).collect(),
    };
    (!groups.is_empty()).then(|| Chart {
        title: String::new(),
        x_label: "UTC".to_owned(),
        x_axis: Axis::Clock,
        panels: vec![
            Panel {
                label: "P(t): 0 is as usual, 1 is all that is allowed".to_owned(),
                scale: Scale::Linear,
                bands: Vec::new(),
                lines: vec![
                    line("stable", Tone::Stable, &|w| w.p_stable),
                    line("canary", Tone::Canary, &|w| w.p_canary),
                ],
                limit: Some((1.0, "all allowed".to_owned())),
                if_empty: without_p(&view.deployment.verdict),
            },
            Panel {
                label: "evidence that the canary is worse".to_owned(),
                scale: Scale::Log10,
                bands: Vec::new(),
                lines: vec![evidence],
                limit: threshold.filter(|t| t.is_finite()).map(|t| (t, "needed".to_owned())),
                if_empty: String::new(),
            },
        ],
        marks: marks(view, ends),
    })
}

/// Stable, canary and the band that is allowed to the canary: stable's value within its margin, with onset and action. `None`
/// where neither side has a reading.
pub fn indicator(indicator: Indicator, view: &View, width: u32) -> Option<Chart> {
    let groups = groups(view.windows, width);
    let line = |name: &str, tone, read: fn(&IndicatorPoint) -> Option<f32>| Line {
        name: name.to_owned(),
        tone,
        points: groups.iter().map(|g| (x(g), mean(g, &|w| read(&w.indicator(indicator))))).collect(),
    };
    let mut lines = vec![line("stable", Tone::Stable, |i| i.stable), line("canary", Tone::Canary, |i| i.canary)];
    if lines.iter().flat_map(|l| &l.points).all(|(_, y)| !y.is_finite()) {
        return None;
    }
    let allowed = |(group, (x, stable)): (&&[WindowPoint], &(f64, f64))| {
        let margin = mean(group, &|w| w.indicator(indicator).margin);
        (*x, stable / (1.0 + margin), stable * (1.0 + margin))
    };
    let mut band = Band { tone: Tone::Stable, points: groups.iter().zip(&lines[0].points).map(allowed).collect() };
    let label =
        cut(&mut lines, &mut band).map(|highest| format!("highest: {}", units::indicator(indicator, Some(highest))));
    Some(Chart {
        title: String::new(),
        x_label: String::new(),
        x_axis: Axis::Clock,
        panels: vec![Panel {
            label: label.unwrap_or_default(),
            scale: Scale::Of(indicator),
            bands: vec![band],
            lines,
            limit: None,
            if_empty: String::new(),
        }],
        marks: marks(view, |life| life.stages.iter().filter(|s| s.stage == Stage::Applied).collect()),
    })
}

/// Cuts a few values off that are so high that nothing else could be seen, and says how high they are: one stall must not flatten
/// an hour.
fn cut(lines: &mut [Line], band: &mut Band) -> Option<f64> {
    let mut values: Vec<f64> =
        lines.iter().flat_map(|l| &l.points).map(|(_, y)| *y).filter(|y| y.is_finite()).collect();
    let mut edges: Vec<f64> = band.points.iter().map(|(_, _, high)| *high).filter(|y| y.is_finite()).collect();
    let usual = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all.get(all.len() * USUAL_PERCENT / 100).copied()
    };
    let most = 1.5 * usual(&mut values)?.max(usual(&mut edges).unwrap_or(0.0));
    let highest = *values.last()?;
    let outermost = highest.max(edges.last().copied().unwrap_or(highest));
    if most <= 0.0 || outermost <= 2.0 * most {
        return None;
    }
    // Gaps are not numbers, and stay.
    let clamp = |y: &mut f64| *y = if *y > most { most } else { *y };
    lines.iter_mut().flat_map(|line| &mut line.points).for_each(|(_, y)| clamp(y));
    band.points.iter_mut().for_each(|(_, low, high)| [low, high].into_iter().for_each(clamp));
    Some(highest)
}

/// The first stage of a decision and the last.
fn ends(life: &DecisionLife) -> Vec<&StageEntry> {
    let last = life.stages.last().filter(|_| life.stages.len() > 1);
    life.stages.first().into_iter().chain(last).collect()
}

/// When the change began and what was done, as far as the windows reach. `stages`: those of a decision that are marked.
fn marks(view: &View, stages: fn(&DecisionLife) -> Vec<&StageEntry>) -> Vec<Mark> {
    let (Some(first), Some(last)) = (view.windows.first(), view.windows.last()) else { return Vec::new() };
    let mut marks = Vec::new();
    let verdict = &view.deployment.verdict;
    // That very window may have been thinned out.
    let onset = verdict.onset.filter(|onset| *onset >= first.window);
    let onset = onset.and_then(|onset| view.windows.iter().find(|w| w.window >= onset));
    marks.extend(onset.map(|w| Mark { at: seconds(w.unix_ms), name: "onset".to_owned(), tone: Tone::Bad }));
    for life in view.decisions {
        for stage in stages(life) {
            let name = stage.stage.name().to_owned();
            marks.push(Mark { at: seconds(stage.unix_ms), name, tone: Tone::Faint });
        }
    }
    marks.retain(|m| m.at >= seconds(first.unix_ms) && m.at <= seconds(last.unix_ms) + 60.0);
    marks
}

/// Windows in groups of the same size, so that a point has some pixels. The groups do not move as windows are added.
fn groups(windows: &[WindowPoint], width: u32) -> Vec<&[WindowPoint]> {
    let points = (width / PIXELS_PER_POINT).max(20) as usize;
    let size = windows.len().div_ceil(points).next_power_of_two() as u64;
    windows.chunk_by(|a, b| a.window / size == b.window / size).collect()
}

fn x(group: &[WindowPoint]) -> f64 {
    group.last().map_or(f64::NAN, |w| seconds(w.unix_ms))
}

/// NaN, a gap, where none of the group has a value.
fn mean(group: &[WindowPoint], read: &dyn Fn(&WindowPoint) -> Option<f32>) -> f64 {
    let (sum, n) = group.iter().filter_map(read).fold((0.0, 0.0), |(sum, n), v| (sum + f64::from(v), n + 1.0));
    sum / n
}

fn seconds(unix_ms: u64) -> f64 {
    unix_ms as f64 / 1000.0
}

fn log10(ln: f64) -> f64 {
    ln / std::f64::consts::LN_10
}
