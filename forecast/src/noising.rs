//! How the windows of a training batch are noised.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::conditioning::TokenLayout;
use crate::level::NoiseLevel;
use crate::noise::Stream;

/// In a window with artificial gaps, the share of series that lose a part of their context.
const GAP_SERIES_SHARE: f64 = 0.3;
/// Where levels are drawn per element, the share of elements that stay clean.
const CLEAN_ELEMENT_SHARE: f64 = 0.3;

/// Mean and standard deviation of `ln tan φ` in [`LevelDistribution::LogNormal`]: `ln (σ / σ_data)` of EDM (Karras et al. 2022,
/// table 1), which has `ln σ` with mean −1.2 for data of standard deviation ½.
const LOG_NORMAL: (f64, f64) = (-1.2 + std::f64::consts::LN_2, 1.2);

/// How a level is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelDistribution {
    /// Uniform in (0, 1).
    #[default]
    Uniform,
    /// The ratio of noise to signal is log-normal, as in EDM.
    LogNormal,
}

impl LevelDistribution {
    fn draw(self, stream: &mut Stream) -> NoiseLevel {
        match self {
            Self::Uniform => NoiseLevel::new(stream.uniform()),
            Self::LogNormal => NoiseLevel::from_log_snr(-(LOG_NORMAL.0 + LOG_NORMAL.1 * stream.normal())),
        }
    }
}

/// How levels are drawn, and the shares of the training windows that are noised in a particular way; in the others every token
/// draws a level of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LevelMix {
    /// How a level is drawn.
    #[serde(skip_serializing_if = "is_uniform")]
    pub distribution: LevelDistribution,
    /// So many levels above the clean one, evenly spaced, to which what is drawn is rounded up; `None` leaves levels continuous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_levels: Option<u32>,
    /// Windows with a clean context.
    pub clean_context: f64,
    /// Windows in which every element draws its own level, and three in ten stay clean.
    pub by_element: f64,
    /// Windows whose horizon has one level, as in a diffusion of whole sequences.
    pub shared: f64,
    /// Windows in which three series in ten lose a part of their context.
    pub gaps: f64,
}

/// Whether it need not be said.
fn is_uniform(distribution: &LevelDistribution) -> bool {
    *distribution == LevelDistribution::Uniform
}

impl Default for LevelMix {
    fn default() -> Self {
        Self {
            distribution: LevelDistribution::Uniform,
            n_levels: None,
            clean_context: 0.5,
            by_element: 0.25,
            shared: 0.0,
            gaps: 0.2,
        }
    }
}

impl LevelMix {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let shares = [
            ("levels.clean_context", self.clean_context),
            ("levels.by_element", self.by_element),
            ("levels.shared", self.shared),
            ("levels.gaps", self.gaps),
        ];
        if self.n_levels.is_some_and(|n_levels| n_levels < 2) {
            return Err(Error::Setting { name: "levels.n_levels", expected: "at least 2".to_owned() });
        }
        match shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            Some((name, _)) => Err(Error::Setting { name, expected: "a share from 0 to 1".to_owned() }),
            None => Ok(()),
        }
    }

    fn draw(&self, stream: &mut Stream) -> NoiseLevel {
        let level = self.distribution.draw(stream);
        match self.n_levels.map(f64::from) {
            Some(n_levels) => NoiseLevel::new((level.value() * n_levels).ceil() / n_levels),
            None => level,
        }
    }

    /// Noise levels of all elements of a training window, `[token, element]`, context tokens first.
    pub(crate) fn draw_levels(&self, layout: &TokenLayout, stream: &mut Stream) -> Vec<NoiseLevel> {
        let clean_context = stream.uniform() < self.clean_context;
        let by_element = stream.uniform() < self.by_element;
        // A share of none draws nothing, so that windows stay as they are without it.
        let shared = (self.shared > 0.0 && stream.uniform() < self.shared).then(|| self.draw(stream));
        let mut levels = vec![];
        for token in 0..layout.n_context_tokens + layout.n_horizon_tokens {
            let is_context = token < layout.n_context_tokens;
            let own = self.draw(stream);
            let token_level = shared.filter(|_| !is_context).unwrap_or(own);
            for _ in 0..layout.n_elements() {
                levels.push(if is_context && clean_context {
                    NoiseLevel::CLEAN
                } else if !by_element {
                    token_level
                } else if stream.uniform() < CLEAN_ELEMENT_SHARE {
                    NoiseLevel::CLEAN
                } else {
                    self.draw(stream)
                });
            }
        }
        levels
    }

    /// Makes a part of the context of some series a gap: the network must learn from the windows that have none what one means.
    ///
    /// Returns a flag for each context element.
    pub(crate) fn draw_gaps(&self, layout: &TokenLayout, stream: &mut Stream) -> Vec<bool> {
        let (n_steps, n_series) = (layout.context_length(), layout.n_series);
        let mut gaps = vec![false; n_steps * n_series];
        if stream.uniform() < self.gaps {
            for series in (0..n_series).filter(|_| stream.uniform() < GAP_SERIES_SHARE).collect::<Vec<_>>() {
                let (a, b) = (stream.below(n_steps + 1), stream.below(n_steps + 1));
                (a.min(b)..a.max(b)).for_each(|step| gaps[step * n_series + series] = true);
            }
        }
        gaps
    }
}

