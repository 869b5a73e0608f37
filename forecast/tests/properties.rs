//! What must hold of the network, the sampler and a trained model, whatever the weights are.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use burn::tensor::{Device, Int, Tensor, TensorData};
use forecast::attention::Sight;
use forecast::conditioning::{Conditioning, TokenLayout};
use forecast::denoise::{Denoise, NoisyToken, denoise};
use forecast::denoiser::{Cache, Denoiser, DenoiserConfig, TokenOf, Tokens, level_harmonics};
use forecast::noise::Stream;
use forecast::sampler::{Draw, Sampler, Session};
use forecast::schedule::{PASSES_DEFAULT, ScheduleMatrix};
use forecast::{
    Aggregate, Bounds, Budget, Calendar, Condition, Demand, Effort, Error, Fitted, Grid, History, Means, Memory, Model,
    NoiseLevel, Reading, Resumed, SampleConfig, Schedule, Start, TrainConfig, Trajectories, WarmStart, Window, fit,
    fit_with,
};

const N_SERIES: usize = 3;
const SEASON: usize = 8;
const HORIZON: usize = 12;

fn device() -> Device {
    forecast::cpu()
}

/// Three related series with a season; the second is twice the first plus noise, the third never varies.
fn history(n_steps: usize, seed: u64) -> History {
    let mut stream = Stream::new(seed, 9);
    let mut level = 0.0;
    let mut values = vec![];
    for step in 0..n_steps {
        level = 0.8 * level + 0.5 * stream.normal();
        let season = (step as f64 * std::f64::consts::TAU / SEASON as f64).sin();
        values.extend([20.0 + 4.0 * season + level, 40.0 + 8.0 * season + 2.0 * level + stream.normal(), 7.0]);
    }
    let calendar = (0..n_steps + 2 * HORIZON).flat_map(|step| {
        let phase = step as f64 * std::f64::consts::TAU / SEASON as f64;
        [phase.sin(), phase.cos()]
    });
    History {
        values: Grid::new(N_SERIES, values).expect("whole rows"),
        calendar: Calendar::new(2, calendar.collect()).expect("whole rows").rows(0..n_steps),
        seasons: vec![SEASON],
        bounds: vec![Bounds::default(); N_SERIES],
        roles: vec![],
    }
}

fn train(history: &History, n_steps: usize) -> Model {
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(n_steps), 5);
    config.network.batch_size = 16;
    fit(history, &config, &device(), &mut |_| ControlFlow::Continue(())).expect("long enough").model
}

/// A briefly trained model, made once.
fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| train(&history(300, 1), 24))
}

fn sample(n_samples: usize, seed: u64) -> SampleConfig {
    SampleConfig { n_samples, seed, ..SampleConfig::default() }
}

fn forecast_at(history: &History, issue_row: usize, horizon: usize, config: &SampleConfig) -> Trajectories {
    let window = history.window(issue_row, model().context_length(), horizon);
    model().forecast(&window, config).expect("a window of the model")
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A network whose every weight is random, so that nothing is zero by its start.
fn random_network(n_elements: usize, n_horizon_tokens: usize) -> (DenoiserConfig, Denoiser) {
    let config = DenoiserConfig {
        n_elements,
        n_calendar: 2,
        n_horizon_tokens,
        d_model: 32,
        n_heads: 2,
        n_layers: 2,
        attention: Sight::Causal,
        token: TokenOf::Panel,
    };
    let denoiser = shaken(&config);
    (config, denoiser)
}

/// Random networks for tokens of six elements: of the panel, and of three series with two steps each.
fn random_networks() -> [Denoiser; 2] {
    let (config, of_panel) = random_network(6, 4);
    [of_panel, shaken(&DenoiserConfig { n_elements: 2, token: TokenOf::Series, ..config })]
}

fn shaken(config: &DenoiserConfig) -> Denoiser {
    use burn::module::{Module, ModuleMapper, Param};
    struct Shake(Stream);
    impl ModuleMapper for Shake {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let shape = tensor.dims();
                let noise: Vec<f32> = (0..shape.iter().product()).map(|_| 0.2 * self.0.normal() as f32).collect();
                let noise = Tensor::from_data(TensorData::new(noise, shape), &tensor.device());
                tensor + noise
            })
        }
    }
    Denoiser::new(config, &mut Stream::new(3, 0), &device()).map(&mut Shake(Stream::new(4, 0)))
}

/// Random tokens, each with a noise level of its own.
fn random_tokens(batch: usize, time: usize, n_elements: usize, seed: u64) -> Tokens {
    let mut stream = Stream::new(seed, 0);
    let mut tensor = |width: usize| {
        let values: Vec<f32> = (0..batch * time * width).map(|_| stream.normal() as f32).collect();
        Tensor::<3>::from_data(TensorData::new(values, [batch, time, width]), &device())
    };
    let (noisy, noise_share, standard, calendar) =
        (tensor(n_elements), tensor(n_elements), tensor(n_elements), tensor(2));
    let mut stream = Stream::new(seed, 1);
    let levels: Vec<f32> =
        (0..batch * time).flat_map(|_| level_harmonics(NoiseLevel::new(stream.uniform()).angle())).collect();
    let place: Vec<i32> = (0..batch * time).map(|index| (index % time) as i32).collect();
    Tokens {
        is_gap: noisy.zeros_like(),
        noisy,
        noise_share,
        standard,
        calendar,
        level: Tensor::from_data(TensorData::new(levels, [batch, time, 16]), &device()),
        place: Tensor::<2, Int>::from_data(TensorData::new(place, [batch, time]), &device()),
        n_context: 2,
        first_position: 0,
    }
}

/// The tokens of a range of positions.
fn cut(tokens: &Tokens, first: usize, n: usize) -> Tokens {
    let part = |tensor: &Tensor<3>| tensor.clone().narrow(1, first, n);
    Tokens {
        noisy: part(&tokens.noisy),
        noise_share: part(&tokens.noise_share),
        is_gap: part(&tokens.is_gap),
        standard: part(&tokens.standard),
        calendar: part(&tokens.calendar),
        level: part(&tokens.level),
        place: tokens.place.clone().narrow(1, first, n),
        n_context: tokens.n_context.saturating_sub(first).min(n),
        first_position: tokens.first_position + first,
    }
}

fn numbers(tensor: Tensor<3>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("on the host")
}

