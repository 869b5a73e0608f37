//! Whether intervals cover what they should: by lead, for totals over the horizon, and by rank.
//!
//! Marginal quantiles cannot say how sure a total is; trajectories can, and here it is measured.

use serde::{Deserialize, Serialize};

use crate::metrics::Outcome;
use crate::noise::Stream;
use crate::trajectories::quantile_of_sorted;
use crate::{Error, QuantileLevel};

/// Blocks of lead time.
const N_BLOCKS: usize = 3;
/// Bins of the rank histogram.
const N_BINS: usize = 10;
/// Windows below which a bootstrap says nothing.
const N_WINDOWS_MIN: usize = 8;
/// Times that windows are drawn again.
const N_RESAMPLES: usize = 1000;
/// Central intervals that are measured.
const INTERVALS: [f64; 3] = [0.5, 0.8, 0.9];

/// Shares of the truth inside central intervals; `None` where nothing was observed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Share inside the central 50 % interval.
    pub coverage_50: Option<f64>,
    /// Share inside the central 80 % interval.
    pub coverage_80: Option<f64>,
    /// Share inside the central 90 % interval.
    pub coverage_90: Option<f64>,
    /// How sure the share of the 50 % interval is: the inner 95 % of what resampled windows give.
    #[serde(default)]
    pub coverage_50_range: Option<[f64; 2]>,
    /// How sure that of the 80 % interval is.
    #[serde(default)]
    pub coverage_80_range: Option<[f64; 2]>,
    /// How sure that of the 90 % interval is.
    #[serde(default)]
    pub coverage_90_range: Option<[f64; 2]>,
}

/// Coverage of a block of lead times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeadBlock {
    /// First step, from 1.
    pub first_step: usize,
    /// Last step.
    pub last_step: usize,
    /// Coverage of single values.
    #[serde(flatten)]
    pub coverage: Coverage,
    /// Share of the truth in each tenth of the predictive distribution.
    #[serde(default)]
    pub pit: Vec<f64>,
}

/// Coverage of a forecaster over all windows of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// Single values by thirds of the horizon.
    pub leads: Vec<LeadBlock>,
    /// The total of each series over the whole horizon.
    pub totals: Coverage,
    /// Share of the truth in each tenth of the predictive distribution (probability integral transform); 0.1 each is
    /// perfect.
    pub pit: Vec<f64>,
}

/// Counts of truths inside each interval, of one window.
#[derive(Clone, Copy, Default)]
struct Counts {
    inside: [f64; 3],
    n: f64,
}

impl Counts {
    fn add(&mut self, sorted: &[f32], truth: f64) -> Result<(), Error> {
        for (count, interval) in self.inside.iter_mut().zip(INTERVALS) {
            let quantile = |level| Ok::<f64, Error>(quantile_of_sorted(sorted, QuantileLevel::new(level)?));
            let range = quantile((1.0 - interval) / 2.0)?..=quantile((1.0 + interval) / 2.0)?;
            *count += f64::from(u8::from(range.contains(&truth)));
        }
        self.n += 1.0;
        Ok(())
    }

    /// Shares of several windows together; `None` where nothing was observed.
    fn shares<'a>(windows: impl Iterator<Item = &'a Self>) -> Option<[f64; 3]> {
        let mut sum = Self::default();
        for window in windows {
            sum.n += window.n;
            for (sum, count) in sum.inside.iter_mut().zip(window.inside) {
                *sum += count;
            }
        }
        (sum.n > 0.0).then(|| sum.inside.map(|count| count / sum.n))
    }
}

/// Coverage over windows in their order of time.
fn coverage(windows: &[Counts]) -> Coverage {
    let shares = Counts::shares(windows.iter());
    let ranges = ranges(windows);
    let share = |interval: usize| shares.map(|shares| shares[interval]);
    let range = |interval: usize| ranges.map(|ranges| ranges[interval]);
    Coverage {
        coverage_50: share(0),
        coverage_80: share(1),
        coverage_90: share(2),
        coverage_50_range: range(0),
        coverage_80_range: range(1),
        coverage_90_range: range(2),
    }
}

