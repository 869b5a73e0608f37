//! Input drift: are the values that come in still like those that the champion has learned from?
//!
//! They are cut into blocks of a season. Of each block three shares are taken: of the series whose mean, and of those whose
//! standard deviation, lies outside of what is usual in the training data ([`Profile`]), and of the values that are missing.
//! Each is compared, by the bets of [`super::detector`], with the highest mean that counts as no drift.
//!
//! As for scores, the test is computed anew from what is stored, from the last alarm of the model on. Values that a trend or a
//! slower season carries out of the range of the training data are drift, too: the model has not seen the like.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::DriftPolicy;
use super::detector::Detector;
use super::profile::{Block, Profile};
use crate::Error;
use crate::db::drift_event::{DriftEvent, NewDriftEvent};
use crate::db::model::Model;
use crate::db::observation::Observation;
use crate::db::panel::Panel;
use crate::db::words::DriftKind;
use crate::db::{self, DEFAULT_TENANT};
use crate::forecaster::Grid;

/// The kinds, in the order of the shares of a block.
pub(super) const KINDS: [DriftKind; 3] = [DriftKind::InputLevel, DriftKind::InputVariance, DriftKind::InputMissing];

/// Highest mean share of series outside of their usual range: one in twenty is by its definition, and training data of few
/// blocks tell the range badly.
const OUTSIDE_MAX: f64 = 0.2;

/// What may be missing beyond what was missing in training.
const MISSING_ALLOWANCE: f64 = 0.15;

/// Blocks that are looked at, the newest ones.
const N_BLOCKS_MAX: usize = 30;

/// Values that are read for them; of large panels with short steps there are fewer blocks, or none.
const N_VALUES_MAX: usize = 2_000_000;

/// Last blocks whose mean an alarm tells.
const N_RECENT: usize = 3;

/// Most series that an alarm names.
const N_NAMES_MAX: usize = 5;

/// Tests the inputs of the champion since its training, and stores and gives back the alarms that were not raised before.
///
/// A block counts one block after its end, when late values have come in. A model without a profile raises no alarm.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn watch(
    connection: &mut PgConnection,
    panel: &Panel,
    champion: &Model,
    policy: &DriftPolicy,
    now: DateTime<Utc>,
) -> Result<Vec<DriftEvent>, Error> {
    let Some(profile) = Profile::stored(champion) else { return Ok(vec![]) };
    let series = db::panel_version::series(&mut *connection, DEFAULT_TENANT, champion.panel_version_id).await?;
    if series.len() != profile.series.len() {
        return Ok(vec![]);
    }
    let grid = Grid::of(panel)?;
    let newest =
        db::drift_event::newest_issue_time(&mut *connection, DEFAULT_TENANT, champion.model_id, &KINDS).await?;
    let n_blocks_max = (N_VALUES_MAX / (profile.block_length * series.len()).max(1)).min(N_BLOCKS_MAX);
    let start = newest.unwrap_or(champion.data_cutoff);
    let times = times(grid, start, now - panel.publication_delay, profile.block_length, n_blocks_max);
    let Some((&first, &end)) = times.first().zip(times.last()) else { return Ok(vec![]) };
    let known =
        db::observation::as_of(&mut *connection, DEFAULT_TENANT, champion.panel_version_id, now, first..end).await?;

    let bounds = profile.bounds();
    let mut test = Test::new();
    let mut events = vec![];
    for (end, blocks) in blocks(&times, &known, series.len(), profile.block_length) {
        let outside = profile.outside(&blocks);
        let missing = blocks.iter().map(|block| block.missing).sum::<f64>() / blocks.len() as f64;
        let share = |outside: &[usize]| outside.len() as f64 / blocks.len() as f64;
        test.push([share(&outside[0]), share(&outside[1]), missing], &bounds);
        if test.detector.statistic() >= policy.run_length {
            let named = |places: &Vec<usize>| -> Vec<&str> {
                places.iter().take(N_NAMES_MAX).map(|&place| series[place].name.as_str()).collect()
            };
            let named = outside.each_ref().map(named);
            let new = test.event(champion, policy, &bounds, &named, end, now);
            events.extend(db::drift_event::insert(&mut *connection, DEFAULT_TENANT, panel.panel_id, &new).await?);
            test = Test::new();
        }
    }
    Ok(events)
}

