//! Trains on two noisy sines on the CPU and prints the forecast of the first: `cargo run --release -p forecast --example sine`.

use std::ops::ControlFlow;

use forecast::noise::Stream;
use forecast::{Bounds, Budget, Calendar, Grid, History, QuantileLevel, SampleConfig, TrainConfig, fit};

fn main() -> Result<(), forecast::Error> {
    const SEASON: usize = 24;
    let mut stream = Stream::new(1, 0);
    let mut noise = 0.0;
    let values = (0..2000).flat_map(|step| {
        noise = 0.7 * noise + 0.3 * stream.normal();
        let level = (step as f64 * std::f64::consts::TAU / SEASON as f64).sin();
        [10.0 + 3.0 * level + noise, 5.0 + level - noise]
    });
    let history = History {
        values: Grid::new(2, values.collect())?,
        calendar: Calendar::new(0, vec![])?,
        seasons: vec![SEASON],
        bounds: vec![Bounds::default(); 2],
        roles: vec![],
    };
    let config = TrainConfig::new(SEASON, Budget::Steps(100), 1);
    let fitted = fit(&history, &config, &forecast::cpu(), &mut |progress| {
        if progress.step.is_multiple_of(10) {
            println!(
                "{} {}/{} loss {:.3} validation {:?} {:.1} steps/s",
                progress.stage,
                progress.step,
                progress.n_steps,
                progress.loss,
                progress.validation_loss,
                progress.steps_per_second
            );
        }
        ControlFlow::Continue(())
    })?;
    println!("{:#?}", fitted.report);
    let window = history.window(1976, fitted.model.context_length(), SEASON);
    let started = std::time::Instant::now();
    let trajectories = fitted.model.forecast(&window, &SampleConfig::default())?;
    println!("sampled in {:?}", started.elapsed());
    let levels = [QuantileLevel::new(0.1)?, QuantileLevel::new(0.5)?, QuantileLevel::new(0.9)?];
    for (step, row) in trajectories.quantiles(&levels).chunks_exact(6).enumerate() {
        println!(
            "{:>2}  {:6.2} {:6.2} {:6.2}   truth {:6.2}",
            step + 1,
            row[0],
            row[1],
            row[2],
            history.values.get(1976 + step, 0)
        );
    }
    Ok(())
}
