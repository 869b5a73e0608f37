//! `plumecast bench dashboards`: how long the queries of each panel take on many stored forecasts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, iter};

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value as Json, json};
use sqlx::{AssertSqlSafe, Column, PgConnection, PgPool, Row, SqlSafeStr};

use super::bench::Line;
use super::dev_db::TemporaryFolder;
use crate::config::DatabaseConfig;
use crate::database::Database;
use crate::db::load::{Load, Loaded, Value as LoadedValue};
use crate::db::model::NewModel;
use crate::db::panel::NewPanel;
use crate::db::partition::{self, Partitioned};
use crate::db::series::NewSeries;
use crate::db::{self, DEFAULT_TENANT};
use crate::grafana::{TimeRange, Value, Variables, with_macros, with_variables};
use crate::postgres::{Config, PrivatePostgres};

const SUITE: &str = "dashboards";

/// Series of the panel, steps of a forecast.
const N_SERIES: usize = 20;
const HORIZON: usize = 48;

/// The time of a panel is the median of so many.
const N_RUNS: usize = 5;

/// Milliseconds that a panel may take.
const ASKED: f64 = 200.0;

/// Fills a throwaway Postgres with `n_values` forecast values and runs the queries of the dashboards in `folder`, for the week
/// before the newest forecast and what is forecast.
///
/// # Errors
/// When the dashboards cannot be read, a query fails, or there is no Postgres.
pub async fn run(folder: &Path, n_values: usize, is_json: bool) -> anyhow::Result<()> {
    let dashboards = read(folder)?;
    let temporary = TemporaryFolder::make().context("cannot make a temporary folder")?;
    let data_dir = temporary.path.join("data");
    let postgres = PrivatePostgres::start_or_attach(&Config { is_throwaway: true, ..Config::new(&data_dir) }).await?;
    // A busy machine takes its time to store what is measured.
    let config = DatabaseConfig { statement_timeout: Duration::from_secs(3_600), ..DatabaseConfig::default() };
    let database = Database::open(Some(&postgres.url()), &data_dir, None, &config.limits()).await?;
    database.migrate().await?;
    let measured = measure(database.pool(), &dashboards, n_values).await;
    database.close().await;
    postgres.shutdown();
    for (name, milliseconds) in measured? {
        let line = Line {
            suite: SUITE,
            name: &name,
            value: milliseconds,
            unit: "ms",
            reference: "asked",
            reference_value: ASKED,
            ratio: ASKED / milliseconds,
            goal: Some(1.0),
        };
        super::say(&if is_json { serde_json::to_string(&line)? } else { format!("{milliseconds:8.1} ms  {name}") })?;
    }
    Ok(())
}

/// The dashboards of a folder, with the names of their files.
fn read(folder: &Path) -> anyhow::Result<Vec<(String, Json)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    anyhow::ensure!(!paths.is_empty(), "{} has no dashboards", folder.display());
    let dashboard = |path: PathBuf| {
        let text = fs::read_to_string(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, serde_json::from_str(&text).with_context(|| format!("{} is no dashboard", path.display()))?))
    };
    paths.into_iter().map(dashboard).collect()
}

/// Names of panels with the milliseconds that their queries take, the slowest first.
async fn measure(pool: &PgPool, dashboards: &[(String, Json)], n_values: usize) -> anyhow::Result<Vec<(String, f64)>> {
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql("set statement_timeout = 0; set jit = off").execute(&mut *connection).await?;
    let end = fill(pool, &mut connection, n_values).await?;
    let range = TimeRange { from: end - TimeDelta::days(7), to: end + TimeDelta::hours(HORIZON as i64) };
    let mut times = vec![];
    for (file, dashboard) in dashboards {
        let variables = choose(&mut connection, dashboard, range).await?;
        for panel in list(&dashboard["panels"]) {
            let queries: Vec<String> = list(&panel["targets"])
                .iter()
                .filter_map(|target| target["rawSql"].as_str())
                .map(|sql| expand(sql, &variables, range))
                .collect::<anyhow::Result<_>>()?;
            if queries.is_empty() {
                continue;
            }
            let title = with_variables(panel["title"].as_str().unwrap_or_default(), &variables);
            let mut runs = vec![];
            for _ in 0..N_RUNS {
                let began = Instant::now();
                for sql in &queries {
                    rows(&mut connection, sql).await.with_context(|| format!("{file}, {title}: {sql}"))?;
                }
                runs.push(began.elapsed().as_secs_f64() * 1e3);
            }
            runs.sort_unstable_by(f64::total_cmp);
            times.push((format!("{file}: {title}"), runs[N_RUNS / 2]));
        }
    }
    times.sort_unstable_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(times)
}

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn expand(sql: &str, variables: &Variables, range: TimeRange) -> anyhow::Result<String> {
    with_macros(&with_variables(sql, variables), range, "5m").map_err(anyhow::Error::msg)
}

