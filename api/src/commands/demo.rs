//! `plumecast demo`: two real data sets from file to served trajectories, with nothing to set up.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use forecast::{Budget, Device, Progress, SampleConfig, TrainConfig};
use ingest::demo::Dataset;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::config::DatabaseConfig;
use crate::db::{self, DEFAULT_TENANT, model::Model, series::NewSeries, words::Kind};
use crate::forecaster::Grid;
use crate::progress::Display;
use crate::training::{self, Sources, TestWindows};
use crate::{
    Application, Config,
    loading::{self, Target},
    registry, scoring, table, telemetry,
};

/// Load two bundled data sets, train, backtest, forecast, and serve all of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds of training for each data set.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub train_seconds: f64,

    /// Do it all, check it through the service's own API, and exit.
    #[arg(long)]
    pub once: bool,

    /// The service.
    #[command(flatten)]
    pub config: Config,
}

/// What is shown of a data set.
struct Show {
    dataset: &'static Dataset,
    /// Trained and tested horizon.
    horizon: usize,
    /// Windows of the test.
    n_windows: usize,
}

const SHOWS: [Show; 2] = [
    Show { dataset: &ingest::demo::AIR_QUALITY, horizon: 24, n_windows: 14 },
    Show { dataset: &ingest::demo::TOURISM, horizon: 12, n_windows: 3 },
];
const SEED: u64 = 1;
const N_SAMPLES: usize = 100;

/// Runs the demonstration. What an earlier run made is used again.
///
/// # Errors
/// When a step fails; with `--once` also when the service does not answer as it should.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    telemetry::init(args.config.log_format, telemetry::QUIET);
    let started = Instant::now();
    let device = args.config.device.open()?;
    let database = super::open(&args.config.database).await?;
    let pool = database.pool();
    let mut prepared = vec![];
    for show in &SHOWS {
        let model = prepare(pool, &args.config.database, show, args.train_seconds, &device).await?;
        let windows = test_windows(pool, show, &model).await?;
        prepared.push((model, windows));
    }

    let application = Application::build(&args.config, pool.clone())?;
    let (address, stop) = (application.address(), application.stop_handle());
    let worker = super::work::start_beside(&args.config, &database, &application).await?;
    super::serve::stop_on_signal(stop.clone(), worker.as_ref())?;
    let serving = tokio::spawn(application.run());
    let made = tokio::task::spawn_blocking(move || {
        SHOWS
            .iter()
            .zip(&prepared)
            .map(|(show, (model, windows))| {
                for &issue_time in windows {
                    make_forecast(address, show, model, Some(issue_time))?;
                }
                make_forecast(address, show, model, None)
            })
            .collect::<anyhow::Result<Vec<_>>>()
    });
    let forecasts = made.await.context("making the forecasts")??;
    for show in &SHOWS {
        let panel = registry::find_panel(pool, show.dataset.name).await?;
        scoring::score(pool, &panel, None..None, Utc::now(), |_| ControlFlow::Continue(())).await?;
    }
    println!("\nready in {:.1} s: http://{address}", started.elapsed().as_secs_f64());
    print_hints(address, &forecasts, database.private_url().as_deref());
    if args.once {
        let checked = tokio::task::spawn_blocking(move || check(address, &forecasts));
        let checked = checked.await.context("checking the service")?;
        super::serve::stop_both(stop, worker.as_ref().map(super::work::Handle::stopper)).await;
        checked?;
        println!("\nchecked: forecasts, quantiles, trajectories, totals and the page answer as they should");
    }
    let served = serving.await.context("serving")?;
    if let Some(worker) = worker {
        worker.stop().await;
    }
    database.close().await;
    Ok(served?)
}

