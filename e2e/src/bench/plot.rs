//! A curve as an SVG: logarithmic to the right, a line for each server with the spread of its rounds, a legend.
//!
//! It has no ground of its own, and colours that are seen on a light and on a dark one; lines are told apart by their dashes,
//! too.

mod axis;

use std::fmt::Write as _;

use super::table::Spread;
use axis::Axis;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Between the edges of the picture and the axes.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 48.0;
/// Width of one entry of the legend.
const ENTRY: f64 = 130.0;

const COLOURS: [&str; 4] = ["#2f81f7", "#e16f24", "#2da44e", "#a371f7"];
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    /// Where there are points, and how these places are named.
    pub(super) places: Vec<(f64, String)>,
    pub(super) series: Vec<Series>,
}

pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Spread)>,
}

impl Chart {
    pub(super) fn svg(&self) -> String {
        let x = Axis::log(self.places.iter().map(|(at, _)| *at));
        let all = self.series.iter().flat_map(|series| &series.points);
        let y = Axis::round(all.flat_map(|(_, spread)| [spread.low, spread.high]));
        let frame = Frame { x, y };
        let mut out = String::new();
        self.head(&mut out);
        self.axes(&frame, &mut out);
        self.series.iter().enumerate().for_each(|(nth, series)| {
            draw(series, nth, &frame, &mut out);
        });
        out.push_str("</svg>\n");
        out
    }

    fn head(&self, out: &mut String) {
        let title = escape(&self.title);
        // Writing to a string does not fail, here and below.
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\">"
        );
        let _ = writeln!(out, "<title>{title}</title>");
        out.push_str(
            "<style>text{fill:#333}.grid{stroke:#8884}.axis{stroke:#888}.line{fill:none;stroke-width:2}\
             @media (prefers-color-scheme:dark){text{fill:#ddd}}</style>\n",
        );
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{title}</text>");
    }

    fn axes(&self, frame: &Frame, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in frame.y.ticks() {
            let at = frame.down(tick);
            let _ = writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
            text(out, (LEFT - 6.0, at + 4.0), "end", &axis::name(tick));
        }
        let _ = writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
        for (value, name) in &self.places {
            let at = frame.across(*value);
            let _ = writeln!(out, "<path class=\"axis\" d=\"M{at:.1} {bottom}v4\"/>");
            text(out, (at, bottom + 17.0), "middle", name);
        }
        let middle = f64::midpoint(LEFT, right);
        text(out, (middle, HEIGHT - 10.0), "middle", &self.x_label);
        let (at, label) = (f64::midpoint(TOP, bottom), escape(&self.y_label));
        let _ = writeln!(
            out,
            "<text text-anchor=\"middle\" transform=\"translate(14 {at:.1})rotate(-90)\">{label}</text>"
        );
    }
}

/// Where values stand in the picture.
struct Frame {
    x: Axis,
    y: Axis,
}

impl Frame {
    fn across(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - RIGHT - LEFT)
    }

    fn down(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - BOTTOM - TOP)
    }
}

/// A line with its points, their spreads, and its entry in the legend.
fn draw(series: &Series, nth: usize, frame: &Frame, out: &mut String) {
    let (colour, dash) = (COLOURS[nth % COLOURS.len()], DASHES[nth % DASHES.len()]);
    let (mut line, mut spreads, mut dots) = (String::new(), String::new(), String::new());
    for (at, (value, spread)) in series.points.iter().enumerate() {
        let (x, y) = (frame.across(*value), frame.down(spread.median));
        let _ = write!(line, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        let (from, to) = (frame.down(spread.low), frame.down(spread.high));
        let _ = write!(spreads, "M{x:.1} {from:.1}V{to:.1}");
        let _ = write!(dots, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
    }
    let (x, y) = (LEFT + nth as f64 * ENTRY, 40.0);
    let _ = writeln!(
        out,
        "<g fill=\"{colour}\" stroke=\"{colour}\"><path class=\"line\" stroke-dasharray=\"{dash}\" d=\"{line}M{x} {y}h24\"/>\
         <path d=\"{spreads}\"/>{dots}</g>"
    );
    text(out, (x + 30.0, y + 4.0), "start", &series.name);
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = escape(words);
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(names: &[&str], at: &[f64]) -> Chart {
        let spread = |n: usize| Spread { median: 0.5 + n as f64, low: 0.4, high: 2.0 + n as f64 };
        let points = |_: &&str| at.iter().enumerate().map(|(n, at)| (*at, spread(n))).collect();
        Chart {
            title: "GET, pipeline 16: a < b & c".into(),
            x_label: "keys".into(),
            y_label: "CPU us per operation".into(),
            places: at.iter().map(|at| (*at, axis::name(*at))).collect(),
            series: names.iter().map(|n| Series { name: (*n).into(), points: points(n) }).collect(),
        }
    }

    /// Names of the elements, with each that is closed without having been open as an error.
    fn elements(svg: &str) -> Vec<&str> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        for tag in svg.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag ends");
            let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{svg}");
                continue;
            }
            all.push(name);
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "never closed: {open:?}");
        all
    }

    #[test]
    fn every_series_has_its_line_its_points_and_its_entry() {
        let svg = chart(&["larder", "valkey"], &[1e3, 1e4, 1e5]).svg();
        let elements = elements(&svg);
        let count = |name: &str| elements.iter().filter(|each| **each == name).count();
        assert_eq!((count("g"), count("circle")), (2, 6));
        for shown in [">larder<", ">valkey<", ">keys<", ">CPU us per operation<", ">100000<"] {
            assert!(svg.contains(shown), "{shown}");
        }
        assert!(svg.contains("GET, pipeline 16: a &lt; b &amp; c"));
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert!(svg.len() < 8_000, "{} bytes", svg.len());
    }

    #[test]
    fn all_of_it_lies_within_the_picture() {
        for at in [&[1.0][..], &[16.0, 65_536.0], &[1.0, 10.0, 1e4]] {
            let svg = chart(&["a", "b", "c", "d"], at).svg();
            let numbers = |name: &str| {
                let parts: Vec<&str> = svg.split(&format!(" {name}=\"")).skip(1).collect();
                let number = |part: &&str| part.split('"').next().unwrap().parse::<f64>().unwrap();
                parts.iter().map(number).collect::<Vec<f64>>()
            };
            assert!(numbers("cx").iter().all(|x| (LEFT..=WIDTH - RIGHT).contains(x)));
            assert!(numbers("cy").iter().all(|y| (TOP..=HEIGHT - BOTTOM).contains(y)));
            assert!(numbers("x").iter().all(|x| (0.0..WIDTH).contains(x)), "{svg}");
        }
    }

    #[test]
    fn a_curve_without_points_is_a_picture_without_lines() {
        let svg = chart(&["larder"], &[]).svg();
        assert_eq!(elements(&svg).iter().filter(|each| **each == "circle").count(), 0);
    }
}
