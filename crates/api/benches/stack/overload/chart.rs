//! The goodput curve: `deploy/bench/goodput.svg`.

use std::{fmt::Write, fs};

use super::{Overload, Step};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../deploy/bench/goodput.svg"
);
/// The plot's origin and size in pixels.
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 300.0;
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
/// What the axes end at.
const LOAD_MAX: f64 = 4.5;
const GOODPUT_MAX: f64 = 1.2;

pub(super) fn write(measured: &Overload) -> anyhow::Result<()> {
    let mut svg = String::new();
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 360" font-family="sans-serif" font-size="12" fill="#333">
<rect width="660" height="360" fill="#fff"/>"##
    )?;
    for tick in 0..=4 {
        let load = f64::from(tick);
        writeln!(
            svg,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="middle">{load}×</text>"#,
            x(load),
            BOTTOM + 18.0
        )?;
    }
    for tick in 0..=4 {
        let goodput = 0.25 * f64::from(tick);
        writeln!(
            svg,
            r##"<path d="M{LEFT} {1:.0}h{WIDTH}" stroke="#ddd"/><text x="{2:.0}" y="{3:.0}" text-anchor="end">{0:.2}</text>"##,
            goodput,
            y(goodput),
            LEFT - 8.0,
            y(goodput) + 4.0
        )?;
    }
    writeln!(
        svg,
        r#"<text x="340" y="345" text-anchor="middle">load, by the peak</text>
<text x="16" y="170" text-anchor="middle" transform="rotate(-90 16 170)">good answers, by the peak</text>"#
    )?;
    let points = |steps: &[Step]| {
        let point = |step: &Step| (step.sent, step.goodput);
        steps.iter().map(point).collect::<Vec<_>>()
    };
    let ceiling: Vec<_> = measured
        .guarded
        .iter()
        .map(|step| (step.sent, measured.ceiling(step.sent)))
        .collect();
    line(&mut svg, &ceiling, ("#999", "4 4"), "ceiling")?;
    line(
        &mut svg,
        &points(&measured.guarded),
        ("#1a7f37", "none"),
        "with admission",
    )?;
    line(
        &mut svg,
        &points(&measured.control),
        ("#cf222e", "none"),
        "without",
    )?;
    writeln!(svg, "</svg>")?;
    Ok(fs::write(FILE, svg)?)
}

/// A line through `points`, named at its end.
fn line(
    svg: &mut String,
    points: &[(f64, f64)],
    (colour, dashes): (&str, &str),
    name: &str,
) -> std::fmt::Result {
    let path: Vec<_> = points
        .iter()
        .map(|(load, goodput)| format!("{:.1},{:.1}", x(*load), y(*goodput)))
        .collect();
    writeln!(
        svg,
        r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>"#,
        path.join(" ")
    )?;
    let (load, goodput) = points.last().copied().unwrap_or_default();
    writeln!(
        svg,
        r#"<text x="{:.0}" y="{:.0}" text-anchor="end" fill="{colour}">{name}</text>"#,
        x(load),
        y(goodput) - 8.0
    )
}

fn x(load: f64) -> f64 {
    LEFT + WIDTH * load / LOAD_MAX
}

fn y(goodput: f64) -> f64 {
    BOTTOM - HEIGHT * goodput / GOODPUT_MAX
}