/// Loads a data set and trains its model, unless both are there.
async fn prepare(
    pool: &PgPool,
    database: &DatabaseConfig,
    show: &Show,
    train_seconds: f64,
    device: &Device,
) -> anyhow::Result<Model> {
    let dataset = show.dataset;
    if let Some(panel) = db::panel::get(pool, DEFAULT_TENANT, dataset.name).await?
        && let Some(model) = db::model::champion(pool, DEFAULT_TENANT, panel.panel_id).await?
    {
        println!("panel `{}`: loaded and trained before, model version {}", dataset.name, model.version);
        return Ok(model);
    }
    println!("\n{} ({})", dataset.description, dataset.license);
    load(pool, &database.data_dir, dataset).await?;
    let data = training::read(pool, dataset.name, Utc::now()).await?;
    let n_rows = data.values.n_rows_before(show.n_windows, show.horizon);
    let data = data.find_holidays(n_rows).await?;
    data.found_holidays.iter().for_each(|found| println!("{found}"));
    let history = data.values.history()?;
    let config = TrainConfig::new(show.horizon, Budget::Seconds(train_seconds), SEED);
    let sample = SampleConfig { n_samples: N_SAMPLES, seed: SEED, ..SampleConfig::default() };
    let test = TestWindows { n_windows: show.n_windows, sample };
    let mut display = Display::new(dataset.name);
    let artefacts = database.artefacts()?;
    let (training_config, store, device) = (config.clone(), artefacts.clone(), device.clone());
    let trained = tokio::task::spawn_blocking(move || {
        let mut show = |progress: &Progress| display.show(progress);
        training::train(&history, &training_config, &Sources::default(), &test, &store, &device, &mut show)
    });
    let trained = trained.await.context("training")?.with_context(|| format!("training on `{}`", dataset.name))?;
    let mut transaction = pool.begin().await?;
    let model = training::register(&mut transaction, pool, &artefacts, &data, &config, &trained).await?;
    db::model::promote(&mut *transaction, DEFAULT_TENANT, model.model_id, "trained by `plumecast demo`").await?;
    transaction.commit().await?;
    let report = &trained.fitted.report;
    println!(
        "base forecaster: {}; network: {} numbers, {} steps, {:.0} s",
        report.base, report.n_parameters, report.best_step, report.seconds
    );
    println!("backtest: {} windows of {} steps that training did not see", show.n_windows, show.horizon);
    println!("{}", table::scores(&trained.scores));
    Ok(model)
}

/// When the forecasts of the test windows, of which the model has seen nothing, are made: what came is known, so that they can
/// be scored.
async fn test_windows(pool: &PgPool, show: &Show, model: &Model) -> anyhow::Result<Vec<DateTime<Utc>>> {
    let panel = registry::find_panel(pool, show.dataset.name).await?;
    let grid = Grid::of(&panel)?;
    let span = db::observation::span(pool, DEFAULT_TENANT, model.panel_version_id, Utc::now()).await?;
    let span = span.context("the panel has no observations")?;
    let horizon = i64::try_from(show.horizon)?;
    let starts = (1..=i64::try_from(show.n_windows)?).rev();
    let starts = starts.map(|window| grid.advance(span.last_valid_time, 1 - window * horizon));
    // A model that was trained since has seen what came.
    Ok(starts.filter(|&start| start >= model.data_cutoff).collect())
}

async fn load(pool: &PgPool, data_dir: &Path, dataset: &'static Dataset) -> anyhow::Result<()> {
    let folder = data_dir.join("demo");
    let loaded = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let path = dataset.write_to(&folder)?;
        Ok::<_, anyhow::Error>(ingest::load(&path, &dataset.load_config())?)
    });
    let loaded = loaded.await.context("reading the data set")??;
    super::load::print_report(&loaded);
    let kind: Kind = dataset.kind.name().parse()?;
    let declare = |name: &str| {
        let known = dataset.series.iter().find(|series| series.name == name);
        NewSeries {
            name: name.to_owned(),
            kind: Some(kind),
            unit: known.map(|series| series.unit.to_owned()),
            lower_bound: known.and_then(|series| series.bounds.lower),
            upper_bound: known.and_then(|series| series.bounds.upper),
            ..NewSeries::default()
        }
    };
    let target = Target::new(dataset.name, dataset.file_name, data_dir, Utc::now());
    let stored = loading::store(pool, &target, &loaded, declare).await?;
    println!("stored: {} observations", stored.loaded.counts.inserted);
    Ok(())
}

/// A forecast that the service made and stored.
struct Made {
    panel: &'static str,
    first_series: &'static str,
    horizon: usize,
    n_series: usize,
    forecast_id: String,
}

