//! A chart as one `<svg>` element, to stand in a page or in a file of its own.

mod head;

use plotters::{
    chart::ChartBuilder,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{PathElement, Polygon},
    prelude::SVGBackend,
    series::LineSeries,
    style::{Color as _, FontDesc, IntoFont as _, RGBColor, ShapeStyle},
};

use self::head::{Head, write_instead};
use super::{Axis, Chart, Panel, Scale, Tone};

const WHITE: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(40, 44, 52);
const FONT: &str = "sans-serif";
/// Panels that are lower than this many pixels have no room for a key and names.
const SMALL: u32 = 160;
/// Pixels above the axes: half of the label of a tick that stands at their very top.
const ABOVE: i32 = 7;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the chart in `width` by `height` pixels. Colours are legible on white, and it brings its own white ground.
pub fn svg(chart: &Chart, width: u32, height: u32) -> String {
    let mut text = String::new();
    // Drawing into memory fails only where a coordinate is not a number; those are gaps and left out.
    if let Err(error) = draw(chart, &mut text, (width.max(200), height.max(120))) {
        tracing::warn!("chart {}: {error}", chart.title);
    }
    text
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(chart: &Chart, text: &mut String, size: (u32, u32)) -> Drawn {
    let root = SVGBackend::with_string(text, size).into_drawing_area();
    root.fill(&WHITE)?;
    let root = if chart.title.is_empty() { root } else { root.titled(&chart.title, font(15.0).color(&INK))? };
    let (from, to) = chart.x_range().unwrap_or((0.0, 1.0));
    let to = if to > from { to } else { from + 1.0 };
    for (i, area) in root.split_evenly((chart.panels.len().max(1), 1)).iter().enumerate() {
        if let Some(panel) = chart.panels.get(i) {
            draw_panel(chart, panel, (from, to), area, i == 0)?;
        }
    }
    root.present()?;
    Ok(())
}

/// `names`: whether the moments, which are marked in all panels, are named in this one.
fn draw_panel(chart: &Chart, panel: &Panel, (from, to): (f64, f64), area: &Area<'_>, names: bool) -> Drawn {
    let (low, high) = panel.y_range();
    let (width, height) = area.dim_in_pixel();
    let small = height < SMALL;
    let margin: i32 = if small { 4 } else { 10 };
    let labels: i32 = if width < 500 { 60 } else { 64 };
    // A time of day may be centred on the end of the axis.
    let right: i32 = if chart.x_axis == Axis::Clock { 28 } else { margin + 6 };
    let room = f64::from(width) - f64::from(margin + labels + right);
    let place = |x: f64| f64::from(margin + labels) + (x - from) / (to - from) * room;
    let place: Option<&dyn Fn(f64) -> f64> = if names && !small { Some(&place) } else { None };
    let head = Head::new(chart, panel, width, small, place);
    let (above, area) = area.split_vertically(head.height());
    head.draw(&above)?;
    let mut builder = ChartBuilder::on(&area);
    builder.margin(margin).margin_top(ABOVE).margin_right(right);
    let below: i32 = if small { 20 } else { 36 };
    builder.x_label_area_size(below).y_label_area_size(labels);
    let mut axes = builder.build_cartesian_2d(from..to, low..high)?;
    axes.configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .light_line_style(WHITE)
        .bold_line_style(INK.mix(0.12))
        .axis_style(INK.mix(0.5))
        .label_style(font(if small { 10.0 } else { 11.0 }).color(&INK))
        .x_desc(if small { "" } else { &chart.x_label })
        .x_labels((width / 110).clamp(2, 8) as usize)
        .x_label_formatter(&|x| chart.x_axis.tick(*x))
        .y_labels(if small { 4 } else { y_labels(panel, (low, high)) })
        .y_label_formatter(&|y| panel.tick(*y))
        .draw()?;
    for band in &panel.bands {
        for part in band.points.split(|(x, low, high)| !(x + low + high).is_finite()).filter(|s| s.len() > 1) {
            let edge = part.iter().map(|(x, _, high)| (*x, *high));
            let outline: Vec<_> = edge.chain(part.iter().rev().map(|(x, low, _)| (*x, *low))).collect();
            axes.draw_series([Polygon::new(outline, colour(band.tone).mix(0.15).filled())])?;
        }
    }
    if let Some((at, _)) = &panel.limit {
        axes.draw_series([PathElement::new(vec![(from, *at), (to, *at)], stroke(Tone::Faint, 1))])?;
    }
    for line in &panel.lines {
        for points in line.points.split(|(x, y)| !x.is_finite() || !y.is_finite()).filter(|s| !s.is_empty()) {
            axes.draw_series(LineSeries::new(points.iter().copied(), stroke(line.tone, 2)))?;
        }
    }
    for mark in &chart.marks {
        axes.draw_series([PathElement::new(vec![(mark.at, low), (mark.at, high)], stroke(mark.tone, 1))])?;
    }
    if let Some(words) = panel.instead() {
        let air: i32 = 10;
        write_instead(&area, words, (margin + labels + air, room - f64::from(2 * air)), below + margin)?;
    }
    Ok(())
}

fn y_labels(panel: &Panel, (low, high): (f64, f64)) -> usize {
    match panel.scale {
        Scale::Log10 => ((high - low) as usize + 1).clamp(2, 8),
        Scale::Linear | Scale::Of(_) => 6,
    }
}

/// Letters of this many pixels. The crate takes a size for the height of a line, and makes the letters of an SVG that much smaller.
fn font(pixels: f64) -> FontDesc<'static> {
    (FONT, 1.24 * pixels).into_font()
}

fn stroke(tone: Tone, width: u32) -> ShapeStyle {
    colour(tone).stroke_width(width)
}

/// Told apart by people who do not tell red from green, too (Okabe and Ito's palette), and from white: their orange is darker here,
/// the page's own.
fn colour(tone: Tone) -> RGBColor {
    match tone {
        Tone::Stable => RGBColor(0, 114, 178),
        Tone::Canary => RGBColor(196, 106, 0),
        Tone::Evidence => RGBColor(120, 60, 140),
        Tone::Bad => RGBColor(213, 94, 0),
        Tone::Faint => RGBColor(120, 120, 120),
    }
}
