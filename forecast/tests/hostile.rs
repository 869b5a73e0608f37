//! Whatever a series does, what leaves a model is a number: forecasts, nowcasts, imputed gaps, guided paths and scores of anomaly.

use std::ops::ControlFlow;

use forecast::noise::Stream;
use forecast::surprise::SurpriseConfig;
use forecast::{
    Aggregate, Bounds, Budget, Calendar, Condition, Demand, Effort, Error, Grid, History, Model, QuantileLevel,
    Reading, SampleConfig, TrainConfig, Trajectories, VALUE_MAX, Window, fit,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const SEASON: usize = 7;
const HORIZON: usize = 5;
const N_STEPS: usize = 240;
/// Rows that training sees; the others are met when the model is in use.
const N_LEARNED: usize = 200;

/// What a series does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Constant,
    /// A constant with a noise that is near the rounding of numbers.
    NearConstant,
    /// Constant as long as the model learns.
    ConstantAtFirst,
    /// Nothing is ever observed.
    Silent,
    /// Nothing is observed as long as the model learns.
    SilentAtFirst,
    /// Only a few values are known.
    Sparse,
    /// Zero but for one value in twenty.
    Intermittent,
    /// A single value that is not zero.
    OneSpike,
    Count,
    /// Uniform between bounds, which it often meets.
    Bounded,
    /// Log-normal over 26 decades.
    Skewed,
    /// Cauchy's law: no mean, no variance.
    HeavyTailed,
    /// The level becomes a million times what it was when the model is in use.
    Shifted,
    /// A sum of sums of noise.
    LongMemory,
    /// Doubles with every season.
    Exploding,
    /// Goes back and forth between two values.
    Alternating,
}

const KINDS: [Kind; 16] = [
    Kind::Constant,
    Kind::NearConstant,
    Kind::ConstantAtFirst,
    Kind::Silent,
    Kind::SilentAtFirst,
    Kind::Sparse,
    Kind::Intermittent,
    Kind::OneSpike,
    Kind::Count,
    Kind::Bounded,
    Kind::Skewed,
    Kind::HeavyTailed,
    Kind::Shifted,
    Kind::LongMemory,
    Kind::Exploding,
    Kind::Alternating,
];

impl Kind {
    fn bounds(self) -> Bounds {
        match self {
            Self::Bounded => Bounds { lower: Some(0.0), upper: None },
            _ => Bounds::default(),
        }
    }

    /// Values in units of a magnitude.
    fn values(self, stream: &mut Stream) -> Vec<f64> {
        let (mut velocity, mut level) = (0.0, 0.0);
        let value = |step: usize| match self {
            Self::Constant => 1.0,
            Self::NearConstant => 1.0 + 1e-12 * stream.normal(),
            Self::ConstantAtFirst => {
                if step < N_LEARNED {
                    1.0
                } else {
                    stream.normal()
                }
            }
            Self::Silent => f64::NAN,
            Self::SilentAtFirst => {
                if step < N_LEARNED {
                    f64::NAN
                } else {
                    stream.normal()
                }
            }
            Self::Sparse => {
                if step.is_multiple_of(60) {
                    stream.normal()
                } else {
                    f64::NAN
                }
            }
            Self::Intermittent => {
                if stream.uniform() < 0.05 {
                    1.0 + stream.uniform()
                } else {
                    0.0
                }
            }
            Self::OneSpike => f64::from(u8::from(step == N_LEARNED / 2)),
            Self::Count => (4.0 * stream.uniform()).floor(),
            Self::Bounded => (1.6 * stream.uniform() - 0.3).clamp(0.0, 1.0),
            Self::Skewed => libm::exp(10.0 * stream.normal()).min(1e13),
            Self::HeavyTailed => libm::tan(std::f64::consts::PI * (stream.uniform() - 0.5)).clamp(-1e9, 1e9),
            Self::Shifted => stream.normal() + if step < N_LEARNED { 0.0 } else { 1e6 },
            Self::LongMemory => {
                velocity += stream.normal();
                level += velocity;
                level
            }
            Self::Exploding => libm::exp2(step as f64 / SEASON as f64) * (1.0 + 0.1 * stream.normal()),
            Self::Alternating => {
                if step.is_multiple_of(2) {
                    -1.0
                } else {
                    1.0
                }
            }
        };
        (0..N_STEPS).map(value).collect()
    }
}

