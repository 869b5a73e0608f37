//! Sampled futures and what is read off them.

use std::ops::RangeInclusive;

use crate::Error;

/// Equally likely futures of a whole panel, `[sample, step, series]`, data units.
///
/// Sample `k` is one joint draw: its values of all series and steps belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectories {
    n_samples: usize,
    first_step: i32,
    n_steps: usize,
    n_series: usize,
    values: Vec<f32>,
}

impl Trajectories {
    /// Wraps a row-major buffer `[sample, step, series]`. Step 1 is the first interval that starts at or after the
    /// issue time; steps before it are nowcasts.
    ///
    /// # Errors
    /// [`Error::RaggedRows`] when the buffer has another size.
    pub fn new(
        n_samples: usize,
        first_step: i32,
        n_steps: usize,
        n_series: usize,
        values: Vec<f32>,
    ) -> Result<Self, Error> {
        if values.len() != n_samples * n_steps * n_series {
            return Err(Error::RaggedRows { n_values: values.len(), n_columns: n_steps * n_series });
        }
        Ok(Self { n_samples, first_step, n_steps, n_series, values })
    }

    /// Number of samples.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }

    /// The first step, 1 or lower; steps up to 0 are nowcasts.
    pub fn first_step(&self) -> i32 {
        self.first_step
    }

    /// Number of steps, nowcasts included.
    pub fn n_steps(&self) -> usize {
        self.n_steps
    }

    /// Number of series.
    pub fn n_series(&self) -> usize {
        self.n_series
    }

    /// The buffer, `[sample, step, series]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Each sample, `[step, series]`.
    pub(crate) fn samples_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut((self.n_steps * self.n_series).max(1))
    }

    /// One value; steps are counted from 0.
    pub fn value(&self, sample: usize, step: usize, series: usize) -> f32 {
        self.values[(sample * self.n_steps + step) * self.n_series + series]
    }

    /// Number of steps of the horizon, nowcasts not included.
    pub fn horizon(&self) -> usize {
        self.n_steps - self.n_nowcasts()
    }

    /// The horizon of each sample, `[step, series]` from step 1 on.
    pub fn paths(&self) -> impl Iterator<Item = &[f32]> {
        let skipped = self.n_nowcasts() * self.n_series;
        self.values.chunks_exact((self.n_steps * self.n_series).max(1)).map(move |sample| &sample[skipped..])
    }

    fn n_nowcasts(&self) -> usize {
        (1 - self.first_step).max(0) as usize
    }

    /// The steps of the horizon alone, without nowcasts.
    pub fn without_nowcasts(&self) -> Trajectories {
        let values = self.paths().flatten().copied().collect();
        Self { first_step: 1, n_steps: self.horizon(), values, ..*self }
    }

    /// Some steps of the horizon, which are counted from 1; they become the first ones.
    ///
    /// # Panics
    /// When the horizon does not have them.
    pub fn steps(&self, steps: RangeInclusive<usize>) -> Trajectories {
        let chosen = (steps.start() - 1) * self.n_series..steps.end() * self.n_series;
        let values = self.paths().flat_map(|path| &path[chosen.clone()]).copied().collect();
        Self { first_step: 1, n_steps: chosen.len() / self.n_series.max(1), values, ..*self }
    }

    /// Some of the series, in the given order.
    pub fn columns(&self, columns: &[usize]) -> Trajectories {
        let rows = self.values.chunks_exact(self.n_series);
        let values = rows.flat_map(|row| columns.iter().map(|&series| row[series])).collect();
        Self { n_series: columns.len(), values, ..*self }
    }

    /// The draws of one element, ascending.
    pub fn sorted(&self, step: usize, series: usize) -> Vec<f32> {
        let mut draws: Vec<f32> = (0..self.n_samples).map(|sample| self.value(sample, step, series)).collect();
        draws.sort_unstable_by(f32::total_cmp);
        draws
    }

    /// Mean over the samples, `[step, series]`.
    pub fn mean(&self) -> Vec<f64> {
        let row = self.n_steps * self.n_series;
        let mut mean = vec![0.0; row];
        for (index, &value) in self.values.iter().enumerate() {
            mean[index % row] += f64::from(value) / self.n_samples as f64;
        }
        mean
    }

    /// Quantiles of every element, `[step, series, level]`. Levels that rise give values that do not fall.
    pub fn quantiles(&self, levels: &[QuantileLevel]) -> Vec<f64> {
        let elements = (0..self.n_steps).flat_map(|step| (0..self.n_series).map(move |series| (step, series)));
        elements
            .flat_map(|(step, series)| {
                let draws = self.sorted(step, series);
                levels.iter().map(move |&level| quantile_of_sorted(&draws, level)).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// A quantile level strictly between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct QuantileLevel(f64);

impl QuantileLevel {
    /// Checks a level.
    ///
    /// # Errors
    /// [`Error::QuantileLevel`] when it is not between 0 and 1.
    pub fn new(level: f64) -> Result<Self, Error> {
        if level > 0.0 && level < 1.0 { Ok(Self(level)) } else { Err(Error::QuantileLevel(level)) }
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

/// A quantile of ascending draws, interpolated linearly between them (Hyndman and Fan 1996, type 7).
///
/// # Panics
/// When there are no draws: a sample count is at least 1.
pub fn quantile_of_sorted(draws: &[f32], level: QuantileLevel) -> f64 {
    let position = (draws.len() - 1) as f64 * level.value();
    let below = position.floor() as usize;
    let above = (below + 1).min(draws.len() - 1);
    let (low, high) = (f64::from(draws[below]), f64::from(draws[above]));
    low + (position - below as f64) * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_interpolate_between_draws() {
        let check = |level, expected: f64| {
            let level = QuantileLevel::new(level).expect("in (0, 1)");
            assert!((quantile_of_sorted(&[1.0, 2.0, 4.0, 8.0, 16.0], level) - expected).abs() < 1e-12);
        };
        check(0.5, 4.0);
        check(0.25, 2.0);
        check(0.9, 12.8);
        check(0.01, 1.04);
    }

    #[test]
    fn a_level_outside_the_open_interval_is_refused() {
        for level in [0.0, 1.0, 1.5, -0.1, f64::NAN] {
            assert!(QuantileLevel::new(level).is_err(), "{level}");
        }
    }

    #[test]
    fn nowcasts_are_cut_off_by_whole_steps() {
        let all = Trajectories::new(2, -1, 3, 1, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("whole rows");
        let horizon = all.without_nowcasts();
        assert_eq!((horizon.first_step(), horizon.n_steps(), horizon.values()), (1, 1, [3.0, 6.0].as_slice()));
    }

    proptest! {
        #[test]
        fn quantiles_never_cross(mut draws in prop::collection::vec(-1e3f32..1e3, 1..50), a in 0.01f64..0.99, b in 0.01f64..0.99) {
            draws.sort_unstable_by(f32::total_cmp);
            let at = |level| quantile_of_sorted(&draws, QuantileLevel::new(level).expect("in (0, 1)"));
            prop_assert!(at(a.min(b)) <= at(a.max(b)));
        }
    }
}
