//! A plot as inline SVG: lines over two axes, drawn here so that a report needs nothing
//! but itself.
//!
//! ```text
//!   ms |            ____ Klamm            Linear      as it is
//!   10 |        ___/                      Log         decades
//!    1 | ______/                          Percentile  0, 90, 99, 99.9 %: each step is a
//!      +--------------------              decade of 1 / (1 - quantile), as HdrHistogram's
//!       0 %   90 %   99 %
//! ```

use super::html::escaped;
use std::fmt::Write as _;

#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    Linear,
    Log,
    Percentile,
}

pub struct Axis {
    pub label: String,
    pub scale: Scale,
}

pub struct Series {
    pub name: String,
    /// Which of the style sheet's colours.
    pub colour: usize,
    pub dashed: bool,
    pub points: Vec<(f64, f64)>,
}

pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

pub const COLOURS: usize = 6;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

/// Beyond it a quantile is 1 to an f64's eye.
const DECADES_MAX: f64 = 9.0;

impl Scale {
    /// Where on a ruler; None where this scale has no place for it.
    fn place(self, value: f64) -> Option<f64> {
        let at = match self {
            Scale::Linear => value,
            Scale::Log => value.log10(),
            Scale::Percentile => -(1.0 - value).log10(),
        };
        match self {
            // The slowest of all is one step beyond those that can be told apart.
            Scale::Percentile if value >= 1.0 => None,
            _ => at.is_finite().then_some(at),
        }
    }