#[test]
fn an_untrained_network_leaves_white_noise_as_it_is() {
    let config = DenoiserConfig {
        n_elements: 6,
        n_calendar: 2,
        n_horizon_tokens: 4,
        d_model: 32,
        n_heads: 2,
        n_layers: 2,
        attention: Sight::Causal,
        token: TokenOf::Panel,
    };
    let denoiser = Denoiser::new(&config, &mut Stream::new(1, 0), &device());
    let (velocity, _) = denoiser.forward(&random_tokens(2, 5, 6, 1), &Cache::default());
    assert!(numbers(velocity).iter().all(|&value| value == 0.0));
}

#[test]
fn a_token_does_not_see_what_comes_after_it() {
    for denoiser in random_networks() {
        sees_nothing_after_a_token(&denoiser);
    }
}

fn sees_nothing_after_a_token(denoiser: &Denoiser) {
    let tokens = random_tokens(2, 5, 6, 1);
    let other = random_tokens(2, 5, 6, 2);
    for t in 0..4 {
        let late = |a: &Tensor<3>, b: &Tensor<3>| {
            Tensor::cat(vec![a.clone().narrow(1, 0, t + 1), b.clone().narrow(1, t + 1, 4 - t)], 1)
        };
        let changed = Tokens {
            noisy: late(&tokens.noisy, &other.noisy),
            noise_share: late(&tokens.noise_share, &other.noise_share),
            standard: late(&tokens.standard, &other.standard),
            calendar: late(&tokens.calendar, &other.calendar),
            level: late(&tokens.level, &other.level),
            ..tokens.clone()
        };
        let before = |tokens: &Tokens| numbers(denoiser.forward(tokens, &Cache::default()).0.narrow(1, 0, t + 1));
        assert!(largest_difference(&before(&tokens), &before(&changed)) < 1e-6, "token {t}");
        let after = |tokens: &Tokens| numbers(denoiser.forward(tokens, &Cache::default()).0.narrow(1, t + 1, 4 - t));
        assert!(largest_difference(&after(&tokens), &after(&changed)) > 1e-3, "the change itself is seen");
    }
}

#[test]
fn with_joint_attention_tokens_of_the_horizon_see_each_other_and_the_context_stays_causal() {
    let (config, _) = random_network(6, 4);
    let denoiser = shaken(&DenoiserConfig { attention: Sight::Joint, ..config });
    let tokens = random_tokens(2, 5, 6, 1);
    let last =
        |a: &Tensor<3>, b: &Tensor<3>| Tensor::cat(vec![a.clone().narrow(1, 0, 4), b.clone().narrow(1, 4, 1)], 1);
    let changed = Tokens { noisy: last(&tokens.noisy, &random_tokens(2, 5, 6, 2).noisy), ..tokens.clone() };
    let part = |tokens: &Tokens, first: usize, n: usize| {
        numbers(denoiser.forward(tokens, &Cache::default()).0.narrow(1, first, n))
    };
    assert!(largest_difference(&part(&tokens, 0, 2), &part(&changed, 0, 2)) < 1e-6, "the context");
    assert!(largest_difference(&part(&tokens, 2, 1), &part(&changed, 2, 1)) > 1e-4, "the first of the horizon");
}

#[test]
fn a_token_sees_its_past_and_the_level_of_each_token() {
    let (_, denoiser) = random_network(6, 4);
    let tokens = random_tokens(1, 5, 6, 1);
    let last = |tokens: &Tokens| numbers(denoiser.forward(tokens, &Cache::default()).0.narrow(1, 4, 1));
    let other = random_tokens(1, 5, 6, 2);
    let early =
        |a: &Tensor<3>, b: &Tensor<3>| Tensor::cat(vec![b.clone().narrow(1, 0, 1), a.clone().narrow(1, 1, 4)], 1);
    let past = Tokens { noisy: early(&tokens.noisy, &other.noisy), ..tokens.clone() };
    assert!(largest_difference(&last(&tokens), &last(&past)) > 1e-4);
    let level = Tokens { level: early(&tokens.level, &other.level), ..tokens.clone() };
    assert!(largest_difference(&last(&tokens), &last(&level)) > 1e-4);
}

#[test]
fn series_with_tokens_of_their_own_share_the_weights_and_hear_of_each_other() {
    let [_, denoiser] = random_networks();
    let tokens = random_tokens(2, 5, 6, 1);
    // Elements are ordered by step and series.
    let chosen = |tensor: &Tensor<3>, order: &[i32]| {
        let order = Tensor::<1, Int>::from_data(TensorData::new(order.to_vec(), [order.len()]), &device());
        tensor.clone().select(2, order)
    };
    let of_series = |order: &[i32]| Tokens {
        noisy: chosen(&tokens.noisy, order),
        noise_share: chosen(&tokens.noise_share, order),
        is_gap: chosen(&tokens.is_gap, order),
        standard: chosen(&tokens.standard, order),
        ..tokens.clone()
    };
    let velocity = |tokens: &Tokens| denoiser.forward(tokens, &Cache::default()).0;
    let (order, all) = ([2, 0, 1, 5, 3, 4], velocity(&tokens));
    let (swapped, expected) = (velocity(&of_series(&order)), chosen(&all, &order));
    assert!(largest_difference(&numbers(swapped), &numbers(expected)) < 1e-5, "in another order");
    let (two, same) = (velocity(&of_series(&[0, 1, 3, 4])), chosen(&all, &[0, 1, 3, 4]));
    assert_eq!(two.dims(), [2, 5, 4], "of any number");
    assert!(largest_difference(&numbers(two), &numbers(same)) > 1e-4, "the third one is heard of");
}

#[test]
fn token_by_token_with_a_cache_equals_the_whole_sequence() {
    for denoiser in random_networks() {
        cache_equals_the_whole_sequence(&denoiser);
    }
}

fn cache_equals_the_whole_sequence(denoiser: &Denoiser) {
    let tokens = random_tokens(2, 5, 6, 1);
    let whole = numbers(denoiser.forward(&tokens, &Cache::default()).0);
    let (first, key_values) = denoiser.forward(&cut(&tokens, 0, 3), &Cache::default());
    let mut cache = Cache::of_context(key_values, false);
    let mut parts = vec![first];
    for token in 3..5 {
        let (velocity, key_values) = denoiser.forward(&cut(&tokens, token, 1), &cache);
        cache.append(key_values, 1);
        parts.push(velocity);
    }
    assert!(largest_difference(&whole, &numbers(Tensor::cat(parts, 1))) < 1e-5);
}

