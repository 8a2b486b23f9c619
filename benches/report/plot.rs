//! Plots as SVG. Each stands on a light ground of its own, so that it reads the same on a dark page.

use std::fmt::Write;

pub const OURS: &str = "#0b6e4f";
pub const THEIRS: &str = "#c2571a";
const INK: &str = "#1f2328";
const GRID: &str = "#d8dee4";
const WIDTH: f64 = 640.0;

pub struct Series {
    name: &'static str,
    colour: &'static str,
    dashed: bool,
    /// Size and nanoseconds.
    points: Vec<(f64, f64)>,
}

impl Series {
    pub fn new(
        name: &'static str,
        colour: &'static str,
        dashed: bool,
        points: Vec<(f64, f64)>,
    ) -> Self {
        Self { name, colour, dashed, points }
    }
}

/// Time over size, the size on a logarithmic axis.
pub fn lines(title: &str, axis: &str, series: &[Series]) -> String {
    let (left, right, top, bottom) = (60.0, 620.0, 50.0, 270.0);
    let all = || series.iter().flat_map(|series| &series.points);
    let largest = all().fold(10.0, |most, (size, _)| size.max(most)).log10();
    let step = nice_step(all().fold(1.0, |most, (_, time)| time.max(most)) / 4.0);
    let steps = (all().fold(0.0, |most, (_, time)| time.max(most)) / step).ceil().max(1.0);
    let x = |size: f64| left + size.log10() / largest * (right - left);
    let y = |time: f64| bottom - time / (step * steps) * (bottom - top);

    let mut svg = Svg::new(title, 320.0);
    for i in 0..=steps as usize {
        let time = i as f64 * step;
        svg.line((left, y(time)), (right, y(time)), GRID);
        svg.text((left - 8.0, y(time) + 4.0), "end", INK, &format!("{time:.0} ns"));
    }
    for power in 0..=largest.round() as u32 {
        let size = 10_f64.powi(power as i32);
        svg.text((x(size), bottom + 18.0), "middle", INK, &short(size));
    }
    svg.text(((left + right) / 2.0, bottom + 40.0), "middle", INK, axis);
    for (i, Series { name, colour, dashed, points }) in series.iter().enumerate() {
        let path: Vec<_> =
            points.iter().map(|(size, time)| format!("{:.1},{:.1}", x(*size), y(*time))).collect();
        let dash = if *dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        svg.push(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            path.join(" ")
        ));
        for (size, time) in points {
            svg.push(&format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*size),
                y(*time)
            ));
        }
        let at = 20.0 + i as f64 * 150.0;
        svg.push(&format!(
            "<path d=\"M{at:.0} 36h18\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
        ));
        svg.text((at + 23.0, 40.0), "start", colour, name);
    }
    svg.finish()
}

/// What, beside whom, the ratio, and the goal; on a logarithmic axis, from 1 to the left where the
/// first is faster.
pub fn bars(title: &str, rows: &[(&str, &str, f64, Option<f64>)]) -> String {
    let (left, right, top, height) = (330.0, 580.0, 50.0, 24.0);
    let bottom = top + height * rows.len() as f64;
    let all = || rows.iter().flat_map(|(.., ratio, goal)| [Some(*ratio), *goal]).flatten();
    let (least, most) = (all().fold(0.5, f64::min) * 0.8, all().fold(1.2, f64::max) * 1.2);
    let x = |ratio: f64| left + (ratio / least).ln() / (most / least).ln() * (right - left);

    let mut svg = Svg::new(title, bottom + 50.0);
    for ratio in [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        if (least..=most).contains(&ratio) {
            svg.line((x(ratio), top), (x(ratio), bottom), if ratio == 1.0 { INK } else { GRID });
            svg.text((x(ratio), bottom + 16.0), "middle", INK, &ratio.to_string());
        }
    }
    for (i, (what, against, ratio, goal)) in rows.iter().enumerate() {
        let y = top + height * i as f64;
        let colour = if *ratio <= 1.0 { OURS } else { THEIRS };
        let (from, to) = (x(ratio.min(1.0)), x(ratio.max(1.0)));
        svg.push(&format!(
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>",
            y + 4.0,
            to - from
        ));
        if let Some(goal) = goal {
            let x = x(*goal);
            svg.push(&format!(
                "<path d=\"M{x:.1} {y:.1}v{height}\" stroke=\"{INK}\" stroke-width=\"3\"/>"
            ));
        }
        let rival = against.split(',').next().unwrap_or(against);
        svg.text((left - 8.0, y + 16.0), "end", INK, &format!("{what} ÷ {rival}"));
        svg.text((right + 8.0, y + 16.0), "start", INK, &format!("{ratio:.2}"));
    }
    svg.text((20.0, bottom + 38.0), "start", INK, "Further left is faster. The mark is the goal.");
    svg.finish()
}

/// The next of 1, 2, 5, 10, 20, …
fn nice_step(at_least: f64) -> f64 {
    let power = 10_f64.powf(at_least.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    nice.into_iter().find(|step| *step >= at_least).unwrap_or(at_least)
}

fn short(size: f64) -> String {
    match size {
        _ if size >= 1e6 => format!("{:.0}M", size / 1e6),
        _ if size >= 1e3 => format!("{:.0}k", size / 1e3),
        _ => format!("{size:.0}"),
    }
}

struct Svg(String);

impl Svg {
    fn new(title: &str, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"{title}\">\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\" fill=\"#ffffff\" stroke=\"{GRID}\"/>\n\
             <text x=\"20\" y=\"22\" font-size=\"14\" font-weight=\"600\" fill=\"{INK}\">{title}</text>\n",
            WIDTH - 1.0,
            height - 1.0,
        ))
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        self.push(&format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        ));
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, colour: &str, text: &str) {
        self.push(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
        ));
    }

    fn push(&mut self, element: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{element}");
    }

    fn finish(mut self) -> String {
        self.push("</svg>");
        self.0
    }
}
