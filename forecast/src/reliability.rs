//! Whether intervals cover what they should: by lead, for totals over the horizon, and by rank.
//!
//! Marginal quantiles cannot say how sure a total is; trajectories can, and here it is measured.

use serde::{Deserialize, Serialize};

use crate::metrics::Outcome;
use crate::trajectories::quantile_of_sorted;
use crate::{Error, QuantileLevel};

/// Blocks of lead time.
const N_BLOCKS: usize = 3;
/// Bins of the rank histogram.
const N_BINS: usize = 10;
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
}

/// Coverage of a block of lead times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeadBlock {
    /// First step, from 1.
    pub first_step: usize,
    /// Last step.
    pub last_step: usize,
    /// Coverage of single values.
    #[serde(flatten)]
    pub coverage: Coverage,
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

/// Counts of truths inside each interval.
#[derive(Default)]
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

    fn coverage(&self) -> Coverage {
        let [coverage_50, coverage_80, coverage_90] = self.inside.map(|count| (self.n > 0.0).then(|| count / self.n));
        Coverage { coverage_50, coverage_80, coverage_90 }
    }
}

/// The share of the draws below the truth; where draws equal it, half of them count.
pub(crate) fn rank(sorted: &[f32], truth: f64) -> f64 {
    let below = sorted.partition_point(|&draw| f64::from(draw) < truth);
    let through = sorted.partition_point(|&draw| f64::from(draw) <= truth);
    (below + through) as f64 / (2 * sorted.len()) as f64
}

/// Measures the reliability of forecasts without nowcasts; what was not observed does not count.
///
/// # Errors
/// Never for trajectories and truths of the same shape.
pub fn reliability(outcomes: &[Outcome]) -> Result<Reliability, Error> {
    let horizon = outcomes.iter().map(|outcome| outcome.trajectories.n_steps()).max().unwrap_or(0);
    let n_blocks = N_BLOCKS.min(horizon);
    let mut blocks: Vec<Counts> = (0..n_blocks).map(|_| Counts::default()).collect();
    let (mut totals, mut bins, mut n) = (Counts::default(), [0.0; N_BINS], 0.0);
    for Outcome { trajectories, truth } in outcomes {
        for series in 0..trajectories.n_series() {
            for step in 0..trajectories.n_steps() {
                let observed = truth.get(step, series);
                if observed.is_nan() {
                    continue;
                }
                let sorted = trajectories.sorted(step, series);
                blocks[step * n_blocks / horizon].add(&sorted, observed)?;
                bins[((rank(&sorted, observed) * N_BINS as f64) as usize).min(N_BINS - 1)] += 1.0;
                n += 1.0;
            }
            let total: f64 = (0..trajectories.n_steps()).map(|step| truth.get(step, series)).sum();
            if !total.is_nan() {
                let of_sample = |sample: usize| {
                    let steps = 0..trajectories.n_steps();
                    steps.map(|step| f64::from(trajectories.value(sample, step, series))).sum::<f64>() as f32
                };
                let mut draws: Vec<f32> = (0..trajectories.n_samples()).map(of_sample).collect();
                draws.sort_unstable_by(f32::total_cmp);
                totals.add(&draws, total)?;
            }
        }
    }
    let leads = blocks
        .iter()
        .enumerate()
        .map(|(block, counts)| LeadBlock {
            first_step: (block * horizon).div_ceil(n_blocks) + 1,
            last_step: ((block + 1) * horizon).div_ceil(n_blocks),
            coverage: counts.coverage(),
        })
        .collect();
    let pit = bins.map(|count| count / f64::max(n, 1.0)).to_vec();
    Ok(Reliability { leads, totals: totals.coverage(), pit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Noise, Stream};
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
        assert_eq!(found.totals, Coverage { coverage_50: None, coverage_80: None, coverage_90: None });
    }
}
