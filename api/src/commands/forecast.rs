//! `plumecast forecast`: a stored forecast without a running service.

use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, Utc};
use forecast::{QuantileLevel, SampleConfig};
use sqlx::PgPool;

use crate::config::{DatabaseConfig, DeviceConfig, Limits};
use crate::forecaster::scenario::ConditionGuidance;
use crate::forecaster::{self, Forecast, Guidance, Order, Scenario};
use crate::metrics::Metrics;
use crate::page::{
    self,
    chart::{Drawn, SeriesChart, value_title},
};
use crate::plot::{self, Pictured, SERIES_MAX};
use crate::predictor::Predictor;
use crate::routes::forecasts::request::SEED_MAX;

/// Stands for a chart in the terminal where a file is expected.
const TERMINAL: &str = "-";

/// Make and store a forecast of a panel by its champion.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The panel.
    #[arg(long, value_name = "NAME")]
    pub panel: String,

    /// Steps to forecast.
    #[arg(long, value_name = "STEPS")]
    pub horizon: usize,

    /// When the forecast is made (RFC 3339): only what was known then is used. Now, or the end of old data, when not given.
    #[arg(long, value_name = "TIME")]
    pub issue_time: Option<DateTime<Utc>>,

    /// Trajectories to draw.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub num_samples: usize,

    /// Seed of the noise.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Quantile levels to store.
    #[arg(long, value_name = "LEVELS", value_delimiter = ',', default_value = "0.05,0.1,0.25,0.5,0.75,0.9,0.95")]
    pub quantiles: Vec<f64>,

    /// What is supposed of the future: a JSON or TOML file with `pins` and `conditions`, as in the body of `POST /v1/forecasts`.
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,

    /// Whether a baseline may answer where the model cannot.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub fallback: bool,

    /// Draw the forecast instead of listing it: in the terminal, in an .svg or .png file, or as a page in an .html file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = TERMINAL)]
    pub plot: Option<PathBuf>,

    /// The series that are drawn; the first ones, unless they are named.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "plot")]
    pub plot_series: Vec<String>,

    /// Where the model computes.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// What may be asked for.
    #[command(flatten)]
    pub limits: Limits,
}

/// Makes the forecast, stores it and prints its quantiles.
///
/// # Errors
/// When the panel or its model is missing, or the database fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let Limits { horizon_max, samples_max, cost_max, .. } = args.limits;
    anyhow::ensure!((1..=horizon_max).contains(&args.horizon), "--horizon must lie between 1 and {horizon_max}");
    anyhow::ensure!(
        (1..=samples_max).contains(&args.num_samples),
        "--num-samples must lie between 1 and {samples_max}"
    );
    anyhow::ensure!(args.seed <= SEED_MAX, "--seed must lie between 0 and {SEED_MAX}");
    let mut levels: Vec<QuantileLevel> =
        args.quantiles.iter().map(|&level| QuantileLevel::new(level)).collect::<Result<_, _>>()?;
    levels.sort_by(|a, b| a.value().total_cmp(&b.value()));
    levels.dedup();

    let picture = args.plot.as_deref().map(Picture::of).transpose()?;
    let scenario = args.scenario.as_deref().map(read_scenario).transpose()?;

    let device = args.device.open()?;
    let database = super::open(&args.database).await?;
    let metrics = Metrics::new().context("setting up the metrics")?;
    let predictor = Predictor::start(args.database.artefacts()?, 1, 1, device, metrics.clone())
        .context("starting the model thread")?;
    let order = Order {
        panel: args.panel.clone(),
        horizon: args.horizon,
        issue_time: args.issue_time,
        covariates: vec![],
        quantile_levels: levels,
        sampling: SampleConfig { n_samples: args.num_samples, seed: args.seed, ..SampleConfig::default() },
        cost_max,
        scenario,
        fallback: args.fallback,
    };
    let forecast = forecaster::make(database.pool(), &predictor, &metrics, &order, Utc::now()).await?;
    forecaster::store(database.pool(), &metrics, &forecast, None).await?;
    let text = match &picture {
        None => table(&forecast),
        Some(picture) => {
            let drawn = draw(database.pool(), &forecast, picture, &args.plot_series).await?;
            format!("{}\n{drawn}", facts(&forecast))
        }
    };
    database.close().await;
    Ok(super::say(&text)?)
}

/// A scenario from a file; the name says whether it is TOML, otherwise it is JSON.
fn read_scenario(path: &Path) -> anyhow::Result<Scenario> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let scenario: Scenario = if path.extension().is_some_and(|extension| extension == "toml") {
        let file: toml::Table = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        with_times_as_text(toml::Value::Table(file))
            .try_into()
            .with_context(|| format!("{} is no scenario", path.display()))?
    } else {
        serde_json::from_str(&text).with_context(|| format!("{} is no scenario", path.display()))?
    };
    if let Some(violation) = scenario.violations().first() {
        anyhow::bail!(
            "{}: {}: {}",
            path.display(),
            violation.pointer.as_deref().unwrap_or_default(),
            violation.message
        );
    }
    Ok(scenario)
}

/// TOML has times of its own; here they are texts.
fn with_times_as_text(value: toml::Value) -> toml::Value {
    match value {
        toml::Value::Datetime(time) => toml::Value::String(time.to_string()),
        toml::Value::Array(values) => toml::Value::Array(values.into_iter().map(with_times_as_text).collect()),
        toml::Value::Table(table) => {
            toml::Value::Table(table.into_iter().map(|(key, value)| (key, with_times_as_text(value))).collect())
        }
        other => other,
    }
}

