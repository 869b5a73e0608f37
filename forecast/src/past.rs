//! Past covariates: modelled series that are not forecast in the answer, whose recent values tell what targets will do.

use crate::linear::BaseInput;

/// Recent values of a covariate that a linear forecaster reads, and of all covariates together.
const N_RECENT: usize = 8;
const N_RECENT_OF_ALL: usize = 64;
/// Features of a covariate for the trees.
pub(crate) const N_TREE_FEATURES: usize = 3;

/// How many recent values of each of so many covariates a linear forecaster reads.
fn n_recent(n_past: usize) -> usize {
    N_RECENT.min(N_RECENT_OF_ALL / n_past.max(1)).max(1)
}

/// Number of features of an origin.
pub(crate) fn n_features(n_past: usize) -> usize {
    n_past * n_recent(n_past)
}

/// The recent values of every past covariate at an origin, standard units.
pub(crate) fn push_features(input: BaseInput<'_>, origin: usize, out: &mut Vec<f64>) {
    for &series in input.past {
        out.extend((0..n_recent(input.past.len())).map(|back| input.value(origin.saturating_sub(back), series)));
    }
}

/// For the trees: value, last change, and how far the mean over a length lies from the value.
pub(crate) fn push_tree_features(input: BaseInput<'_>, origin: usize, mean_length: usize, out: &mut Vec<f32>) {
    let steps = (origin + 1).saturating_sub(mean_length)..origin + 1;
    for &series in input.past {
        let value = input.value(origin, series);
        let before = input.value(origin.saturating_sub(1), series);
        let mean = steps.clone().map(|step| input.value(step, series)).sum::<f64>() / steps.len() as f64;
        out.extend([value as f32, (value - before) as f32, (mean - value) as f32]);
    }
}
