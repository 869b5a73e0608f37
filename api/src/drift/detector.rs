//! A sequential test of whether scores have become worse than a backtest lets expect.
//!
//! Each new score multiplies the stake of a bet against "as good as in the backtest". The factors are non-negative and,
//! while that is true, have a conditional mean of at most 1 given everything before (λ between 0 and 1):
//!
//! ```text
//! crps-high      1 + λ (x / m − 1)            m: highest mean CRPS that counts as no drift; x is not negative
//! coverage-low   1 + λ (l − x) / (1 − l)      l: lowest such mean coverage; x lies between 0 and 1
//! coverage-high  1 + λ (x − h) / h            h: highest such mean coverage
//! ```
//!
//! Shares of inputs that are out of the usual are bet on as CRPS is.
//!
//! A stake of 1 is added before each score, for a change that may begin there (the Shiryaev-Roberts e-detector of Shin,
//! Ramdas and Rinaldo 2024, *E-detectors: a nonparametric framework for sequential change detection*). The statistic is the
//! mean over the three bets and a few λ. Statistic minus number of scores is a supermartingale while there is no drift, so
//! an alarm at a threshold A comes, on average, after at least A scores, whatever the law of the scores.

use crate::db::words::DriftKind;

/// Shares of the stake that are bet: small ones find small changes, large ones find large ones soon.
const SHARES: [f64; 4] = [0.1, 0.3, 0.6, 0.9];

/// The bets on scores.
pub const SCORE_KINDS: [DriftKind; 3] = [DriftKind::CrpsHigh, DriftKind::CoverageLow, DriftKind::CoverageHigh];

/// What counts as no drift: a band around what the backtest found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// Highest mean CRPS; positive.
    pub crps_max: f64,
    /// Lowest mean coverage of the central 80 % intervals; at least 0 and below 1.
    pub coverage_min: f64,
    /// Highest; above 0.
    pub coverage_max: f64,
}

impl Expectation {
    /// The bound that the drift of each of [`SCORE_KINDS`] passes.
    #[must_use]
    pub fn bounds(&self) -> [f64; 3] {
        [self.crps_max, self.coverage_min, self.coverage_max]
    }

    /// What a whole stake gains by a score, for each of [`SCORE_KINDS`]: at least -1, and no more than 0 in the mean while there
    /// is no drift.
    #[must_use]
    pub fn gains(&self, score: Score) -> [f64; 3] {
        let [high, low, wide] = self.bounds();
        [score.crps / high - 1.0, (low - score.coverage_80) / (1.0 - low), (score.coverage_80 - wide) / wide]
    }
}

/// Scores of one forecast over its horizon and all series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// CRPS, not negative.
    pub crps: f64,
    /// Share of the truth inside the central 80 % intervals.
    pub coverage_80: f64,
}

/// The stakes of bets on three kinds of drift.
#[derive(Clone, Debug)]
pub struct Detector {
    kinds: [DriftKind; 3],
    stakes: [[f64; SHARES.len()]; 3],
}

impl Detector {
    /// No scores yet.
    #[must_use]
    pub fn new(kinds: [DriftKind; 3]) -> Self {
        Self { kinds, stakes: [[0.0; SHARES.len()]; 3] }
    }

    /// Takes in what a whole stake on each kind gains by the next score, at least -1. Horizons must not overlap: a score must
    /// not be known when the forecast of the next one is made.
    pub fn push(&mut self, gains: [f64; 3]) {
        for (stakes, gain) in self.stakes.iter_mut().zip(gains) {
            for (stake, share) in stakes.iter_mut().zip(SHARES) {
                *stake = (*stake + 1.0) * (1.0 + share * gain);
            }
        }
    }

    /// The statistic, which an alarm compares with its threshold.
    #[must_use]
    pub fn statistic(&self) -> f64 {
        self.stakes.iter().flatten().sum::<f64>() / (self.stakes.len() * SHARES.len()) as f64
    }

