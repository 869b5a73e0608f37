//! The sampler against processes whose law is known, without Monte Carlo noise.
//!
//! For a Gaussian process the best denoiser is linear, and so is the whole sampler in its initial noise. Sampling
//! from the unit vectors as noise therefore gives the matrix of that map, and with it the exact law of what is drawn.

use forecast::denoise::{Denoise, NoisyToken, denoise};
use forecast::schedule::{PASSES_DEFAULT, ScheduleMatrix};
use forecast::{Error, NoiseLevel, Schedule};
use nalgebra::{DMatrix, DVector};

/// A vector autoregression `x_t = m + Φ (x_{t−1} − m) + e_t`, cut into one token for each step.
#[derive(Clone)]
struct Process {
    coefficients: DMatrix<f64>,
    /// Covariance of `e_t`.
    innovation: DMatrix<f64>,
    mean: f64,
    n_tokens: usize,
}

impl Process {
    /// A first-order autoregression with variance 1.
    fn scalar(coefficient: f64, n_tokens: usize) -> Self {
        let variance = 1.0 - coefficient * coefficient;
        let one = |value| DMatrix::from_element(1, 1, value);
        Self { coefficients: one(coefficient), innovation: one(variance), mean: 0.0, n_tokens }
    }

    fn n_series(&self) -> usize {
        self.coefficients.nrows()
    }

    /// Covariance of all elements, `[token · series]²`, of the stationary process.
    fn covariance(&self) -> DMatrix<f64> {
        let d = self.n_series();
        let (mut stationary, mut power) = (DMatrix::zeros(d, d), DMatrix::identity(d, d));
        while power.amax() > 1e-12 {
            stationary += &power * &self.innovation * power.transpose();
            power = &self.coefficients * power;
        }
        let mut covariance = DMatrix::zeros(self.n_tokens * d, self.n_tokens * d);
        for early in 0..self.n_tokens {
            let mut block = stationary.clone();
            for late in early..self.n_tokens {
                covariance.view_mut((late * d, early * d), (d, d)).copy_from(&block);
                covariance.view_mut((early * d, late * d), (d, d)).copy_from(&block.transpose());
                block = &self.coefficients * block;
            }
        }
        covariance
    }

    /// Mean and covariance of what the sampler draws.
    fn drawn(&self, schedule: Schedule, n_passes: usize) -> (DVector<f64>, DMatrix<f64>) {
        self.drawn_with(schedule, n_passes, NoiseLevel::CLEAN)
    }

    /// The same, where finished tokens are shown at a level of noise.
    fn drawn_with(
        &self,
        schedule: Schedule,
        n_passes: usize,
        stabilization: NoiseLevel,
    ) -> (DVector<f64>, DMatrix<f64>) {
        let n = self.n_tokens * self.n_series();
        // Sample k begins with the k-th unit vector, the last one with 0.
        let unit = |token: usize| {
            let elements = token * self.n_series()..(token + 1) * self.n_series();
            (0..=n).flat_map(|k| elements.clone().map(move |element| f32::from(u8::from(k == element)))).collect()
        };
        let mut tokens: Vec<NoisyToken> =
            (0..self.n_tokens).map(|t| NoisyToken { values: unit(t), level: NoiseLevel::NOISE }).collect();
        let matrix = ScheduleMatrix::new(schedule, self.n_tokens, n_passes).expect("all positive");
        denoise(&mut Oracle::new(self), &mut tokens, 0, &matrix, 1.0, stabilization).expect("no device");
        let value = |element: usize, sample: usize| {
            let (token, series) = (element / self.n_series(), element % self.n_series());
            f64::from(tokens[token].values[sample * self.n_series() + series])
        };
        let mean = DVector::from_fn(n, |element, _| value(element, n));
        let map = DMatrix::from_fn(n, n, |element, k| value(element, k) - mean[element]);
        (mean, &map * map.transpose())
    }
}

/// The best strictly causal denoiser of a process: a token knows the noisy tokens up to itself, and no later one.
struct Oracle<'a> {
    process: &'a Process,
    covariance: DMatrix<f64>,
    finished: Vec<NoisyToken>,
}

impl<'a> Oracle<'a> {
    fn new(process: &'a Process) -> Self {
        Self { process, covariance: process.covariance(), finished: vec![] }
    }
}

