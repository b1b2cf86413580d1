//! What a chart shows, in both forms.

use super::*;
use crate::watch::story;

fn course(limit: usize) -> Timeline {
    let mut timeline = Timeline::new(limit);
    for index in 0..story::WINDOWS {
        let snapshot = story::snapshot(index);
        timeline.push(&snapshot.deployments[story::DEPLOYMENT].verdict, snapshot.t_ns);
    }
    timeline
}

#[test]
fn a_terminal_shows_both_panels_the_limit_and_the_onset() {
    let text = terminal(&course(1000).chart("checkout"), 80, 30, false);
    for part in [
        "checkout\n",
        "evidence that the canary",
        "P(t), share",
        "1\u{202f}000",
        "onset at window 60",
        "stable",
        "canary",
    ] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "dots:\n{text}");
    assert!(!text.contains('\x1b'), "no colour unless asked for");
    assert!(terminal(&course(1000).chart("checkout"), 80, 30, true).contains("\x1b[36m"));
}

#[test]
fn svg_is_one_element_with_every_line_and_mark() {
    let text = svg(&course(1000).chart("a <b> & c"), 900, 500);
    assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
    assert!(text.contains("&lt;b&gt; &amp; c"), "the title is text and no markup");
    for part in ["onset (60)", "regressed (", "stable", "canary", "needed"] {
        assert!(text.contains(part), "'{part}' is missing");
    }
    assert!(!text.contains("NaN") && !text.contains("inf"), "coordinates are numbers");
}

#[test]
fn a_long_course_is_thinned_out_and_keeps_its_peaks() {
    let (whole, thin) = (course(1000), course(20));
    assert_eq!(whole.points().len() as u64, story::WINDOWS);
    assert!(thin.points().len() <= 20 && thin.points().len() >= 10, "{}", thin.points().len());
    let peak = |t: &Timeline| t.points().iter().map(|p| p.evidence_ln).fold(f64::MIN, f64::max);
    assert_eq!(peak(&whole), peak(&thin));
}

#[test]
fn a_window_without_a_value_is_a_gap_and_nothing_at_all_is_said() {
    let line = Line { name: "x".into(), tone: Tone::Stable, points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)] };
    let panel = Panel { label: "gap".into(), scale: Scale::Linear, bands: Vec::new(), lines: vec![line], limit: None };
    let chart = Chart {
        title: "t".into(),
        x_label: "window".into(),
        x_axis: Axis::Count,
        panels: vec![panel],
        marks: Vec::new(),
    };
    let lines = |chart: &Chart| svg(chart, 400, 200).matches("<polyline").count();
    assert!(lines(&chart) >= lines(&Chart::default()) + 2);
    assert!(terminal(&Chart::default(), 80, 20, false).contains("nothing to draw"));
}
