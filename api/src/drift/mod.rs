//! Drift: are live scores of the champion still those of its backtest? Are its [`inputs`] still like those of its training?
//!
//! Scores of overlapping forecasts depend on each other, so one forecast per horizon is taken: the earliest, then the next
//! one that was made after the last interval of the one before. They have the horizon of the backtest, so that their mean
//! CRPS and coverage over all leads and series are comparable with those of its windows. The test is in
//! [`detector`]; what it assumes is that, while there is no drift, the mean of a score given the past stays within the band.
//!
//! The test is computed anew from what is stored, from the last alarm of the model on, so it may run any number of times.

pub mod detector;
mod inputs;
pub mod profile;

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use self::detector::{Detector, Expectation, SCORE_KINDS, Score};
use crate::Error;
use crate::db::drift_event::{DriftEvent, NewDriftEvent};
use crate::db::model::Model;
use crate::db::panel::Panel;
use crate::db::score::WholeForecast;
use crate::db::words::DriftKind;
use crate::db::{self, DEFAULT_TENANT};
use crate::forecaster::Grid;

/// Forecasts that are looked up at a time.
const N_FORECASTS_TOGETHER: i64 = 10_000;

/// Last forecasts whose mean an alarm tells.
const N_RECENT: usize = 5;

/// When an alarm is raised.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftPolicy {
    /// Forecasts of a horizon that lie between two false alarms, on average and at least.
    pub run_length: f64,
    /// Relative rise of the mean CRPS that does not count as drift.
    pub crps_allowance: f64,
    /// Change of the coverage of the 80 % intervals that does not count as drift.
    pub coverage_allowance: f64,
}

impl Default for DriftPolicy {
    fn default() -> Self {
        Self { run_length: 200.0, crps_allowance: 0.1, coverage_allowance: 0.05 }
    }
}

/// What the backtest of a model found.
#[derive(Clone, Debug, PartialEq)]
struct Backtest {
    horizon: i32,
    crps: Vec<f64>,
    coverage_80: Vec<f64>,
}

/// Tests the scores and the inputs of a panel's champion, and stores and gives back the alarms that were not raised before.
///
/// A champion that was promoted without a comparison has no level to test its scores against.
///
/// # Errors
/// [`Error::Database`].
pub async fn watch(
    connection: &mut PgConnection,
    panel: &Panel,
    policy: &DriftPolicy,
    now: DateTime<Utc>,
) -> Result<Vec<DriftEvent>, Error> {
    watch_by_pages(connection, panel, policy, N_FORECASTS_TOGETHER, now).await
}

/// As [`watch`], with so many forecasts looked up at a time.
///
/// # Errors
/// [`Error::Database`].
pub async fn watch_by_pages(
    connection: &mut PgConnection,
    panel: &Panel,
    policy: &DriftPolicy,
    n_together: i64,
    now: DateTime<Utc>,
) -> Result<Vec<DriftEvent>, Error> {
    let Some(champion) = db::model::champion(&mut *connection, DEFAULT_TENANT, panel.panel_id).await? else {
        return Ok(vec![]);
    };
    let mut events = inputs::watch(&mut *connection, panel, &champion, policy, now).await?;
    events.extend(watch_scores(connection, panel, &champion, policy, n_together, now).await?);
    Ok(events)
}

async fn watch_scores(
    connection: &mut PgConnection,
    panel: &Panel,
    champion: &Model,
    policy: &DriftPolicy,
    n_together: i64,
    now: DateTime<Utc>,
) -> Result<Vec<DriftEvent>, Error> {
    let mut events = vec![];
    let Some(backtest) = backtest(connection, champion).await? else { return Ok(events) };
    let Some(expectation) = expectation(&backtest, policy) else { return Ok(events) };
    let grid = Grid::of(panel)?;
    // After an alarm the test begins anew with the next forecast that does not overlap.
    let last_interval = |issue_time| grid.advance(issue_time, i64::from(backtest.horizon) - 1);
    let newest = db::drift_event::newest_issue_time(&mut *connection, DEFAULT_TENANT, champion.model_id, &SCORE_KINDS);
    let mut after = newest.await?.map(last_interval);
    let mut test = Test::new(expectation, after);
    loop {
        let page = db::score::whole_forecasts(
            &mut *connection,
            DEFAULT_TENANT,
            panel.panel_id,
            champion.model_id,
            backtest.horizon,
            after,
            n_together,
        )
        .await?;
        for forecast in &page {
            test.push(forecast);
            if test.detector.statistic() >= policy.run_length {
                let new = test.event(champion, policy, now);
                test = Test::new(expectation, Some(last_interval(new.issue_time)));
                events.extend(db::drift_event::insert(&mut *connection, DEFAULT_TENANT, panel.panel_id, &new).await?);
            }
        }
        match page.last() {
            // Others of this issue time overlap with it.
            Some(last) => after = Some(last.issue_time),
            None => return Ok(events),
        }
    }
}

