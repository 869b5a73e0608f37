//! Discrete noise levels on the cosine schedule, and the DDIM step from one level to a cleaner one.

/// Offset of the cosine schedule (Nichol and Dhariwal 2021, eq. 17).
const COSINE_OFFSET: f64 = 0.008;
/// Largest share of the signal's variance that one level may take away.
const BETA_MAX: f64 = 0.999;

/// Noise levels `0..=K`: 0 is clean, `K` white noise. Level `k` of the published code is its index `k - 1`.
///
/// ```text
/// x_k = √ᾱ_k · x + √(1 − ᾱ_k) · ε        v = √ᾱ_k · ε − √(1 − ᾱ_k) · x
/// ```
#[derive(Clone, Debug)]
pub struct Levels {
    /// `ᾱ_k`: the variance that is left of a signal of variance 1.
    signal: Vec<f64>,
}

impl Levels {
    /// The cosine schedule with `n_levels` levels above the clean one.
    pub fn cosine(n_levels: usize) -> Self {
        let curve = |level: usize| {
            let time = (level as f64 / n_levels as f64 + COSINE_OFFSET) / (1.0 + COSINE_OFFSET);
            libm::cos(time * std::f64::consts::FRAC_PI_2).powi(2)
        };
        let mut signal = vec![1.0];
        for level in 1..=n_levels {
            let beta = (1.0 - curve(level) / curve(level - 1)).min(BETA_MAX);
            signal.push(signal[level - 1] * (1.0 - beta));
        }
        Self { signal }
    }

    /// The noisiest level `K`.
    pub fn noisiest(&self) -> usize {
        self.signal.len() - 1
    }

    /// `√ᾱ` and `√(1 − ᾱ)`.
    fn shares(&self, level: usize) -> (f64, f64) {
        (self.signal[level].sqrt(), (1.0 - self.signal[level]).sqrt())
    }

    /// Ratio of the variances of signal and noise; infinite for the clean level.
    pub fn snr(&self, level: usize) -> f64 {
        self.signal[level] / (1.0 - self.signal[level])
    }

    /// A value at a level.
    pub fn mix(&self, level: usize, clean: f64, noise: f64) -> f64 {
        let (signal, noise_share) = self.shares(level);
        signal * clean + noise_share * noise
    }

    /// The velocity, which the network learns.
    pub fn velocity(&self, level: usize, clean: f64, noise: f64) -> f64 {
        let (signal, noise_share) = self.shares(level);
        signal * noise - noise_share * clean
    }

    /// The clean value that a noisy value and its velocity imply.
    pub fn clean(&self, level: usize, noisy: f64, velocity: f64) -> f64 {
        let (signal, noise_share) = self.shares(level);
        signal * noisy - noise_share * velocity
    }

    /// The noise that a noisy value and its velocity imply.
    pub fn noise(&self, level: usize, noisy: f64, velocity: f64) -> f64 {
        let (signal, noise_share) = self.shares(level);
        noise_share * noisy + signal * velocity
    }

    /// The level after each number of passes, `n_passes + 1` of them from `K` down to 0, evenly spaced.
    pub fn descent(&self, n_passes: usize) -> Vec<usize> {
        let n_passes = n_passes.clamp(1, self.noisiest());
        (0..=n_passes).rev().map(|left| self.noisiest() * left / n_passes).collect()
    }

    /// One step of DDIM (Song, Meng and Ermon 2021, eq. 12 and 16) from a level to a cleaner one.
    ///
    /// ```text
    /// σ² = η² (1 − ᾱ/ᾱ') (1 − ᾱ') / (1 − ᾱ)        x' = √ᾱ' x̂ + √(1 − ᾱ' − σ²) ε̂ + σ ε
    /// ```
    ///
    /// The step to level 0 returns the clean value and adds nothing.
    pub fn ddim(&self, descent: Descent, noisy: f64, velocity: f64, noise: f64) -> f64 {
        let Descent { from, to, eta } = descent;
        let clean = self.clean(from, noisy, velocity);
        if to == 0 {
            return clean;
        }
        let (before, after) = (self.signal[from], self.signal[to]);
        let variance = eta * eta * (1.0 - before / after) * (1.0 - after) / (1.0 - before);
        let kept = (1.0 - after - variance).max(0.0).sqrt();
        after.sqrt() * clean + kept * self.noise(from, noisy, velocity) + variance.sqrt() * noise
    }
}

/// One step down.
#[derive(Clone, Copy, Debug)]
pub struct Descent {
    /// Level before.
    pub from: usize,
    /// Level after, lower.
    pub to: usize,
    /// Share of fresh noise: 0 is deterministic, 1 draws as the ancestral sampler does.
    pub eta: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Stream;
    use proptest::prelude::*;

    const K: usize = 1000;

