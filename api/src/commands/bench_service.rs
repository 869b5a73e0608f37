//! `plumecast bench service`: storing a forecast, reading the latest ones, changing the model and retraining under load.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use forecast::noise::Stream;
use forecast::{Budget, Progress, SampleConfig, TrainConfig};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::bench::Line;
use super::dev_db::TemporaryFolder;
use super::work;
use crate::artefacts::Artefacts;
use crate::config::{Config, DatabaseConfig};
use crate::database::Database;
use crate::db::forecast::{NewForecast, NewValues};
use crate::db::load::{Load, Loaded, Value};
use crate::db::model::{Model, NewModel};
use crate::db::panel::NewPanel;
use crate::db::partition::{self, Partitioned};
use crate::db::series::NewSeries;
use crate::db::words::Quality;
use crate::db::{self, DEFAULT_TENANT};
use crate::postgres::{Config as PostgresConfig, PrivatePostgres};
use crate::training::{self, Sources, TestWindows};
use crate::{Application, blocking, telemetry};

const SUITE: &str = "service";
/// Share of the rate of `COPY` that storing a forecast should keep.
const GOAL_STORE: f64 = 0.5;
/// Milliseconds in which the latest forecasts should be read, and how often they should not take more than twice as long.
const GOAL_LATEST_MS: f64 = 50.0;
/// The slowest requests should take at most twice as long while models change.
const GOAL_CHANGE: f64 = 0.5;

/// What one forecast is: that of the traffic of 370 roads for a day.
const N_SERIES: usize = 370;
const N_STEPS: usize = 24;
const N_SAMPLES: usize = 100;
const LEVELS: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];

/// Forecasts that are stored, each way.
const N_STORED: usize = 7;
/// Reads of the latest forecasts of a week.
const N_READS: usize = 500;
const N_HOURS_READ: i64 = 7 * 24;
/// How long requests are made, with and without changes of the model, and at least while there are retrainings.
const LOAD: Duration = Duration::from_secs(8);
/// Pause between two changes, and between two looks at a job.
const LOOK: Duration = Duration::from_millis(100);
/// How long a retraining may take beside the load.
const PATIENCE: Duration = Duration::from_secs(600);
/// Clients at a time.
const N_CLIENTS: usize = 4;

/// Measures in a throwaway Postgres.
///
/// Await it on the main thread: see [`PrivatePostgres::start_or_attach`].
///
/// # Errors
/// When there is no Postgres, or a request fails.
pub async fn run(n_values: usize, json: bool) -> anyhow::Result<()> {
    let folder = TemporaryFolder::make().context("cannot make a temporary folder")?;
    let data_dir = folder.path.join("data");
    let config = PostgresConfig { is_throwaway: true, ..PostgresConfig::new(&data_dir) };
    let postgres = PrivatePostgres::start_or_attach(&config).await?;
    let database = Database::open(Some(&postgres.url()), &data_dir, None, &DatabaseConfig::default().limits()).await?;
    database.migrate().await?;
    let measured = measure(&database, &postgres.url(), &data_dir, n_values, json).await;
    database.close().await;
    postgres.shutdown();
    measured
}

