//! Random numbers that depend on their key alone.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a key and
//! a counter to four words. There is no state to share or to advance, so the noise of one element
//! (sample, step, series) is the same whatever else is sampled, in whatever order, on whatever machine.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::stratified::StratifiedNoise;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const N_ROUNDS: usize = 10;

/// Four words from a key and a counter.
fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let (mut key, mut x) = (key, counter);
    for _ in 0..N_ROUNDS {
        let low = u64::from(MULTIPLIERS[0]) * u64::from(x[0]);
        let high = u64::from(MULTIPLIERS[1]) * u64::from(x[2]);
        x = [(high >> 32) as u32 ^ x[1] ^ key[0], high as u32, (low >> 32) as u32 ^ x[3] ^ key[1], low as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    x
}

/// A uniform number in (0, 1) with 53 random bits.
fn open_unit(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    (bits as f64 + 0.5) / (1u64 << 53) as f64
}

/// Standard normal noise of a forecast, addressed by sample, step and series.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    key: [u32; 2],
}

impl Noise {
    /// The noise that belongs to a seed.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// One standard normal number (Box and Muller), the same on every machine.
    ///
    /// Samples come in antithetic pairs, 0 with 1, 2 with 3 …: the noise of the second is the first's with its sign
    /// changed (Hammersley and Morton 1956). Each sample has the right law, and what is averaged over samples errs less.
    pub fn normal(&self, sample: u32, step: u32, series: u32) -> f32 {
        self.keyed_normal(sample, step, series, 0) as f32
    }

    /// One standard normal number for the error of a measurement, independent of [`Noise::normal`]; in the same pairs.
    pub fn measurement(&self, sample: u32, step: u32, series: u32) -> f64 {
        // 1 belongs to streams.
        self.keyed_normal(sample, step, series, 2)
    }

    /// Random words for the noise of [`crate::stratified`] in one of two kinds of coordinates; those of an antithetic pair are the same.
    pub(crate) fn stratified(&self, sample: usize, step: usize, index: usize, kind: u32) -> [u32; 4] {
        philox(self.key, [sample as u32 / 2, step as u32, index as u32, 3 + kind])
    }

    /// A uniform number in (0, 1) by which the path of a series is made whole.
    pub(crate) fn rounding(&self, sample: usize, series: usize) -> f64 {
        let words = philox(self.key, [sample as u32, 0, series as u32, 5]);
        open_unit(words[0], words[1])
    }

    fn keyed_normal(&self, sample: u32, step: u32, series: u32, purpose: u32) -> f64 {
        let words = philox(self.key, [sample / 2, step, series, purpose]);
        let radius = libm::sqrt(-2.0 * libm::log(open_unit(words[0], words[1])));
        let number = radius * libm::cos(TAU * open_unit(words[2], words[3]));
        if sample.is_multiple_of(2) { number } else { -number }
    }
}

/// Everything that is random about one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleNoise {
    /// Number of series.
    pub n_series: usize,
    /// Noise of each element, `[step, series]`.
    pub normals: Vec<f32>,
    /// Noise of the measurement of each element, `[step, series]`; what is beyond its end is exact.
    pub measurements: Vec<f32>,
    /// Seed and sample that choose a path of the pool, or that there is none, and by which paths are made whole.
    pub pool_key: (u64, usize),
}

impl SampleNoise {
    /// The noise a step of the size `beta` away, `√(1−β²) ε + β ξ`: what was standard normal stays so. Where the sample takes a
    /// path of the pool, it takes another one, and it is made whole in another way.
    pub fn moved(&self, beta: f64, stream: &mut Stream) -> Self {
        let keep = (1.0 - beta * beta).sqrt();
        let mut step = |noise: &[f32]| -> Vec<f32> {
            noise.iter().map(|&noise| (keep * f64::from(noise) + beta * stream.normal()) as f32).collect()
        };
        let (normals, measurements) = (step(&self.normals), step(&self.measurements));
        let seed = (stream.uniform() * (1_u64 << 53) as f64) as u64;
        Self { n_series: self.n_series, normals, measurements, pool_key: (seed, self.pool_key.1) }
    }
}

