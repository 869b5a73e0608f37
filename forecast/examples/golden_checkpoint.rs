//! Writes `tests/golden/checkpoint_6`: a small trained model, a window, and the trajectories that the model draws for it. The
//! number is that of the format; `tests/golden/checkpoint` was written in format 1, which knew no covariates,
//! `checkpoint_2` in format 2, whose linear base was a single forecaster, `checkpoint_3` before quantiles moved, and `checkpoint_5` before
//! maps bent towards bounds.
//!
//! ```sh
//! cargo run --release -p forecast --example golden_checkpoint
//! ```
//!
//! Only when the checkpoint's format or the arithmetic of a forecast is meant to change: `tests/golden/checkpoint.rs`
//! holds builds to what is there.

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use forecast::noise::Stream;
use forecast::{Bounds, Budget, Calendar, Grid, History, Role, SampleConfig, TrainConfig, fit};
use serde_json::json;

const N_SERIES: usize = 5;
const N_ROWS: usize = 600;
const HORIZON: usize = 6;
const SEASON: usize = 6;

/// A season, jumps up or down that come at one time of it and move two series, and a skewed series above 0. A covariate that
/// is known moves the first series, one of which only the past helps is a step ahead of the second.
fn history() -> Result<History, forecast::Error> {
    let mut stream = Stream::new(11, 0);
    let angle = |step: usize| step as f64 * std::f64::consts::TAU / SEASON as f64;
    let (mut values, mut calendar) = (vec![], vec![]);
    let (mut level, mut noise, mut ahead) = (0.0, 0.0, 0.0);
    for step in 0..N_ROWS + HORIZON {
        let jump = if stream.uniform() < 0.5 { 1.0 } else { -1.0 };
        level = 0.5 * level + if step % SEASON == 2 { 2.0 * jump } else { 0.0 };
        noise = 0.6 * noise + 0.1 * stream.normal();
        let rate = libm::exp(0.5 * noise + 0.3 * stream.normal());
        let (known, before) = (stream.normal(), ahead);
        ahead = stream.normal();
        let row = [
            10.0 + libm::sin(angle(step)) + level + noise + 0.1 * known,
            2.0 - level + 0.1 * stream.normal() + 0.1 * before,
            rate,
            known,
            0.1 * ahead,
        ];
        values.extend(row.map(|value| if stream.uniform() < 0.02 { f64::NAN } else { value }));
        calendar.extend([libm::sin(angle(step)), libm::cos(angle(step))]);
    }
    Ok(History {
        values: Grid::new(N_SERIES, values)?,
        calendar: Calendar::new(2, calendar)?,
        seasons: vec![SEASON],
        bounds: (0..N_SERIES).map(|series| Bounds { lower: (series == 2).then_some(0.0), upper: None }).collect(),
        roles: vec![Role::Target, Role::Target, Role::Target, Role::Known, Role::Past],
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let history = history()?;
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(500), 2);
    config.network.d_model = Some(16);
    let fitted = fit(&history.rows(0..N_ROWS), &config, &forecast::cpu(), &mut |_| ControlFlow::Continue(()))?;
    println!("{}", serde_json::to_string_pretty(&fitted.report)?);
    if fitted.report.velocity_share == 0.0 {
        return Err("the network has learned nothing, so a forecast would not show what it does".into());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint_6");
    fitted.model.save(&folder)?;

    // The third series is two steps late, so there are nowcast steps, and two steps of the known covariate are not supplied.
    let full = history.window(N_ROWS, fitted.model.context_length(), HORIZON);
    let mut context = full.context.values().to_vec();
    let n = context.len();
    for late in [n - 3, n - 3 - N_SERIES] {
        context[late] = f64::NAN;
    }
    let (calendar, bounds) = (full.calendar.clone(), full.bounds.clone());
    let future = full.future.as_ref().map(|future| future.rows(0..HORIZON - 2));
    let window = forecast::Window { context: Grid::new(N_SERIES, context)?, future, ..full };
    let sample = SampleConfig { n_samples: 5, seed: 3, ..SampleConfig::default() };
    let trajectories = fitted.model.forecast(&window, &sample)?;
    let calendar: Vec<&[f64]> = (0..window.context.n_steps() + HORIZON).map(|step| calendar.row(step)).collect();
    let golden = json!({
        "horizon": HORIZON, "bounds": bounds,
        "context": window.context.values(), "calendar": calendar.concat(),
        "future": window.future.as_ref().map(Grid::values),
        "n_samples": sample.n_samples, "seed": sample.seed, "passes": sample.passes,
        "first_step": trajectories.first_step(), "trajectories": trajectories.values(),
    });
    fs::write(folder.join("forecast.json"), serde_json::to_string(&golden)? + "\n")?;
    println!("written: {}", folder.display());
    Ok(())
}
