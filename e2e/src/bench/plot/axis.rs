//! An axis: where a value stands on it, and which values are named.

/// Values that are further apart than this factor stand on a logarithmic axis.
const LINEAR_MAX: f64 = 20.0;
/// Parts of a linear axis, about.
const PARTS: f64 = 5.0;
/// The leading digits of round numbers.
const ROUND: [f64; 3] = [1.0, 2.0, 5.0];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Axis {
    /// A logarithmic one from the least value to the largest.
    pub(super) fn log(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = ends(values);
        Self { low, high, is_log: true }
    }

    /// One with round ends that holds all values: from zero, unless they are far apart.
    pub(super) fn round(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = ends(values);
        if high / low > LINEAR_MAX {
            let (low, high) = (round_down(low), round_up(high));
            return Self { low, high, is_log: true };
        }
        let step = step(high);
        Self { low: 0.0, high: (high / step).ceil() * step, is_log: false }
    }

    /// From 0 at the low end to 1 at the high one.
    pub(super) fn place(self, value: f64) -> f64 {
        let place = |value: f64, low: f64, high: f64| (value - low) / (high - low);
        let share = if self.is_log {
            place(value.ln(), self.low.ln(), self.high.ln())
        } else {
            place(value, self.low, self.high)
        };
        // Without any width there is one place.
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.5 }
    }

    /// Round values between its ends, these included where they are round.
    pub(super) fn ticks(self) -> Vec<f64> {
        if !self.is_log {
            let step = step(self.high);
            return (0..=(self.high / step).round() as u32).map(|n| f64::from(n) * step).collect();
        }
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|decade| ROUND.map(|digit| digit * 10f64.powi(decade)));
        // What was computed differs from what was rounded in the last bits.
        all.filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick)).collect()
    }
}

/// The least and the largest of the values above zero; 1 where there are none.
fn ends(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let usable = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) =
        usable.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if high > 0.0 { (low, high) } else { (1.0, 1.0) }
}

/// A round length of which about `PARTS` make `span`.
fn step(span: f64) -> f64 {
    round_up(span / PARTS)
}

/// The next round number that is not above.
fn round_down(value: f64) -> f64 {
    let unit = 10f64.powf(value.log10().floor());
    let mut fits = ROUND.into_iter().rev().map(|digit| digit * unit);
    fits.find(|round| *round <= value * 1.001).unwrap_or(unit)
}

/// The next round number that is not below.
fn round_up(value: f64) -> f64 {
    let unit = 10f64.powf(value.log10().floor());
    let mut fits = ROUND.into_iter().map(|digit| digit * unit);
    fits.find(|round| *round >= value * 0.999).unwrap_or(10.0 * unit)
}

/// A value as a tick names it.
pub(super) fn name(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_are_equally_far_apart_on_a_logarithmic_axis() {
        let axis = Axis::log([1e3, 1e7, 1e5]);
        let places = [1e3, 1e4, 1e5, 1e6, 1e7].map(|value| axis.place(value));
        for (place, expected) in places.into_iter().zip([0.0, 0.25, 0.5, 0.75, 1.0]) {
            assert!((place - expected).abs() < 1e-9, "{places:?}");
        }
    }

    #[test]
    fn one_value_alone_stands_in_the_middle() {
        assert!((Axis::log([1000.0]).place(1000.0) - 0.5).abs() < 1e-9);
        assert!((Axis::log([]).place(3.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn near_values_stand_on_an_axis_from_zero_with_round_steps() {
        let axis = Axis::round([0.45, 1.3]);
        assert_eq!(
            axis.ticks().into_iter().map(name).collect::<Vec<_>>(),
            ["0", "0.5", "1", "1.5"]
        );
        assert!(axis.place(0.0).abs() < 1e-9 && (axis.place(0.75) - 0.5).abs() < 1e-9);
        assert_eq!(Axis::round([7.0]).ticks().last().copied().map(name), Some("8".into()));
        let exact = Axis::round([10.0]).ticks();
        assert_eq!(
            exact.into_iter().map(name).collect::<Vec<_>>(),
            ["0", "2", "4", "6", "8", "10"]
        );
    }

    #[test]
    fn values_far_apart_stand_on_a_logarithmic_axis_between_round_numbers() {
        let axis = Axis::round([0.43, 61.0]);
        let names: Vec<String> = axis.ticks().into_iter().map(name).collect();
        assert_eq!(names, ["0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]);
        assert!(axis.place(0.43) > 0.0 && axis.place(61.0) < 1.0);
    }

    #[test]
    fn nothing_to_show_makes_an_axis_all_the_same() {
        for values in [vec![], vec![0.0], vec![f64::NAN]] {
            assert_eq!(Axis::round(values).ticks().len(), 6);
        }
    }
}