#[test]
fn a_context_shared_by_all_samples_equals_one_for_each() {
    for denoiser in random_networks() {
        shared_context_equals_one_for_each(&denoiser);
    }
}

fn shared_context_equals_one_for_each(denoiser: &Denoiser) {
    let context = random_tokens(1, 3, 6, 1);
    let repeated = Tokens {
        noisy: context.noisy.clone().repeat_dim(0, 4),
        noise_share: context.noise_share.clone().repeat_dim(0, 4),
        is_gap: context.is_gap.clone().repeat_dim(0, 4),
        standard: context.standard.clone().repeat_dim(0, 4),
        calendar: context.calendar.clone().repeat_dim(0, 4),
        level: context.level.clone().repeat_dim(0, 4),
        place: context.place.clone().repeat_dim(0, 4),
        n_context: 2,
        first_position: 0,
    };
    let next = cut(&random_tokens(4, 5, 6, 2), 3, 2);
    let shared = Cache::of_context(denoiser.forward(&context, &Cache::default()).1, true);
    let own = Cache::of_context(denoiser.forward(&repeated, &Cache::default()).1, false);
    let velocity = |cache: &Cache| numbers(denoiser.forward(&next, cache).0);
    assert!(largest_difference(&velocity(&shared), &velocity(&own)) < 1e-5);
}

fn random_conditioning(layout: &TokenLayout, seed: u64) -> Conditioning {
    let mut stream = Stream::new(seed, 0);
    let mut normal = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
    let (context, horizon) = (layout.context_length() * layout.n_series, layout.horizon() * layout.n_series);
    Conditioning {
        context: normal(context),
        context_levels: vec![],
        context_standard: normal(context),
        context_expected: normal(context),
        horizon_standard: normal(horizon),
        calendar: normal((layout.n_context_tokens + layout.n_horizon_tokens) * layout.n_calendar),
    }
}

#[test]
fn finished_tokens_are_never_touched_again() {
    let layout =
        TokenLayout { n_series: 3, n_calendar: 2, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };
    let (_, denoiser) = random_network(6, 4);
    let device = device();
    let sampler = Sampler { denoiser: &denoiser, velocity_share: 1.0, layout: &layout, device: &device };
    let views = [random_conditioning(&layout, 1)];
    let draw = |n_tokens, schedule| {
        let draw = Draw { first_sample: 0, n_samples: 3, first_step: 0, n_tokens };
        sampler.draw(&views, draw, &SampleConfig { schedule, ..sample(3, 1) }, None).expect("a valid schedule")
    };
    for schedule in [Schedule::Autoregressive, Schedule::Pyramid { slope: 3 }, Schedule::Blocks { size: 1 }] {
        let (short, long) = (draw(2, schedule), draw(4, schedule));
        for sample in 0..3 {
            let (short, long) = (&short[sample * 12..][..12], &long[sample * 24..][..12]);
            assert!(largest_difference(short, long) < 1e-5, "{schedule:?}: later tokens changed earlier ones");
        }
    }
}

#[test]
fn the_level_of_a_gap_plays_no_part() {
    let layout =
        TokenLayout { n_series: 3, n_calendar: 2, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };
    let (_, denoiser) = random_network(6, 4);
    let device = device();
    let sampler = Sampler { denoiser: &denoiser, velocity_share: 1.0, layout: &layout, device: &device };
    let mut view = random_conditioning(&layout, 1);
    let n = view.context.len();
    (0..n).step_by(3).for_each(|index| view.context[index] = f32::NAN);
    // Of every third value, from one on, the level is half noise.
    let drawn = |first: usize| {
        let level = |index: usize| if index % 3 == first { NoiseLevel::new(0.5) } else { NoiseLevel::CLEAN };
        let views = [Conditioning { context_levels: (0..n).map(level).collect(), ..view.clone() }];
        let draw = Draw { first_sample: 0, n_samples: 3, first_step: 0, n_tokens: 2 };
        sampler.draw(&views, draw, &sample(3, 1), None).expect("a valid schedule")
    };
    let nowhere = drawn(3);
    assert_eq!(nowhere, drawn(0), "beside gaps");
    assert_ne!(nowhere, drawn(1), "beside values");
}

#[test]
fn every_schedule_draws_finite_values_and_the_exact_ones_agree() {
    let layout =
        TokenLayout { n_series: 3, n_calendar: 2, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };
    let (_, denoiser) = random_network(6, 4);
    let device = device();
    let sampler = Sampler { denoiser: &denoiser, velocity_share: 1.0, layout: &layout, device: &device };
    let views = [random_conditioning(&layout, 1)];
    let draw = |schedule| {
        let draw = Draw { first_sample: 0, n_samples: 4, first_step: 0, n_tokens: 4 };
        sampler.draw(&views, draw, &SampleConfig { schedule, ..sample(4, 1) }, None).expect("a valid schedule")
    };
    let exact = draw(Schedule::Autoregressive);
    assert!(exact.iter().all(|value| value.is_finite()));
    for schedule in [Schedule::Blocks { size: 1 }, Schedule::Pyramid { slope: PASSES_DEFAULT }] {
        assert_eq!(exact, draw(schedule), "{schedule:?}");
    }
    for schedule in [Schedule::Full, Schedule::Pyramid { slope: 2 }, Schedule::Blocks { size: 2 }] {
        let other = draw(schedule);
        assert!(other.iter().all(|value| value.is_finite()));
        assert_ne!(exact, other, "{schedule:?}");
    }
}

/// The network without its memory of finished tokens: it is shown all of them in every pass.
struct Forgetful<'a> {
    session: Session<'a>,
    finished: Vec<NoisyToken>,
}

impl Denoise for Forgetful<'_> {
    fn velocities(&mut self, tokens: &[NoisyToken], n_finished: usize) -> Result<Vec<Vec<f32>>, Error> {
        let all: Vec<NoisyToken> = self.finished.iter().chain(tokens).cloned().collect();
        let velocities = self.session.clone().velocities(&all, self.finished.len() + n_finished);
        self.finished.extend_from_slice(&tokens[..n_finished]);
        velocities
    }
}

