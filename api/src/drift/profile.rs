//! What the inputs of a model looked like in its training: how a block of a season usually is, for each series.
//!
//! It is stored with the model. Input drift ([`super::inputs`]) compares later blocks with it, and a forecast whose inputs are
//! less complete or flatter than all that was learned from is marked as degraded.

use ingest::Panel;
use serde::{Deserialize, Serialize};

/// Fewest blocks from which a usual range is told.
const N_BLOCKS_MIN: usize = 10;

/// Share of the blocks of training that lie within the usual range.
const CENTRAL: f64 = 0.95;

/// Fewest steps of a block: a variance needs some.
const BLOCK_LENGTH_MIN: usize = 4;

/// The inputs of a training, by series in the order of the model's panel version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Steps of a block: a season, so that every block holds all of it.
    pub block_length: usize,
    /// The series.
    pub series: Vec<SeriesProfile>,
}

/// One series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesProfile {
    /// Lowest and highest usual mean of a block; none where too few were observed.
    pub level: Option<[f64; 2]>,
    /// Lowest and highest usual standard deviation within a block.
    pub deviation: Option<[f64; 2]>,
    /// Share of the steps without a value, from the first that has one on.
    pub missing: f64,
    /// Most equal values in a row.
    pub flat_length: usize,
}

/// Some consecutive steps of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// Share of them without a value.
    pub missing: f64,
    /// Mean of the others; none where less than half are there.
    pub mean: Option<f64>,
    /// Their standard deviation.
    pub deviation: Option<f64>,
}

impl Block {
    /// The block of some values; NaN is a gap.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let there: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        let (n, n_there) = (values.len() as f64, there.len() as f64);
        let is_usable = 2 * there.len() >= values.len() && there.len() >= 2;
        let mean = there.iter().sum::<f64>() / n_there;
        let variance = there.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n_there - 1.0);
        Self {
            missing: if values.is_empty() { 1.0 } else { 1.0 - n_there / n },
            mean: is_usable.then_some(mean),
            deviation: is_usable.then(|| variance.sqrt()),
        }
    }
}

impl Profile {
    /// The profile of what was trained on.
    #[must_use]
    pub fn of(seen: &Panel, horizon: usize) -> Self {
        let season = seen.frequency().seasons().first().copied().unwrap_or(horizon);
        let block_length = season.max(BLOCK_LENGTH_MIN);
        let column = |series| -> Vec<f64> {
            let values = (0..seen.n_steps()).map(|step| seen.values().get(step, series));
            values.skip_while(|value| value.is_nan()).collect()
        };
        let series = (0..seen.series().len()).map(|series| SeriesProfile::of(&column(series), block_length)).collect();
        Self { block_length, series }
    }
}

impl SeriesProfile {
    fn of(values: &[f64], block_length: usize) -> Self {
        let blocks: Vec<Block> = values.chunks_exact(block_length).map(Block::of).collect();
        Self {
            level: usual(blocks.iter().filter_map(|block| block.mean).collect()),
            deviation: usual(blocks.iter().filter_map(|block| block.deviation).collect()),
            missing: Block::of(values).missing,
            flat_length: flat_length(values),
        }
    }
}

/// The range that holds the usual share of some numbers, its ends being interpolated between them.
fn usual(mut numbers: Vec<f64>) -> Option<[f64; 2]> {
    if numbers.len() < N_BLOCKS_MIN {
        return None;
    }
    numbers.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| {
        let place = share * (numbers.len() - 1) as f64;
        let (below, above) = (numbers[place.floor() as usize], numbers[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Some([quantile(0.5 - 0.5 * CENTRAL), quantile(0.5 + 0.5 * CENTRAL)])
}

/// Most equal values in a row; gaps neither end nor lengthen a row.
#[must_use]
pub fn flat_length(values: &[f64]) -> usize {
    let (mut longest, mut length, mut last) = (0, 0, f64::NAN);
    for &value in values.iter().filter(|value| !value.is_nan()) {
        length = if value == last { length + 1 } else { 1 };
        last = value;
        longest = longest.max(length);
    }
    longest
}

/// Equal values in a row at the end.
#[must_use]
pub fn flat_end(values: &[f64]) -> usize {
    let mut there = values.iter().rev().filter(|value| !value.is_nan()).peekable();
    let Some(&&last) = there.peek() else { return 0 };
    there.take_while(|value| **value == last).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_count_as_missing_and_not_as_values() {
        let block = Block::of(&[1.0, f64::NAN, 3.0, 5.0]);
        assert_eq!(block, Block { missing: 0.25, mean: Some(3.0), deviation: Some(2.0) });
        assert_eq!(Block::of(&[1.0, f64::NAN, f64::NAN, f64::NAN]).mean, None);
        assert_eq!(Block::of(&[]).missing, 1.0);
    }

    #[test]
    fn the_usual_range_leaves_out_what_is_rare() {
        let [low, high] = usual((0..=100).map(f64::from).collect()).expect("enough blocks");
        assert!((low - 2.5).abs() < 1e-9 && (high - 97.5).abs() < 1e-9);
        assert_eq!(usual(vec![1.0; N_BLOCKS_MIN - 1]), None);
    }

    #[test]
    fn rows_of_equal_values_go_on_across_gaps() {
        let values = [1.0, 2.0, 2.0, f64::NAN, 2.0, 3.0, 3.0];
        assert_eq!((flat_length(&values), flat_end(&values), flat_end(&[f64::NAN])), (3, 2, 0));
    }
}