async fn measure(database: &Database, url: &str, data_dir: &Path, n_values: usize, json: bool) -> anyhow::Result<()> {
    let pool = database.pool();
    if !json {
        super::say(&format!("{:44} {:>10} {:12} {:>10} {:>7}", "", "ours", "", "reference", "ratio"))?;
    }
    let print = |name: &str, value: f64, unit, reference, reference_value: f64, ratio: f64, goal| {
        let line = Line { suite: SUITE, name, value, unit, reference, reference_value, ratio, goal };
        anyhow::Ok(super::say(&if json { serde_json::to_string(&line)? } else { table_row(&line) })?)
    };
    let (loaded, model) = wide_panel(pool).await?;
    let (ours, theirs) = store(pool, &loaded, &model).await?;
    print(
        "storing a forecast",
        1.0 / ours,
        "forecasts/s",
        "COPY of the same rows",
        1.0 / theirs,
        theirs / ours,
        Some(GOAL_STORE),
    )?;
    let begun = Instant::now();
    let n_forecasts = fill(pool, &loaded, &model, n_values).await?;
    telemetry::note(format_args!("stored {n_values} values in {:.0} s", begun.elapsed().as_secs_f64()));
    let times = latest(pool, &loaded, n_forecasts).await?;
    let name = format!("a week at lead >= 23 h of {:.1} M values", n_values as f64 / 1e6);
    for (percent, goal) in [(50, None), (99, Some(1.0))] {
        let took = quantile(&times, percent);
        let name = format!("{name}, p{percent}");
        print(&name, took, "ms", "what is asked for", GOAL_LATEST_MS, GOAL_LATEST_MS / took, goal)?;
    }
    let [still, changing, retraining] = under_load(database, url, data_dir).await?;
    for (what, beside) in [("models change", &changing), ("a model is retrained", &retraining)] {
        for percent in [50, 99] {
            let (value, reference) = (quantile(&beside.times, percent), quantile(&still.times, percent));
            let goal = (percent == 99).then_some(GOAL_CHANGE);
            let name = format!("a request while {what}, p{percent}");
            print(&name, value, "ms", "while none does", reference, reference / value, goal)?;
        }
        // One that failed would have ended the run.
        let n_requests = beside.times.len() as f64;
        print(&format!("requests while {what}"), n_requests, "requests", "none failed", n_requests, 1.0, Some(1.0))?;
        let n_changes = beside.n_changes as f64;
        print(&format!("how often {what}"), n_changes, "times", "at least once", 1.0, n_changes, Some(1.0))?;
    }
    Ok(())
}

fn table_row(line: &Line<'_>) -> String {
    let Line { name, value, unit, reference_value, ratio, .. } = line;
    format!("{name:44} {value:>10.2} {unit:12} {reference_value:>10.2} {ratio:>7.2}")
}

fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn hour(hour: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::hours(hour)
}

/// A panel with a model that forecasts nothing: its forecasts are made up here.
async fn wide_panel(pool: &PgPool) -> anyhow::Result<(Loaded, Model)> {
    let series: Vec<NewSeries> =
        (0..N_SERIES).map(|number| NewSeries { name: format!("s{number}"), ..NewSeries::default() }).collect();
    let values: Vec<Value> = (0..N_SERIES).map(|series| value(series, 0, 1.0)).collect();
    let loaded = load(pool, "wide", &series, &values).await?;
    let new = NewModel {
        panel_version_id: loaded.panel_version.panel_version_id,
        config: &json!({ "horizon": N_STEPS }),
        metrics: &json!({}),
        digest: &"0".repeat(64),
        snapshot_digest: &"0".repeat(64),
        artefact_path: "none",
        artefact_bytes: None,
        data_cutoff: hour(0),
    };
    let model = db::model::insert(pool, DEFAULT_TENANT, &new).await?;
    Ok((loaded, model))
}

fn value(series: usize, step: i64, value: f64) -> Value {
    Value { series, valid_time: hour(step), interval_end: hour(step + 1), available_at: None, value, sd: None }
}

