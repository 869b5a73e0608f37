//! The model's arithmetic must be that of an independent implementation: `model.py` made `model.json` and
//! `denoiser.safetensors` with numpy in float64.
//!
//! Ours has the network and the noisy values in f32, whose relative rounding is 6e-8; numbers are of order 1 to 10.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use burn_store::{ModuleSnapshot, SafetensorsStore};
use forecast::conditioning::{Conditioning, TokenLayout};
use forecast::denoiser::{Cache, Denoiser, DenoiserConfig, Tokens, level_harmonics};
use forecast::diffusion::{Example, NoisedBatch, Purpose};
use forecast::noise::Stream;
use forecast::sampler::{Draw, Sampler};
use forecast::schedule::ScheduleMatrix;
use forecast::{LevelMix, LossWeight, NoiseLevel, SampleConfig, Schedule};
use serde::Deserialize;

/// Of what is computed in f64.
const TOLERANCE: f64 = 1e-12;
/// Of one pass of the network.
const TOLERANCE_PASS: f64 = 1e-5;
/// Of a path, over whose passes rounding adds up.
const TOLERANCE_PATH: f64 = 1e-4;

/// Matrices are row-major, gaps null.
#[derive(Deserialize)]
struct Golden {
    layout: TokenLayout,
    network: DenoiserConfig,
    levels: Vec<LevelCase>,
    tokens: TokensCase,
    views: Vec<View>,
    /// `[lead, series]`
    influences: Vec<f32>,
    losses: Vec<LossCase>,
    draws: Vec<DrawCase>,
}

#[derive(Deserialize)]
struct LevelCase {
    level: f64,
    clean: f64,
    noise: f64,
    mixed: f64,
    velocity: f64,
}

/// The tokens of one window, and what the network predicts for them.
#[derive(Deserialize)]
struct TokensCase {
    noisy: Vec<f32>,
    noise_share: Vec<f32>,
    is_gap: Vec<f32>,
    standard: Vec<f32>,
    calendar: Vec<f32>,
    angle: Vec<f64>,
    place: Vec<i32>,
    velocity: Vec<f64>,
}

#[derive(Deserialize)]
struct View {
    context: Vec<Option<f32>>,
    context_standard: Vec<f32>,
    context_expected: Vec<f32>,
    horizon_standard: Vec<f32>,
    calendar: Vec<f32>,
    innovations: Vec<Option<f32>>,
}

#[derive(Deserialize)]
struct LossCase {
    purpose: String,
    seed: u64,
    loss: f64,
    /// Of the velocity that is made odd.
    odd_loss: f64,
}

#[derive(Deserialize)]
struct DrawCase {
    schedule: Schedule,
    passes: usize,
    velocity_share: f64,
    seed: u64,
    first_step: usize,
    first_sample: usize,
    /// Levels of the tokens before the first pass and after each.
    rows: Vec<Vec<f64>>,
    /// `[sample, token, element]`
    values: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("model.json")).expect("the format of model.py")
}

fn denoiser(network: &DenoiserConfig) -> Denoiser {
    let mut denoiser = Denoiser::new(network, &mut Stream::new(0, 0), &forecast::cpu());
    let weights = include_bytes!("denoiser.safetensors").to_vec();
    let loaded = denoiser.load_from(&mut SafetensorsStore::from_bytes(Some(weights))).expect("the weights of model.py");
    assert!(loaded.is_success() && loaded.missing.is_empty() && loaded.unused.is_empty(), "{loaded}");
    denoiser.no_grad()
}

impl View {
    fn conditioning(&self) -> Conditioning {
        Conditioning {
            context: with_gaps(&self.context),
            context_levels: vec![],
            context_standard: self.context_standard.clone(),
            context_expected: self.context_expected.clone(),
            horizon_standard: self.horizon_standard.clone(),
            calendar: self.calendar.clone(),
        }
    }
}

fn with_gaps(values: &[Option<f32>]) -> Vec<f32> {
    values.iter().map(|value| value.unwrap_or(f32::NAN)).collect()
}