/// Levels of a validation window, and the token on which the loss counts.
pub(crate) fn draw_validation_levels(layout: &TokenLayout, stream: &mut Stream) -> (Vec<NoiseLevel>, usize) {
    let counted = layout.n_context_tokens + stream.below(layout.n_horizon_tokens);
    let level = NoiseLevel::new(stream.uniform());
    let levels = (0..layout.n_context_tokens + layout.n_horizon_tokens).flat_map(|token| {
        let level = match token.cmp(&counted) {
            std::cmp::Ordering::Less => NoiseLevel::CLEAN,
            std::cmp::Ordering::Equal => level,
            std::cmp::Ordering::Greater => NoiseLevel::NOISE,
        };
        std::iter::repeat_n(level, layout.n_elements())
    });
    (levels.collect(), counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: TokenLayout =
        TokenLayout { n_series: 2, n_calendar: 0, patch: 2, n_context_tokens: 3, n_horizon_tokens: 4, n_known: 0 };

    /// Levels of the first element of each horizon token, over many windows.
    fn horizon_levels(n_windows: usize) -> Vec<Vec<f64>> {
        let mut stream = Stream::new(1, 0);
        let tokens = |levels: Vec<NoiseLevel>| levels.chunks(4).skip(3).map(|token| token[0].value()).collect();
        (0..n_windows).map(|_| tokens(LevelMix::default().draw_levels(&LAYOUT, &mut stream))).collect()
    }

    #[test]
    fn levels_are_uniform_and_independent_between_tokens() {
        // Elements that were left clean on purpose aside, levels are uniform: a chi-square test with ten cells, 0.1 % point.
        let windows = horizon_levels(8000);
        let drawn: Vec<f64> = windows.iter().flatten().copied().filter(|&level| level > 0.0).collect();
        let mut counts = [0.0; 10];
        drawn.iter().for_each(|level| counts[((level * 10.0) as usize).min(9)] += 1.0);
        let expected = drawn.len() as f64 / 10.0;
        let chi_square: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        assert!(chi_square < 27.9, "chi-square {chi_square}");
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let both = windows.iter().filter(|levels| levels[0] > 0.0 && levels[1] > 0.0);
        let pairs: Vec<f64> = both.map(|levels| (levels[0] - mean) * (levels[1] - mean)).collect();
        // 1/12 is the variance of a uniform number.
        let correlation = pairs.iter().sum::<f64>() / pairs.len() as f64 * 12.0;
        assert!(correlation.abs() < 0.05, "correlation {correlation}");
    }

    #[test]
    fn log_normal_levels_have_the_quartiles_of_edm() {
        let mut stream = Stream::new(5, 0);
        let mut ratios: Vec<f64> =
            (0..8000).map(|_| libm::tan(LevelDistribution::LogNormal.draw(&mut stream).angle())).collect();
        ratios.sort_by(f64::total_cmp);
        for (place, normal) in [(2000, -0.6745), (4000, 0.0), (6000, 0.6745)] {
            // σ of an EDM with data of standard deviation ½; five standard errors of a quartile.
            let log_sigma = libm::log(0.5 * ratios[place]);
            assert!((log_sigma - (-1.2 + 1.2 * normal)).abs() < 0.09, "{place}: {log_sigma}");
        }
    }

    #[test]
    fn discrete_levels_are_multiples_and_never_clean() {
        let mut stream = Stream::new(6, 0);
        let mix = LevelMix { n_levels: Some(4), clean_context: 0.0, by_element: 0.0, ..LevelMix::default() };
        let levels: Vec<f64> =
            (0..200).flat_map(|_| mix.draw_levels(&LAYOUT, &mut stream)).map(|level| level.value()).collect();
        for level in [0.25, 0.5, 0.75, 1.0] {
            let share = levels.iter().filter(|found| **found == level).count() as f64 / levels.len() as f64;
            // 1400 tokens.
            assert!((share - 0.25).abs() < 0.06, "{level}: {share}");
        }
    }

    #[test]
    fn a_shared_level_is_that_of_every_token_of_the_horizon() {
        let mut stream = Stream::new(4, 0);
        let mix = LevelMix { shared: 1.0, by_element: 0.0, ..LevelMix::default() };
        for _ in 0..20 {
            let levels = mix.draw_levels(&LAYOUT, &mut stream);
            assert!(levels[12..].iter().all(|level| *level == levels[12]));
        }
    }

    #[test]
    fn half_of_the_windows_have_a_clean_context() {
        let mut stream = Stream::new(2, 0);
        let clean = |levels: Vec<NoiseLevel>| levels[..12].iter().all(|&level| level == NoiseLevel::CLEAN);
        let n = (0..4000).filter(|_| clean(LevelMix::default().draw_levels(&LAYOUT, &mut stream))).count();
        assert!((1850..2150).contains(&n), "{n} of 4000");
    }

    #[test]
    fn only_the_drawn_token_counts_for_validation_and_what_is_before_it_is_clean() {
        let mut stream = Stream::new(3, 0);
        for _ in 0..50 {
            let (levels, token) = draw_validation_levels(&LAYOUT, &mut stream);
            assert!((3..7).contains(&token));
            assert!(levels[..token * 4].iter().all(|&level| level == NoiseLevel::CLEAN));
            assert!(levels[(token + 1) * 4..].iter().all(|&level| level == NoiseLevel::NOISE));
        }
    }
}