async fn load(pool: &PgPool, name: &str, series: &[NewSeries], values: &[Value]) -> anyhow::Result<Loaded> {
    let panel = NewPanel { name, frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    let load_time = hour(10_000_000);
    Ok(db::load::load(pool, DEFAULT_TENANT, &Load { panel, series, values, load_time }).await?)
}

/// Median seconds in which we store a forecast, and in which its rows are copied into tables like ours.
async fn store(pool: &PgPool, loaded: &Loaded, model: &Model) -> anyhow::Result<(f64, f64)> {
    sqlx::raw_sql(
        "create table copied_value (like forecast_value including all);
         create table copied_trajectory (like trajectory including all);
         alter table copied_value add foreign key (tenant_id, forecast_id) references forecast on delete cascade,
             add foreign key (tenant_id, series_id) references series;
         alter table copied_trajectory add foreign key (tenant_id, forecast_id) references forecast on delete cascade,
             add foreign key (tenant_id, series_id) references series",
    )
    .execute(pool)
    .await?;
    let mut stream = Stream::new(1, 0);
    let (mut ours, mut theirs) = (vec![], vec![]);
    for number in 0..=N_STORED {
        let means: Vec<f64> = (0..N_STEPS * N_SERIES).map(|_| stream.normal()).collect();
        let quantiles: Vec<f64> = means.iter().flat_map(|mean| LEVELS.map(|level| mean + level)).collect();
        let trajectories: Vec<f32> = (0..N_SAMPLES * N_STEPS * N_SERIES).map(|_| stream.uniform() as f32).collect();
        let issue_time = hour(number as i64);
        let forecast_id = Uuid::now_v7();
        let new = NewForecast {
            forecast_id,
            panel_version_id: model.panel_version_id,
            model_id: Some(model.model_id),
            issue_time,
            data_cutoff: hour(0),
            first_step: 1,
            num_samples: N_SAMPLES,
            seed: 0,
            schedule: "autoregressive",
            passes: 1,
            quantile_levels: &LEVELS,
            params: &json!({}),
            quality: Quality::Ok,
            scenario: None,
            idempotency: None,
        };
        let valid_times: Vec<DateTime<Utc>> = (0..N_STEPS as i64).map(|step| hour(number as i64 + step)).collect();
        let values = NewValues {
            series_ids: &loaded.series_ids,
            valid_times: &valid_times,
            means: &means,
            quantiles: &quantiles,
            trajectories: &trajectories,
        };
        let start = Instant::now();
        db::forecast::insert(pool, DEFAULT_TENANT, &new, &values).await?;
        let stored = start.elapsed().as_secs_f64();

        let copied = copy(pool, forecast_id).await?;
        // The first one makes partitions and fills caches.
        if number > 0 {
            ours.push(stored);
            theirs.push(copied);
        }
    }
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_unstable_by(f64::total_cmp);
        quantile(&seconds, 50)
    };
    Ok((median(ours), median(theirs)))
}

/// Seconds in which the rows of a forecast are copied, in one transaction.
async fn copy(pool: &PgPool, forecast_id: Uuid) -> anyhow::Result<f64> {
    let tables = [
        (
            "forecast_value",
            "copied_value",
            "tenant_id, forecast_id, series_id, valid_time, issue_time, step, lead_seconds, mean, quantiles",
        ),
        ("trajectory", "copied_trajectory", "tenant_id, forecast_id, series_id, issue_time, value"),
    ];
    let mut connection = pool.acquire().await?;
    let mut bytes = vec![];
    for (table, _, columns) in tables {
        let statement = format!(
            "copy (select {columns} from {table} where forecast_id = '{forecast_id}') to stdout (format binary)"
        );
        let mut rows = connection.copy_out_raw(&statement).await?;
        let mut all = vec![];
        while let Some(piece) = futures_util::TryStreamExt::try_next(&mut rows).await? {
            all.extend_from_slice(&piece);
        }
        bytes.push(all);
    }
    let start = Instant::now();
    let mut transaction = sqlx::Acquire::begin(&mut *connection).await?;
    for ((_, table, columns), bytes) in tables.into_iter().zip(bytes) {
        let statement = format!("copy {table} ({columns}) from stdin (format binary)");
        let mut rows = transaction.copy_in_raw(&statement).await?;
        for piece in bytes.chunks(1 << 20) {
            rows.send(piece).await?;
        }
        rows.finish().await?;
    }
    transaction.commit().await?;
    Ok(start.elapsed().as_secs_f64())
}

