//! Quantiles by nearest rank: each is a figure that was measured.

/// Figures in order.
#[derive(Clone, Debug, Default)]
pub struct Quantiles(Vec<f64>);

impl Quantiles {
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }

    /// The least figure that so many percent of all do not exceed; of fewer than 100 figures the 99th is the greatest.
    pub fn at(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_figure_at_the_nearest_rank() {
        let to = |last: u32| Quantiles::of((1..=last).rev().map(f64::from));
        for (count, percent, figure) in
            [(1, 50, 1.0), (2, 50, 1.0), (3, 50, 2.0), (10, 0, 1.0), (50, 99, 50.0)]
        {
            assert_eq!(to(count).at(percent), Some(figure), "{percent} of {count}");
        }
        assert_eq!((to(99).at(99), to(100).at(99)), (Some(99.0), Some(99.0)));
        assert_eq!((to(200).at(99), to(200).at(100)), (Some(198.0), Some(200.0)));
        assert_eq!(Quantiles::default().at(50), None);
    }
}