impl Denoise for Oracle<'_> {
    fn velocities(&mut self, tokens: &[NoisyToken], n_finished: usize) -> Result<Vec<Vec<f32>>, Error> {
        let (d, mean) = (self.process.n_series(), self.process.mean);
        let n_before = self.finished.len();
        let known: Vec<NoisyToken> = self.finished.iter().chain(tokens).cloned().collect();
        self.finished.extend_from_slice(&tokens[..n_finished]);
        let velocity = |token: usize| {
            let level = known[token].level;
            let n = (token + 1) * d;
            let signal = DMatrix::from_diagonal(&DVector::from_fn(n, |element, _| known[element / d].level.signal()));
            let noise = DMatrix::from_diagonal(&DVector::from_fn(n, |element, _| known[element / d].level.noise()));
            let covariance = self.covariance.view((0, 0), (n, n));
            let observed = &signal * covariance * &signal + &noise * &noise;
            let shared = &signal * covariance.columns(token * d, d);
            let gain = observed.cholesky().expect("positive definite").solve(&shared).transpose();
            let n_samples = known[token].values.len() / d;
            let sample = |sample: usize| {
                let noisy = |element: usize| f64::from(known[element / d].values[sample * d + element % d]);
                let surprise = DVector::from_fn(n, |element, _| noisy(element) - signal[(element, element)] * mean);
                let clean = (&gain * surprise).add_scalar(mean);
                let velocity =
                    (0..d).map(|series| (level.signal() * noisy(token * d + series) - clean[series]) / level.noise());
                velocity.map(|value| value as f32).collect::<Vec<_>>()
            };
            (0..n_samples).flat_map(sample).collect()
        };
        Ok((n_before + n_finished..known.len()).map(velocity).collect())
    }
}

/// Largest difference of two covariances, in units of the standard deviations of the first.
fn difference(truth: &DMatrix<f64>, drawn: &DMatrix<f64>) -> f64 {
    let scaled = DMatrix::from_fn(truth.nrows(), truth.ncols(), |row, column| {
        (drawn[(row, column)] - truth[(row, column)]) / (truth[(row, row)] * truth[(column, column)]).sqrt()
    });
    scaled.amax()
}

/// Largest relative error of the standard deviation of a Gaussian with a given conditional standard deviation.
fn largest_error(n_passes: usize) -> f64 {
    let error = |index: i32| {
        let deviation = 10_f64.powf(-f64::from(index) / 15.0);
        let process = Process::scalar((1.0 - deviation * deviation).sqrt(), 2);
        let (_, drawn) = process.drawn(Schedule::Autoregressive, n_passes);
        let coefficient = process.coefficients[(0, 0)];
        let conditional = drawn[(1, 1)] - 2.0 * coefficient * drawn[(0, 1)] + coefficient * coefficient * drawn[(0, 0)];
        (conditional.sqrt() / deviation - 1.0).abs()
    };
    (0..=30).map(error).fold(0.0, f64::max)
}

#[test]
fn every_conditional_standard_deviation_from_a_hundredth_to_one_comes_out() {
    let error = largest_error(PASSES_DEFAULT);
    assert!(error < 0.012, "{error}");
}

#[test]
fn more_passes_tend_to_the_truth_and_fewer_leave_it_by_degrees() {
    for (n_passes, bound) in [(8, 0.12), (9, 0.08), (10, 0.05), (11, 0.03), (16, 0.021), (24, 0.014), (64, 0.002)] {
        let error = largest_error(n_passes);
        assert!(error < bound, "{n_passes} passes: {error}");
    }
}

#[test]
fn an_autoregression_keeps_its_mean_and_covariance() {
    for coefficient in [0.0, 0.5, 0.9, 0.99, -0.8] {
        let process = Process { mean: 1.3, ..Process::scalar(coefficient, 6) };
        let (mean, drawn) = process.drawn(Schedule::Autoregressive, PASSES_DEFAULT);
        let error = difference(&process.covariance(), &drawn);
        assert!(error < 0.03, "coefficient {coefficient}: {error}");
        assert!(mean.iter().all(|value| (value - 1.3).abs() < 1e-3), "coefficient {coefficient}: {mean}");
    }
}