/// Asks the service for a forecast; asked again, it gives the stored one.
fn make_forecast(
    address: SocketAddr,
    show: &Show,
    model: &Model,
    issue_time: Option<DateTime<Utc>>,
) -> anyhow::Result<Made> {
    let panel = show.dataset.name;
    let mut order = json!({ "panel": panel, "horizon": show.horizon, "num_samples": N_SAMPLES, "seed": SEED });
    let mut key = format!("demo-{panel}-{}", model.version);
    if let Some(issue_time) = issue_time {
        order["issue_time"] = json!(issue_time);
        key = format!("{key}-{}", issue_time.timestamp());
    }
    let mut response = ureq::post(format!("http://{address}/v1/forecasts"))
        .header("Idempotency-Key", key)
        .send_json(order)
        .with_context(|| format!("asking for a forecast of `{panel}`"))?;
    let forecast: Value = response.body_mut().read_json().context("reading the forecast")?;
    let forecast_id = forecast["forecast_id"].as_str().context("the forecast has no identifier")?.to_owned();
    let series = show.dataset.series;
    Ok(Made { panel, first_series: series[0].name, horizon: show.horizon, n_series: series.len(), forecast_id })
}

fn print_hints(address: SocketAddr, forecasts: &[Made], private_url: Option<&str>) {
    let [air, tourism] = forecasts else { return };
    println!("\ntry:");
    println!("  curl -s http://{address}/v1/panels");
    println!(
        "  curl -s -H 'content-type: application/json' -d '{{\"panel\":\"{}\",\"horizon\":48,\"level\":[80]}}' http://{address}/v1/forecasts",
        air.panel
    );
    println!("  curl -s 'http://{address}/v1/forecasts/{}/aggregate?fn=sum&over=horizon,series'", tourism.forecast_id);
    let database = private_url.unwrap_or("$DATABASE_URL");
    println!(
        "  psql '{database}' -c \"select * from forecast_quantile where forecast_id = '{}' limit 20\"",
        air.forecast_id
    );
}

/// Reads back what was made, as a client would.
fn check(address: SocketAddr, forecasts: &[Made]) -> anyhow::Result<()> {
    let get = |path: String| -> anyhow::Result<Value> {
        let mut response =
            ureq::get(format!("http://{address}{path}")).call().with_context(|| format!("reading {path}"))?;
        response.body_mut().read_json().with_context(|| format!("{path} is no JSON"))
    };
    for Made { panel, first_series, horizon, n_series, forecast_id } in forecasts {
        let stored = get(format!("/v1/forecasts/{forecast_id}"))?;
        ensure!(stored["panel"] == *panel, "the stored forecast is of another panel: {stored}");
        let quantiles = get(format!("/v1/forecasts/{forecast_id}/quantiles?quantiles=0.1,0.9"))?;
        let series = quantiles["series"].as_array().context("quantiles without series")?;
        ensure!(series.len() == *n_series, "{} series instead of {n_series}", series.len());
        for series in series {
            let at = |level: &str| -> anyhow::Result<Vec<f64>> {
                let values = series["quantiles"][level].as_array().with_context(|| format!("no quantile {level}"))?;
                Ok(values.iter().filter_map(Value::as_f64).collect())
            };
            let (low, high) = (at("0.1")?, at("0.9")?);
            ensure!(low.len() >= *horizon && low.len() == high.len(), "quantiles of {} steps", low.len());
            ensure!(low.iter().zip(&high).all(|(low, high)| low <= high), "quantiles cross");
        }
        let trajectories = get(format!("/v1/forecasts/{forecast_id}/trajectories?series={first_series}&samples=5"))?;
        ensure!(trajectories["series"].is_array(), "no trajectories: {trajectories}");
        let total = get(format!("/v1/forecasts/{forecast_id}/aggregate?fn=sum&over=horizon,series"))?;
        let total = &total["distributions"][0]["quantiles"];
        ensure!(total["0.05"].as_f64() < total["0.95"].as_f64(), "the total has no spread: {total}");
        let page = ureq::get(format!("http://{address}/panels/{panel}")).call()?.body_mut().read_to_string()?;
        ensure!(page.contains(panel), "the page does not show panel `{panel}`");
    }
    get("/readyz".to_owned())?;
    Ok(())
}