async fn rows(connection: &mut PgConnection, sql: &str) -> sqlx::Result<Vec<sqlx::postgres::PgRow>> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()).into_sql_str()).fetch_all(connection).await
}

/// What Grafana chooses when a dashboard is opened: the first of what a variable offers, or all of it.
async fn choose(connection: &mut PgConnection, dashboard: &Json, range: TimeRange) -> anyhow::Result<Variables> {
    let mut variables: Variables = vec![];
    for variable in list(&dashboard["templating"]["list"]) {
        let name = variable["name"].as_str().context("a variable without a name")?.to_owned();
        let value = if variable["type"] == "custom" {
            let current = &variable["current"]["value"];
            let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            match list(current) {
                [] => Value::one(&text(current)),
                chosen => Value::Many(chosen.iter().map(|value| (text(value), text(value))).collect()),
            }
        } else {
            let sql = expand(variable["query"].as_str().unwrap_or_default(), &variables, range)?;
            let offered = rows(connection, &sql).await.with_context(|| format!("variable {name}: {sql}"))?;
            Value::chosen(variable, offered.iter().map(option).collect::<sqlx::Result<_>>()?)
        };
        variables.push((name, value));
    }
    Ok(variables)
}

/// What is shown of a row, and what is put in.
fn option(row: &sqlx::postgres::PgRow) -> sqlx::Result<(String, String)> {
    let cell = |index: usize| row.try_get_unchecked::<Option<String>, _>(index).map(Option::unwrap_or_default);
    let value = row.columns().iter().position(|column| column.name() == "__value").unwrap_or(0);
    Ok((cell(0)?, cell(value)?))
}

/// Stores a panel with so many forecast values; tells the hour after its last forecast.
async fn fill(pool: &PgPool, connection: &mut PgConnection, n_values: usize) -> anyhow::Result<DateTime<Utc>> {
    let n_hours = i64::try_from(n_values.div_ceil(N_SERIES * HORIZON))?;
    let start = DateTime::UNIX_EPOCH + TimeDelta::days(365 * 50);
    let at = |hour: i64| start + TimeDelta::hours(hour);
    let end = at(n_hours);
    let loaded = load(pool, n_hours, at).await?;
    let model = NewModel {
        panel_version_id: loaded.panel_version.panel_version_id,
        config: &json!({"horizon": HORIZON}),
        metrics: &json!({}),
        digest: &"a".repeat(64),
        snapshot_digest: &"0".repeat(64),
        artefact_path: "none",
        artefact_bytes: None,
        data_cutoff: end,
    };
    let model = db::model::insert(pool, DEFAULT_TENANT, &model).await?;
    db::model::promote(pool, DEFAULT_TENANT, model.model_id, SUITE).await?;
    let times: Vec<DateTime<Utc>> =
        (0..n_hours).step_by(24).map(at).chain(iter::once(at(n_hours + HORIZON as i64))).collect();
    for table in [Partitioned::ForecastValue, Partitioned::Trajectory, Partitioned::Score] {
        partition::ensure(pool, table, times.iter().copied()).await?;
    }
    for (name, value) in [
        ("panel_version", model.panel_version_id.to_string()),
        ("model", model.model_id.to_string()),
        ("panel", loaded.panel.panel_id.to_string()),
        ("start", start.to_rfc3339()),
        ("end", end.to_rfc3339()),
    ] {
        sqlx::query("select set_config('bench.' || $1, $2, false)")
            .bind(name)
            .bind(value)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::raw_sql(include_str!("bench_dashboards.sql")).execute(&mut *connection).await?;
    Ok(end)
}

/// Stores hourly values of the panel's series.
async fn load(pool: &PgPool, n_hours: i64, at: impl Fn(i64) -> DateTime<Utc>) -> anyhow::Result<Loaded> {
    let named = |index: usize| NewSeries { name: format!("series {index:02}"), ..NewSeries::default() };
    let series: Vec<NewSeries> = (0..N_SERIES).map(named).collect();
    let mut values = Vec::new();
    for hour in 0..n_hours {
        values.extend((0..N_SERIES).map(|series| LoadedValue {
            series,
            valid_time: at(hour),
            interval_end: at(hour + 1),
            available_at: None,
            value: 10.0 + (hour as f64 * 0.26).sin() + series as f64,
            sd: None,
        }));
    }
    let panel = NewPanel { name: SUITE, frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    let load = Load { panel, series: &series, values: &values, load_time: at(n_hours) };
    Ok(db::load::load(pool, DEFAULT_TENANT, &load).await?)
}
