//! Totals, extremes and means of trajectories, which are distributions of their own.
//!
//! Quantiles cannot be added up: the 90 % quantile of a total is not the total of the 90 % quantiles. Here each
//! trajectory is combined first, so that dependence between steps and between series is kept.

use crate::Trajectories;

/// How values of one trajectory are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// Their total.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Their arithmetic mean.
    Mean,
}

/// What is combined within a trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// All steps of the horizon, per series.
    Horizon,
    /// All series, per step.
    Series,
    /// All steps of all series: one number per trajectory.
    HorizonAndSeries,
}

impl Aggregate {
    /// Combines numbers, of which there is at least one.
    pub fn of(self, values: impl Iterator<Item = f64> + Clone) -> f64 {
        match self {
            Self::Sum => values.sum(),
            Self::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Self::Min => values.fold(f64::INFINITY, f64::min),
            Self::Mean => values.clone().sum::<f64>() / values.count() as f64,
        }
    }
}

impl Trajectories {
    /// Combines the horizon (not the nowcasts) within each trajectory.
    ///
    /// The result has one step where steps were combined, one series where series were; sample `k` comes from sample
    /// `k`. Sums are taken in double precision and kept in single.
    pub fn aggregate(&self, function: Aggregate, over: Over) -> Trajectories {
        let (n_steps, n_series) = (self.horizon(), self.n_series());
        let (steps_left, series_left) = match over {
            Over::Horizon => (1, n_series),
            Over::Series => (n_steps, 1),
            Over::HorizonAndSeries => (1, 1),
        };

        let mut values = Vec::with_capacity(self.n_samples() * steps_left * series_left);
        for sample in self.paths() {
            match over {
                Over::Horizon => values.extend((0..n_series).map(|series| {
                    function.of(sample.iter().skip(series).step_by(n_series).copied().map(f64::from)) as f32
                })),
                Over::Series => values.extend(
                    sample.chunks_exact(n_series).map(|step| function.of(step.iter().copied().map(f64::from)) as f32),
                ),
                Over::HorizonAndSeries => values.push(function.of(sample.iter().copied().map(f64::from)) as f32),
            }
        }
        Trajectories::new(self.n_samples(), 1, steps_left, series_left, values)
            .expect("each sample gives one value per step and series that are left")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QuantileLevel;

    /// Two trajectories of two series, one nowcast step before two steps of horizon.
    fn trajectories() -> Trajectories {
        #[rustfmt::skip]
        let values = vec![
            9.0, 9.0,   1.0, 10.0,   2.0, 20.0,
            9.0, 9.0,   3.0, -1.0,   4.0, -2.0,
        ];
        Trajectories::new(2, 0, 3, 2, values).expect("whole rows")
    }

    fn check(function: Aggregate, over: Over, shape: (usize, usize), expected: &[f32]) {
        let aggregated = trajectories().aggregate(function, over);
        assert_eq!((aggregated.n_steps(), aggregated.n_series()), shape, "{function:?} {over:?}");
        assert_eq!(aggregated.values(), expected, "{function:?} {over:?}");
        assert_eq!(aggregated.first_step(), 1);
    }

    #[test]
    fn steps_are_combined_per_series_without_the_nowcasts() {
        check(Aggregate::Sum, Over::Horizon, (1, 2), &[3.0, 30.0, 7.0, -3.0]);
        check(Aggregate::Max, Over::Horizon, (1, 2), &[2.0, 20.0, 4.0, -1.0]);
        check(Aggregate::Min, Over::Horizon, (1, 2), &[1.0, 10.0, 3.0, -2.0]);
        check(Aggregate::Mean, Over::Horizon, (1, 2), &[1.5, 15.0, 3.5, -1.5]);
    }

    #[test]
    fn series_are_combined_per_step() {
        check(Aggregate::Sum, Over::Series, (2, 1), &[11.0, 22.0, 2.0, 2.0]);
        check(Aggregate::Max, Over::Series, (2, 1), &[10.0, 20.0, 3.0, 4.0]);
    }

    #[test]
    fn everything_is_combined_to_one_number_per_trajectory() {
        check(Aggregate::Sum, Over::HorizonAndSeries, (1, 1), &[33.0, 4.0]);
        check(Aggregate::Mean, Over::HorizonAndSeries, (1, 1), &[8.25, 1.0]);
    }

    #[test]
    fn the_interval_of_a_total_is_not_the_total_of_the_intervals() {
        // Two steps that always cancel: each is uncertain, their total is not.
        let values = vec![1.0, -1.0, -1.0, 1.0];
        let trajectories = Trajectories::new(2, 1, 2, 1, values).expect("whole rows");
        let level = QuantileLevel::new(0.9).expect("in (0, 1)");
        let total = trajectories.aggregate(Aggregate::Sum, Over::Horizon).quantiles(&[level]);
        let of_steps: f64 = trajectories.quantiles(&[level]).iter().sum();
        assert_eq!(total, [0.0]);
        assert!((of_steps - 1.6).abs() < 1e-12, "{of_steps}");
    }
}