/// Starts of the steps of whole blocks after `start` that ended a block before `now`, the newest ones, and the end of the last.
/// Empty where there is no block.
fn times(
    grid: Grid,
    start: DateTime<Utc>,
    now: DateTime<Utc>,
    block_length: usize,
    n_blocks_max: usize,
) -> Vec<DateTime<Utc>> {
    let length = block_length as i64;
    let ceil = |time| grid.frequency.ceil(time, grid.time_zone);
    // Blocks are counted from the first one, which keeps them where they are as time goes on, and only the newest are kept.
    let mut boundaries = VecDeque::from([ceil(start)]);
    let last = grid.advance(now, -length);
    loop {
        let next = grid.advance(boundaries[boundaries.len() - 1], length);
        if next > last {
            break;
        }
        boundaries.push_back(next);
        if boundaries.len() > n_blocks_max + 1 {
            boundaries.pop_front();
        }
    }
    let n_steps = (boundaries.len() - 1) as i64 * length;
    if n_steps == 0 { vec![] } else { (0..=n_steps).map(|step| grid.advance(boundaries[0], step)).collect() }
}

/// The end of each block, and the block of each series.
fn blocks(
    times: &[DateTime<Utc>],
    known: &[Observation],
    n_series: usize,
    block_length: usize,
) -> Vec<(DateTime<Utc>, Vec<Block>)> {
    let n_steps = times.len() - 1;
    let mut values = vec![f64::NAN; n_steps * n_series];
    for observation in known {
        // Positions count from 1.
        let series = observation.position.unsigned_abs() as usize - 1;
        if let Ok(step) = times.binary_search(&observation.valid_time)
            && step < n_steps
        {
            values[series * n_steps + step] = observation.value;
        }
    }
    (0..n_steps / block_length)
        .map(|block| {
            let steps = block * block_length..(block + 1) * block_length;
            let of_series = |series: usize| Block::of(&values[series * n_steps..][steps.clone()]);
            (times[steps.end], (0..n_series).map(of_series).collect())
        })
        .collect()
}

impl Profile {
    /// The profile that was stored with a model.
    #[must_use]
    pub fn stored(model: &Model) -> Option<Self> {
        serde_json::from_value(model.metrics.get("inputs")?.clone()).ok()
    }

    /// Highest mean shares that count as no drift.
    fn bounds(&self) -> [f64; 3] {
        let missing = self.series.iter().map(|one| one.missing).sum::<f64>() / self.series.len().max(1) as f64;
        [OUTSIDE_MAX, OUTSIDE_MAX, (missing + MISSING_ALLOWANCE).min(0.95)]
    }

    /// The series whose level, whose variance and whose share of gaps is out of the usual, by their place.
    fn outside(&self, blocks: &[Block]) -> [Vec<usize>; 3] {
        let is_outside = |value: Option<f64>, range: Option<[f64; 2]>| {
            value.zip(range).is_some_and(|(value, [low, high])| value < low || value > high)
        };
        let places = |is: &dyn Fn(usize) -> bool| (0..blocks.len()).filter(|&place| is(place)).collect();
        [
            places(&|place| is_outside(blocks[place].mean, self.series[place].level)),
            places(&|place| is_outside(blocks[place].deviation, self.series[place].deviation)),
            places(&|place| blocks[place].missing > self.series[place].missing + MISSING_ALLOWANCE),
        ]
    }
}

/// The test of one model, as far as it has come since the last alarm.
struct Test {
    detector: Detector,
    recent: VecDeque<[f64; 3]>,
    n_blocks: usize,
}

impl Test {
    fn new() -> Self {
        Self { detector: Detector::new(KINDS), recent: VecDeque::new(), n_blocks: 0 }
    }

    fn push(&mut self, shares: [f64; 3], bounds: &[f64; 3]) {
        let mut gains = [0.0; 3];
        for (place, gain) in gains.iter_mut().enumerate() {
            *gain = shares[place] / bounds[place] - 1.0;
        }
        self.detector.push(gains);
        self.n_blocks += 1;
        if self.recent.len() == N_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(shares);
    }

