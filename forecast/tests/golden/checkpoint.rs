//! Checkpoints that earlier builds wrote must stay loadable and forecast the same.
//!
//! `cargo run --release -p forecast --example golden_checkpoint` wrote the folder `checkpoint_6`, and says when to do so again.
//! `checkpoint` has format 1, from before there were covariates, `checkpoint_2` format 2, from before the
//! linear base was an average, and `checkpoint_3` format 3, from before quantiles moved; nothing writes them any more.

use std::path::Path;

use forecast::{Bounds, Calendar, Grid, Model, Role, SampleConfig, Window};
use serde::Deserialize;

/// Relative to the spread of a series. Another machine adds up in another order; another noise, level or weight shows.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    horizon: usize,
    bounds: Vec<Bounds>,
    /// `[time, series]`, gaps null.
    context: Vec<Option<f64>>,
    /// `[time, feature]`, context and horizon.
    calendar: Vec<f64>,
    /// `[step, series]`, gaps null; none when nothing of the future is known.
    future: Option<Vec<Option<f64>>>,
    n_samples: usize,
    seed: u64,
    passes: usize,
    first_step: i32,
    /// `[sample, step, series]`
    trajectories: Vec<f64>,
}

/// Standard deviation of each series.
fn spreads(context: &Grid) -> Vec<f64> {
    let of_series = |series: usize| {
        let values: Vec<f64> =
            (0..context.n_steps()).map(|step| context.get(step, series)).filter(|value| !value.is_nan()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    (0..context.n_series()).map(of_series).collect()
}

#[test]
fn a_checkpoint_of_format_1_forecasts_the_same() {
    let model = check("checkpoint");
    assert!(model.roles().iter().all(|role| *role == Role::Target));
}

#[test]
fn a_checkpoint_of_format_2_forecasts_the_same() {
    let model = check("checkpoint_2");
    assert_eq!(model.targets(), [0, 1, 2]);
}

#[test]
fn a_checkpoint_of_format_3_forecasts_the_same() {
    let model = check("checkpoint_3");
    assert_eq!(model.targets(), [0, 1, 2]);
}

#[test]
fn a_checkpoint_of_format_5_forecasts_the_same() {
    let model = check("checkpoint_5");
    assert_eq!(model.targets(), [0, 1, 2]);
}

#[test]
fn a_checkpoint_of_format_6_forecasts_the_same() {
    let model = check("checkpoint_6");
    assert_eq!(model.targets(), [0, 1, 2]);
}

fn check(folder: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let json = std::fs::read(folder.join("forecast.json")).expect("written by golden_checkpoint.rs");
    let golden: Golden = serde_json::from_slice(&json).expect("the format of golden_checkpoint.rs");
    let model = Model::load(&folder, &forecast::cpu()).expect("a format that is still read");
    let n_series = model.roles().len();
    let grid = |values: &[Option<f64>]| {
        Grid::new(n_series, values.iter().map(|value| value.unwrap_or(f64::NAN)).collect()).expect("whole rows")
    };
    let context = grid(&golden.context);
    let n_features = golden.calendar.len() / (context.n_steps() + golden.horizon);
    let spreads = spreads(&context);
    let window = Window {
        context,
        calendar: Calendar::new(n_features, golden.calendar).expect("whole rows"),
        horizon: golden.horizon,
        bounds: golden.bounds,
        future: golden.future.as_deref().map(grid),
    };
    let sample = SampleConfig {
        n_samples: golden.n_samples,
        seed: golden.seed,
        passes: golden.passes,
        ..SampleConfig::default()
    };
    let ours = model.forecast(&window, &sample).expect("the window of the model");
    assert_eq!((ours.first_step(), ours.values().len()), (golden.first_step, golden.trajectories.len()));
    for (index, (ours, golden)) in ours.values().iter().zip(&golden.trajectories).enumerate() {
        let error = (f64::from(*ours) - golden) / spreads[index % model.targets().len()];
        assert!(error.abs() < TOLERANCE, "value {index}: {ours}, was {golden}");
    }
    model
}
