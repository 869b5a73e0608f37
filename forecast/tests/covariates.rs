//! What covariates are good for: panels whose truth is known, forecast with and without them.

use std::ops::ControlFlow;

use forecast::backtest::{Backtest, BacktestConfig, backtest};
use forecast::noise::Stream;
use forecast::{
    Bounds, Budget, Calendar, Error, Fitted, Grid, History, Means, Model, Role, SampleConfig, TrainConfig,
    Trajectories, Window, fit,
};

const HORIZON: usize = 6;
const N_ROWS: usize = 900;

/// A panel from a function of the step and of a stream of random numbers.
fn panel<const N: usize>(
    roles: [Role; N],
    seasons: &[usize],
    mut row: impl FnMut(usize, &mut Stream) -> [f64; N],
) -> History {
    let mut stream = Stream::new(3, 0);
    let values = (0..N_ROWS).flat_map(|step| row(step, &mut stream)).collect();
    let angle = |step: usize, season: usize| step as f64 * std::f64::consts::TAU / season as f64;
    let calendar = (0..N_ROWS).flat_map(|step| {
        seasons.iter().flat_map(move |&season| [angle(step, season).sin(), angle(step, season).cos()])
    });
    History {
        values: Grid::new(N, values).expect("whole rows"),
        calendar: Calendar::new(2 * seasons.len(), calendar.collect()).expect("whole rows"),
        seasons: seasons.to_vec(),
        bounds: vec![Bounds::default(); N],
        roles: roles.to_vec(),
    }
}

/// The panel without its covariates.
fn targets_alone(history: &History) -> History {
    let targets: Vec<usize> =
        (0..history.roles.len()).filter(|&series| history.roles[series] == Role::Target).collect();
    let values = (0..N_ROWS).flat_map(|step| targets.iter().map(move |&series| history.values.get(step, series)));
    History {
        values: Grid::new(targets.len(), values.collect()).expect("whole rows"),
        bounds: vec![Bounds::default(); targets.len()],
        roles: vec![],
        ..history.clone()
    }
}

fn config() -> TrainConfig {
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(4), 1);
    config.network.d_model = Some(16);
    config
}

fn tested(history: &History) -> Backtest {
    let windows = BacktestConfig { horizon: HORIZON, n_windows: 24, sample: SampleConfig::default() };
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    backtest(history, &windows, &config(), Means::default(), &forecast::cpu(), go_on)
        .expect("a panel that can be learned")
}

fn crps(history: &History) -> f64 {
    tested(history).rows[0].scores.crps
}

fn trained(history: &History) -> Fitted {
    fit(history, &config(), &forecast::cpu(), &mut |_| ControlFlow::Continue(())).expect("a panel that can be learned")
}

fn draw(model: &Model, window: &Window, n_samples: usize) -> Trajectories {
    let sample = SampleConfig { n_samples, seed: 2, passes: 4, ..SampleConfig::default() };
    model.forecast(window, &sample).expect("a window of the model")
}

fn spread(trajectories: &Trajectories, step: usize) -> f64 {
    let draws = trajectories.sorted(step, 0);
    let mean = draws.iter().map(|&value| f64::from(value)).sum::<f64>() / draws.len() as f64;
    let squares = draws.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
    (squares / draws.len() as f64).sqrt()
}

/// `y = rest + 2 x` with white `x`, where the rest is an autoregression with innovations of deviation 0.5.
fn moved_by_white_noise() -> History {
    let mut rest = 0.0;
    panel([Role::Known, Role::Target], &[], move |_, stream| {
        rest = 0.7 * rest + 0.5 * stream.normal();
        let x = stream.normal();
        [x, 10.0 + rest + 2.0 * x]
    })
}

#[test]
fn what_a_known_covariate_explains_is_not_uncertain_any_more() {
    let history = moved_by_white_noise();
    let rest = (0..N_ROWS).map(|step| history.values.get(step, 1) - 2.0 * history.values.get(step, 0)).collect();
    let rest = History { values: Grid::new(1, rest).expect("whole rows"), ..targets_alone(&history) };
    let (with, without, of_rest) = (tested(&history), crps(&targets_alone(&history)), crps(&rest));
    let with_x = with.rows[0].scores.crps;
    assert!(with_x < 1.05 * of_rest, "{with_x}, of the rest alone {of_rest}");
    assert!(without > 2.5 * with_x, "{without} without, {with_x} with");
    assert_eq!(with.trajectories[0].n_series(), 1, "a covariate is not forecast");
    let coverage = with.rows[0].scores.coverage_90;
    assert!((0.83..0.97).contains(&coverage), "{coverage}");
}