/// Stores hourly forecasts until there are so many values, as the server makes them up; gives their number.
async fn fill(pool: &PgPool, loaded: &Loaded, model: &Model, n_values: usize) -> anyhow::Result<i64> {
    let n_forecasts = n_values.div_ceil(N_SERIES * N_STEPS) as i64;
    let hours = (0..n_forecasts + N_STEPS as i64).map(hour);
    partition::ensure(pool, Partitioned::ForecastValue, hours).await?;
    let mut connection = pool.acquire().await?;
    // References hold by how the rows are made; to check each would take most of the time.
    sqlx::query("set session_replication_role = replica").execute(&mut *connection).await?;
    sqlx::query("set statement_timeout = 0").execute(&mut *connection).await?;
    sqlx::query(
        "insert into forecast (tenant_id, forecast_id, panel_version_id, model_id, issue_time, data_cutoff, first_step,
             horizon, first_valid_time, last_valid_time, num_samples, seed, schedule, passes, quantile_levels)
         select $1, ('00000000-0000-7000-8000-' || lpad(number::text, 12, '0'))::uuid, $2, $3, issue_time, issue_time, 1, $4,
             issue_time, issue_time + ($4 - 1) * interval '1 hour', 1, 0, 'autoregressive', 1, $5
         from generate_series(0, $6 - 1) as number
         cross join lateral (select $7::timestamptz + number * interval '1 hour' as issue_time) as time",
    )
    .bind(DEFAULT_TENANT)
    .bind(model.panel_version_id)
    .bind(model.model_id)
    .bind(N_STEPS as i32)
    .bind(LEVELS)
    .bind(n_forecasts as i32)
    .bind(hour(0))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into forecast_value (tenant_id, forecast_id, series_id, valid_time, issue_time, step, lead_seconds, mean,
             quantiles)
         select f.tenant_id, f.forecast_id, series_id, f.issue_time + (step - 1) * interval '1 hour', f.issue_time, step,
             (step - 1) * 3600, random(), array[1, 2, 3, 4, 5, 6, 7]::float8[]
         from forecast f
         cross join unnest($2::integer[]) as series_id
         cross join generate_series(1, $3) as step
         where f.tenant_id = $1 and f.forecast_id < '00000000-0000-7000-9000-000000000000'
         order by f.issue_time, series_id, step",
    )
    .bind(DEFAULT_TENANT)
    .bind(&loaded.series_ids)
    .bind(N_STEPS as i32)
    .execute(&mut *connection)
    .await?;
    sqlx::query("set session_replication_role = origin").execute(&mut *connection).await?;
    sqlx::raw_sql("analyze forecast; analyze forecast_value").execute(&mut *connection).await?;
    Ok(n_forecasts)
}

/// Milliseconds of each read of the latest forecasts of a week of one series, ascending.
async fn latest(pool: &PgPool, loaded: &Loaded, n_forecasts: i64) -> anyhow::Result<Vec<f64>> {
    let mut stream = Stream::new(2, 0);
    let mut times = vec![];
    for _ in 0..N_READS {
        let series_id = loaded.series_ids[stream.below(N_SERIES)];
        let first = stream.below((n_forecasts - N_HOURS_READ).max(1).unsigned_abs() as usize) as i64;
        let valid_times: Vec<DateTime<Utc>> = (first..first + N_HOURS_READ).map(hour).collect();
        let series_ids = vec![series_id; valid_times.len()];
        let start = Instant::now();
        let lead = TimeDelta::hours(N_STEPS as i64 - 1);
        let found = db::latest::latest(pool, DEFAULT_TENANT, &series_ids, &valid_times, lead, None).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(!found.is_empty() || n_forecasts < N_HOURS_READ, "nothing was found");
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times)
}

/// Requests beside something else.
struct Beside {
    /// Milliseconds of each request, ascending.
    times: Vec<f64>,
    /// How often the other thing was done.
    n_changes: usize,
}

/// Requests for forecasts: while nothing changes, while the model does, ten times a second, and while it is retrained again and
/// again by a worker beside the service.
async fn under_load(database: &Database, url: &str, data_dir: &Path) -> anyhow::Result<[Beside; 3]> {
    let pool = database.pool();
    let series = ["a", "b"].map(|name| NewSeries { name: name.to_owned(), ..NewSeries::default() });
    let mut stream = Stream::new(3, 0);
    let values: Vec<Value> =
        (0..480).flat_map(|step| [0, 1].map(|series| value(series, step, stream.normal()))).collect();
    load(pool, "narrow", &series, &values).await?;
    let data = training::read(pool, "narrow", Utc::now()).await?;
    let history = data.values.history()?;
    let config = TrainConfig::new(12, Budget::Steps(5), 1);
    let artefacts = Artefacts::local(data_dir)?;
    let (training_config, store) = (config.clone(), artefacts.clone());
    let trained = blocking::run("training", move || {
        let test = TestWindows { n_windows: 0, sample: SampleConfig::default() };
        let mut go_on = |_: &Progress| ControlFlow::Continue(());
        training::train(&history, &training_config, &Sources::default(), &test, &store, &forecast::cpu(), &mut go_on)
    })
    .await??;
    for _ in 0..2 {
        let mut transaction = pool.begin().await?;
        let model = training::register(&mut transaction, pool, &artefacts, &data, &config, &trained).await?;
        db::model::promote(&mut *transaction, DEFAULT_TENANT, model.model_id, SUITE).await?;
        transaction.commit().await?;
    }
    let mut service = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
    service.database.data_dir = data_dir.to_owned();
    service.database.database_url = Some(url.into());
    let application = Application::build(&service, pool.clone())?;
    let (address, stop) = (application.address(), application.stop_handle());
    let worker = work::start_beside(&service, database, &application).await?;
    let served = tokio::spawn(application.run());
    let still = requests(address, rest).await?;
    let changing = requests(address, change).await?;
    let retraining = requests(address, retrain).await?;
    if let Some(worker) = worker {
        worker.stop().await;
    }
    stop.stop().await;
    served.await??;
    Ok([still, changing, retraining])
}