#[track_caller]
fn assert_close(ours: impl IntoIterator<Item = f64>, theirs: &[f64], tolerance: f64) {
    let ours: Vec<f64> = ours.into_iter().collect();
    assert_eq!(ours.len(), theirs.len());
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() < tolerance, "number {index}: ours {ours}, reference {theirs}");
    }
}

#[test]
fn noise_is_mixed_as_in_numpy() {
    for LevelCase { level, clean, noise, mixed, velocity } in golden().levels {
        let level = NoiseLevel::new(level);
        assert_close([level.mix(clean, noise), level.velocity(clean, noise)], &[mixed, velocity], TOLERANCE);
    }
}

#[test]
fn the_network_predicts_what_numpy_does() {
    let Golden { network, tokens: case, .. } = golden();
    let device = forecast::cpu();
    let time = case.place.len();
    let tensor = |values: Vec<f32>| {
        let width = values.len() / time;
        Tensor::<3>::from_data(TensorData::new(values, [1, time, width]), &device)
    };
    let tokens = Tokens {
        noisy: tensor(case.noisy),
        noise_share: tensor(case.noise_share),
        is_gap: tensor(case.is_gap),
        standard: tensor(case.standard),
        calendar: tensor(case.calendar),
        level: tensor(case.angle.iter().flat_map(|&angle| level_harmonics(angle)).collect()),
        place: Tensor::<2, Int>::from_data(TensorData::new(case.place, [1, time]), &device),
        n_context: 0,
        first_position: 0,
    };
    let (velocity, _) = denoiser(&network).forward(&tokens, &Cache::default());
    let velocity = velocity.try_into_vec_as::<f32>().expect("f32");
    assert_close(velocity.into_iter().map(f64::from), &case.velocity, TOLERANCE_PASS);
}

#[test]
fn the_losses_of_a_batch_are_those_of_numpy() {
    let Golden { layout, network, views, influences, losses, .. } = golden();
    let denoiser = denoiser(&network);
    let examples: Vec<Example> = views
        .iter()
        .map(|view| Example { conditioning: view.conditioning(), innovations: with_gaps(&view.innovations) })
        .collect();
    for LossCase { purpose, seed, loss, odd_loss } in losses {
        let purpose = match purpose.as_str() {
            "training" => Purpose::Training(LevelMix::default(), LossWeight::Constant),
            _ => Purpose::Validation,
        };
        let batch =
            NoisedBatch::new(&layout, &examples, &influences, purpose, &mut Stream::new(seed, 5), &forecast::cpu());
        let ours = f64::from(batch.loss(&denoiser).into_scalar::<f32>());
        assert_close([ours], &[loss], TOLERANCE_PASS);
        assert_close([batch.fit_sums(&denoiser).loss(1.0)], &[odd_loss], TOLERANCE_PASS);
    }
}

#[test]
fn schedules_have_the_levels_of_numpy() {
    for DrawCase { schedule, passes, rows, .. } in golden().draws {
        let matrix = ScheduleMatrix::new(schedule, rows[0].len(), passes).expect("all positive");
        assert_eq!(matrix.passes().count(), rows.len() - 1);
        for ((before, after), theirs) in matrix.passes().zip(rows.windows(2)) {
            assert_close(before.iter().map(|level| level.value()), &theirs[0], TOLERANCE);
            assert_close(after.iter().map(|level| level.value()), &theirs[1], TOLERANCE);
        }
    }
}

#[test]
fn samples_are_those_of_numpy() {
    let Golden { layout, network, views, draws, .. } = golden();
    let (denoiser, device) = (denoiser(&network), forecast::cpu());
    for case in draws {
        let sampler =
            Sampler { denoiser: &denoiser, velocity_share: case.velocity_share, layout: &layout, device: &device };
        let n_tokens = layout.n_horizon_tokens;
        let n_samples = case.values.len() / (n_tokens * layout.n_elements());
        let draw = Draw { first_sample: case.first_sample, n_samples, first_step: case.first_step, n_tokens };
        let DrawCase { seed, passes, schedule, .. } = case;
        let config = SampleConfig { n_samples, seed, passes, schedule, ..SampleConfig::default() };
        let values = sampler.draw(&[views[0].conditioning()], draw, &config, None).expect("all positive");
        assert_close(values.into_iter().map(f64::from), &case.values, TOLERANCE_PATH);
    }
}