    /// The row of an alarm at the block that was taken last.
    fn event(
        &self,
        champion: &Model,
        policy: &DriftPolicy,
        bounds: &[f64; 3],
        names: &[Vec<&str>; 3],
        end: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> NewDriftEvent {
        let Self { detector, recent, n_blocks } = self;
        let kind = detector.kind();
        let place = KINDS.iter().position(|one| *one == kind).unwrap_or(0);
        let observed = recent.iter().map(|shares| shares[place]).sum::<f64>() / recent.len() as f64;
        let expected = bounds[place];
        let what =
            ["of the series at a level out of the usual", "of the series vary out of the usual", "missing"][place];
        let (share, bound, n_recent) = (100.0 * observed, 100.0 * expected, recent.len());
        let mut message = format!(
            "inputs of version {} are not like those that it has learned from: {share:.0} % {what}, above {bound:.0} %, over \
             the last {n_recent} of {n_blocks} seasons",
            champion.version
        );
        if !names[place].is_empty() {
            message += &format!("; the last time: {}", names[place].join(", "));
        }
        NewDriftEvent {
            model_id: champion.model_id,
            kind,
            issue_time: end,
            raised_at: now,
            statistic: detector.statistic(),
            threshold: policy.run_length,
            expected,
            observed,
            n_forecasts: i32::try_from(*n_blocks).unwrap_or(i32::MAX),
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use forecast::noise::Stream;
    use ingest::{Frequency, Observation as Value, PanelConfig};

    use super::*;

    const DAY: usize = 24;

    fn hour(hour: usize) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour as i64)
    }

    /// Three series with a daily cycle, disturbed.
    fn values(n_hours: usize, mut change: impl FnMut(usize, f64) -> f64) -> Vec<[f64; 3]> {
        let mut stream = Stream::new(3, 0);
        (0..n_hours)
            .map(|hour| [0.0; 3].map(|_| change(hour, 10.0 + (hour % DAY) as f64 / 4.0 + stream.normal())))
            .collect()
    }

    /// The kind of the first alarm, with the number of days after `n_trained` at which it was raised.
    fn alarm(n_trained: usize, values: &[[f64; 3]]) -> Option<(DriftKind, usize)> {
        let config = PanelConfig::new("p", Frequency::HOUR, chrono_tz::Tz::UTC);
        let seen = (0..n_trained * DAY).flat_map(|step| {
            (0..3).map(move |series| (step, series)).map(|(step, series)| Value {
                series,
                valid_time: hour(step),
                available_at: None,
                value: values[step][series],
                sd: None,
            })
        });
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let seen = ingest::Panel::from_observations(config, names, seen).expect("on the grid");
        let profile = Profile::of(&seen, 6);
        let bounds = profile.bounds();
        let mut test = Test::new();
        for (day, rows) in values[n_trained * DAY..].chunks_exact(DAY).enumerate() {
            let of_series = |series| Block::of(&rows.iter().map(|row| row[series]).collect::<Vec<_>>());
            let blocks: Vec<Block> = (0..3).map(of_series).collect();
            let [level, variance, _] = profile.outside(&blocks).map(|places| places.len() as f64 / 3.0);
            let missing = blocks.iter().map(|block| block.missing).sum::<f64>() / 3.0;
            test.push([level, variance, missing], &bounds);
            if test.detector.statistic() >= 200.0 {
                return Some((test.detector.kind(), day + 1));
            }
        }
        None
    }

    #[test]
    fn values_as_before_raise_no_alarm() {
        assert_eq!(alarm(30, &values(400 * DAY, |_, value| value)), None);
    }

    #[test]
    fn another_level_another_variance_and_gaps_are_told_apart() {
        let since = 30 * DAY;
        for (kind, changed) in [
            (DriftKind::InputLevel, values(60 * DAY, |hour, value| if hour < since { value } else { value + 3.0 })),
            (
                DriftKind::InputVariance,
                values(60 * DAY, |hour, value| if hour < since { value } else { 13.0 + 2.0 * (value - 13.0) }),
            ),
            (
                DriftKind::InputMissing,
                values(60 * DAY, |hour, value| if hour < since || hour % 2 == 0 { value } else { f64::NAN }),
            ),
        ] {
            let (found, n_days) = alarm(30, &changed).unwrap_or_else(|| panic!("{kind}"));
            assert!(found == kind && n_days <= 12, "{kind}: {found} after {n_days} days");
        }
    }

    #[test]
    fn blocks_stay_where_they_are_and_the_last_one_waits_for_late_values() {
        let grid = Grid::parse("1h", "UTC").expect("a grid");
        assert!(times(grid, hour(0), hour(2 * DAY - 1), DAY, N_BLOCKS_MAX).is_empty());
        let one = times(grid, hour(0), hour(2 * DAY), DAY, N_BLOCKS_MAX);
        assert_eq!((one.len(), one[0], one[DAY]), (DAY + 1, hour(0), hour(DAY)));
        let many = times(grid, hour(0), hour(100 * DAY + 5), DAY, N_BLOCKS_MAX);
        assert_eq!((many.len(), many[0]), (N_BLOCKS_MAX * DAY + 1, hour((99 - N_BLOCKS_MAX) * DAY)));
    }
}
