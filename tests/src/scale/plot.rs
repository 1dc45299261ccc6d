//! Draws how figures grow with the number of peers.

use std::fmt::Write as _;

use super::Figures;

const PANEL_WIDTH: f64 = 300.0;
const PANEL_HEIGHT: f64 = 200.0;
const COLUMNS: usize = 3;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 26.0;

/// What is drawn: title, and the figure.
type Panel = (&'static str, fn(&Figures) -> f64);

const PANELS: [Panel; 6] = [
    ("ms until an op is everywhere (worst)", |f| f.everywhere_max_ms),
    ("ms to agree after a split", |f| f.reconverged_ms),
    ("frames per op and peer", |f| f.frames_per_op),
    ("bytes per op and peer", |f| f.bytes_per_op),
    ("idle bytes/s per peer", |f| f.idle_bytes),
    ("KiB of memory per peer", |f| f.memory_bytes / 1_024.0),
];

/// Returns the plot of all figures over the number of peers, on a logarithmic axis.
#[must_use]
pub fn svg(figures: &[Figures]) -> String {
    let rows = PANELS.len().div_ceil(COLUMNS);
    #[expect(clippy::cast_precision_loss, reason = "a handful of panels")]
    let (width, height) = (COLUMNS as f64 * PANEL_WIDTH, rows as f64 * PANEL_HEIGHT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#222\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (index, (title, value)) in PANELS.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a handful of panels")]
        let (x, y) = ((index % COLUMNS) as f64 * PANEL_WIDTH, (index / COLUMNS) as f64 * PANEL_HEIGHT);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let points: Vec<(f64, f64)> = figures.iter().map(|f| ((f.peers as f64).log10(), value(f))).collect();
        panel(&mut out, (x, y), title, &points);
    }
    out += "</svg>\n";
    out
}

fn panel(out: &mut String, (x, y): (f64, f64), title: &str, points: &[(f64, f64)]) {
    let (left, right) = (x + LEFT, x + PANEL_WIDTH - RIGHT);
    let (top, bottom) = (y + TOP, y + PANEL_HEIGHT - BOTTOM);
    let least = points.iter().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let span = (points.iter().map(|(x, _)| *x).fold(0.0, f64::max) - least).max(1e-9);
    let most = nice(points.iter().map(|(_, y)| *y).fold(0.0, f64::max));
    let place = |(px, py): (f64, f64)| {
        (left + (px - least) / span * (right - left), bottom - (py / most).clamp(0.0, 1.0) * (bottom - top))
    };
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{title}</text>", top - 12.0);
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let (_, at) = place((least, value));
        let _ = writeln!(out, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 6.0, at + 4.0);
    }
    let mut line = String::new();
    for (index, point) in points.iter().enumerate() {
        let (px, py) = place(*point);
        let _ = write!(line, "{}{px:.1} {py:.1}", if index == 0 { "M" } else { "L" });
        let _ = writeln!(out, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"#1565c0\"/>");
        let peers = 10_f64.powf(point.0).round();
        let _ = writeln!(out, "<text x=\"{px:.1}\" y=\"{}\" text-anchor=\"middle\">{peers}</text>", bottom + 16.0);
    }
    let _ = writeln!(out, "<path d=\"{line}\" fill=\"none\" stroke=\"#1565c0\" stroke-width=\"1.5\"/>");
}

/// Returns the next round number, so that quarters of it are short.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-6).log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_point_for_each_figure_in_each_panel() {
        let figures = [10, 100].map(|peers| Figures { peers, idle_bytes: 3.0, ..Figures::default() });
        let svg = svg(&figures);
        assert_eq!(svg.matches("<circle").count(), 2 * PANELS.len());
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