/// Inner 95 % of the shares when windows are drawn again in blocks of neighbours (circular block bootstrap, Politis and
/// Romano 1992), since what goes wrong often goes wrong for a while. A block has as many windows as the cube root of their number.
fn ranges(windows: &[Counts]) -> Option<[[f64; 2]; 3]> {
    let n = windows.len();
    if n < N_WINDOWS_MIN {
        return None;
    }
    let length = (n as f64).cbrt().ceil() as usize;
    let mut stream = Stream::new(0, 0);
    let mut drawn: Vec<[f64; 3]> = (0..N_RESAMPLES)
        .filter_map(|_| {
            let starts: Vec<usize> = (0..n.div_ceil(length)).map(|_| stream.below(n)).collect();
            let blocks = starts.iter().flat_map(|start| (0..length).map(move |offset| (start + offset) % n));
            Counts::shares(blocks.take(n).map(|window| &windows[window]))
        })
        .collect();
    let tail = drawn.len() / 40;
    (!drawn.is_empty()).then(|| {
        [0, 1, 2].map(|interval| {
            drawn.sort_unstable_by(|a, b| a[interval].total_cmp(&b[interval]));
            [drawn[tail][interval], drawn[drawn.len() - 1 - tail][interval]]
        })
    })
}

/// The share of the draws below the truth; where draws equal it, half of them count.
pub(crate) fn rank(sorted: &[f32], truth: f64) -> f64 {
    let below = sorted.partition_point(|&draw| f64::from(draw) < truth);
    let through = sorted.partition_point(|&draw| f64::from(draw) <= truth);
    (below + through) as f64 / (2 * sorted.len()) as f64
}

fn shares(counts: &[f64]) -> Vec<f64> {
    let n = counts.iter().sum::<f64>().max(1.0);
    counts.iter().map(|count| count / n).collect()
}