/// Two and three series that drive each other, at once and with delay, one of them hardly uncertain.
fn vector_processes() -> [Process; 2] {
    [
        Process {
            coefficients: DMatrix::from_row_slice(2, 2, &[0.8, 0.1, -0.3, 0.5]),
            innovation: DMatrix::from_row_slice(2, 2, &[0.3, 0.15, 0.15, 0.4]),
            mean: -0.7,
            n_tokens: 4,
        },
        Process {
            coefficients: DMatrix::from_row_slice(3, 3, &[0.9, 0.0, 0.1, 0.2, 0.6, 0.0, 0.0, -0.4, 0.7]),
            innovation: DMatrix::from_row_slice(3, 3, &[0.01, 0.0, 0.02, 0.0, 0.2, 0.1, 0.02, 0.1, 0.3]),
            mean: 0.4,
            n_tokens: 4,
        },
    ]
}

#[test]
fn a_vector_autoregression_keeps_its_mean_and_covariance() {
    for process in vector_processes() {
        let (mean, drawn) = process.drawn(Schedule::Autoregressive, PASSES_DEFAULT);
        let error = difference(&process.covariance(), &drawn);
        assert!(error < 0.03, "{} series: {error}", process.n_series());
        assert!(mean.iter().all(|value| (value - process.mean).abs() < 1e-3), "{mean}");
        let (_, many) = process.drawn(Schedule::Autoregressive, 64);
        let error = difference(&process.covariance(), &many);
        assert!(error < 0.004, "{} series, 64 passes: {error}", process.n_series());
    }
}

/// Variances of the second and third token, covariances with the first, and the variance of the sum.
fn bias(schedule: Schedule, n_passes: usize) -> [f64; 5] {
    let (_, drawn) = Process::scalar(0.9, 3).drawn(schedule, n_passes);
    [drawn[(1, 1)], drawn[(2, 2)], drawn[(0, 1)], drawn[(0, 2)], drawn.sum()]
}

/// The table of `docs/EVIDENCE.md`. The truth is 1, 1, 0.9, 0.81, 8.22.
#[test]
fn the_bias_of_the_other_schedules_is_the_documented_one() {
    let table = [
        (Schedule::Autoregressive, 12, [0.993, 0.997, 0.889, 0.800, 8.145]),
        (Schedule::Pyramid { slope: 6 }, 12, [0.990, 0.993, 0.888, 0.799, 8.124]),
        (Schedule::Pyramid { slope: 2 }, 12, [0.898, 0.894, 0.815, 0.742, 7.455]),
        (Schedule::Pyramid { slope: 1 }, 12, [0.815, 0.790, 0.722, 0.635, 6.622]),
        (Schedule::Blocks { size: 2 }, 12, [0.738, 0.791, 0.557, 0.501, 5.963]),
        (Schedule::Full, 12, [0.738, 0.673, 0.557, 0.388, 5.228]),
        (Schedule::Autoregressive, 64, [1.000, 1.000, 0.900, 0.810, 8.220]),
        (Schedule::Pyramid { slope: 1 }, 64, [0.768, 0.708, 0.613, 0.468, 5.700]),
        (Schedule::Full, 64, [0.762, 0.702, 0.571, 0.405, 5.400]),
    ];
    for (schedule, n_passes, documented) in table {
        for (measured, documented) in bias(schedule, n_passes).into_iter().zip(documented) {
            let error = (measured - documented).abs();
            assert!(error < 0.002, "{schedule:?}, {n_passes} passes: {measured}, documented {documented}");
        }
    }
}

#[test]
fn one_pass_gives_what_is_expected_and_few_passes_too_little_spread() {
    let process = Process { mean: 0.8, ..Process::scalar(0.9, 3) };
    let truth = process.covariance();
    let mut spread_before = 0.0;
    for n_passes in 1..=6 {
        let (mean, drawn) = process.drawn(Schedule::Autoregressive, n_passes);
        assert!(mean.iter().all(|value| (value - 0.8).abs() < 1e-3), "{n_passes} passes: {mean}");
        let spread = drawn[(0, 0)];
        assert!(spread < 1.05 * truth[(0, 0)] && spread >= spread_before, "{n_passes} passes: {spread}");
        spread_before = spread;
    }
    assert!(process.drawn(Schedule::Autoregressive, 1).1.amax() < 1e-9);
}