/// A panel of such series, each with its own power of ten as its unit.
fn history(series: &[(Kind, i32)], seed: u64) -> History {
    let columns: Vec<Vec<f64>> = series
        .iter()
        .zip(1..)
        .map(|(&(kind, exponent), index)| {
            let unit = libm::pow(10.0, f64::from(exponent));
            let values = kind.values(&mut Stream::new(seed, index)).into_iter();
            values.map(|value| (unit * value).clamp(-VALUE_MAX, VALUE_MAX)).collect()
        })
        .collect();
    let values = (0..N_STEPS).flat_map(|step| columns.iter().map(move |column| column[step])).collect();
    History {
        values: Grid::new(series.len(), values).expect("whole rows"),
        calendar: Calendar::new(0, vec![]).expect("no features"),
        seasons: vec![SEASON],
        bounds: series.iter().map(|(kind, _)| kind.bounds()).collect(),
        roles: vec![],
    }
}

fn learn(history: &History, budget: Budget) -> Result<Model, Error> {
    let mut config = TrainConfig::new(HORIZON, budget, 1);
    config.network.batch_size = 8;
    config.network.d_model = Some(16);
    let learned = history.rows(0..N_LEARNED);
    fit(&learned, &config, &forecast::cpu(), &mut |_| ControlFlow::Continue(())).map(|fitted| fitted.model)
}

fn assert_finite(trajectories: &Trajectories, what: &str) {
    let n_series = trajectories.n_series();
    if let Some(index) = trajectories.values().iter().position(|value| !value.is_finite()) {
        panic!("{what}: element {index}, series {}, is {}", index % n_series, trajectories.values()[index]);
    }
}

/// Everything that a model says of a history, at the end of what it learned and at the end of all.
fn assert_only_numbers(model: &Model, history: &History) {
    let config = SampleConfig { n_samples: 10, ..SampleConfig::default() };
    for issue_row in [N_LEARNED, N_STEPS] {
        let window = Window { horizon: 3 * HORIZON, ..history.window(issue_row, model.context_length(), HORIZON) };
        let free = model.forecast(&window, &config).expect("a window of the model");
        assert_finite(&free, "forecast");
        assert!(free.mean().iter().all(|mean| mean.is_finite()));

        let n_series = history.values.n_series();
        let (mut gapped, n) = (window.context.values().to_vec(), window.context.n_steps());
        gapped[(n - 9) * n_series..(n - 6) * n_series].fill(f64::NAN);
        let context = Grid::new(n_series, gapped).expect("whole rows");
        let gapped = Window { context, horizon: HORIZON, ..window.clone() };
        match model.impute(&gapped, &config) {
            Ok(imputed) => assert_finite(&imputed, "imputed"),
            // Of a series that is silent.
            Err(error) => assert!(matches!(error, Error::NoCompleteStep | Error::GapTooLong { .. }), "{error}"),
        }

        let middle = free.quantiles(&[QuantileLevel::new(0.5).expect("inside (0, 1)")])[0];
        let condition = Condition {
            reading: Reading::Aggregate(Aggregate::Mean),
            series: vec![0],
            steps: 1..=1,
            demand: Demand::Within(Bounds { lower: Some(middle), upper: None }),
        };
        let effort = Effort { n_candidates: 100, ..Effort::default() };
        match model.forecast_under(&window, &[condition], &config, &effort) {
            Ok(guided) => assert_finite(&guided.trajectories, "guided"),
            Err(error) => assert!(matches!(error, Error::Condition { .. }), "{error}"),
        }

        let rows = issue_row - 20..issue_row;
        let surprise = model.surprise(history, rows, &SurpriseConfig::default()).expect("rows with a past");
        for row in 0..surprise.n_rows() {
            for element in surprise.row(row).iter().flatten() {
                assert!(element.score().is_finite() && element.expected.is_finite(), "{element:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, rng_seed: RngSeed::Fixed(1), failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default()
    })]

    #[test]
    fn what_leaves_a_model_of_hostile_series_is_finite(
        series in prop::collection::vec((prop::sample::select(KINDS.to_vec()), -25..=29), 1..5), seed in 0u64..1000
    ) {
        let history = history(&series, seed);
        match learn(&history, Budget::Steps(0)) {
            Ok(model) => assert_only_numbers(&model, &history),
            Err(error) => prop_assert!(matches!(error, Error::NothingObserved), "{error}"),
        }
    }
}

#[test]
fn a_network_of_all_of_them_together_says_only_numbers() {
    let series: Vec<(Kind, i32)> =
        KINDS.iter().zip((-20..).step_by(3)).map(|(&kind, exponent)| (kind, exponent)).collect();
    let history = history(&series, 5);
    assert_only_numbers(&learn(&history, Budget::Steps(8)).expect("enough data"), &history);
}

#[test]
fn a_value_that_single_precision_cannot_hold_is_refused_by_its_place() {
    for value in [f64::INFINITY, 1e200, -1e31] {
        let refused = Grid::new(2, vec![0.0, 1.0, 2.0, value]);
        assert!(matches!(refused, Err(Error::NotFinite { step: 1, series: 1 })), "{refused:?}");
    }
    assert!(Grid::new(1, vec![VALUE_MAX, -VALUE_MAX]).is_ok());
}