async fn backtest(connection: &mut PgConnection, model: &Model) -> Result<Option<Backtest>, Error> {
    let comparison = db::comparison::get(connection, DEFAULT_TENANT, model.model_id).await?;
    Ok(comparison.map(|comparison| Backtest {
        horizon: comparison.horizon,
        crps: comparison.candidate_crps,
        coverage_80: comparison.candidate_coverage_80,
    }))
}

/// The band around the level of the backtest: the allowance, and two standard errors of that level itself. None where the
/// backtest has less than two windows or made no error.
fn expectation(backtest: &Backtest, policy: &DriftPolicy) -> Option<Expectation> {
    let level = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, 2.0 * (variance / n).sqrt())
    };
    if backtest.crps.len() < 2 {
        return None;
    }
    let (crps, crps_error) = level(&backtest.crps);
    let (coverage, coverage_error) = level(&backtest.coverage_80);
    let width = policy.coverage_allowance + coverage_error;
    (crps > 0.0).then(|| Expectation {
        crps_max: crps * (1.0 + policy.crps_allowance) + crps_error,
        // Bets need room on both sides.
        coverage_min: (coverage - width).clamp(0.0, 0.98),
        coverage_max: (coverage + width).clamp(0.02, 1.0),
    })
}

/// The test of one model, as far as it has come since the last alarm.
struct Test {
    expectation: Expectation,
    detector: Detector,
    /// Forecasts count that were made after this: the last interval of the one that was taken before.
    end: Option<DateTime<Utc>>,
    /// Issue times and scores of the last forecasts, at most [`N_RECENT`].
    recent: VecDeque<(DateTime<Utc>, Score)>,
    n_forecasts: usize,
}

impl Test {
    fn new(expectation: Expectation, end: Option<DateTime<Utc>>) -> Self {
        Self { expectation, detector: Detector::new(SCORE_KINDS), end, recent: VecDeque::new(), n_forecasts: 0 }
    }

    /// Takes in the next forecast by issue time, unless it overlaps with the one taken before.
    fn push(&mut self, forecast: &WholeForecast) {
        if self.end.is_some_and(|end| forecast.issue_time <= end) {
            return;
        }
        self.end = Some(forecast.last_valid_time);
        let Some(crps) = forecast.crps else { return };
        let score = Score { crps, coverage_80: forecast.coverage_80 };
        self.detector.push(self.expectation.gains(score));
        self.n_forecasts += 1;
        if self.recent.len() == N_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((forecast.issue_time, score));
    }

    /// The row of an alarm at the forecast that was taken last.
    fn event(&self, champion: &Model, policy: &DriftPolicy, now: DateTime<Utc>) -> NewDriftEvent {
        let Self { expectation, detector, recent, n_forecasts, .. } = self;
        let kind = detector.kind();
        let of_kind = |score: &Score| if kind == DriftKind::CrpsHigh { score.crps } else { score.coverage_80 };
        let observed = recent.iter().map(|(_, score)| of_kind(score)).sum::<f64>() / recent.len() as f64;
        let place = SCORE_KINDS.iter().position(|one| *one == kind).unwrap_or(0);
        let expected = expectation.bounds()[place];
        let what = if kind == DriftKind::CrpsHigh {
            format!("CRPS {observed:.4}, above {expected:.4}")
        } else {
            let side = if kind == DriftKind::CoverageLow { "below" } else { "above" };
            format!("{:.0} % inside 80 % intervals, {side} {:.0} %", 100.0 * observed, 100.0 * expected)
        };
        let message = format!(
            "forecasts of version {} are not what its backtest promised: {what}, over the last {} of {n_forecasts}",
            champion.version,
            recent.len(),
        );
        NewDriftEvent {
            model_id: champion.model_id,
            kind,
            issue_time: recent[recent.len() - 1].0,
            raised_at: now,
            statistic: detector.statistic(),
            threshold: policy.run_length,
            expected,
            observed,
            n_forecasts: i32::try_from(*n_forecasts).unwrap_or(i32::MAX),
            message,
        }
    }
}