#[test]
fn remembering_finished_tokens_changes_nothing_whatever_the_schedule_and_the_number_of_passes() {
    let layout =
        TokenLayout { n_series: 3, n_calendar: 2, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };
    let (_, network) = random_network(6, 4);
    let device = device();
    let sampler = Sampler { denoiser: &network, velocity_share: 0.8, layout: &layout, device: &device };
    let views = [random_conditioning(&layout, 1)];
    let mut stream = Stream::new(1, 0);
    let noise: Vec<NoisyToken> = (0..4)
        .map(|_| NoisyToken { values: (0..18).map(|_| stream.normal() as f32).collect(), level: NoiseLevel::NOISE })
        .collect();
    let schedules =
        [Schedule::Autoregressive, Schedule::Pyramid { slope: 2 }, Schedule::Blocks { size: 2 }, Schedule::Full];
    for schedule in schedules {
        for n_passes in [1, 2, 3, 7] {
            let matrix = ScheduleMatrix::new(schedule, 4, n_passes).expect("all positive");
            let (mut remembered, mut forgotten) = (noise.clone(), noise.clone());
            denoise(&mut sampler.session(&views, false), &mut remembered, 0, &matrix, 0.8, NoiseLevel::CLEAN)
                .expect("a device");
            let mut forgetful = Forgetful { session: sampler.session(&views, false), finished: vec![] };
            denoise(&mut forgetful, &mut forgotten, 0, &matrix, 0.8, NoiseLevel::CLEAN).expect("a device");
            for (a, b) in remembered.iter().zip(&forgotten) {
                assert!(a.values.iter().all(|value| value.is_finite()) && a.level == NoiseLevel::CLEAN);
                assert!(largest_difference(&a.values, &b.values) < 1e-4, "{schedule:?}, {n_passes} passes");
            }
        }
    }
}

#[test]
fn believing_nothing_of_the_network_leaves_the_noise() {
    let layout =
        TokenLayout { n_series: 3, n_calendar: 2, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };
    let (_, denoiser) = random_network(6, 4);
    let device = device();
    let sampler = Sampler { denoiser: &denoiser, velocity_share: 0.0, layout: &layout, device: &device };
    let draw = Draw { first_sample: 0, n_samples: 2, first_step: 0, n_tokens: 4 };
    let drawn = sampler.draw(&[random_conditioning(&layout, 1)], draw, &sample(2, 1), None).expect("a valid schedule");
    let noise = forecast::noise::Noise::new(1);
    let expected: Vec<f32> = (0..2)
        .flat_map(|k| (0..8).flat_map(move |step| (0..3).map(move |series| noise.normal(k, step, series))))
        .collect();
    assert_eq!(drawn, expected);
}

#[test]
fn the_same_seed_gives_the_same_trajectories_and_another_one_does_not() {
    let history = history(300, 1);
    let first = forecast_at(&history, 280, HORIZON, &sample(5, 1));
    assert_eq!(first, forecast_at(&history, 280, HORIZON, &sample(5, 1)));
    assert_ne!(first, forecast_at(&history, 280, HORIZON, &sample(5, 2)));
}

#[test]
fn a_sample_does_not_depend_on_how_many_are_drawn() {
    let history = history(300, 1);
    let (few, many) =
        (forecast_at(&history, 280, HORIZON, &sample(3, 1)), forecast_at(&history, 280, HORIZON, &sample(230, 1)));
    assert!(largest_difference(few.values(), &many.values()[..few.values().len()]) < 1e-3);
}

#[test]
fn a_longer_horizon_begins_as_the_shorter_one() {
    let history = history(300, 1);
    let short = forecast_at(&history, 250, 4, &sample(3, 1));
    let long = forecast_at(&history, 250, 3 * HORIZON, &sample(3, 1));
    assert_eq!(long.n_steps(), 3 * HORIZON);
    assert!(long.values().iter().all(|value| value.is_finite()));
    for k in 0..3 {
        let (a, b) = (&short.values()[k * 12..][..12], &long.values()[k * 3 * HORIZON * N_SERIES..][..12]);
        assert!(largest_difference(a, b) < 1e-3);
    }
}

#[test]
fn paths_far_beyond_the_trained_horizon_stay_near_the_data() {
    let history = history(300, 1);
    let n_steps = 40 * HORIZON;
    let calendar = (0..250 + n_steps).flat_map(|step| {
        let phase = step as f64 * std::f64::consts::TAU / SEASON as f64;
        [phase.sin(), phase.cos()]
    });
    let long = History { calendar: Calendar::new(2, calendar.collect()).expect("whole rows"), ..history.clone() };
    let trajectories = forecast_at(&long, 250, n_steps, &sample(20, 1));
    let values = || history.values.values().iter().step_by(N_SERIES).copied();
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let width = high - low;
    for step in n_steps - HORIZON..n_steps {
        for k in 0..20 {
            let value = f64::from(trajectories.value(k, step, 0));
            assert!((low - width..high + width).contains(&value), "{value} at step {step}, data in {low}..{high}");
        }
    }
}

#[test]
fn a_forecast_does_not_see_past_its_issue_time() {
    let history = history(300, 1);
    let mut values = history.values.values().to_vec();
    values[250 * N_SERIES..]
        .iter_mut()
        .enumerate()
        .for_each(|(index, value)| *value = if index % 2 == 0 { f64::NAN } else { 1e9 });
    let changed = History { values: Grid::new(N_SERIES, values).expect("whole rows"), ..history.clone() };
    let config = sample(4, 1);
    assert_eq!(forecast_at(&history, 250, HORIZON, &config), forecast_at(&changed, 250, HORIZON, &config));
}

#[test]
fn gaps_are_accepted_anywhere_and_a_silent_series_too() {
    let history = history(300, 1);
    let mut values = history.values.values().to_vec();
    for step in 230..280 {
        values[step * N_SERIES + 1] = f64::NAN;
        if step % 3 == 0 {
            values[step * N_SERIES] = f64::NAN;
        }
    }
    let gapped = History { values: Grid::new(N_SERIES, values).expect("whole rows"), ..history };
    let trajectories = forecast_at(&gapped, 280, HORIZON, &sample(4, 1));
    assert!(trajectories.values().iter().all(|value| value.is_finite()));
}