/// Requests of some clients for as long as `other` takes.
async fn requests(address: SocketAddr, other: fn(SocketAddr) -> anyhow::Result<usize>) -> anyhow::Result<Beside> {
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..N_CLIENTS)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            tokio::task::spawn_blocking(move || ask(address, &is_over))
        })
        .collect();
    let beside = tokio::task::spawn_blocking(move || other(address)).await;
    is_over.store(true, Ordering::Relaxed);
    let mut times = vec![];
    for client in clients {
        times.extend(client.await??);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(Beside { times, n_changes: beside?? })
}

/// Asks for forecasts until it is over. Any answer but a success is an error.
fn ask(address: SocketAddr, is_over: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let agent = ureq::Agent::new_with_defaults();
    let body = json!({"panel": "narrow", "horizon": 12, "num_samples": 20, "store": false, "fallback": false});
    let mut times = vec![];
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = agent.post(format!("http://{address}/v1/forecasts")).send_json(&body);
        let mut answer = answer.context("a forecast was refused")?;
        answer.body_mut().read_to_vec().context("an answer broke off")?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Does nothing for a while.
fn rest(_: SocketAddr) -> anyhow::Result<usize> {
    std::thread::sleep(LOAD);
    Ok(0)
}

/// Rolls back to the first model, and promotes the second again, ten times a second for a while.
fn change(address: SocketAddr) -> anyhow::Result<usize> {
    let (begun, mut n_changes) = (Instant::now(), 0);
    while begun.elapsed() < LOAD {
        for action in ["rollback?from=2", "2/promote"] {
            let answer = ureq::post(format!("http://{address}/v1/models/narrow/{action}")).send_empty();
            answer.with_context(|| format!("{action} was refused"))?;
            n_changes += 1;
        }
        std::thread::sleep(LOOK);
    }
    Ok(n_changes)
}

/// Asks for one retraining after the other for a while, and until one has come to its end; tells how many have.
fn retrain(address: SocketAddr) -> anyhow::Result<usize> {
    let policy = json!({"windows": 4, "num_samples": 10, "train_steps": 2});
    let body = json!({"kind": "retrain", "arguments": {"panel": "narrow", "horizon": 12, "policy": policy}});
    let (begun, mut n_retrained) = (Instant::now(), 0);
    while n_retrained == 0 || begun.elapsed() < LOAD {
        let asked = ureq::post(format!("http://{address}/v1/jobs")).send_json(&body).context("a job was refused")?;
        let job: serde_json::Value = asked.into_body().read_json()?;
        let place = format!("http://{address}/v1/jobs/{}", job["job_id"].as_str().context("a job without a name")?);
        loop {
            let job: serde_json::Value = ureq::get(&place).call()?.into_body().read_json()?;
            match job["state"].as_str() {
                Some("succeeded") => break,
                Some("failed") => anyhow::bail!("a retraining failed: {}", job["failure"]),
                _ => anyhow::ensure!(begun.elapsed() < PATIENCE, "no retraining came to its end in {PATIENCE:?}"),
            }
            std::thread::sleep(LOOK);
        }
        n_retrained += 1;
    }
    Ok(n_retrained)
}