/// Where the noise of samples comes from.
#[derive(Clone, Copy, Debug)]
pub enum NoiseSource<'a> {
    /// From a seed, in antithetic pairs.
    Seed(u64),
    /// The same, but samples share the strata of each score between them.
    Stratified(&'a StratifiedNoise),
    /// That of each sample is given.
    Given(&'a [SampleNoise]),
}

impl NoiseSource<'_> {
    /// The noise of an element.
    pub fn normal(self, sample: usize, step: usize, series: usize) -> f32 {
        match self {
            Self::Seed(seed) => Noise::new(seed).normal(sample as u32, step as u32, series as u32),
            Self::Stratified(noise) => noise.normal(sample, step, series),
            Self::Given(samples) => samples[sample].normals[step * samples[sample].n_series + series],
        }
    }

    /// The noise of a measurement.
    pub fn measurement(self, sample: usize, step: usize, series: usize) -> f64 {
        let of_seed = |seed| Noise::new(seed).measurement(sample as u32, step as u32, series as u32);
        match self {
            Self::Seed(seed) => of_seed(seed),
            Self::Stratified(noise) => of_seed(noise.seed()),
            Self::Given(samples) => {
                let index = step * samples[sample].n_series + series;
                samples[sample].measurements.get(index).copied().map_or(0.0, f64::from)
            }
        }
    }

    /// Seed and sample by which [`crate::pool::Pool::path`] chooses.
    pub fn pool_key(self, sample: usize) -> (u64, usize) {
        match self {
            Self::Seed(seed) => (seed, sample),
            Self::Stratified(noise) => (noise.seed(), sample),
            Self::Given(samples) => samples[sample].pool_key,
        }
    }

    /// A uniform number in (0, 1) by which the path of a series is made whole.
    pub fn rounding(self, sample: usize, series: usize) -> f64 {
        let (seed, sample) = self.pool_key(sample);
        Noise::new(seed).rounding(sample, series)
    }

    /// Whether samples 0 and 1, 2 and 3 … are mirror images of each other.
    pub fn is_antithetic(self) -> bool {
        !matches!(self, Self::Given(_))
    }
}

/// A stream of random numbers, for what is drawn in sequence: training windows, levels, weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    key: [u32; 2],
    name: u32,
    position: u64,
}

impl Stream {
    /// The stream of a seed with a name of its own; streams with different names are independent.
    pub fn new(seed: u64, name: u32) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], name, position: 0 }
    }

    fn words(&mut self) -> [u32; 4] {
        let words = philox(self.key, [self.position as u32, (self.position >> 32) as u32, self.name, 1]);
        self.position += 1;
        words
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        let words = self.words();
        open_unit(words[0], words[1])
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        let words = self.words();
        let radius = libm::sqrt(-2.0 * libm::log(open_unit(words[0], words[1])));
        radius * libm::cos(TAU * open_unit(words[2], words[3]))
    }

    /// Uniform in `0..n`, which must not be empty.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' own library (Random123, `kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_known_answers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 2], [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn noise_is_standard_normal_and_uncorrelated_between_neighbours() {
        let noise = Noise::new(7);
        let n = 20_000;
        let values: Vec<f64> = (0..n).map(|k| f64::from(noise.normal(2 * k, 3, 1))).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        let neighbour = values.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / f64::from(n);
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04 && neighbour.abs() < 0.03,
            "{mean} {variance} {neighbour}"
        );
    }

    #[test]
    fn seeds_samples_steps_and_series_all_change_the_noise() {
        let base = Noise::new(1).normal(0, 0, 0);
        let noise = Noise::new(1);
        for other in
            [Noise::new(2).normal(0, 0, 0), noise.normal(1, 0, 0), noise.normal(0, 1, 0), noise.normal(0, 0, 1)]
        {
            assert_ne!(base, other);
        }
        assert_eq!(base, noise.normal(0, 0, 0));
        assert_eq!(base, -noise.normal(1, 0, 0), "samples come in antithetic pairs");
        assert_ne!(base.abs(), noise.normal(2, 0, 0).abs());
        assert_ne!(base, noise.measurement(0, 0, 0) as f32);
    }
}
