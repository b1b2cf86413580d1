//! How a comparison went, in bounded memory: evidence and P(t) of each window, thinned out when it becomes long.

use serde::Serialize;

use super::{Axis, Chart, Line, Mark, Panel, Scale, Tone};
use crate::judge::{Outcome, Verdict};

/// The chart's evidence begins here: less is no evidence at all.
const LEAST_LOG10: f64 = -1.0;
/// It ends here: more than this many times what is needed tells nothing more.
const MOST_BEYOND_LOG10: f64 = 2.0;

/// One window, or the most telling of several.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    pub window: u64,
    /// End of the window, CLOCK_MONOTONIC.
    pub t_ns: u64,
    pub outcome: Outcome,
    /// ln of the e-value.
    pub evidence_ln: f64,
    pub p_canary: Option<f64>,
    pub p_stable: Option<f64>,
}

/// The course of the verdicts on one deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    points: Vec<Point>,
    #[serde(skip)]
    limit: usize,
    /// Windows that one point stands for.
    windows_per_point: u64,
    threshold_ln: f64,
    /// Window from which the regression was dated, and the one in which the canary was condemned.
    onset: Option<u64>,
    condemned: Option<u64>,
    /// Why there is no P(t), if there is none.
    #[serde(skip)]
    without_p: String,
}

impl Timeline {
    /// Keeps at most `limit` points (at least two): where there are more windows, one point stands for several.
    pub fn new(limit: usize) -> Self {
        Self {
            points: Vec::new(),
            limit: limit.max(2),
            windows_per_point: 1,
            threshold_ln: f64::NAN,
            onset: None,
            condemned: None,
            without_p: String::new(),
        }
    }

    /// Takes in the verdict after the window that ended at `t_ns`.
    pub fn push(&mut self, verdict: &Verdict, t_ns: u64) {
        let condemned = verdict.outcome == Outcome::Regressed;
        self.threshold_ln = verdict.threshold_ln;
        self.onset = verdict.onset;
        self.without_p = without_p(verdict);
        self.condemned = if condemned { self.condemned.or(Some(verdict.window)) } else { None };
        self.add(Point {
            window: verdict.window,
            t_ns,
            outcome: verdict.outcome,
            evidence_ln: verdict.evidence_ln,
            p_canary: verdict.p_canary,
            p_stable: verdict.p_stable,
        });
    }

    fn add(&mut self, point: Point) {
        match self.points.last_mut() {
            Some(last) if last.window / self.windows_per_point == point.window / self.windows_per_point => {
                *last = more_telling(*last, point);
            }
            _ => self.points.push(point),
        }
        if self.points.len() > self.limit {
            self.windows_per_point *= 2;
            std::mem::take(&mut self.points).into_iter().for_each(|p| self.add(p));
        }
    }

    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Evidence and P(t) over the windows, with onset and verdict marked.
    pub fn chart(&self, title: impl Into<String>) -> Chart {
        let line = |name: &str, tone, read: &dyn Fn(&Point) -> f64| Line {
            name: name.to_owned(),
            tone,
            points: self.points.iter().map(|p| (p.window as f64, read(p))).collect(),
        };
        let needed = self.threshold_ln / std::f64::consts::LN_10;
        let evidence = |p: &Point| {
            (p.evidence_ln / std::f64::consts::LN_10).clamp(LEAST_LOG10, needed.max(0.0) + MOST_BEYOND_LOG10)
        };
        let missing = |p: Option<f64>| p.unwrap_or(f64::NAN);
        let mark = |at: Option<u64>, name: &str, tone| at.map(|at| Mark { at: at as f64, name: name.to_owned(), tone });
        Chart {
            title: title.into(),
            x_label: "window".to_owned(),
            x_axis: Axis::Count,
            panels: vec![
                Panel {
                    label: "evidence that the canary is worse".to_owned(),
                    scale: Scale::Log10,
                    bands: Vec::new(),
                    lines: vec![line("evidence", Tone::Evidence, &evidence)],
                    limit: needed.is_finite().then(|| (needed, "needed".to_owned())),
                    if_empty: String::new(),
                },
                Panel {
                    label: "P(t), share of the allowed change in use".to_owned(),
                    scale: Scale::Linear,
                    bands: Vec::new(),
                    lines: vec![
                        line("stable", Tone::Stable, &|p| missing(p.p_stable)),
                        line("canary", Tone::Canary, &|p| missing(p.p_canary)),
                    ],
                    limit: Some((1.0, "all of it".to_owned())),
                    if_empty: self.without_p.clone(),
                },
            ],
            marks: [mark(self.onset, "onset", Tone::Faint), mark(self.condemned, "regressed", Tone::Bad)]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

/// Why a chart has no P(t), where it has none.
pub fn without_p(verdict: &Verdict) -> String {
    match verdict.outcome {
        Outcome::InsufficientData => format!("No P(t) yet: {}", verdict.reasons.join("; ")),
        _ if verdict.hard.is_some() => "No P(t): a fact condemned the canary before it could be compared".to_owned(),
        _ => "No P(t): nothing of both sides could be compared".to_owned(),
    }
}

/// Of windows that share a point: the later one, with the larger evidence and P of them.
fn more_telling(a: Point, b: Point) -> Point {
    let larger = |x: Option<f64>, y: Option<f64>| match (x, y) {
        (Some(x), Some(y)) => Some(x.max(y)),
        (x, y) => x.or(y),
    };
    Point {
        evidence_ln: a.evidence_ln.max(b.evidence_ln),
        p_canary: larger(a.p_canary, b.p_canary),
        p_stable: larger(a.p_stable, b.p_stable),
        ..b
    }
}