#[test]
fn a_late_series_is_nowcast_given_the_punctual_ones() {
    let history = history(300, 1);
    let mut values = history.values.values().to_vec();
    (277..280).for_each(|step| values[step * N_SERIES + 1] = f64::NAN);
    let late = History { values: Grid::new(N_SERIES, values).expect("whole rows"), ..history.clone() };
    let nowcast = forecast_at(&late, 280, HORIZON, &sample(60, 1));
    assert_eq!((nowcast.first_step(), nowcast.n_steps()), (-2, HORIZON + 3));
    for step in 0..3 {
        let observed = history.values.get(277 + step, 0) as f32;
        assert!((0..60).all(|k| nowcast.value(k, step, 0) == observed), "what is known is not sampled");
    }
    // Series 1 is twice series 0 plus noise of standard deviation 1, so the punctual one tells nearly all.
    let error: f64 =
        (0..3).map(|step| (nowcast.mean()[step * N_SERIES + 1] - history.values.get(277 + step, 1)).abs()).sum();
    assert!(error / 3.0 < 2.0, "mean nowcast error {}", error / 3.0);
}

#[test]
fn raising_the_error_of_the_last_value_moves_the_forecast_towards_the_one_without_it() {
    let history = history(300, 1);
    let issue_row = 280;
    let at_sd = |sd: f64| {
        let mut window = history.window(issue_row, model().context_length(), HORIZON);
        let mut errors = vec![0.0; window.context.values().len()];
        let last = errors.len() - N_SERIES;
        errors[last..last + 2].fill(sd);
        // A reading that is far from what was to be expected.
        let mut values = window.context.values().to_vec();
        (0..2).for_each(|series| values[last + series] += 6.0);
        if sd.is_infinite() {
            values[last..last + 2].fill(f64::NAN);
            errors.fill(0.0);
        }
        window.context = Grid::new(N_SERIES, values).and_then(|grid| grid.with_sd(errors)).expect("as many as values");
        let trajectories = model().forecast(&window, &sample(100, 1)).expect("a window of the model");
        assert_eq!((trajectories.first_step(), trajectories.n_steps()), (0, HORIZON + 1));
        trajectories.mean()
    };
    let without = at_sd(f64::INFINITY);
    let mut distances = vec![];
    for sd in [0.3, 1.0, 2.0, 4.0, 16.0, 256.0] {
        let mean = at_sd(sd);
        distances.push(
            (0..HORIZON).map(|lead| (mean[(lead + 1) * N_SERIES] - without[(lead + 1) * N_SERIES]).abs()).sum::<f64>(),
        );
    }
    assert!(distances.windows(2).all(|pair| pair[1] < pair[0]), "{distances:?}");
    assert!(distances[5] < 0.02 * distances[0], "{distances:?}");
}

#[test]
fn a_supposed_future_is_kept_and_moves_what_depends_on_it() {
    let history = history(300, 1);
    let mut window = history.window(280, model().context_length(), HORIZON);
    let free = model().forecast(&window, &sample(60, 1)).expect("a window of the model");
    let mut future = vec![f64::NAN; 6 * N_SERIES];
    for step in 0..6 {
        future[step * N_SERIES] = free.mean()[step * N_SERIES] + 2.0;
    }
    window.future = Some(Grid::new(N_SERIES, future.clone()).expect("whole rows"));
    let scenario = model().forecast(&window, &sample(60, 1)).expect("a window of the model");
    for step in 0..6 {
        let supposed = future[step * N_SERIES] as f32;
        assert!((0..60).all(|k| scenario.value(k, step, 0) == supposed));
        // Series 1 is twice series 0 plus noise.
        let moved = scenario.mean()[step * N_SERIES + 1] - free.mean()[step * N_SERIES + 1];
        assert!((1.5..6.5).contains(&moved), "step {step}: {moved}");
    }
}

#[test]
fn gaps_are_imputed_from_what_the_other_series_shows_and_what_came_after() {
    let history = history(300, 1);
    let truth = history.window(280, model().context_length(), HORIZON);
    let (n_steps, mut values) = (truth.context.n_steps(), truth.context.values().to_vec());
    let gap = n_steps - 12..n_steps - 6;
    gap.clone().for_each(|step| values[step * N_SERIES] = f64::NAN);
    let window = Window { context: Grid::new(N_SERIES, values).expect("whole rows"), ..truth.clone() };
    let imputed = model().impute(&window, &sample(60, 1)).expect("a gap that fits");
    assert_eq!((imputed.first_step(), imputed.n_steps()), (1 - n_steps as i32, n_steps));
    assert_eq!(imputed, model().impute(&window, &sample(60, 1)).expect("a gap that fits"));
    let (mut error, mut spread) = (0.0, 0.0);
    for step in gap {
        error += (imputed.mean()[step * N_SERIES] - truth.context.get(step, 0)).abs() / 6.0;
        let draws = imputed.sorted(step, 0);
        spread += f64::from(draws[54] - draws[5]) / 6.0;
    }
    // The series moves by 0.5 in a step; that the other one is known leaves less.
    assert!(error < 0.8 && (0.3..2.5).contains(&spread), "error {error}, spread {spread}");
}

#[test]
fn a_constant_series_stays_constant() {
    let trajectories = forecast_at(&history(300, 1), 280, HORIZON, &sample(4, 1));
    for step in 0..HORIZON {
        assert!((trajectories.value(0, step, 2) - 7.0).abs() < 1e-5);
    }
}

#[test]
fn another_unit_and_origin_give_the_same_forecast_in_that_unit() {
    let history = history(300, 1);
    let (factor, offset) = (4.0, 64.0);
    let moved: Vec<f64> = history.values.values().iter().map(|value| factor * value + offset).collect();
    let moved = History { values: Grid::new(N_SERIES, moved).expect("whole rows"), ..history.clone() };
    let other = train(&moved, 24);
    let window = moved.window(280, other.context_length(), HORIZON);
    let config = sample(4, 1);
    let a = forecast_at(&history, 280, HORIZON, &config);
    let b = other.forecast(&window, &config).expect("a window of the model");
    for (a, b) in a.values().iter().zip(b.values()) {
        assert!((f64::from(*b) - (factor * f64::from(*a) + offset)).abs() < 2e-2, "{a} {b}");
    }
}

#[test]
fn bounds_hold_in_every_trajectory() {
    let history = history(300, 1);
    let mut window = history.window(280, model().context_length(), HORIZON);
    window.bounds[0] = Bounds { lower: Some(19.0), upper: Some(21.0) };
    let trajectories = model().forecast(&window, &sample(30, 1)).expect("a window of the model");
    for step in 0..HORIZON {
        assert!((0..30).all(|k| (19.0..=21.0).contains(&trajectories.value(k, step, 0))));
    }
}

