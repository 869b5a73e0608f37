//! What an update saves: `cargo run --release -p forecast --example update`.

use std::ops::ControlFlow;
use std::time::Instant;

use forecast::noise::Stream;
use forecast::{Bounds, Budget, Calendar, Grid, History, SampleConfig, TrainConfig, fit};

/// Milliseconds of one call: the median of several.
fn milliseconds<T>(mut call: impl FnMut() -> Result<T, forecast::Error>) -> Result<f64, forecast::Error> {
    let mut times = vec![];
    for _ in 0..7 {
        let started = Instant::now();
        call()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[3])
}

fn main() -> Result<(), forecast::Error> {
    for n_series in [8, 64] {
        measure(n_series)?;
    }
    Ok(())
}

fn measure(n_series: usize) -> Result<(), forecast::Error> {
    const HORIZON: usize = 24;
    let mut stream = Stream::new(1, 0);
    let mut levels = vec![0.0; n_series];
    let mut values = vec![];
    for step in 0..2200 {
        let season = 3.0 * (step as f64 * std::f64::consts::TAU / 24.0).sin();
        let shared = stream.normal();
        for level in &mut levels {
            *level = 0.8 * *level + 0.5 * shared + 0.3 * stream.normal();
            values.push(season + *level);
        }
    }
    let history = History {
        values: Grid::new(n_series, values)?,
        calendar: Calendar::new(0, vec![])?,
        seasons: vec![24],
        bounds: vec![Bounds::default(); n_series],
        roles: vec![],
    };
    let config = TrainConfig::new(HORIZON, Budget::Steps(4), 1);
    let model = fit(&history.rows(0..2150), &config, &forecast::cpu(), &mut |_| ControlFlow::Continue(()))?.model;

    let window = history.window(2150, model.context_length(), HORIZON);
    let prepared = model.prepare(&window)?;
    let rows = history.values.rows(2150..2154);
    let mut updated = prepared.clone();
    updated.observe(&rows, HORIZON)?;
    println!("{n_series} series, horizon {HORIZON}, 4 steps observed");
    println!("  prepare anew              {:8.2} ms", milliseconds(|| model.prepare(updated.window()))?);
    println!("  observe                   {:8.2} ms", milliseconds(|| prepared.clone().observe(&rows, HORIZON))?);
    for n_samples in [1, 100] {
        let config = SampleConfig { n_samples, ..SampleConfig::default() };
        let all = milliseconds(|| prepared.forecast(&config))?;
        let rest = milliseconds(|| updated.forecast(&config))?;
        println!("  draw {n_samples:>3}: all steps       {all:8.2} ms");
        println!("            those left      {rest:8.2} ms");
    }
    Ok(())
}
