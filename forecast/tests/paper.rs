//! Properties of the paper's configuration, on networks that train in a second.

use std::ops::ControlFlow;

use forecast::backtest::{BacktestConfig, score_windows};
use forecast::noise::Stream;
use forecast::paper::{Config, Fitted, fit};
use forecast::{
    Bounds, Budget, Calendar, Device, Error, Grid, History, LossWeight, SampleConfig, Schedule, Trajectories,
};

const HORIZON: usize = 4;

fn device() -> Device {
    forecast::cpu()
}

/// A wave of twelve steps, its negative with noise, and a constant.
fn history(n_steps: usize) -> History {
    let mut stream = Stream::new(1, 0);
    let rows = (0..n_steps).flat_map(|step| {
        let wave = (step as f64 * std::f64::consts::TAU / 12.0).sin();
        [20.0 + 5.0 * wave, 3.0 - wave + 0.1 * stream.normal(), 7.0]
    });
    let values = Grid::new(3, rows.collect()).expect("whole rows");
    let features = (0..n_steps).map(|step| (step as f64 / 50.0).sin()).collect();
    History {
        values,
        calendar: Calendar::new(1, features).expect("whole rows"),
        seasons: vec![12],
        bounds: vec![Bounds::default(); 3],
        roles: vec![],
    }
}

fn config(n_steps: usize) -> Config {
    Config { n_cells: 2, d_cell: 12, d_embedding: 8, batch_size: 8, ..Config::new(HORIZON, Budget::Steps(n_steps), 3) }
}

fn trained(history: &History, config: &Config) -> Fitted {
    fit(history, config, &device(), &mut |_| ControlFlow::Continue(())).expect("a history that can be learned")
}

fn sample(n_samples: usize, seed: u64) -> SampleConfig {
    SampleConfig { n_samples, seed, passes: 10, ..SampleConfig::default() }
}

fn draw(fitted: &Fitted, history: &History, issue_row: usize, horizon: usize, sample: &SampleConfig) -> Trajectories {
    let window = history.window(issue_row, fitted.model.context_length(), horizon);
    fitted.model.forecast(&window, sample).expect("a window of the model")
}

/// The history with all values from a row on replaced.
fn replaced_from(history: &History, row: usize, value: f64) -> History {
    let mut values = history.values.values().to_vec();
    values[row * 3..].fill(value);
    History { values: Grid::new(3, values).expect("whole rows"), ..history.clone() }
}

#[test]
fn nothing_of_the_future_reaches_a_forecast() {
    let history = history(200);
    let hidden = replaced_from(&history, 180, f64::NAN);
    let wrong = replaced_from(&history, 180, 1e6);
    let fitted = trained(&history.rows(0..180), &config(5));
    let expected = draw(&fitted, &history, 180, 2 * HORIZON, &sample(5, 1));
    for other in [&hidden, &wrong] {
        assert_eq!(draw(&fitted, other, 180, 2 * HORIZON, &sample(5, 1)), expected);
    }
    let past = replaced_from(&history, 179, 21.0);
    assert_ne!(draw(&fitted, &past, 180, 2 * HORIZON, &sample(5, 1)), expected, "the last known row does matter");
}

#[test]
fn what_is_watched_lies_after_what_is_trained_on() {
    // The last tenth only chooses the step: with one step to choose from, it changes nothing.
    let history = history(200);
    let first_watched = 200 - 5 * HORIZON;
    let changed = replaced_from(&history, first_watched, 5.0);
    let (fitted, other) = (trained(&history, &config(0)), trained(&changed, &config(0)));
    assert_ne!(fitted.report.validation_loss, other.report.validation_loss);
    let of = |fitted: &Fitted| draw(fitted, &history, 150, HORIZON, &sample(3, 1));
    assert_eq!(of(&fitted), of(&other), "the scaling does not know it");
    let trained_on = trained(&replaced_from(&history, first_watched - 1, 5.0), &config(0));
    assert_ne!(of(&fitted), of(&trained_on), "the row before is known");
}

#[test]
fn training_lowers_the_loss_on_later_windows() {
    let report = trained(&history(400), &config(1000)).report;
    // The constant is 0 in standard units, so that predicting nothing costs 1, 1 and ½.
    assert!(report.validation_loss < 0.9 * 2.5 / 3.0, "{report:?}");
    assert!(report.best_step > 500 && report.n_steps == 1000 && report.lags == [1, 12]);
}

#[test]
fn the_same_seed_gives_the_same_model_and_forecast_and_another_one_does_not() {
    let history = history(200);
    let (first, second) = (trained(&history, &config(5)), trained(&history, &config(5)));
    let of = |fitted, seed| draw(fitted, &history, 190, HORIZON, &sample(4, seed));
    assert_eq!(of(&first, 1), of(&second, 1));
    assert_ne!(of(&first, 1), of(&first, 2));
    let other = trained(&history, &Config { seed: 4, ..config(5) });
    assert_ne!(of(&first, 1), of(&other, 1));
}