#[test]
fn a_bound_that_was_never_reached_is_approached_and_never_met() {
    let mut history = history(300, 1);
    let values = || (0..300).map(|step| history.values.get(step, 0));
    let nearest = values().fold(f64::INFINITY, f64::min);
    let bound = nearest - 0.2;
    let drawn = |history: &History| {
        let model = fit_law(history).model;
        let window = history.window(288, model.context_length(), HORIZON);
        let trajectories = model.forecast(&window, &sample(2000, 1)).expect("a window of the model");
        let at = |index: usize| f64::from(trajectories.value(index / HORIZON, index % HORIZON, 0));
        (0..2000 * HORIZON).map(at).collect::<Vec<_>>()
    };
    let free = drawn(&history);
    history.bounds[0].lower = Some(bound);
    let bounded = drawn(&history);
    let n_beyond = free.iter().filter(|value| **value < bound).count();
    let n_bent = bounded.iter().filter(|value| **value < nearest).count();
    assert!(n_beyond > 0 && n_bent >= n_beyond, "{n_beyond} {n_bent}");
    assert!(bounded.iter().all(|value| *value > bound));
}

#[test]
fn a_window_that_is_not_the_models_is_refused() {
    let history = history(300, 1);
    let window = history.window(280, 60, HORIZON);
    let config = sample(2, 1);
    let check = |window: Window, config: SampleConfig| model().forecast(&window, &config).expect_err("refused");
    let two = Grid::new(2, vec![1.0; 120]).expect("whole rows");
    let error = check(Window { context: two, ..window.clone() }, config);
    assert!(matches!(error, Error::SeriesCount { given: 2, expected: 3 }), "{error}");
    let error = check(Window { horizon: HORIZON + 1, ..window.clone() }, config);
    assert!(matches!(error, Error::CalendarLength { .. }), "{error}");
    let error = check(window.clone(), SampleConfig { n_samples: 0, ..config });
    assert!(matches!(error, Error::Zero { name: "n_samples" }), "{error}");
    let error = check(window.clone(), SampleConfig { stabilization: 1.5, ..config });
    assert!(matches!(error, Error::Share { name: "stabilization", .. }), "{error}");
    let nothing = Grid::new(N_SERIES, vec![f64::NAN; 60 * N_SERIES]).expect("whole rows");
    let error = check(Window { context: nothing, ..window }, config);
    assert!(matches!(error, Error::NothingObserved), "{error}");
}

#[test]
fn training_is_repeatable_and_learns() {
    let history = history(300, 2);
    let window = history.window(300 - HORIZON, 80, HORIZON);
    let first = train(&history, 8).forecast(&window, &sample(3, 1)).expect("a window of the model");
    let second = train(&history, 8).forecast(&window, &sample(3, 1)).expect("a window of the model");
    assert_eq!(first, second);
}

#[test]
fn a_checkpoint_gives_the_same_forecast_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let digest = model().save(folder.path()).expect("a writable folder");
    assert_eq!(digest.len(), 64);
    let loaded = Model::load(folder.path(), &device()).expect("what was saved");
    let window = history(300, 1).window(280, loaded.context_length(), HORIZON);
    let config = sample(4, 1);
    let (a, b) = (model().forecast(&window, &config), loaded.forecast(&window, &config));
    assert_eq!(a.expect("a window of the model"), b.expect("a window of the model"));

    let path = folder.path().join("weights.safetensors");
    let mut bytes = std::fs::read(&path).expect("the weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).expect("a writable folder");
    assert!(matches!(Model::load(folder.path(), &device()), Err(Error::CheckpointDigest { .. })));

    let config = folder.path().join("config.json");
    let mut newer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&config).expect("the config")).expect("JSON");
    newer["format_version"] = 99.into();
    std::fs::write(&config, newer.to_string()).expect("a writable folder");
    assert!(matches!(Model::load(folder.path(), &device()), Err(Error::CheckpointVersion { found: 99, .. })));
    assert!(matches!(Model::load(&folder.path().join("nowhere"), &device()), Err(Error::CheckpointFile { .. })));
}

/// Nothing but now and then a number, in the first half of each season, and a number always in the other half.
fn intermittent(n_steps: usize) -> History {
    let mut stream = Stream::new(6, 1);
    let value = |step: usize| match step % SEASON < SEASON / 2 {
        true if stream.uniform() < 0.8 => 0.0,
        true => 4.0 * stream.uniform(),
        false => 3.0 + stream.normal(),
    };
    History {
        values: Grid::new(1, (0..n_steps).map(value).collect()).expect("whole rows"),
        calendar: Calendar::new(0, vec![]).expect("no features"),
        seasons: vec![SEASON],
        bounds: vec![Bounds::default()],
        roles: vec![],
    }
}

/// Base and law of the errors, without a network.
fn fit_law(history: &History) -> Fitted {
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(0), 1);
    config.network.d_model = Some(16);
    fit(history, &config, &device(), &mut |_| ControlFlow::Continue(())).expect("enough data")
}

