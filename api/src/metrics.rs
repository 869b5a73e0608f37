//! What the service counts about itself, for Prometheus: every metric's name, unit and labels.
//!
//! Names follow Prometheus: base units, `_total` for counters. Labels have few values: never a
//! series, a forecast or a request.

use std::time::Duration;

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// The metrics of one service.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered, by `route` (its pattern), `method` and `status`.
    pub http_requests: IntCounterVec,
    /// Seconds from a request's head to its response's head, by `route` and `method`.
    pub http_request_duration: HistogramVec,
    /// Seconds spent on a forecast, by `stage`: see [`Stage`].
    pub forecast_duration: HistogramVec,
    /// Forecasts that this process has stored, by `quality`; those of jobs are stored by processes of their own.
    pub forecasts: IntCounterVec,
    /// Trajectories drawn.
    pub trajectories: IntCounter,
    /// Denoising passes made for forecasts.
    pub sampler_passes: IntCounter,
    /// Requests that wait for the model or are being served by it.
    pub queue_length: IntGauge,
    /// Requests refused because the queue was full.
    pub queue_refused: IntCounter,
    /// Seconds that an attempt at a job took, by `kind` and `outcome`; of the jobs that this process did.
    pub job_duration: HistogramVec,
    /// Jobs, by `state` and `kind`.
    pub jobs: IntGaugeVec,
    /// Seconds since any worker was last seen; no value where there is none. No label.
    pub worker_heartbeat_age: GaugeVec,
    /// Seconds since any worker last looked after the schedules, with success; as above.
    pub scheduler_age: GaugeVec,
    /// Connections to Postgres, by `state`: `idle` or `in_use`.
    pub database_connections: IntGaugeVec,
    /// Seconds since the newest forecast's issue time, by `panel`. The first thing to alert on.
    pub forecast_age: GaugeVec,
    /// 1 where a baseline made the newest plain forecast, otherwise 0, by `panel`.
    pub fallback: IntGaugeVec,
    /// Seconds since the end of the newest observed interval, by `panel`.
    pub observation_lag: GaugeVec,
    /// 1 for each panel's champion, with its `panel` and `version`.
    pub model_info: IntGaugeVec,
    /// Share of the truth inside the champion's central 80 % intervals in the last days, by `panel`.
    pub coverage_80: GaugeVec,
    /// CRPS of the champion's forecasts in the last days, relative to that of its backtest, by `panel`.
    pub crps_ratio: GaugeVec,
    /// Alarms that were raised, by `panel`.
    pub drift_events: IntGaugeVec,
}

/// A stage of making a forecast.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Reading what is known of the panel.
    Load,
    /// Waiting for the model.
    Queue,
    /// Drawing trajectories.
    Sample,
    /// Quantiles and means.
    Summarise,
    /// Writing to Postgres.
    Store,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Queue => "queue",
            Self::Sample => "sample",
            Self::Summarise => "summarise",
            Self::Store => "store",
        }
    }
}

/// Upper bounds of the duration histograms in seconds: from a cached answer to the longest forecast.
const DURATION_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];

/// Upper bounds of the durations of jobs in seconds: from a forecast to a day of training.
const JOB_DURATION_BUCKETS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0];

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// When two metrics have one name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name: &str, help: &str| -> Result<_, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let float_gauges = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let metric = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let durations = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| -> Result<_, prometheus::Error> {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let metric = HistogramVec::new(options, labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };

        let build_info = gauges("plumecast_build_info", "Version that runs.", &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        let queue_length =
            IntGauge::new("plumecast_queue_length", "Requests that wait for the model or are being served by it.")?;
        registry.register(Box::new(queue_length.clone()))?;

        Ok(Self {
            http_requests: counters(
                "plumecast_http_requests_total",
                "Requests answered.",
                &["route", "method", "status"],
            )?,
            http_request_duration: durations(
                "plumecast_http_request_duration_seconds",
                "Time from a request's head to its response's head.",
                &["route", "method"],
                &DURATION_BUCKETS,
            )?,
            forecast_duration: durations(
                "plumecast_forecast_duration_seconds",
                "Time spent on a forecast.",
                &["stage"],
                &DURATION_BUCKETS,
            )?,
            forecasts: counters("plumecast_forecasts_total", "Forecasts stored, but for those of jobs.", &["quality"])?,
            trajectories: counter("plumecast_trajectories_total", "Trajectories drawn.")?,
            sampler_passes: counter(
                "plumecast_sampler_passes_total",
                "Denoising passes per token, summed over forecasts.",
            )?,
            queue_length,
            queue_refused: counter(
                "plumecast_queue_refused_total",
                "Requests refused because too many waited for the model.",
            )?,
            job_duration: durations(
                "plumecast_job_duration_seconds",
                "Time that an attempt at a job took.",
                &["kind", "outcome"],
                &JOB_DURATION_BUCKETS,
            )?,
            jobs: gauges("plumecast_jobs", "Jobs.", &["state", "kind"])?,
            worker_heartbeat_age: float_gauges(
                "plumecast_worker_heartbeat_age_seconds",
                "Time since any worker was last seen.",
                &[],
            )?,
            scheduler_age: float_gauges(
                "plumecast_scheduler_age_seconds",
                "Time since any worker last looked after the schedules.",
                &[],
            )?,
            database_connections: gauges("plumecast_database_connections", "Connections to Postgres.", &["state"])?,
            forecast_age: float_gauges(
                "plumecast_forecast_age_seconds",
                "Time since the newest forecast's issue time.",
                &["panel"],
            )?,
            fallback: gauges(
                "plumecast_fallback",
                "1 where a baseline made the newest forecast, since no model could.",
                &["panel"],
            )?,
            observation_lag: float_gauges(
                "plumecast_observation_lag_seconds",
                "Time since the end of the newest observed interval.",
                &["panel"],
            )?,
            model_info: gauges("plumecast_model_info", "1 for the model that serves a panel.", &["panel", "version"])?,
            coverage_80: float_gauges(
                "plumecast_coverage_80",
                "Share of the truth inside the champion's central 80 % intervals in the last seven days.",
                &["panel"],
            )?,
            crps_ratio: float_gauges(
                "plumecast_crps_ratio",
                "CRPS of the champion's forecasts in the last seven days, relative to that of its backtest.",
                &["panel"],
            )?,
            drift_events: gauges("plumecast_drift_events", "Alarms that were raised.", &["panel"])?,
            registry,
        })
    }

    /// Notes the time that a stage of a forecast took.
    pub fn observe_stage(&self, stage: Stage, duration: Duration) {
        self.forecast_duration.with_label_values(&[stage.label()]).observe(duration.as_secs_f64());
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Media type of [`Metrics::render`].
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_named_once_and_rendered() {
        let metrics = Metrics::new().expect("no two metrics have one name");
        metrics.http_requests.with_label_values(&["/livez", "GET", "200"]).inc();
        metrics.observe_stage(Stage::Sample, Duration::from_millis(20));
        let text = metrics.render().expect("it renders");
        assert!(text.contains(r#"plumecast_http_requests_total{method="GET",route="/livez",status="200"} 1"#));
        assert!(text.contains(r#"plumecast_forecast_duration_seconds_count{stage="sample"} 1"#));
        assert!(text.lines().filter(|line| !line.starts_with('#')).all(|line| line.starts_with("plumecast_")));
    }
}
