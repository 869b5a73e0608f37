//! A service that is left alone, at high speed: a clock that is set, a real Postgres, real models of tiny size.
//!
//! Hourly values come in with gaps, late ones and corrections. Schedules forecast, score, retrain and remove what is old; in
//! the middle, the law of the values changes. What became of it is read from the database.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::config::{Config, Limits, WorkerConfig};
use api::db::job::queue;
use api::db::load::{Load, Value, load};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::JobState;
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::jobs::scheduler::{self, Declaration};
use api::jobs::{Context, Settings, Work, attempt};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use forecast::noise::Stream;
use serde_json::json;
use sqlx::{ConnectOptions, PgPool};

/// The panel.
const PANEL: &str = "plant";
/// Its series.
const SERIES: [&str; 3] = ["heat", "power", "steam"];
/// Steps of a forecast.
const HORIZON: usize = 6;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Days of values that are there at the beginning.
    pub n_days_before: usize,
    /// Days that pass.
    pub n_days: usize,
    /// The day, from the beginning on, at which the law changes.
    pub shift_day: usize,
    /// Hours from one forecast to the next, a divisor of 24.
    pub forecast_hours: usize,
    /// Optimiser steps of a training.
    pub train_steps: usize,
    /// Days that a retraining learns from; the first model learns from all that there are.
    pub history_days: usize,
}

/// What one day of a simulation gave, or some days: from the table `score`.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Summary {
    /// Values that were forecast and came.
    pub n_values: i64,
    /// Mean CRPS, in the unit of the series.
    pub crps: f64,
    /// Share of the truth inside the central 80 % intervals.
    pub coverage_80: f64,
    /// 1 - error of the medians over that of the values one season before.
    pub skill: f64,
    /// Lowest version that forecast.
    pub first_version: i32,
    /// Highest.
    pub last_version: i32,
}

/// What became of a simulation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When the law changed.
    pub shift: DateTime<Utc>,
    /// When drift was noticed, and what was said.
    pub alarms: Vec<(DateTime<Utc>, String)>,
    /// When each model was compared, its version, the decision and the reason.
    pub comparisons: Vec<(DateTime<Utc>, i32, String, String)>,
    /// When the first model was promoted that had seen the new law.
    pub repaired_at: Option<DateTime<Utc>>,
    /// Each day.
    pub days: Vec<(DateTime<Utc>, Summary)>,
    /// Before the change, from there to the repair, and from then on.
    pub phases: [Option<Summary>; 3],
    /// Kinds of jobs with their states, and how many there were.
    pub jobs: Vec<(String, String, i64)>,
}

/// Hour by hour, from the beginning.
fn hour(hour: usize) -> DateTime<Utc> {
    let start = Utc.with_ymd_and_hms(2025, 6, 2, 0, 0, 0).unwrap();
    start + TimeDelta::hours(i64::try_from(hour).unwrap())
}

/// The values of all hours, `[hour][series]`: daily cycles with an autoregressive disturbance that the series share in part.
/// From `shift` on the cycle comes later in the day, and the level is another.
fn truth(n_hours: usize, shift: usize) -> Vec<[f64; 3]> {
    let mut stream = Stream::new(7, 0);
    let mut normal = move || stream.normal();
    let mut state = [0.0; 3];
    (0..n_hours)
        .map(|hour| {
            let common: f64 = normal();
            let is_new = hour >= shift;
            let (delay, level) = if is_new { (7.0, 30.0) } else { (0.0, 0.0) };
            let phase = (hour as f64 - delay) / 24.0 * std::f64::consts::TAU;
            let mut values = [0.0; 3];
            for (series, value) in values.iter_mut().enumerate() {
                state[series] = 0.7 * state[series] + 0.7 * common + 0.7 * normal();
                let cycle = 12.0 * (phase + 0.4 * series as f64).cos() + 4.0 * (2.0 * phase).sin();
                *value = 60.0 + level + cycle + 2.0 * state[series];
            }
            values
        })
        .collect()
}

