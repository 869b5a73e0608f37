//! The values of one series, and what is odd about them.

use std::{borrow::Cow, ops::Range};

use chrono_tz::Tz;

use crate::{Frequency, calendar::slots_of_day, frequency::DAY_SECONDS};

/// The values of one series, by time; there is at least one.
pub(crate) struct Values<'a> {
    /// Microseconds since 1970.
    pub(super) times: Cow<'a, [i64]>,
    pub(super) values: Cow<'a, [f64]>,
    ordinals: Vec<i64>,
}

impl<'a> Values<'a> {
    /// Takes the values of one series, sorted by time and knowledge. Of several versions of a value the last one counts.
    pub(crate) fn new(times: &'a [i64], values: &'a [f64], frequency: Frequency, tz: Tz) -> Self {
        let (mut times, mut values) = (Cow::from(times), Cow::from(values));
        if times.windows(2).any(|pair| pair[0] == pair[1]) {
            let is_last = |index: &usize| times.get(index + 1) != Some(&times[*index]);
            let last: Vec<usize> = (0..times.len()).filter(is_last).collect();
            values = last.iter().map(|index| values[*index]).collect();
            times = last.iter().map(|index| times[*index]).collect();
        }
        let ordinals = frequency.ordinals(&times, tz);
        Self { times, values, ordinals }
    }

    /// Whether there is a value in every interval from the first to the last.
    fn is_whole(&self) -> bool {
        self.last_ordinal() - self.ordinals[0] == self.ordinals.len() as i64 - 1
    }

    /// The number of the last interval.
    pub(crate) fn last_ordinal(&self) -> i64 {
        self.ordinals[self.ordinals.len() - 1]
    }

    /// Index of the value before each gap, and the steps that are missing.
    pub(super) fn gaps(&self, steps_min: u32) -> impl Iterator<Item = (usize, i64)> {
        let ordinals = if self.is_whole() { &[][..] } else { &self.ordinals };
        let missing = ordinals.windows(2).map(|pair| pair[1] - pair[0] - 1).enumerate();
        missing.filter(move |(_, n)| *n >= i64::from(steps_min.max(1)))
    }