#[test]
fn what_moves_one_target_is_not_taken_out_of_another() {
    let (mut first, mut second) = (0.0, 0.0);
    let history = panel([Role::Target, Role::Target, Role::Known], &[], |_, stream| {
        let x = stream.normal();
        first = 0.9 * first + 0.5 * stream.normal();
        second = 0.9 * second + 0.5 * stream.normal();
        [first, second + 2.0 * x, x]
    });
    let effects = trained(&history).report.effects.expect("an effect");
    assert_eq!(effects.series, [1]);
}

#[test]
fn trees_find_effects_that_are_not_linear() {
    // What one covariate does depends on the sign of the other.
    let mut rest = 0.0;
    let history = panel([Role::Target, Role::Known, Role::Known], &[], move |_, stream| {
        rest = 0.7 * rest + 0.3 * stream.normal();
        let (a, b) = (stream.normal(), stream.normal());
        [rest + 2.0 * a * b.signum(), a, b]
    });
    let (with, without) = (crps(&history), crps(&targets_alone(&history)));
    assert!(with < 0.6 * without, "{with} with, {without} without");
}

/// A season that is doubled on days off, of which one in twelve is one.
fn days_off() -> History {
    let mut is_off = false;
    panel([Role::Target, Role::Known], &[HORIZON], move |step, stream| {
        if step % HORIZON == 0 {
            is_off = stream.uniform() < 1.0 / 12.0;
        }
        let season = 10.0 + 4.0 * (step as f64 * std::f64::consts::TAU / HORIZON as f64).sin();
        [season * if is_off { 2.0 } else { 1.0 } + 0.5 * stream.normal(), f64::from(u8::from(is_off))]
    })
}

#[test]
fn a_flag_tells_days_off_from_others() {
    let history = days_off();
    let (with, without) = (crps(&history), crps(&targets_alone(&history)));
    assert!(with < 0.6 * without, "{with} with, {without} without");
}

#[test]
fn a_past_covariate_tells_what_comes_next() {
    let mut before = 0.0;
    let history = panel([Role::Target, Role::Past], &[], move |_, stream| {
        let value = 2.0 * before + 0.3 * stream.normal();
        before = stream.normal();
        [value, before]
    });
    let (with, without) = (tested(&history), tested(&targets_alone(&history)));
    assert_eq!(with.trajectories[0].n_series(), 1, "a covariate is not forecast");
    let first = |found: &Backtest| {
        found.trajectories.iter().map(|drawn| spread(drawn, 0)).sum::<f64>() / found.trajectories.len() as f64
    };
    let (with, without) = (first(&with), first(&without));
    assert!(with < 0.3 * without, "{with} with, {without} without");
}

#[test]
fn what_is_not_supplied_is_drawn_and_named() {
    let history = moved_by_white_noise();
    let model = trained(&history.rows(0..N_ROWS - HORIZON)).model;
    assert_eq!((model.targets(), model.roles()), (vec![1], &history.roles[..]));
    let full = history.window(N_ROWS - HORIZON, model.context_length(), HORIZON);
    assert!(model.unknown_covariates(&full).is_empty());
    let supplied = |n: usize| Window { future: full.future.as_ref().map(|future| future.rows(0..n)), ..full.clone() };
    for window in [supplied(3), supplied(0), Window { future: None, ..full.clone() }] {
        let n_supplied = window.future.as_ref().map_or(0, Grid::n_steps);
        let unknown = model.unknown_covariates(&window);
        assert_eq!(unknown.len(), 1);
        assert_eq!((unknown[0].series, unknown[0].step), (0, n_supplied as i32 + 1));
        let (drawn, all) = (draw(&model, &window, 2000), draw(&model, &full, 2000));
        for step in 0..HORIZON {
            // The deviation of the rest grows to 0.7, that of 2 x is 2.
            let ratio = spread(&drawn, step) / spread(&all, step);
            let expected = if step < n_supplied { 0.95..1.05 } else { 2.4..4.6 };
            assert!(expected.contains(&ratio), "step {step} of {n_supplied} supplied: {ratio}");
        }
    }
}