/// What comes in at the end of an hour: most of its values, some of six hours ago, corrections of yesterday's.
fn arrivals(truth: &[[f64; 3]], now: usize) -> Vec<Value> {
    let draw = |hour: usize, series: usize, what: usize| (hour * 7919 + series * 104_729 + what * 1_299_709) % 100;
    let value = |hour_of: usize, series: usize, value: f64, is_late: bool| Value {
        series,
        valid_time: hour(hour_of),
        interval_end: hour(hour_of + 1),
        available_at: is_late.then(|| hour(now)),
        value,
        sd: None,
    };
    let mut values = vec![];
    for (series, _) in SERIES.iter().enumerate() {
        // One in fifty never comes, one in fifty late, one in thirty-three is measured wrongly at first.
        if let Some(last) = now.checked_sub(1) {
            let is_wrong = draw(last, series, 2) < 3;
            if draw(last, series, 1) >= 4 {
                values.push(value(last, series, truth[last][series] + if is_wrong { 4.0 } else { 0.0 }, false));
            }
        }
        if let Some(late) = now.checked_sub(6).filter(|&late| (2..4).contains(&draw(late, series, 1))) {
            values.push(value(late, series, truth[late][series], true));
        }
        if let Some(wrong) = now.checked_sub(24)
            && draw(wrong, series, 2) < 3
            && draw(wrong, series, 1) >= 4
        {
            values.push(value(wrong, series, truth[wrong][series], true));
        }
    }
    values
}

/// How models are trained and compared.
fn policy(plan: &Plan, history_days: Option<usize>) -> serde_json::Value {
    json!({"windows": 8, "num_samples": 50, "train_steps": plan.train_steps, "history_days": history_days})
}

/// The schedules of a service that is left alone.
fn schedules(plan: &Plan) -> Vec<Declaration> {
    let policy = policy(plan, Some(plan.history_days));
    let declare = |name: &str, cron: &str, kind: &str, arguments| Declaration {
        name: name.to_owned(),
        cron: cron.to_owned(),
        time_zone: "UTC".to_owned(),
        kind: kind.to_owned(),
        arguments,
        catch_up: "once".to_owned(),
        jitter_seconds: 0,
        paused: false,
    };
    let every = format!("0 */{} * * *", plan.forecast_hours);
    vec![
        declare("forecasts", &every, "forecast", json!({"panel": PANEL, "horizon": HORIZON, "num_samples": 50})),
        declare("scores", "0 */6 * * *", "score", json!({"panel": PANEL, "retrain_on_drift": policy})),
        declare("retraining", "0 2 * * *", "retrain", json!({"panel": PANEL, "horizon": HORIZON, "policy": policy})),
        declare(
            "retention",
            "0 4 * * 0",
            "retain",
            json!({"keep": {"trajectory_days": 7, "model_days": 30, "job_days": 60}}),
        ),
    ]
}

/// Runs a simulation; `tell` hears each day that begins.
pub async fn run(pool: &PgPool, data_dir: &Path, plan: &Plan, mut tell: impl FnMut(DateTime<Utc>)) -> Outcome {
    let (first, last) = (24 * plan.n_days_before, 24 * (plan.n_days_before + plan.n_days));
    let shift = 24 * (plan.n_days_before + plan.shift_day);
    let truth = truth(last, shift);
    let clock = Arc::new(Mutex::new(hour(first)));
    let (limits, context) = (Limits::default(), context(pool, data_dir, &clock));

    let before: Vec<Value> = (1..=first).flat_map(|now| arrivals(&truth, now)).collect();
    store(pool, &before, hour(first)).await;
    let policy = policy(plan, None);
    let work = Work::parse("retrain", json!({"panel": PANEL, "horizon": HORIZON, "policy": policy})).unwrap();
    let ask = api::jobs::Ask { by: "simulation", run_after: hour(first), now: hour(first), key: None };
    let mut connection = pool.acquire().await.unwrap();
    api::jobs::enqueue(&mut connection, &work, &ask, &limits).await.unwrap();
    do_due_jobs(&context).await;
    for schedule in schedules(plan) {
        scheduler::declare(&mut connection, &schedule, &limits, hour(first)).await.unwrap();
    }
    drop(connection);

    for now in first + 1..=last {
        *clock.lock().unwrap() = hour(now);
        store(pool, &arrivals(&truth, now), hour(now)).await;
        scheduler::look(pool, &limits, hour(now)).await.unwrap();
        do_due_jobs(&context).await;
        if now % 24 == 0 {
            tell(hour(now));
        }
    }
    outcome(pool, hour(shift)).await
}

