//! A GPU must forecast what the processor does. Where there is none, or the build has no `cuda`, the test says so.

use std::ops::ControlFlow;

use forecast::noise::Stream;
use forecast::{Bounds, Budget, Calendar, DeviceName, Grid, History, Model, SampleConfig, TrainConfig, fit};

/// Relative to the spread of the values: kernels add up in another order than the processor, and 16 passes carry that on.
const TOLERANCE: f32 = 1e-3;

fn history() -> History {
    let mut stream = Stream::new(3, 0);
    let values = (0..400).flat_map(|step| {
        let level = (f64::from(step) * std::f64::consts::TAU / 12.0).sin();
        [level + 0.3 * stream.normal(), 0.5 - level + 0.3 * stream.normal()]
    });
    History {
        values: Grid::new(2, values.collect()).expect("whole rows"),
        calendar: Calendar::new(0, vec![]).expect("no features"),
        seasons: vec![12],
        bounds: vec![Bounds::default(); 2],
        roles: vec![],
    }
}

#[test]
fn a_gpu_draws_the_trajectories_of_the_processor() {
    let gpu = match (DeviceName::Cuda { index: 0 }).open() {
        Ok(gpu) => gpu,
        Err(error) => return eprintln!("not run: {error}"),
    };
    let history = history();
    let mut config = TrainConfig::new(12, Budget::Steps(20), 1);
    config.network.d_model = Some(16);
    let trained = fit(&history, &config, &gpu, &mut |_| ControlFlow::Continue(())).expect("enough data").model;
    let folder = tempfile::tempdir().expect("a folder");
    trained.save(folder.path()).expect("written");
    let window = history.window(400, trained.context_length(), 12);
    let draw = |device| {
        let model = Model::load(folder.path(), device).expect("it was just written");
        model.forecast(&window, &SampleConfig { n_samples: 20, ..SampleConfig::default() }).expect("a whole window")
    };
    let (on_cpu, on_gpu) = (draw(&forecast::cpu()), draw(&gpu));
    for (a, b) in on_cpu.values().iter().zip(on_gpu.values()) {
        assert!((a - b).abs() < TOLERANCE, "processor {a}, GPU {b}");
    }
}
