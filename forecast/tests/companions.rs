//! One network for many panels: what it learns from others, and what becomes of it on a new one.

use std::ops::ControlFlow;

use forecast::noise::Stream;
use forecast::{
    Bounds, Budget, Calendar, Device, Error, Fitted, Grid, History, Means, Progress, SampleConfig, Start, TokenOf,
    TrainConfig, WarmStart, fit_with,
};

const HORIZON: usize = 12;
const SEASON: usize = 6;

fn device() -> Device {
    forecast::cpu()
}

/// Series with a season whose noise is loud for hours and then quiet for hours, all together.
fn bursts(n_series: usize, n_steps: usize, n_features: usize, seed: u64) -> History {
    let mut stream = Stream::new(seed, 0);
    let (mut values, mut loudness) = (vec![], 1.0_f64);
    for step in 0..n_steps {
        if stream.uniform() < 0.1 {
            loudness = if loudness > 1.0 { 0.1 } else { 3.0 };
        }
        let season = libm::sin(step as f64 / SEASON as f64 * std::f64::consts::TAU);
        let offsets = (0..n_series).map(|series| series as f64);
        values.extend(offsets.map(|offset| 10.0 * offset + 2.0 * season + loudness * stream.normal()));
    }
    let calendar = Calendar::new(n_features, vec![0.5; n_features * n_steps]).expect("whole rows");
    History {
        values: Grid::new(n_series, values).expect("whole rows"),
        calendar,
        seasons: vec![SEASON],
        bounds: vec![Bounds::default(); n_series],
        roles: vec![],
    }
}

fn config(n_steps: usize) -> TrainConfig {
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(n_steps), 3);
    config.network.batch_size = 16;
    config
}

fn train(history: &History, config: &TrainConfig, means: Means<'_>) -> Result<Fitted, Error> {
    fit_with(history, config, means, &device(), &mut |_| ControlFlow::Continue(()))
}

/// Losses of the first steps of a training, which is then stopped.
fn first_losses(history: &History, config: &TrainConfig, means: Means<'_>, n_steps: usize) -> Vec<f64> {
    let mut losses = vec![];
    let mut watch = |progress: &Progress| {
        losses.extend((progress.stage == "select").then_some(progress.loss));
        if losses.len() == n_steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    // What a training leaves that is stopped so early depends on what it began with.
    drop(fit_with(history, config, means, &device(), &mut watch));
    assert_eq!(losses.len(), n_steps);
    losses
}

#[test]
fn one_network_learns_from_many_panels_and_is_taken_to_a_new_one() {
    let own = bursts(3, 110, 1, 1);
    // Wider than what is shown together, and with another number of series.
    let companions = [bursts(17, 80, 1, 2), bursts(1, 200, 1, 3)];
    let beside = || Means { companions: &companions, ..Means::default() };
    let mut of_series = config(10);
    of_series.network.token = Some(TokenOf::Series);
    let alone = first_losses(&own, &of_series, Means::default(), 9);
    assert_ne!(first_losses(&own, &of_series, beside(), 9), alone, "companions are learned from");

    // Saved and read again, for a panel with two series of which it knows nothing.
    let together = train(&own, &config(10), beside()).expect("learned");
    let folder = tempfile::tempdir().expect("a folder");
    together.model.save(folder.path()).expect("written");
    let network = forecast::Model::load(folder.path(), &device()).expect("read");
    let new = bursts(2, 110, 1, 4);
    let from = || Means { start: Some(Start { model: &network, n_rows_seen: 0 }), ..Means::default() };
    let cold = first_losses(&new, &of_series, Means::default(), 1);
    assert_ne!(
        first_losses(&new, &of_series, from(), 1),
        cold,
        "before it has learned anything here, it is what it was"
    );
    let fitted = train(&new, &config(10), from()).expect("learned");
    let Some(WarmStart::Weights { .. }) = fitted.report.warm_start else { panic!("{:?}", fitted.report.warm_start) };
    assert_eq!(fitted.report.n_parameters, together.report.n_parameters);

    let window = new.window(110 - 2 * HORIZON, fitted.model.context_length(), 2 * HORIZON);
    let sample = SampleConfig { n_samples: 20, seed: 1, ..SampleConfig::default() };
    let drawn = fitted.model.forecast(&window, &sample).expect("a window of the model");
    assert!(drawn.values().iter().all(|value| value.is_finite()));
}

#[test]
fn what_cannot_be_learned_together_is_named() {
    let own = bursts(2, 150, 1, 1);
    let refused = |config: &TrainConfig, companions: &[History]| {
        let Err(error) = train(&own, config, Means { companions, ..Means::default() }) else { panic!("refused") };
        error.to_string()
    };
    let (like, short) = (bursts(1, 150, 1, 2), bursts(1, 20, 1, 2));
    let other_calendar = bursts(1, 150, 2, 2);
    assert_eq!(
        refused(&config(5), &[like.clone(), other_calendar]),
        "companion 1: it has 2 calendar features, the panel 1"
    );
    assert!(refused(&config(5), &[short]).starts_with("companion 0: 20 steps are too few"), "too short");
    let mut of_panel = config(5);
    of_panel.network.token = Some(TokenOf::Panel);
    assert_eq!(refused(&of_panel, &[like]), "token must be \"series\" where there are companions");
}

#[test]
fn tokens_of_another_kind_are_no_beginning() {
    let history = bursts(2, 150, 1, 1);
    let of_panel = train(&history, &config(3), Means::default()).expect("learned").model;
    let mut of_series = config(3);
    of_series.network.token = Some(TokenOf::Series);
    let start = Some(Start { model: &of_panel, n_rows_seen: 0 });
    let report = train(&history, &of_series, Means { start, ..Means::default() }).expect("learned").report;
    let reason = "its tokens are of the panel, this network's of single series".to_owned();
    assert_eq!(report.warm_start, Some(WarmStart::Nothing { reason }));
}