/// Where a forecast is drawn.
enum Picture<'a> {
    /// In the terminal.
    Terminal,
    /// As a page.
    Html(&'a Path),
    /// For documents.
    Svg(&'a Path),
    /// For what reads no SVG.
    Png(&'a Path),
}

impl<'a> Picture<'a> {
    /// # Errors
    /// When the name of the file does not say which of these.
    fn of(file: &'a Path) -> anyhow::Result<Self> {
        match file.extension().and_then(|extension| extension.to_str()) {
            _ if file == Path::new(TERMINAL) => Ok(Self::Terminal),
            Some("html") => Ok(Self::Html(file)),
            Some("svg") => Ok(Self::Svg(file)),
            Some("png") => Ok(Self::Png(file)),
            _ => anyhow::bail!("--plot draws in the terminal, or into a file that ends in .svg, .png or .html"),
        }
    }
}

/// Draws some series; what is printed of it.
async fn draw(pool: &PgPool, forecast: &Forecast, picture: &Picture<'_>, wanted: &[String]) -> anyhow::Result<String> {
    let Forecast { panel, issue_time, valid_times, series, trajectories, .. } = forecast;
    let position = |name: &String| {
        let position = series.iter().position(|series| series.name == *name);
        position.with_context(|| format!("--plot-series: the forecast has no series `{name}`"))
    };
    let mut positions: Vec<usize> = wanted.iter().map(position).collect::<anyhow::Result<_>>()?;
    if positions.is_empty() {
        positions.extend(0..series.len().min(SERIES_MAX));
    }
    let pictured = Pictured { panel, issue_time: *issue_time, valid_times, series, trajectories };
    let observed = pictured.observed(pool, &positions).await?;
    let charts = pictured.charts(&positions, observed, &Drawn::default())?;
    let left_out = if wanted.is_empty() { series.len() - positions.len() } else { 0 };
    let note = if left_out == 0 { String::new() } else { format!("\n{left_out} more series are not drawn") };
    let (file, content) = match picture {
        Picture::Terminal => {
            let chart = |SeriesChart { name, unit, observed, fan }: &SeriesChart| {
                format!("\n{}\n{}", value_title(name, unit.as_deref()), plot::terminal::fan(observed, fan))
            };
            return Ok(charts.iter().map(chart).collect::<Vec<_>>().join("\n") + &note);
        }
        Picture::Html(file) => (file, page::report::forecast(panel, &charts).into_bytes()),
        Picture::Svg(file) => {
            (file, plot::fans::svg(&charts, &panel.time_zone).map_err(anyhow::Error::msg)?.into_bytes())
        }
        Picture::Png(file) => (file, plot::fans::png(&charts, &panel.time_zone).map_err(anyhow::Error::msg)?),
    };
    std::fs::write(file, content).with_context(|| format!("writing {}", file.display()))?;
    Ok(format!("drawn: {}{note}", file.display()))
}

/// What is to be known of the forecast, in lines.
fn facts(forecast: &Forecast) -> String {
    let mut lines = vec![
        format!("forecast {} of panel `{}`", forecast.forecast_id, forecast.panel.name),
        format!("issue time {}, {}", forecast.issue_time.to_rfc3339(), maker(forecast)),
    ];
    lines.extend(forecast.guidance.iter().flat_map(guidance));
    lines.extend(forecast.warnings.iter().map(|warning| format!("warning {}: {}", warning.code, warning.message)));
    lines.join("\n")
}

/// Who made a forecast.
fn maker(forecast: &Forecast) -> String {
    forecast.model.as_ref().map_or_else(|| "fallback".to_owned(), |model| format!("model version {}", model.version))
}

/// The forecast as text: its facts, then a row for each step and series.
fn table(forecast: &Forecast) -> String {
    let mut lines = vec![facts(forecast)];
    let levels = &forecast.quantile_levels;
    let header: String = levels.iter().map(|level| format!(" {level:>10}")).collect();
    lines.push(format!("{:20} {:25}{header}", "series", "valid_time"));
    for (index, row) in forecast.quantiles.chunks_exact(levels.len()).enumerate() {
        let (step, series) = (index / forecast.series.len(), index % forecast.series.len());
        let values: String = row.iter().map(|value| format!(" {value:>10.3}")).collect();
        let valid_time = forecast.valid_times[step].to_rfc3339();
        lines.push(format!("{:20} {valid_time:25}{values}", forecast.series[series].name));
    }
    lines.join("\n")
}

/// What conditions did, a line for each and one for all.
fn guidance(guidance: &Guidance) -> Vec<String> {
    let line = |(index, condition): (usize, &ConditionGuidance)| {
        let usual = match (condition.base_rate, condition.quantile_level) {
            (Some(rate), _) => format!("in the plain forecast met by {:.1} %", 100.0 * rate),
            (None, Some(level)) => format!("in the plain forecast {:.1} % are lower", 100.0 * level),
            (None, None) => String::new(),
        };
        format!("condition {index}: met by {:.1} % of the trajectories; {usual}", 100.0 * condition.satisfaction)
    };
    let mut lines: Vec<String> = guidance.conditions.iter().enumerate().map(line).collect();
    if let Some(rate) = &guidance.base_rate {
        lines.push(format!(
            "base rate {:.3e} ± {:.1e}, {} of {} plain trajectories",
            rate.probability, rate.standard_error, rate.num_met, rate.num_candidates
        ));
    }
    lines.push(format!("effective sample size {:.1}", guidance.effective_sample_size));
    lines
}