#[test]
fn a_law_whose_shape_depends_on_the_state_is_drawn_from_observed_and_stored() {
    let history = intermittent(3000);
    let fitted = fit_law(&history);
    assert!(fitted.report.shares.quantiles > 0.0, "{:?}", fitted.report.shares);
    let model = fitted.model;
    let (issue_row, config) = (3000 - HORIZON, sample(200, 1));
    let mut window = history.window(issue_row, model.context_length(), HORIZON);
    let drawn = model.forecast(&window, &config).expect("a window of the model");
    // Half of a season is idle, the other half is not.
    let share_of_idle = |step: usize| (0..200).filter(|&k| drawn.value(k, step, 0).abs() < 0.5).count() as f64 / 200.0;
    for step in 0..HORIZON {
        let is_idle = (issue_row + step) % SEASON < SEASON / 2;
        let share = share_of_idle(step);
        assert!(if is_idle { (0.6..0.95).contains(&share) } else { share < 0.25 }, "{step} {is_idle} {share}");
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    model.save(folder.path()).expect("a writable folder");
    let loaded = Model::load(folder.path(), &device()).expect("what was saved");
    assert_eq!(loaded.forecast(&window, &config).expect("a window of the model"), drawn);

    let supposed = history.values.get(issue_row + 2, 0);
    let mut future = vec![f64::NAN; HORIZON];
    future[2] = supposed;
    window.future = Some(Grid::new(1, future).expect("whole rows"));
    let pinned = model.forecast(&window, &config).expect("a window of the model");
    assert!((0..200).all(|k| pinned.value(k, 2, 0) == supposed as f32), "what is observed is not sampled");
}

/// Sales of a product: none on most days, more at the end of a season.
fn counts(n_steps: usize) -> History {
    let mut stream = Stream::new(3, 1);
    let value = |step: usize| {
        let rate = if step % SEASON >= SEASON - 2 { 3.0 } else { 0.4 };
        let (mut n, mut arrival) = (0.0, -stream.uniform().ln());
        while arrival < rate {
            n += 1.0;
            arrival -= stream.uniform().ln();
        }
        n
    };
    History { values: Grid::new(1, (0..n_steps).map(value).collect()).expect("whole rows"), ..intermittent(n_steps) }
}

#[test]
fn counts_are_forecast_imputed_and_guided_in_whole_numbers() {
    let history = counts(600);
    let fitted = fit_law(&history);
    assert_eq!((fitted.report.n_integer, fitted.report.n_non_negative), (1, 1));
    let model = fitted.model;
    let is_count = |value: &f32| *value >= 0.0 && value.fract() == 0.0;
    let window = history.window(600 - HORIZON, model.context_length(), HORIZON);
    // Beyond the trained horizon, too.
    let long = Window { horizon: 3 * HORIZON, ..window.clone() };
    let drawn = model.forecast(&long, &sample(100, 1)).expect("a window of the model");
    assert!(drawn.values().iter().all(is_count));
    let mean = drawn.mean();
    let mean_of = |is_busy: bool| {
        let steps = (0..HORIZON).filter(|step| ((600 - HORIZON + step) % SEASON >= SEASON - 2) == is_busy);
        let means: Vec<f64> = steps.map(|step| mean[step]).collect();
        means.iter().sum::<f64>() / means.len() as f64
    };
    assert!(mean_of(false) < 1.0 && mean_of(true) > 2.0, "{} {}", mean_of(false), mean_of(true));

    let folder = tempfile::tempdir().expect("a temporary folder");
    model.save(folder.path()).expect("a writable folder");
    let loaded = Model::load(folder.path(), &device()).expect("what was saved");
    assert_eq!(loaded.forecast(&long, &sample(100, 1)).expect("a window of the model"), drawn);

    let mut values = window.context.values().to_vec();
    let n_steps = values.len();
    values[n_steps - 9..n_steps - 6].fill(f64::NAN);
    let gapped = Window { context: Grid::new(1, values).expect("whole rows"), ..window.clone() };
    let imputed = model.impute(&gapped, &sample(20, 1)).expect("a short gap");
    assert!(imputed.values().iter().all(is_count));

    let most = drawn.paths().map(|path| path[..HORIZON].iter().sum::<f32>()).fold(0.0, f32::max);
    let limit = Condition {
        reading: Reading::Aggregate(Aggregate::Sum),
        series: vec![0],
        steps: 1..=HORIZON,
        demand: Demand::Within(Bounds { lower: Some(f64::from(most) + 1.0), upper: None }),
    };
    let guided = model.forecast_under(&window, &[limit], &sample(50, 1), &Effort::default()).expect("within reach");
    assert!(guided.trajectories.values().iter().all(is_count));
    assert_eq!(guided.guidance.conditions[0].satisfaction, 1.0);
}

#[test]
fn too_short_a_history_says_how_much_it_needs() {
    let config = TrainConfig::new(HORIZON, Budget::Steps(1), 1);
    let error = fit(&history(40, 1), &config, &device(), &mut |_| ControlFlow::Continue(())).err().expect("refused");
    assert!(matches!(error, Error::TooShort { n_steps: 40, horizon: HORIZON, .. }), "{error}");
}

#[test]
fn training_that_is_stopped_at_once_gives_no_model() {
    let config = TrainConfig::new(HORIZON, Budget::Steps(10), 1);
    let result = fit(&history(300, 1), &config, &device(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(result, Err(Error::Stopped)));
}

#[test]
fn training_can_be_stopped_before_its_base_is_complete_and_while_networks_are_compared() {
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(30), 5);
    config.network.batch_size = 16;
    let history = bursts(600);
    let fit_until = |stage: &'static str, nth: usize| {
        let mut n_seen = 0;
        let mut stop = move |progress: &forecast::Progress| {
            n_seen += usize::from(progress.stage == stage);
            if n_seen > nth { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        fit(&history, &config, &device(), &mut stop)
    };
    assert!(matches!(fit_until("base", 1), Err(Error::Stopped)));
    let report = |nth| fit_until("compare", nth).expect("the joint law of the base's errors, at least").report;
    let none = report(0);
    assert_eq!((none.best_step, none.sampled_losses.len()), (0, 1), "{none:?}");
    let one = report(1);
    assert_eq!(one.sampled_losses.len(), 2, "{one:?}");
    let lowest = one.sampled_losses.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)).expect("two");
    assert_eq!((one.best_step, one.velocity_share), (lowest.step, lowest.velocity_share));
}

/// Noise that is loud or quiet for a whole season, which shows only once it has begun: something for a network to learn.
fn bursts(n_steps: usize) -> History {
    let mut stream = Stream::new(3, 9);
    let (mut values, mut size) = (vec![], 1.0);
    for step in 0..n_steps {
        if step % SEASON == 0 {
            size = if stream.uniform() < 0.5 { 0.1 } else { 2.0 };
        }
        values.extend((0..N_SERIES).map(|_| 10.0 + size * stream.normal()));
    }
    History { values: Grid::new(N_SERIES, values).expect("whole rows"), ..history(n_steps, 1) }
}

#[test]
fn training_that_is_stopped_in_its_second_pass_keeps_the_network_of_the_first() {
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(30), 5);
    config.network.batch_size = 16;
    let history = bursts(600);
    let fit_until = |limit: usize| {
        let mut stop = move |progress: &forecast::Progress| match progress.stage {
            "train" if progress.step >= limit => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        fit(&history, &config, &device(), &mut stop).expect("something was learned in the first pass")
    };
    let (at_once, later) = (fit_until(1), fit_until(2));
    assert!(at_once.report.best_step > 2, "the second pass is cut short");
    let window = history.window(580, at_once.model.context_length(), HORIZON);
    let draw = |model: &Model| model.forecast(&window, &sample(3, 1)).expect("a window of the model");
    assert_eq!(draw(&at_once.model), draw(&later.model), "half-finished steps are not used");
}

