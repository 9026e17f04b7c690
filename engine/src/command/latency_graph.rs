//! LATENCY GRAPH: the samples of an event as columns of text, each with its age below it.
//!
//! ```text
//!  #      four lines of three steps each: `_`, `o`, `#`; what is below the top of a column is `|`
//!  |
//!  |
//! _|
//!         one line of nothing, then the ages, downwards
//! 10
//! ss
//! ```

use std::fmt::Write;

use crate::latency::Series;

/// Lines of a graph, steps within a line, columns side by side.
const ROWS: usize = 4;
const STEPS: &[u8] = b"_o#";
const COLUMNS: usize = 80;

/// How long ago, in the largest unit that it fills.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// The graph of an event at a time in unix seconds.
pub(super) fn draw(name: &str, series: &Series, now_s: i64) -> String {
    let values = || series.samples.iter().map(|(_, ms)| *ms);
    let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    let mut text = format!(
        "{name} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.worst_ms,
        "-".repeat(COLUMNS)
    );
    let samples: Vec<(i64, u64)> = series.samples.iter().copied().collect();
    for (at, chunk) in samples.chunks(COLUMNS).enumerate() {
        if at > 0 {
            text.push('\n');
        }
        columns(&mut text, chunk, (low, high), now_s);
    }
    text
}

fn columns(text: &mut String, samples: &[(i64, u64)], (low, high): (u64, u64), now_s: i64) {
    let steps = STEPS.len() * ROWS;
    let top = |ms: u64| {
        let step = (ms - low) as u128 * steps as u128 / u128::from((high - low).max(1));
        (step as usize).min(steps - 1)
    };
    for row in (0..ROWS).rev() {
        for (_, ms) in samples {
            let (from, top) = (row * STEPS.len(), top(*ms));
            text.push(match top.checked_sub(from) {
                None => ' ',
                Some(step) => STEPS.get(step).map_or('|', |c| char::from(*c)),
            });
        }
        text.push('\n');
    }
    let ages: Vec<String> = samples.iter().map(|(at, _)| age(now_s - at)).collect();
    let longest = ages.iter().map(String::len).max().unwrap_or(0);
    let _ = writeln!(text, "{}", " ".repeat(samples.len()));
    for line in 0..longest {
        for age in &ages {
            text.push(age.as_bytes().get(line).map_or(' ', |b| char::from(*b)));
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spikes_stand_over_their_ages() {
        let series = Series {
            samples: [(100, 10), (160, 15), (161, 20)].into_iter().collect(),
            worst_ms: 31,
        };
        let text = draw("command", &series, 165);
        let expected = [
            "command - high 20 ms, low 10 ms (all time high 31 ms)",
            &"-".repeat(80),
            "  #",
            " _|",
            " ||",
            "_||",
            "   ",
            "154",
            "mss",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn more_samples_than_columns_go_below_and_equal_ones_lie_flat() {
        let series = Series { samples: (0..100).map(|at| (at, 7)).collect(), worst_ms: 7 };
        let text = draw("command", &series, 100);
        assert!(text.lines().all(|line| line.len() <= 80));
        assert_eq!(text.lines().filter(|line| line.starts_with('_')).count(), 2);
        assert!(text.contains('\u{5f}') && !text.contains('#'));
    }
}
