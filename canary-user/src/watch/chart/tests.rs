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
    let panel = Panel {
        label: "gap".into(),
        scale: Scale::Linear,
        bands: Vec::new(),
        lines: vec![line],
        limit: None,
        if_empty: "nothing".into(),
    };
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
    assert_eq!(chart.panels[0].instead(), None, "a gap is not all there is");
}

#[test]
fn a_panel_without_any_value_says_why_instead_of_bare_axes() {
    let mut timeline = Timeline::new(100);
    let verdict = |index: u64| story::snapshot(index).deployments[story::DEPLOYMENT].verdict.clone();
    (0..5).for_each(|index| timeline.push(&verdict(index), index));
    let why = "No P(t) yet: 4 of 20 windows of stable are in, to learn its noise from";
    let (drawn, shown) =
        (svg(&timeline.chart("checkout"), 900, 500), terminal(&timeline.chart("checkout"), 80, 30, false));
    assert!(written(&drawn).iter().any(|w| w.text == why), "{drawn}");
    assert!(shown.ends_with(&format!("P(t), share of the allowed change in use\n  {why}\n")), "{shown}");
    let has_windows = shown.lines().any(|line| line.split_whitespace().eq(["0", "2", "4"]));
    assert!(has_windows, "the panel above it has the labels of the windows:\n{shown}");
    // On a phone it takes several lines, and none is cut.
    for Written { x, text, size, .. } in written(&svg(&timeline.chart(""), 300, 560)) {
        assert!(x + 0.6 * size * text.chars().count() as f64 <= 300.0 || x > 150.0, "'{text}' at {x} is cut");
    }
    let mut crashed = verdict(story::DECIDED);
    crashed.hard = Some(crate::judge::HardFact::CrashLoop);
    assert_eq!(without_p(&crashed), "No P(t): a fact condemned the canary before it could be compared");
    assert!(!svg(&course(1000).chart("checkout"), 900, 500).contains("No P(t)"), "there it is");
}

/// A text of a picture that is not empty.
struct Written {
    x: f64,
    y: f64,
    /// Whether its middle stands at `y`, as that of a label of the y axis; else its upper edge.
    is_centred: bool,
    anchor: String,
    size: f64,
    text: String,
}

fn written(svg: &str) -> Vec<Written> {
    let read = |element: &str| {
        let (tag, rest) = element.split_once('>').expect("a tag ends");
        let attribute = |name: &str| {
            let (_, value) = tag.split_once(&format!("{name}=\"")).unwrap_or_else(|| panic!("no {name} in {tag}"));
            value.split('"').next().expect("split has a first part").to_owned()
        };
        let number = |name: &str| attribute(name).parse::<f64>().unwrap_or_else(|e| panic!("{name} in {tag}: {e}"));
        let text = rest.split("</text>").next().unwrap_or_default().trim().to_owned();
        let (x, y, size) = (number(" x"), number(" y"), number("font-size"));
        let is_centred = attribute(" dy") == "0.5ex";
        Written { x, y, is_centred, anchor: attribute("text-anchor"), size, text }
    };
    svg.split("<text").skip(1).map(read).filter(|w| !w.text.is_empty()).collect()
}

/// A panel of an indicator that was this all the time.
fn level(indicator: Indicator, value: f64, label: &str) -> Chart {
    let points = vec![(1_800_000_000.0, value), (1_800_000_060.0, value)];
    let line = Line { name: "stable".into(), tone: Tone::Stable, points };
    let scale = Scale::Of(indicator);
    let if_empty = String::new();
    let panel = Panel { label: label.into(), scale, bands: Vec::new(), lines: vec![line], limit: None, if_empty };
    Chart { x_axis: Axis::Clock, panels: vec![panel], ..Chart::default() }
}

#[test]
fn every_label_is_inside_its_picture_also_that_of_a_tick_at_the_top() {
    let values = [0.0, 2e-5, 4e-4, 0.02, 0.9, 412.0, 1_100.0, 13_500.0, 1.9e6, 1.25e9, 58e9];
    for indicator in Indicator::ALL {
        let most = if indicator == Indicator::MemoryStall { 1.0 } else { f64::INFINITY };
        for value in values.into_iter().filter(|value| *value <= most) {
            for (label, width, height) in [("", 250, 120), ("highest: 90.0 ms", 250, 120), ("", 900, 210)] {
                let all = written(&svg(&level(indicator, value, label), width, height));
                assert!(all.len() > 3, "{}: {value}: labels of both axes", indicator.name());
                for Written { x, y, is_centred, anchor, size, text } in all {
                    let what = format!("{} of {value}: '{text}' at {x}, {y}", indicator.name());
                    assert!(size >= 9.9, "{what}: letters of {size} pixels");
                    let above = if is_centred { 0.5 * size } else { 0.0 };
                    assert!(y >= above && y - above + size <= f64::from(height), "{what} is cut");
                    let length = 0.6 * size * text.chars().count() as f64;
                    let begin = match &*anchor {
                        "end" => x - length,
                        "middle" => x - length / 2.0,
                        _ => x,
                    };
                    assert!(begin >= 0.0 && begin + length <= f64::from(width), "{what} is cut");
                }
            }
        }
    }
}

#[test]
fn labels_of_an_axis_differ_also_where_all_is_zero() {
    for indicator in Indicator::ALL {
        let all = written(&svg(&level(indicator, 0.0, ""), 250, 120));
        let labels: Vec<&str> = all.iter().filter(|w| w.anchor == "end").map(|w| &*w.text).collect();
        let distinct: std::collections::BTreeSet<&str> = labels.iter().copied().collect();
        assert!(labels.len() > 1 && distinct.len() == labels.len(), "{}: {labels:?}", indicator.name());
    }
}