async fn store(pool: &PgPool, values: &[Value], now: DateTime<Utc>) {
    let series = SERIES.map(|name| NewSeries { name: name.to_owned(), ..NewSeries::default() });
    let panel = NewPanel { name: PANEL, frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    load(pool, TENANT, &Load { panel, series: &series, values, load_time: now }).await.unwrap();
}

fn context(pool: &PgPool, data_dir: &Path, clock: &Arc<Mutex<DateTime<Utc>>>) -> Context {
    let mut config = Config::default();
    config.database.data_dir = data_dir.to_owned();
    let Config { database, pipelines, device, limits, log_format, .. } = config;
    let url = pool.connect_options().to_url_lossy().to_string();
    let settings = Settings::new(url, &database, &pipelines, device, &limits, &WorkerConfig::default(), log_format);
    let clock = Arc::clone(clock);
    Context { pool: pool.clone(), settings, clock: Arc::new(move || *clock.lock().unwrap()) }
}

/// Does the jobs that are due, each to its end.
async fn do_due_jobs(context: &Context) {
    let lease = Duration::from_secs(600);
    while let Some(taken) = queue::take(&context.pool, "simulation", Work::KINDS, context.now(), lease).await.unwrap() {
        let state = attempt::make(context, &taken.lease).await.unwrap();
        let job = db::job::get(&context.pool, TENANT, taken.lease.job_id).await.unwrap().unwrap();
        assert_eq!(state, Some(JobState::Succeeded), "{job:?}");
    }
}

/// What the database says of it.
async fn outcome(pool: &PgPool, shift: DateTime<Utc>) -> Outcome {
    let alarms = sqlx::query_as("select raised_at, message from drift_event order by 1").fetch_all(pool).await.unwrap();
    let comparisons: Vec<(DateTime<Utc>, i32, String, String)> = sqlx::query_as(
        "select compared_at, version, decision, c.reason from model_comparison c join model using (tenant_id, model_id)
         order by 1, 2",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let repaired_at: Option<DateTime<Utc>> = sqlx::query_scalar(
        "select min(compared_at) from model_comparison join model using (tenant_id, model_id)
         where decision = 'promoted' and data_cutoff > $1",
    )
    .bind(shift)
    .fetch_one(pool)
    .await
    .unwrap();
    let far = hour(24 * 10_000);
    let repaired = repaired_at.unwrap_or(far);
    let mut days = vec![];
    let times: Vec<DateTime<Utc>> =
        sqlx::query_scalar("select distinct date_trunc('day', issue_time, 'UTC') from score order by 1")
            .fetch_all(pool)
            .await
            .unwrap();
    for day in times {
        days.extend(summary(pool, day, day + TimeDelta::days(1)).await.map(|summary| (day, summary)));
    }
    let phases =
        [summary(pool, hour(0), shift).await, summary(pool, shift, repaired).await, summary(pool, repaired, far).await];
    let jobs = sqlx::query_as("select kind, state, count(*) from job group by 1, 2 order by 1, 2")
        .fetch_all(pool)
        .await
        .unwrap();
    Outcome { shift, alarms, comparisons, repaired_at, days, phases, jobs }
}

/// Scores of the forecasts that were issued in a period.
async fn summary(pool: &PgPool, start: DateTime<Utc>, end: DateTime<Utc>) -> Option<Summary> {
    sqlx::query_as(
        "select count(*) as n_values, avg(crps) as crps, avg(inside_80::integer)::float8 as coverage_80,
             1 - sum(absolute_error) filter (where naive_absolute_error is not null) / sum(naive_absolute_error) as skill,
             min(version) as first_version, max(version) as last_version
         from score
         join model using (tenant_id, model_id)
         where issue_time >= $1 and issue_time < $2
         having count(*) > 0",
    )
    .bind(start)
    .bind(end)
    .fetch_optional(pool)
    .await
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[sqlx::test(migrator = "api::MIGRATOR")]
    async fn a_change_is_noticed_and_retraining_repairs_it(pool: PgPool) {
        let data = tempfile::tempdir().unwrap();
        let plan =
            Plan { n_days_before: 16, n_days: 10, shift_day: 2, forecast_hours: 6, train_steps: 2, history_days: 4 };
        let outcome = run(&pool, data.path(), &plan, |_| {}).await;
        let Outcome { shift, alarms, comparisons, repaired_at, days, phases, jobs } = outcome;
        assert!(jobs.iter().all(|(_, state, _)| state == "succeeded"), "{jobs:?}");
        assert_eq!(jobs[0], ("forecast".to_owned(), "succeeded".to_owned(), 40));
        assert_eq!(days.len(), plan.n_days);
        assert!(!alarms.is_empty() && alarms.iter().all(|(at, _)| *at > shift), "{alarms:?}");
        let repaired_at = repaired_at.unwrap_or_else(|| panic!("{comparisons:?}"));
        assert!(repaired_at - shift < TimeDelta::days(7), "{repaired_at}");
        let [before, between, after] = phases.map(|phase| phase.expect("there are forecasts"));
        assert!(between.crps > 3.0 * before.crps, "{before:?} {between:?}");
        assert!(after.crps < 2.2 * before.crps && after.crps < 0.5 * between.crps, "{before:?} {between:?} {after:?}");
        assert!(between.coverage_80 < 0.5 && (0.6..0.95).contains(&after.coverage_80), "{between:?} {after:?}");
    }
}