    /// The kind of drift that most of the statistic comes from.
    #[must_use]
    pub fn kind(&self) -> DriftKind {
        let total = |stakes: &[f64; SHARES.len()]| stakes.iter().sum::<f64>();
        let largest = self.stakes.iter().zip(self.kinds).max_by(|(a, _), (b, _)| total(a).total_cmp(&total(b)));
        largest.map_or(self.kinds[0], |(_, kind)| kind)
    }
}

#[cfg(test)]
mod tests {
    use forecast::noise::Stream;

    use super::*;

    const EXPECTED: Expectation = Expectation { crps_max: 0.2, coverage_min: 0.75, coverage_max: 0.9 };
    const THRESHOLD: f64 = 200.0;

    /// The first score, counted from 1, at which the alarm is raised, and its kind.
    fn alarm(scores: impl Iterator<Item = Score>) -> Option<(usize, DriftKind)> {
        let mut detector = Detector::new(SCORE_KINDS);
        for (index, score) in scores.enumerate() {
            detector.push(EXPECTED.gains(score));
            if detector.statistic() >= THRESHOLD {
                return Some((index + 1, detector.kind()));
            }
        }
        None
    }

    /// Scores with given means: CRPS has a heavy tail, coverage is the share of eight values.
    fn scores(stream: &mut Stream, crps: f64, coverage: f64) -> impl Iterator<Item = Score> {
        std::iter::repeat_with(move || {
            let spread = 0.6;
            let crps = crps * (spread * stream.normal() - 0.5 * spread * spread).exp();
            let n_inside = (0..8).filter(|_| (stream.below(1_000_000) as f64) < 1e6 * coverage).count();
            Score { crps, coverage_80: n_inside as f64 / 8.0 }
        })
    }

    #[test]
    fn false_alarms_are_as_rare_as_promised() {
        // At the very edge of what counts as no drift. By Markov's inequality for the stopped statistic, at most 60 / 200 of
        // the runs may raise an alarm within 60 scores; far fewer do.
        let n_alarms = (0..300)
            .filter(|&run| alarm(scores(&mut Stream::new(run, 0), EXPECTED.crps_max, 0.75).take(60)).is_some())
            .count();
        assert!(n_alarms <= 300 * 60 / 200, "{n_alarms}");
        let mean = (0..100)
            .map(|run| alarm(scores(&mut Stream::new(run, 1), 0.2, 0.9).take(4000)).map_or(4000, |(n, _)| n))
            .sum::<usize>() as f64
            / 100.0;
        assert!(mean >= THRESHOLD, "{mean}");
    }

    #[test]
    fn a_shift_is_found_soon_and_named() {
        for (crps, coverage, kind, soon) in [
            (0.6, 0.8, DriftKind::CrpsHigh, 15),
            (0.15, 0.3, DriftKind::CoverageLow, 15),
            (0.15, 1.0, DriftKind::CoverageHigh, 100),
        ] {
            let mut n = 0;
            for run in 0..50 {
                let mut before = Stream::new(run, 2);
                let mut after = Stream::new(run, 3);
                let all = scores(&mut before, 0.15, 0.82).take(50).chain(scores(&mut after, crps, coverage).take(500));
                let (at, found) = alarm(all).expect("the shift is large");
                assert_eq!((found, at > 50), (kind, true), "alarm at {at}");
                n += at - 50;
            }
            assert!(n / 50 <= soon, "{kind}: {n} scores in 50 runs");
        }
    }

    #[test]
    fn no_score_makes_a_stake_negative() {
        let mut detector = Detector::new(SCORE_KINDS);
        for (crps, coverage_80) in [(0.0, 0.0), (0.0, 1.0), (1e6, 0.0), (0.0, 1.0)] {
            detector.push(EXPECTED.gains(Score { crps, coverage_80 }));
            assert!(detector.stakes.iter().flatten().all(|stake| *stake >= 0.0), "{detector:?}");
        }
    }
}