#[test]
fn a_supplied_future_moves_the_forecast_at_its_step_and_beyond_the_trained_horizon() {
    let history = moved_by_white_noise();
    let model = trained(&history.rows(0..N_ROWS - 40)).model;
    let window = history.window(N_ROWS - 40, model.context_length(), 4 * HORIZON);
    let lifted_step = 3 * HORIZON;
    let lifted = {
        let mut future = window.future.as_ref().expect("a known covariate").values().to_vec();
        future[lifted_step * 2] += 1.0;
        Window { future: Some(Grid::new(2, future).expect("whole rows")), ..window.clone() }
    };
    let (before, after) = (draw(&model, &window, 100).mean(), draw(&model, &lifted, 100).mean());
    for step in 0..4 * HORIZON {
        let moved = after[step] - before[step];
        let expected = if step == lifted_step { 2.0 } else { 0.0 };
        assert!((moved - expected).abs() < 0.3, "step {step}: {moved}");
    }
    assert_eq!(before[..lifted_step], after[..lifted_step], "what comes later changes nothing before");
}

#[test]
fn a_checkpoint_keeps_roles_and_effects() {
    let mut before = 0.0;
    let history = panel([Role::Past, Role::Known, Role::Target], &[HORIZON], move |step, stream| {
        let season = (step as f64 * std::f64::consts::TAU / HORIZON as f64).sin();
        let x = stream.normal();
        let value = before + season * (1.0 + x) + 0.3 * stream.normal();
        before = stream.normal();
        [before, x, value]
    });
    let model = trained(&history).model;
    let folder = std::env::temp_dir().join(format!("plumecast-covariates-{}", std::process::id()));
    model.save(&folder).expect("written");
    let loaded = Model::load(&folder, &forecast::cpu()).expect("what was written");
    let window = Window { future: None, ..history.window(N_ROWS - HORIZON, model.context_length(), HORIZON) };
    assert_eq!(loaded.roles(), model.roles());
    assert_eq!(draw(&loaded, &window, 20), draw(&model, &window, 20));
    let law = folder.join("covariates").join("config.json");
    let changed = std::fs::read_to_string(&law).expect("written").replace("\"velocity_share\"", "\"velocity_share\" ");
    std::fs::write(&law, changed).expect("a folder of ours");
    let refused = Model::load(&folder, &forecast::cpu());
    assert!(matches!(refused, Err(Error::CheckpointDigest { path, .. }) if path == law));
    std::fs::remove_dir_all(&folder).expect("a folder of ours");
}

#[test]
fn new_rows_come_with_their_covariates() {
    let history = moved_by_white_noise();
    let model = trained(&history.rows(0..N_ROWS - HORIZON)).model;
    let issue_row = N_ROWS - HORIZON;
    let mut prepared = model.prepare(&history.window(issue_row, model.context_length(), HORIZON)).expect("prepared");
    prepared.observe(&history.values.rows(issue_row..issue_row + 2), HORIZON).expect("two series");
    let sample = SampleConfig { n_samples: 20, seed: 2, passes: 4, ..SampleConfig::default() };
    let updated = prepared.forecast(&sample).expect("drawn");
    let mut window = history.window(issue_row + 2, model.context_length() + 2, HORIZON - 2);
    window.calendar = history.calendar.rows(issue_row - model.context_length()..N_ROWS);
    assert_eq!(updated, draw(&model, &window, 20));
}

#[test]
fn gaps_of_a_target_are_imputed_with_what_is_known_of_covariates() {
    let history = moved_by_white_noise();
    let model = trained(&history).model;
    let gap = N_ROWS - 5;
    let mut values = history.values.values().to_vec();
    values[gap * 2 + 1] = f64::NAN;
    let gapped = History { values: Grid::new(2, values).expect("whole rows"), ..history.clone() };
    let window = gapped.window(N_ROWS - HORIZON / 2, model.context_length(), HORIZON / 2);
    let sample = SampleConfig { n_samples: 400, seed: 2, passes: 4, ..SampleConfig::default() };
    let drawn = model.impute(&window, &sample).expect("one gap");
    assert_eq!(drawn.n_series(), 1);
    let step = drawn.n_steps() - (N_ROWS - HORIZON / 2 - gap);
    let expected = 10.0 + 2.0 * history.values.get(gap, 0);
    assert!((drawn.mean()[step] - expected).abs() < 2.0 && spread(&drawn, step) < 0.7, "{}", spread(&drawn, step));
}