    /// Marks between two places: place and text.
    fn ticks(self, from: f64, to: f64) -> Vec<(f64, String)> {
        #[allow(clippy::cast_possible_truncation)] // some decades
        let decades = from.floor() as i32..=to.ceil() as i32;
        let within = |at: &f64| (from - 1e-9..=to + 1e-9).contains(at);
        match self {
            Scale::Linear => {
                let step = nice_step(to - from);
                let first = (from / step).ceil();
                (0..)
                    .map(|n| (first + f64::from(n)) * step)
                    .take_while(|at| *at <= to + step * 1e-9)
                    .map(|at| (at, plain(at)))
                    .collect()
            }
            Scale::Log => decades
                .map(f64::from)
                .filter(within)
                .map(|at| (at, plain(10_f64.powf(at))))
                .collect(),
            Scale::Percentile => decades
                .map(f64::from)
                .filter(within)
                .map(|at| (at, plain(100.0 * (1.0 - 10_f64.powf(-at))) + " %"))
                .collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that there are about five steps.
fn nice_step(span: f64) -> f64 {
    let raw = (span / 5.0).max(f64::MIN_POSITIVE);
    let decade = 10_f64.powf(raw.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    let step = times.iter().map(|n| n * decade).find(|step| *step >= raw);
    step.unwrap_or(10.0 * decade)
}

/// Without what is only rounding.
fn plain(value: f64) -> String {
    let text = format!("{value:.9}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

impl Plot {
    pub fn svg(&self) -> String {
        let placed: Vec<Vec<(f64, f64)>> = self.series.iter().map(|s| self.place(s)).collect();
        let all = || placed.iter().flatten();
        let Some((x0, x1)) = range(all().map(|p| p.0)) else {
            return String::new();
        };
        let Some((mut y0, mut y1)) = range(all().map(|p| p.1)) else {
            return String::new();
        };
        match self.y.scale {
            // From nothing, so that lengths can be compared.
            Scale::Linear => y0 = y0.min(0.0),
            _ => (y0, y1) = (y0.floor(), y1.ceil()),
        }
        let (x1, y1) = (widened(x0, x1), widened(y0, y1));
        let at_x = |x: f64| LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
        // A write to a String does not fail.
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"20\">{title}</text>\n",
            title = escaped(&self.title)
        );
        for (x, text) in self.x.scale.ticks(x0, x1) {
            let (x, bottom) = (at_x(x), HEIGHT - BOTTOM);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
                 <text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{text}</text>",
                bottom + 16.0
            );
        }
        for (y, text) in self.y.scale.ticks(y0, y1) {
            let y = at_y(y);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text>\
             <text class=\"tick\" x=\"6\" y=\"{}\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 10.0,
            escaped(&self.x.label),
            TOP - 4.0,
            escaped(&self.y.label)
        );
        for (series, points) in self.series.iter().zip(&placed) {
            let points: Vec<String> = points
                .iter()
                .map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline class=\"line c{}{}\" points=\"{}\"><title>{}</title></polyline>",
                series.colour % COLOURS,
                if series.dashed { " dashed" } else { "" },
                points.join(" "),
                escaped(&series.name)
            );
        }
        svg.push_str("</svg><figcaption>");
        for series in &self.series {
            let _ = write!(
                svg,
                "<span class=\"key c{}{}\"></span>{} ",
                series.colour % COLOURS,
                if series.dashed { " dashed" } else { "" },
                escaped(&series.name)
            );
        }
        svg.push_str("</figcaption></figure>\n");
        svg
    }

    fn place(&self, series: &Series) -> Vec<(f64, f64)> {
        let points = series.points.iter().filter_map(|&(x, y)| {
            let x = self.x.scale.place(x)?;
            let far = self.x.scale == Scale::Percentile && x > DECADES_MAX;
            (!far).then_some((x, self.y.scale.place(y)?))
        });
        points.collect()
    }
}

fn range(of: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    of.fold(None, |range, at| {
        let (from, to) = range.unwrap_or((at, at));
        Some((f64::min(from, at), f64::max(to, at)))
    })
}

/// A span that has a length: one point alone has none.
fn widened(from: f64, to: f64) -> f64 {
    if to > from { to } else { from + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale) -> Axis {
        Axis {
            label: "axis".to_owned(),
            scale,
        }
    }

    #[test]
    fn percentiles_are_a_decade_apart() {
        let texts: Vec<String> = Scale::Percentile
            .ticks(0.0, 3.0)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(texts, ["0 %", "90 %", "99 %", "99.9 %"]);
        assert_eq!(Scale::Percentile.place(1.0), None);
        assert!((Scale::Percentile.place(0.999).unwrap() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn linear_marks_are_whole_steps() {
        let marks: Vec<String> = Scale::Linear
            .ticks(0.0, 47.0)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(marks, ["0", "10", "20", "30", "40"]);
        assert_eq!(plain(0.5), "0.5");
    }

    #[test]
    fn points_lie_within_the_frame_and_names_are_escaped() {
        let plot = Plot {
            title: "a <b>".to_owned(),
            x: axis(Scale::Percentile),
            y: axis(Scale::Log),
            series: vec![Series {
                name: "x & y".to_owned(),
                colour: 7,
                dashed: true,
                // A latency of 0 has no logarithm, and 100 % no place.
                points: vec![(0.0, 0.0), (0.5, 1.0), (0.99, 20.0), (1.0, 90.0)],
            }],
        };
        let svg = plot.svg();
        assert!(
            svg.contains("a &lt;b&gt;") && svg.contains("x &amp; y"),
            "{svg}"
        );
        assert!(!svg.contains("<b>"), "{svg}");
        let points = svg.split_once("points=\"").unwrap().1;
        let points = points.split_once('"').unwrap().0;
        let points: Vec<&str> = points.split(' ').collect();
        assert_eq!(points.len(), 2);
        for point in points {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH).contains(&x) && (TOP..=HEIGHT).contains(&y));
        }
        assert!(svg.contains("line c1 dashed"));
    }

    #[test]
    fn nothing_to_draw_is_no_plot() {
        let plot = Plot {
            title: String::new(),
            x: axis(Scale::Linear),
            y: axis(Scale::Linear),
            series: Vec::new(),
        };
        assert_eq!(plot.svg(), "");
    }
}