#[test]
fn a_single_token_is_the_same_under_every_schedule() {
    let process = Process { n_tokens: 1, ..vector_processes()[1].clone() };
    let exact = process.drawn(Schedule::Autoregressive, PASSES_DEFAULT);
    for schedule in [Schedule::Full, Schedule::Pyramid { slope: 3 }, Schedule::Blocks { size: 4 }] {
        assert_eq!(process.drawn(schedule, PASSES_DEFAULT), exact, "{schedule:?}");
    }
}

/// Writes down every token that it is shown, finished ones included.
struct Recorder<'a> {
    oracle: Oracle<'a>,
    calls: Vec<Vec<NoisyToken>>,
}

impl Denoise for Recorder<'_> {
    fn velocities(&mut self, tokens: &[NoisyToken], n_finished: usize) -> Result<Vec<Vec<f32>>, Error> {
        self.calls.push(self.oracle.finished.iter().chain(tokens).cloned().collect());
        self.oracle.velocities(tokens, n_finished)
    }
}

#[test]
fn tokens_are_bit_identical_while_their_level_does_not_change() {
    let process = Process::scalar(0.9, 5);
    let schedules =
        [Schedule::Autoregressive, Schedule::Pyramid { slope: 2 }, Schedule::Blocks { size: 2 }, Schedule::Full];
    for schedule in schedules {
        let mut tokens: Vec<NoisyToken> =
            (0..5).map(|t| NoisyToken { values: vec![0.3 - 0.2 * t as f32, 1.1], level: NoiseLevel::NOISE }).collect();
        let start = tokens.clone();
        let matrix = ScheduleMatrix::new(schedule, 5, 6).expect("all positive");
        let mut recorder = Recorder { oracle: Oracle::new(&process), calls: vec![start.clone()] };
        denoise(&mut recorder, &mut tokens, 0, &matrix, 1.0, NoiseLevel::CLEAN).expect("no device");
        recorder.calls.push(tokens);
        for call in &recorder.calls {
            for (token, noise) in call.iter().zip(&start).filter(|(token, _)| token.level == NoiseLevel::NOISE) {
                assert_eq!(token, noise, "{schedule:?}: a token that has not started");
            }
        }
        for pair in recorder.calls.windows(2) {
            let same = pair[0].iter().zip(&pair[1]).filter(|(before, after)| before.level == after.level);
            same.for_each(|(before, after)| assert_eq!(before, after, "{schedule:?}"));
        }
    }
}

#[test]
fn a_stabilised_path_stays_as_it_is_for_as_long_as_one_likes() {
    let process = Process::scalar(0.9, 40);
    let variances = |ratio: f64| {
        let level = NoiseLevel::of_measurement(ratio);
        let (_, drawn) = process.drawn_with(Schedule::Autoregressive, PASSES_DEFAULT, level);
        let sum = |first: usize| drawn.view((first, first), (3, 3)).sum();
        [drawn[(19, 19)], drawn[(39, 39)], sum(0), sum(37)]
    };
    // Variance of the 20th and of the 40th step, and of the sum of the first and of the last three: 1, 1, 8.22 and 8.22 in truth. Not
    // leaning on what was drawn costs variance; what it is told to lean less on stays where it is, however long the path.
    let table = [
        (0.0, [1.013, 1.014, 8.145, 8.333]),
        (0.05, [1.003, 1.003, 8.123, 8.233]),
        (0.1, [0.975, 0.974, 8.059, 7.960]),
        (0.2, [0.892, 0.890, 7.825, 7.137]),
        (0.5, [0.693, 0.690, 6.680, 4.951]),
    ];
    for (ratio, expected) in table {
        for (found, expected) in variances(ratio).into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.001, "{ratio}: {found} {expected}");
        }
    }
    let (_, plain) = process.drawn(Schedule::Autoregressive, PASSES_DEFAULT);
    let (_, off) = process.drawn_with(Schedule::Autoregressive, PASSES_DEFAULT, NoiseLevel::of_measurement(0.0));
    assert_eq!(plain, off);
}
