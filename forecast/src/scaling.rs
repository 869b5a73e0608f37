//! Data units to standard units and back, and the causal filling of gaps for the base forecaster.

use crate::Grid;

/// Location and scale of each series, from its observed training values.
///
/// A constant series has scale 0: it standardises to 0, and whatever is modelled comes back as the constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// Mean of each series, data units.
    pub location: Vec<f64>,
    /// Standard deviation of each series, data units; 0 for a constant or unobserved one.
    pub scale: Vec<f64>,
}

/// A standard deviation below this share of the mean magnitude is rounding, not variation.
const RELATIVE_FLOOR: f64 = 1e-9;

impl Scaling {
    /// Mean and standard deviation of the observed values of each series.
    pub fn fit(values: &Grid) -> Self {
        let n_series = values.n_series();
        let (mut location, mut scale) = (vec![0.0; n_series], vec![0.0; n_series]);
        for series in 0..n_series {
            let observed =
                || (0..values.n_steps()).map(|step| values.get(step, series)).filter(|value| !value.is_nan());
            let n = observed().count() as f64;
            if n == 0.0 {
                continue;
            }
            let mean = observed().map(|value| value / n).sum::<f64>();
            let deviation = observed().map(|value| (value - mean).powi(2) / n).sum::<f64>().sqrt();
            location[series] = mean;
            scale[series] = if deviation > RELATIVE_FLOOR * mean.abs() { deviation } else { 0.0 };
        }
        Self { location, scale }
    }

    /// Number of series.
    pub fn n_series(&self) -> usize {
        self.location.len()
    }

    /// A value of a series in standard units.
    pub fn standardise(&self, series: usize, value: f64) -> f64 {
        let scale = self.scale[series];
        if scale == 0.0 {
            return if value.is_nan() { value } else { 0.0 };
        }
        (value - self.location[series]) / scale
    }

    /// A standard value of a series in data units.
    pub fn restore(&self, series: usize, value: f64) -> f64 {
        self.location[series] + self.scale[series] * value
    }

    /// A whole grid in standard units, `[time, series]` row-major, gaps `NaN`.
    pub fn standardise_grid(&self, values: &Grid) -> Vec<f64> {
        let n_series = self.n_series();
        values.values().iter().enumerate().map(|(index, &value)| self.standardise(index % n_series, value)).collect()
    }
}

/// Standard values with their gaps filled from the past: by the value one season earlier, else by the last value, else by 0.
///
/// Only the inputs of the base forecaster are filled. What the model conditions on and is scored on keeps its gaps.
pub fn fill_from_past(standard: &[f64], n_series: usize, season: Option<usize>) -> Vec<f64> {
    let mut filled = standard.to_vec();
    for index in 0..filled.len() {
        if filled[index].is_nan() {
            let season_ago = season.and_then(|season| index.checked_sub(season * n_series));
            let source = season_ago.or_else(|| index.checked_sub(n_series));
            filled[index] = source.map_or(0.0, |source| filled[source]);
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: f64 = f64::NAN;

    #[test]
    fn scaling_round_trips_and_leaves_gaps() {
        let values = Grid::new(2, vec![1.0, GAP, 3.0, 5.0, GAP, 9.0]).expect("whole rows");
        let scaling = Scaling::fit(&values);
        let standard = scaling.standardise_grid(&values);
        for (index, (&value, &scaled)) in values.values().iter().zip(&standard).enumerate() {
            let restored = scaling.restore(index % 2, scaled);
            assert!(value.is_nan() && restored.is_nan() || (value - restored).abs() < 1e-12);
        }
    }

    #[test]
    fn a_constant_series_comes_back_as_the_constant_whatever_is_modelled() {
        let scaling = Scaling::fit(&Grid::new(1, vec![0.1; 50]).expect("whole rows"));
        assert_eq!(scaling.standardise(0, 0.1), 0.0);
        assert!((scaling.restore(0, 7.0) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn a_series_of_gaps_stays_finite() {
        let scaling = Scaling::fit(&Grid::new(1, vec![GAP; 5]).expect("whole rows"));
        assert_eq!(scaling.restore(0, 1.0), 0.0);
        assert_eq!(fill_from_past(&[GAP; 5], 1, Some(2)), [0.0; 5]);
    }

    #[test]
    fn filling_uses_the_season_before_and_never_the_future() {
        assert_eq!(fill_from_past(&[1.0, 2.0, GAP, GAP, 5.0], 1, Some(2)), [1.0, 2.0, 1.0, 2.0, 5.0]);
        assert_eq!(fill_from_past(&[GAP, 2.0, GAP], 1, None), [0.0, 2.0, 2.0]);
    }
}