/// Measures the reliability of forecasts without nowcasts, in their order of time; what was not observed does not count.
///
/// # Errors
/// Never for trajectories and truths of the same shape.
pub fn reliability(outcomes: &[Outcome]) -> Result<Reliability, Error> {
    let horizon = outcomes.iter().map(|outcome| outcome.trajectories.n_steps()).max().unwrap_or(0);
    let n_blocks = N_BLOCKS.min(horizon);
    let mut blocks = vec![vec![Counts::default(); outcomes.len()]; n_blocks];
    let mut totals = vec![Counts::default(); outcomes.len()];
    let mut bins = vec![[0.0; N_BINS]; n_blocks];
    for (window, Outcome { trajectories, truth }) in outcomes.iter().enumerate() {
        for series in 0..trajectories.n_series() {
            for step in 0..trajectories.n_steps() {
                let observed = truth.get(step, series);
                if observed.is_nan() {
                    continue;
                }
                let sorted = trajectories.sorted(step, series);
                let block = step * n_blocks / horizon;
                blocks[block][window].add(&sorted, observed)?;
                bins[block][((rank(&sorted, observed) * N_BINS as f64) as usize).min(N_BINS - 1)] += 1.0;
            }
            let total: f64 = (0..trajectories.n_steps()).map(|step| truth.get(step, series)).sum();
            if !total.is_nan() {
                let of_sample = |sample: usize| {
                    let steps = 0..trajectories.n_steps();
                    steps.map(|step| f64::from(trajectories.value(sample, step, series))).sum::<f64>() as f32
                };
                let mut draws: Vec<f32> = (0..trajectories.n_samples()).map(of_sample).collect();
                draws.sort_unstable_by(f32::total_cmp);
                totals[window].add(&draws, total)?;
            }
        }
    }
    let leads = blocks
        .iter()
        .enumerate()
        .map(|(block, counts)| LeadBlock {
            first_step: (block * horizon).div_ceil(n_blocks) + 1,
            last_step: ((block + 1) * horizon).div_ceil(n_blocks),
            coverage: coverage(counts),
            pit: shares(&bins[block]),
        })
        .collect();
    let all: [f64; N_BINS] = std::array::from_fn(|bin| bins.iter().map(|of_block| of_block[bin]).sum());
    Ok(Reliability { leads, totals: coverage(&totals), pit: shares(&all) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;
    use crate::{Grid, Trajectories};

    const HORIZON: usize = 7;

    /// Random walks; the forecaster draws them with a spread of its own and, if asked to, independently at each step.
    fn outcomes(spread: f64, is_joint: bool) -> Vec<Outcome> {
        let mut stream = Stream::new(1, 0);
        let walk = |steps: &mut dyn FnMut(usize) -> f64| {
            let mut level = 0.0;
            (0..HORIZON)
                .map(|step| {
                    level += steps(step);
                    level
                })
                .collect::<Vec<f64>>()
        };
        (0..400)
            .map(|window| {
                let truth = walk(&mut |_| stream.normal());
                let noise = Noise::new(window);
                let values = (0..200_u32).flat_map(|sample| {
                    let path = walk(&mut |step| spread * f64::from(noise.normal(sample, step as u32, 0)));
                    let alone = |step: usize| {
                        spread * ((step + 1) as f64).sqrt() * f64::from(noise.normal(sample, step as u32, 1))
                    };
                    (0..HORIZON).map(|step| if is_joint { path[step] } else { alone(step) } as f32).collect::<Vec<_>>()
                });
                let trajectories = Trajectories::new(200, 1, HORIZON, 1, values.collect()).expect("whole paths");
                Outcome { trajectories, truth: Grid::new(1, truth).expect("whole rows") }
            })
            .collect()
    }

    #[test]
    fn a_right_law_is_reliable_at_every_lead_and_for_totals() {
        let found = reliability(&outcomes(1.0, true)).expect("matching shapes");
        let steps: Vec<(usize, usize)> = found.leads.iter().map(|block| (block.first_step, block.last_step)).collect();
        assert_eq!(steps, [(1, 3), (4, 5), (6, 7)]);
        let all = found.leads.iter().map(|block| block.coverage).chain([found.totals]);
        for Coverage { coverage_50, coverage_90, .. } in all {
            let (half, most) = (coverage_50.expect("observed"), coverage_90.expect("observed"));
            assert!((half - 0.5).abs() < 0.08 && (most - 0.9).abs() < 0.05, "{half} {most}");
        }
        assert!(found.pit.iter().all(|share| (share - 0.1).abs() < 0.04), "{:?}", found.pit);
        let of_leads = |bin: usize| -> f64 {
            // Blocks have three, two and two of seven steps.
            found.leads.iter().zip([3.0, 2.0, 2.0]).map(|(block, n)| block.pit[bin] * n / 7.0).sum()
        };
        assert!((0..N_BINS).all(|bin| (found.pit[bin] - of_leads(bin)).abs() < 1e-9));
    }

    #[test]
    fn ranges_hold_the_true_coverage_as_often_as_they_say() {
        let outcomes = outcomes(1.0, true);
        let (mut held, mut n) = (0, 0);
        for part in outcomes.chunks_exact(20) {
            let found = reliability(part).expect("matching shapes");
            for (range, truth) in [(found.totals.coverage_50_range, 0.5), (found.totals.coverage_80_range, 0.8)] {
                let [low, high] = range.expect("twenty windows");
                held += i32::from((low..=high).contains(&truth));
                n += 1;
            }
        }
        // Twenty windows make a bootstrap a little too sure.
        assert!(n == 40 && held >= 32, "{held} of {n}");
        assert_eq!(reliability(&outcomes[..7]).expect("matching shapes").totals.coverage_50_range, None);
    }

    #[test]
    fn what_goes_wrong_for_a_while_makes_the_range_wider() {
        let counts = |is_inside: bool| Counts { inside: [f64::from(u8::from(is_inside)); 3], n: 1.0 };
        let width = |period: usize| {
            let windows: Vec<Counts> = (0..64).map(|window| counts((window / period).is_multiple_of(2))).collect();
            let [low, high] = ranges(&windows).expect("windows")[0];
            high - low
        };
        assert!(width(16) > 1.4 * width(1), "{} {}", width(16), width(1));
    }

    #[test]
    fn margins_alone_are_not_enough_for_totals() {
        let found = reliability(&outcomes(1.0, false)).expect("matching shapes");
        let (single, total) = (found.leads[2].coverage.coverage_80, found.totals.coverage_80);
        assert!(
            (single.expect("observed") - 0.8).abs() < 0.06 && total.expect("observed") < 0.7,
            "{single:?} {total:?}"
        );
    }

    #[test]
    fn too_narrow_a_law_shows_in_the_outer_tenths() {
        let found = reliability(&outcomes(0.5, true)).expect("matching shapes");
        assert!(found.pit[0] > 0.2 && found.pit[9] > 0.2, "{:?}", found.pit);
    }

    #[test]
    fn what_was_not_observed_does_not_count() {
        let mut gapped = outcomes(1.0, true);
        for outcome in &mut gapped {
            outcome.truth = Grid::new(1, vec![f64::NAN; HORIZON]).expect("whole rows");
        }
        let found = reliability(&gapped).expect("matching shapes");
        assert_eq!((found.totals.coverage_50, found.totals.coverage_90_range), (None, None));
    }
}
