//! Noise levels: how much of an element is noise.
//!
//! A level `k` in `[0, 1]` is an angle `φ = k π / 2` on the cosine schedule (Nichol and Dhariwal 2021, without
//! the offset): `x_k = cos φ · x_0 + sin φ · ε`. The network predicts `v = cos φ · ε − sin φ · x_0` (Salimans
//! and Ho 2022, eq. 12 and appendix D), which is `dx/dφ` along the path from data to noise. At `k = 1` nothing
//! of `x_0` is left and `v = −x_0`, so no parameterisation is singular at either end.

use std::f64::consts::FRAC_PI_2;

/// Noise level of one element: 0 clean, 1 nothing known.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct NoiseLevel(f64);

impl NoiseLevel {
    /// Exactly known.
    pub const CLEAN: NoiseLevel = NoiseLevel(0.0);
    /// Nothing known.
    pub const NOISE: NoiseLevel = NoiseLevel(1.0);

    /// The level nearest to `level` inside `[0, 1]`.
    pub fn new(level: f64) -> Self {
        Self(level.clamp(0.0, 1.0))
    }

    /// The level at a log signal-to-noise ratio, see [`NoiseLevel::log_snr`].
    pub fn from_log_snr(log_snr: f64) -> Self {
        Self::new(libm::atan(libm::exp(-log_snr)) / FRAC_PI_2)
    }

    /// Half the logarithm of the signal-to-noise ratio, `λ = ln cot φ`: −∞ for pure noise, +∞ for clean.
    pub fn log_snr(self) -> f64 {
        libm::log(self.signal() / self.noise())
    }

    /// The level of a value that was measured with an error, given the error's standard deviation as a multiple of what
    /// the value itself varies: `tan φ`.
    ///
    /// The measured value times [`signal`](Self::signal) then is `x_k`.
    pub fn of_measurement(ratio: f64) -> Self {
        Self::new(libm::atan(ratio) / FRAC_PI_2)
    }

    /// The number in `[0, 1]`.
    pub fn value(self) -> f64 {
        self.0
    }

    /// The angle `φ` in `[0, π/2]`.
    pub fn angle(self) -> f64 {
        self.0 * FRAC_PI_2
    }

    /// Share of the data, `cos φ`; exactly 0 at level 1.
    pub fn signal(self) -> f64 {
        if self.0 == 1.0 { 0.0 } else { libm::cos(self.angle()) }
    }

    /// Share of the noise, `sin φ`.
    pub fn noise(self) -> f64 {
        libm::sin(self.angle())
    }

    /// `x_k` from the clean value and noise.
    pub fn mix(self, clean: f64, noise: f64) -> f64 {
        self.signal() * clean + self.noise() * noise
    }

    /// The target `v` of the network.
    pub fn velocity(self, clean: f64, noise: f64) -> f64 {
        self.signal() * noise - self.noise() * clean
    }

    /// The clean value from `x_k` and `v`.
    pub fn clean(self, mixed: f64, velocity: f64) -> f64 {
        self.signal() * mixed - self.noise() * velocity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn velocity_round_trips_at_every_level(level in 0.0..=1.0, clean in -8.0..8.0, noise in -4.0..4.0) {
            let level = NoiseLevel::new(level);
            let mixed = level.mix(clean, noise);
            let velocity = level.velocity(clean, noise);
            prop_assert!((level.clean(mixed, velocity) - clean).abs() < 1e-12);
            prop_assert!((level.noise() * mixed + level.signal() * velocity - noise).abs() < 1e-12);
        }

        /// Preconditioned as in EDM (Karras et al. 2022, table 1) for data of standard deviation 1, a network learns `−v`, and
        /// their loss weights it evenly.
        #[test]
        fn the_velocity_is_what_edm_learns(level in 0.01..=0.99, clean in -8.0..8.0, noise in -4.0..4.0) {
            let level = NoiseLevel::new(level);
            let sigma = libm::tan(level.angle());
            let (c_skip, c_out) = (1.0 / (1.0 + sigma * sigma), sigma / libm::sqrt(1.0 + sigma * sigma));
            let c_in = 1.0 / libm::sqrt(1.0 + sigma * sigma);
            let noisy = clean + sigma * noise;
            prop_assert!((c_in * noisy - level.mix(clean, noise)).abs() < 1e-9, "the network sees the same");
            let learned = (clean - c_skip * noisy) / c_out;
            prop_assert!((learned + level.velocity(clean, noise)).abs() < 1e-9, "and learns the same");
            let weight = (sigma * sigma + 1.0) / (sigma * sigma) * c_out * c_out;
            prop_assert!((weight - 1.0).abs() < 1e-9);
        }

        #[test]
        fn signal_and_noise_have_unit_power(level in 0.0..=1.0) {
            let level = NoiseLevel::new(level);
            prop_assert!((level.signal().powi(2) + level.noise().powi(2) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_level_is_found_by_its_signal_to_noise_ratio() {
        for log_snr in [-4.0, -0.3, 0.0, 2.0, 9.0] {
            assert!((NoiseLevel::from_log_snr(log_snr).log_snr() - log_snr).abs() < 1e-9);
        }
        assert_eq!(NoiseLevel::NOISE.log_snr(), f64::NEG_INFINITY);
        assert_eq!(NoiseLevel::CLEAN.log_snr(), f64::INFINITY);
    }

    #[test]
    fn a_measured_value_times_its_signal_has_the_noise_share_of_its_level() {
        assert_eq!(NoiseLevel::of_measurement(0.0), NoiseLevel::CLEAN);
        let (ratio, clean, noise) = (0.75, 1.3, -0.4);
        let level = NoiseLevel::of_measurement(ratio);
        let measured = clean + ratio * noise;
        assert!((level.signal() * measured - level.mix(clean, noise)).abs() < 1e-12);
    }

    #[test]
    fn clean_returns_the_data_and_full_noise_forgets_it() {
        assert_eq!(NoiseLevel::CLEAN.mix(3.5, 0.7), 3.5);
        assert_eq!(NoiseLevel::NOISE.mix(3.5, 0.7), NoiseLevel::NOISE.mix(-9.0, 0.7));
        assert_eq!(NoiseLevel::NOISE.velocity(3.5, 0.7), -3.5);
    }
}