#[test]
fn a_longer_horizon_begins_as_a_shorter_one_and_more_samples_as_fewer() {
    let history = history(260);
    let fitted = trained(&history, &config(2));
    let long = draw(&fitted, &history, 200, 10 * HORIZON, &sample(3, 1));
    let (short, single) =
        (draw(&fitted, &history, 200, HORIZON, &sample(5, 1)), draw(&fitted, &history, 200, 1, &sample(3, 1)));
    assert!(long.values().iter().all(|value| value.is_finite()));
    for series in 0..3 {
        for sample in 0..3 {
            for step in 0..HORIZON {
                let (long, short) = (long.value(sample, step, series), short.value(sample, step, series));
                assert!((long - short).abs() < 1e-4, "{long} {short}");
            }
            assert!((long.value(sample, 0, series) - single.value(sample, 0, series)).abs() < 1e-4);
        }
    }
}

#[test]
fn gaps_and_constants_give_finite_paths_inside_their_bounds() {
    let mut history = history(200);
    let mut values = history.values.values().to_vec();
    for row in 0..200 {
        // The first series ends early, the second has gaps.
        if !(3..=185).contains(&row) {
            values[row * 3] = f64::NAN;
        }
        if row % 5 == 0 {
            values[row * 3 + 1] = f64::NAN;
        }
    }
    history.values = Grid::new(3, values).expect("whole rows");
    history.bounds[1] = Bounds { lower: Some(3.0), upper: Some(3.5) };
    for loss_weight in [LossWeight::MinSnr, LossWeight::FusedSnr { decay: 0.9 }] {
        let fitted = trained(&history, &Config { loss_weight, ..config(3) });
        let paths = draw(&fitted, &history, 195, HORIZON, &sample(4, 1));
        assert!(paths.values().iter().all(|value| value.is_finite()));
        for path in paths.values().chunks_exact(3) {
            assert!((3.0..=3.5).contains(&path[1]) && (path[2] - 7.0).abs() < 1e-5, "{path:?}");
        }
    }
}

#[test]
fn a_backtest_has_all_rows_but_the_one_of_a_base() {
    let history = history(200);
    let windows = BacktestConfig { horizon: HORIZON, n_windows: 2, sample: sample(5, 1) };
    let n_train = windows.n_train(&history).expect("long enough");
    let fitted = trained(&history.rows(0..n_train), &config(3));
    let result = score_windows(&history, &windows, &fitted).expect("windows of the model");
    let models: Vec<&str> = result.rows.iter().map(|row| row.model.as_str()).collect();
    assert_eq!(models, ["plumecast", "shuffled", "seasonal_naive", "random_walk"]);
    assert!(result.rows.iter().all(|row| row.scores.crps_sum.is_finite()));
    assert_eq!((result.trajectories.len(), result.report.n_steps), (2, 3));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let history = history(200);
    let refusal = |history: &History, config: &Config| {
        fit(history, config, &device(), &mut |_| ControlFlow::Continue(())).err().expect("refused")
    };
    // A lag of 1 (the season is longer than a quarter of the rows), context and horizon, one horizon to watch.
    assert!(matches!(refusal(&history.rows(0..12), &config(1)), Error::TooShort { n_steps: 12, needed: 13, .. }));
    assert!(matches!(
        refusal(&history, &Config { lags: Some(vec![1, 0]), ..config(1) }),
        Error::Zero { name: "a lag" }
    ));
    let decay = Config { loss_weight: LossWeight::FusedSnr { decay: 2.0 }, ..config(1) };
    assert!(matches!(refusal(&history, &decay), Error::Share { name: "decay", .. }));
    let empty = replaced_from(&history, 0, f64::NAN);
    assert!(matches!(refusal(&empty, &config(1)), Error::NothingObserved));
    let fitted = trained(&history, &config(1));
    let window = history.window(190, fitted.model.context_length(), HORIZON);
    let full = SampleConfig { schedule: Schedule::Full, ..sample(2, 1) };
    assert!(matches!(fitted.model.forecast(&window, &full), Err(Error::OnlyAutoregressive)));
    assert!(matches!(
        fitted.model.forecast(&window, &SampleConfig { passes: 0, ..sample(2, 1) }),
        Err(Error::Zero { .. })
    ));
}

#[test]
fn training_can_be_stopped_and_keeps_what_it_has() {
    let mut n_shown = 0;
    let fitted = fit(&history(200), &config(500), &device(), &mut |progress| {
        n_shown += 1;
        assert_eq!((progress.stage, progress.step, progress.n_steps), ("train", n_shown, 500));
        if progress.step == 120 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("something was learned before");
    assert_eq!(fitted.report.n_steps, 120);
}