    /// Runs of equal values, unless the whole series is one.
    pub(super) fn flat_lines(&self, steps_min: usize) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        let mut start = 0;
        for run in self.values.chunk_by(|a, b| a == b) {
            if run.len() >= steps_min.max(2) && run.len() < self.values.len() {
                runs.push(start..start + run.len());
            }
            start += run.len();
        }
        runs
    }

    /// Steps that change by more than `factor` times what 99 % of the steps change by at most; with that change. A
    /// jump back right after one is not told again.
    pub(super) fn jumps(&self, factor: f64) -> Vec<(usize, f64)> {
        /// Fewer steps say nothing about 1 % of them.
        const STEPS_MIN: usize = 100;
        let change = |index: usize| self.values[index] - self.values[index - 1];
        let sizes: Vec<f64> = match self.is_whole() {
            true => self.values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect(),
            false => self.steps().map(|index| change(index).abs()).collect(),
        };
        if sizes.len() < STEPS_MIN {
            return Vec::new();
        }
        let rank = sizes.len() * 99 / 100;
        // Mostly more than 1 % of them are not much smaller than the largest: then none is a jump, whatever that share is.
        let largest = sizes.iter().fold(0.0, |largest, size| if *size > largest { *size } else { largest });
        let n_large = sizes.iter().filter(|size| factor * **size >= largest).count();
        if factor > 0.0 && n_large >= sizes.len() - rank {
            return Vec::new();
        }
        let usual = *sizes.clone().select_nth_unstable_by(rank, f64::total_cmp).1;
        if usual == 0.0 {
            return Vec::new();
        }
        let mut jumps: Vec<(usize, f64)> = Vec::new();
        let mut before: Option<(usize, f64)> = None;
        for (index, _) in self.steps().zip(&sizes).filter(|(_, size)| **size > factor * usual) {
            let change = change(index);
            let is_back = before.is_some_and(|(last, first)| last + 1 == index && first.signum() != change.signum());
            if !is_back {
                jumps.push((index, usual));
            }
            before = (!is_back).then_some((index, change));
        }
        jumps
    }

    /// Indices of the values whose interval follows that of the value before.
    fn steps(&self) -> impl Iterator<Item = usize> {
        (1..self.values.len()).filter(|&index| self.ordinals[index] - self.ordinals[index - 1] == 1)
    }

    /// Where the scale changes: medians on both sides differ at least eightfold, and nearly all values of one side are
    /// larger than nearly all of the other. With the ratio.
    pub(super) fn unit_changes(&self, season: usize) -> Vec<(usize, f64)> {
        const WINDOW_MIN: usize = 12;
        const WINDOW_MAX: usize = 200;
        const RATIO_MIN: f64 = 8.0;
        let window = (2 * season).clamp(2 * WINDOW_MIN, WINDOW_MAX);
        let mut changes: Vec<(usize, f64)> = Vec::new();
        let sizes: Vec<f64> = self.values.iter().map(|value| value.abs()).collect();
        // Where all are of one size, no step can be.
        let (low, high) = sizes.iter().fold((f64::INFINITY, 0.0), |(low, high), size| {
            (if *size < low { *size } else { low }, if *size > high { *size } else { high })
        });
        if high / low < RATIO_MIN && low / high > 1.0 / RATIO_MIN {
            return changes;
        }
        for index in WINDOW_MIN..sizes.len().saturating_sub(WINDOW_MIN - 1) {
            let (before, here) = (sizes[index - 1], sizes[index]);
            let step = here / before;
            if before == 0.0 || here == 0.0 || (step < RATIO_MIN && step > 1.0 / RATIO_MIN) {
                continue;
            }
            if changes.last().is_some_and(|(last, _)| index - last < window) {
                continue;
            }
            let (left, right) = (index.saturating_sub(window)..index, index..(index + window).min(sizes.len()));
            let ratio = quantile(&sizes[right.clone()], 0.5) / quantile(&sizes[left.clone()], 0.5);
            // The cheaper question first: noise has many such steps.
            if !(ratio >= RATIO_MIN || ratio <= 1.0 / RATIO_MIN) || ratio.is_infinite() {
                continue;
            }
            let (low, high) = if ratio > 1.0 { (left, right) } else { (right, left) };
            if quantile(&sizes[high], 0.1) > quantile(&sizes[low], 0.9) {
                changes.push((index, ratio));
            }
        }
        changes
    }

    /// Blocks of two weeks whose mean day fits that of the block before much better when it is shifted by up to three
    /// hours: correlated by at least 0.9, and by 0.1 more than unshifted. Index of their first value, and minutes.
    pub(super) fn clock_shifts(&self, frequency: Frequency, tz: Tz) -> Vec<(usize, i64)> {
        const BLOCK_DAYS: i64 = 14;
        const SLOTS_MIN: usize = 8;
        const SHIFT_SECONDS_MAX: u32 = 3 * 3_600;
        const CORRELATION_MIN: f64 = 0.9;
        const GAIN_MIN: f64 = 0.1;
        let Frequency::Seconds(seconds) = frequency else { return Vec::new() };
        let n_slots = (DAY_SECONDS / seconds.get()) as usize;
        let lag_max = (SHIFT_SECONDS_MAX / seconds.get()) as usize;
        if n_slots < SLOTS_MIN || lag_max == 0 {
            return Vec::new();
        }
        let mut shifts = Vec::new();
        let mut previous: Option<(i64, Vec<f64>)> = None;
        const BLOCK_MICROS: i64 = 1_000_000 * DAY_SECONDS as i64 * BLOCK_DAYS;
        let mut start = 0;
        while let Some(first) = self.times.get(start) {
            let number = first.div_euclid(BLOCK_MICROS);
            let length = self.times[start..].partition_point(|time| time.div_euclid(BLOCK_MICROS) == number);
            let block = &self.times[start..start + length];
            let values = &self.values[start..start + block.len()];
            let day = mean_day(block, values, seconds.get(), n_slots, tz);
            if let (Some((before, known)), Some(day)) = (&previous, &day)
                && before + 1 == number
            {
                let plain = correlation(known, day, 0);
                let lags = (1..=lag_max).flat_map(|lag| [(lag, lag as i64), (n_slots - lag, -(lag as i64))]);
                let fits = lags.map(|(lag, signed)| (signed, correlation(known, day, lag)));
                let best = fits.max_by(|(_, a), (_, b)| a.total_cmp(b));
                if let Some((lag, _)) = best.filter(|(_, fit)| *fit >= CORRELATION_MIN && fit - plain >= GAIN_MIN) {
                    shifts.push((start, lag * i64::from(seconds.get()) / 60));
                }
            }
            previous = day.map(|day| (number, day));
            start += block.len();
        }
        shifts
    }
}

/// The value of which a share of the others is below.
fn quantile(sizes: &[f64], level: f64) -> f64 {
    let mut sizes = sizes.to_vec();
    let rank = (level * (sizes.len() - 1) as f64).round() as usize;
    *sizes.select_nth_unstable_by(rank, f64::total_cmp).1
}

/// Mean of the values of each time of day; `None` when one has fewer than five.
fn mean_day(times: &[i64], values: &[f64], seconds: u32, n_slots: usize, tz: Tz) -> Option<Vec<f64>> {
    const N_MIN: usize = 5;
    let mut sums = vec![(0.0, 0_usize); n_slots];
    for (slot, value) in slots_of_day(times, tz, seconds).zip(values) {
        let sum = &mut sums[slot];
        *sum = (sum.0 + value, sum.1 + 1);
    }
    sums.into_iter().map(|(sum, n)| (n >= N_MIN).then(|| sum / n as f64)).collect()
}

/// Correlation of one day with another whose pattern comes `lag` slots later. Zero when one of them is flat.
fn correlation(day: &[f64], later: &[f64], lag: usize) -> f64 {
    let n = day.len();
    let mean = |day: &[f64]| day.iter().sum::<f64>() / n as f64;
    let (mean_a, mean_b) = (mean(day), mean(later));
    let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for slot in 0..n {
        let (a, b) = (day[slot] - mean_a, later[(slot + lag) % n] - mean_b);
        product += a * b;
        square_a += a * a;
        square_b += b * b;
    }
    let scale = (square_a * square_b).sqrt();
    if scale > 0.0 { product / scale } else { 0.0 }
}