    /// Variance of what DDIM makes of standard normal data, by propagation through the steps. The best prediction of the
    /// velocity is then 0.
    fn marginal_variance(n_passes: usize, eta: f64) -> f64 {
        let levels = Levels::cosine(K);
        levels.descent(n_passes).windows(2).fold(1.0, |variance, pair| {
            let descent = Descent { from: pair[0], to: pair[1], eta };
            let (slope, spread) = (levels.ddim(descent, 1.0, 0.0, 0.0), levels.ddim(descent, 0.0, 0.0, 1.0));
            slope * slope * variance + spread * spread
        })
    }

    #[test]
    fn the_ends_of_the_schedule_are_those_of_the_published_code() {
        let levels = Levels::cosine(K);
        assert_eq!(levels.signal[0], 1.0);
        assert!((levels.signal[1] - 0.99996).abs() < 5e-6, "{}", levels.signal[1]);
        assert!((levels.signal[K] - 2.4e-9).abs() < 5e-11, "{}", levels.signal[K]);
        assert!(levels.signal.windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn a_noised_value_has_the_mean_and_variance_of_its_level() {
        let (levels, mut stream, n) = (Levels::cosine(K), Stream::new(1, 0), 20_000);
        for level in [0, 1, 250, 600, K] {
            let draws: Vec<f64> = (0..n).map(|_| levels.mix(level, 2.0, stream.normal())).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            assert!((mean - 2.0 * levels.signal[level].sqrt()).abs() < 0.03, "level {level}: mean {mean}");
            assert!((variance - (1.0 - levels.signal[level])).abs() < 0.04, "level {level}: variance {variance}");
        }
        assert_eq!(levels.mix(0, 2.0, 5.0), 2.0, "clean is exact");
        assert!((levels.mix(K, 2.0, 0.7) - levels.mix(K, -2.0, 0.7)).abs() < 3e-4, "noise hides the value");
    }

    proptest! {
        #[test]
        fn velocity_gives_back_value_and_noise(level in 0usize..=K, clean in -5.0f64..5.0, noise in -5.0f64..5.0) {
            let levels = Levels::cosine(K);
            let (noisy, velocity) = (levels.mix(level, clean, noise), levels.velocity(level, clean, noise));
            prop_assert!((levels.clean(level, noisy, velocity) - clean).abs() < 1e-12);
            prop_assert!((levels.noise(level, noisy, velocity) - noise).abs() < 1e-12);
        }
    }

    #[test]
    fn fifty_passes_go_down_in_steps_of_twenty() {
        let descent = Levels::cosine(K).descent(50);
        assert_eq!(descent.len(), 51);
        assert!(descent.iter().enumerate().all(|(pass, &level)| level == K - 20 * pass));
    }

    /// The exact figures for evenly spaced DDIM steps and standard normal data.
    #[test]
    fn few_steps_are_too_narrow_by_the_known_amount() {
        for (n_passes, eta, expected) in
            [(20, 0.0, 0.884), (20, 1.0, 0.812), (50, 0.0, 0.952), (50, 1.0, 0.914), (200, 1.0, 0.976)]
        {
            let variance = marginal_variance(n_passes, eta);
            assert!((variance - expected).abs() < 1e-3, "{n_passes} passes, eta {eta}: {variance}");
        }
    }

    #[test]
    fn without_eta_the_noise_of_a_step_is_not_used_and_the_last_step_adds_none() {
        let levels = Levels::cosine(K);
        let step = |to, eta, noise| levels.ddim(Descent { from: 500, to, eta }, 0.3, -0.2, noise);
        assert_eq!(step(480, 0.0, 1.0), step(480, 0.0, -1.0));
        assert_ne!(step(480, 1.0, 1.0), step(480, 1.0, -1.0));
        assert_eq!(step(0, 1.0, 1.0), levels.clean(500, 0.3, -0.2));
    }

    /// Ho et al. 2020, eq. 6 and 7.
    #[test]
    fn a_step_of_one_level_with_eta_one_is_the_ancestral_step() {
        let levels = Levels::cosine(K);
        for level in [2, 100, 700] {
            let (before, after) = (levels.signal[level], levels.signal[level - 1]);
            let (alpha, clean, noise) = (before / after, 0.8, -0.4);
            let (noisy, velocity) = (levels.mix(level, clean, noise), levels.velocity(level, clean, noise));
            let mean = after.sqrt() * (1.0 - alpha) / (1.0 - before) * clean
                + alpha.sqrt() * (1.0 - after) / (1.0 - before) * noisy;
            let deviation = ((1.0 - after) / (1.0 - before) * (1.0 - alpha)).sqrt();
            let step = |noise| levels.ddim(Descent { from: level, to: level - 1, eta: 1.0 }, noisy, velocity, noise);
            assert!((step(0.0) - mean).abs() < 1e-9 && (step(1.0) - step(0.0) - deviation).abs() < 1e-9);
        }
    }
}
