//! What is written and drawn on the page can be told from its ground, in light and in dark: the ratios of WCAG 2.2 (1.4.3, 1.4.11).

use std::collections::BTreeMap;

use super::blocks::STYLE;
use crate::watch::chart::{Chart, Line, Panel, Scale, Tone, svg};

const TEXT: [&str; 7] = ["ink", "soft", "good", "bad", "warn", "unknown", "focus"];
const DRAWN: [&str; 3] = ["stable", "canary", "evidence"];

/// The colours of the light scheme and of the dark one, by their names.
fn schemes() -> Vec<BTreeMap<&'static str, &'static str>> {
    let blocks = STYLE.split(":root {").skip(1).filter_map(|rest| rest.split('}').next());
    let colours = |block: &'static str| {
        let pairs = block.split(';').filter_map(|line| line.trim().strip_prefix("--")?.split_once(": "));
        pairs.filter(|(_, value)| value.len() == "#rrggbb".len()).collect::<BTreeMap<_, _>>()
    };
    blocks.map(colours).collect()
}

/// Relative luminance of "#rrggbb".
fn luminance(colour: &str) -> f64 {
    let channel = |at: usize| {
        let share = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("two digits")) / 255.0;
        if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
}

fn contrast(a: &str, b: &str) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn the_colours_of_the_page_are_legible_in_light_and_in_dark() {
    assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
    let schemes = schemes();
    assert_eq!(schemes.len(), 2, "light and dark");
    assert_ne!(schemes[0]["ground"], schemes[1]["ground"]);
    for scheme in schemes {
        for ground in ["ground", "card"] {
            let least = TEXT.map(|name| (name, 4.5)).into_iter().chain(DRAWN.map(|name| (name, 3.0)));
            for (name, least) in least {
                let is = contrast(scheme[name], scheme[ground]);
                assert!(is >= least, "{name} {} on {ground} {}: {is:.2}", scheme[name], scheme[ground]);
            }
        }
    }
}

/// The colour on paper of what the page draws in the colour of this name.
fn on_paper(name: &str) -> &'static str {
    let rule = format!("\"] {{ stroke: var(--{name}); }}");
    let (before, _) = STYLE.split_once(&rule).unwrap_or_else(|| panic!("the page gives {name} no colour of its own"));
    before.rsplit('"').next().expect("a colour in quotes")
}

#[test]
fn the_two_versions_can_be_told_from_paper_and_from_the_dark_and_are_of_the_pages_colours() {
    let schemes = schemes();
    for (name, tone) in [("stable", Tone::Stable), ("canary", Tone::Canary)] {
        let line = Line { name: name.to_owned(), tone, points: vec![(0.0, 0.2), (1.0, 0.8)] };
        let panel = Panel {
            label: String::new(),
            scale: Scale::Linear,
            bands: Vec::new(),
            lines: vec![line],
            limit: None,
            if_empty: String::new(),
        };
        let colour = on_paper(name);
        let drawn = svg(&Chart { panels: vec![panel], ..Chart::default() }, 400, 300);
        assert!(drawn.contains(&format!("stroke=\"{colour}\"")), "{name} is not drawn in {colour}: {drawn}");
        assert_eq!(colour.to_lowercase(), schemes[0][name], "{name}: paper is as light as the page");
        for ground in ["#FFFFFF", schemes[0]["ground"], schemes[1]["ground"], schemes[1]["card"]] {
            let is = contrast(colour, ground);
            assert!(is >= 3.0, "{name} {colour} on {ground}: {is:.2}");
        }
    }
}