/// Keeps the state after every step; begins with one of them.
#[derive(Default)]
struct Kept {
    states: Vec<Vec<u8>>,
    recalled: Option<Vec<u8>>,
}

impl Memory for Kept {
    fn is_due(&mut self) -> bool {
        true
    }

    fn keep(&mut self, state: Vec<u8>) {
        self.states.push(state);
    }

    fn recall(&mut self, _fingerprint: &str) -> Option<Vec<u8>> {
        self.recalled.take()
    }
}

#[test]
fn training_that_was_cut_off_goes_on_to_the_same_model() {
    let history = bursts(400);
    let run = |n_steps: usize, recalled: Option<&[u8]>| {
        let mut config = TrainConfig::new(HORIZON, Budget::Steps(n_steps), 5);
        config.network.batch_size = 16;
        let mut kept = Kept { recalled: recalled.map(<[u8]>::to_vec), ..Kept::default() };
        let means = Means { memory: Some(&mut kept), ..Means::default() };
        let go_on = &mut |_: &forecast::Progress| ControlFlow::Continue(());
        let Fitted { model, report, .. } = fit_with(&history, &config, means, &device(), go_on).expect("long enough");
        let window = history.window(380, model.context_length(), HORIZON);
        let drawn = model.forecast(&window, &sample(3, 1)).expect("a window of the model");
        (drawn, report, kept.states)
    };
    let (drawn, report, states) = run(24, None);
    let n_second = report.best_step;
    assert!(n_second > 2 && report.resumed.is_none(), "there is a second pass");
    // The first pass keeps its state from its seventh step on, the second one from its first.
    let n_first = states.len() - n_second;
    let ends = [(n_first - 1, "select", n_first + 6), (states.len() - 1, "train", n_second)];
    for (index, stage, step) in [(3, "select", 10), (n_first, "train", 1)].into_iter().chain(ends) {
        let (again, resumed, later) = run(24, Some(&states[index]));
        assert_eq!(resumed.resumed, Some(Resumed { stage: stage.to_owned(), step }));
        assert_eq!((&again, resumed.best_step), (&drawn, n_second), "{stage} {step}");
        assert_eq!(later.len(), states.len() - 1 - index, "no step is done again");
    }
    // The state of another training is passed over, and so is what is none.
    assert_eq!(run(0, Some(&states[3])).1.resumed, None);
    assert_eq!(run(0, Some(&[1, 2, 3])).1.resumed, None);
}

/// A history in which a network has something to learn: by how much the second series leaves its season is nearly the square of the
/// first one's shock, which no correlation says.
fn dependent(n_steps: usize) -> History {
    let mut stream = Stream::new(2, 9);
    let plain = history(n_steps, 1);
    let values = plain.values.values().chunks_exact(N_SERIES).flat_map(|row| {
        let shock = stream.normal();
        [row[0] + 2.0 * shock, row[0] + 4.0 * shock * shock, row[2]]
    });
    History { values: Grid::new(N_SERIES, values.collect()).expect("whole rows"), ..plain }
}

/// Trains on a history with weights of another model to begin with.
fn train_from(history: &History, n_steps: usize, model: &Model, n_rows_seen: usize) -> Fitted {
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(n_steps), 5);
    config.network.batch_size = 16;
    let start = Start { model, n_rows_seen };
    let means = Means { start: Some(start), ..Means::default() };
    fit_with(history, &config, means, &device(), &mut |_| ControlFlow::Continue(())).expect("long enough")
}

#[test]
fn a_warm_start_begins_with_the_weights_and_learns_on() {
    let (later, earlier) = (dependent(380), train(&dependent(300), 24));
    let weights = |model: &Model| {
        let folder = tempfile::tempdir().expect("a folder");
        model.save(folder.path()).expect("written");
        let bytes = std::fs::read(folder.path().join("weights.safetensors")).expect("a file");
        // The file also names each part by an identifier of its own.
        let parts = safetensors::SafeTensors::deserialize(&bytes).expect("its format");
        parts.iter().map(|(name, part)| (name.to_owned(), part.data().to_vec())).collect::<BTreeMap<_, _>>()
    };
    // Without a step the weights stay what they were, if they are of any use.
    let Fitted { model, report, .. } = train_from(&later, 0, &earlier, 300);
    let Some(WarmStart::Weights { n_origins }) = report.warm_start else { panic!("{report:?}") };
    assert_eq!((n_origins, report.best_step), (380 - HORIZON - 299, 0));
    assert!(report.velocity_share == 0.0 || weights(&model) == weights(&earlier));
    let of_start = |sampled: &forecast::SampledLoss| sampled.step == 0 && sampled.velocity_share == 1.0;
    assert!(report.sampled_losses.iter().any(of_start), "they are compared with no network: {report:?}");
    let longer = train_from(&later, 24, &earlier, 300).report;
    assert!(longer.sampled_losses.iter().any(|sampled| sampled.step >= 10), "{longer:?}");
    let before = report.sampled_losses.iter().find(|sampled| of_start(sampled)).expect("as above").loss;
    let same = longer.sampled_losses.iter().find(|sampled| of_start(sampled)).expect("it starts there, too").loss;
    assert_eq!(before, same);
}

#[test]
fn a_warm_start_is_refused_where_shapes_differ_or_everything_has_been_seen() {
    let refused = |history: &History, n_rows_seen| {
        let report = train_from(history, 12, model(), n_rows_seen).report;
        match &report.warm_start {
            Some(WarmStart::Nothing { reason }) => (reason.clone(), report.validation_loss),
            other => panic!("{other:?}"),
        }
    };
    let (told, loss) = refused(&history(330, 1), 300);
    assert_eq!(told, "19 origins come after what it was trained on, and 36 are needed to choose by");
    // What is refused is trained as if it had not been asked for.
    let mut config = TrainConfig::new(HORIZON, Budget::Steps(12), 5);
    config.network.batch_size = 16;
    let cold = fit(&history(330, 1), &config, &device(), &mut |_| ControlFlow::Continue(())).expect("long enough");
    assert_eq!((cold.report.warm_start, cold.report.validation_loss), (None, loss));
    let mut narrow = history(330, 1);
    narrow.values = narrow.values.columns(&[0, 1]);
    narrow.bounds.truncate(2);
    assert_eq!(refused(&narrow, 0).0, "its number of series is 3, this network's is 2");
}
