//! What the stories share: a service on a port of its own, a method per endpoint, and small panels.

pub mod browser;
mod operator;
pub mod process;
mod store;

use std::io::Write;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::config::{Config, Limits, WorkerConfig};
use api::db::forecast::{NewForecast, NewValues};
use api::db::job::{Job, queue};
use api::db::load::{Load, Loaded, Value as LoadedValue, load};
use api::db::model::{Model, NewModel};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::{Kind, Quality};
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::jobs::{Ask, Context, Settings, Work, attempt, enqueue};
use api::problem::Problem;
use api::server::{Application, StopHandle};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use forecast::{Budget, QuantileLevel, TrainConfig, Trajectories};
use serde_json::{Value, json};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use ureq::http::Request;
use uuid::Uuid;

pub use operator::{Operator, complaint, count, output, said};
pub use process::{Program, database_url, plumecast, program};
pub use store::{Fault, Store};

/// A running service, which stops when it is dropped.
pub struct Service {
    address: SocketAddr,
    data_dir: TempDir,
    stop: StopHandle,
}

/// What the service answers.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, by lower-case name.
    headers: Vec<(String, String)>,
    /// The body, decompressed.
    pub body: Vec<u8>,
}

impl Service {
    /// Starts a service with the default limits.
    pub async fn start(pool: &PgPool) -> Self {
        Self::start_with(pool, Limits::default()).await
    }

    /// Starts a service with its own limits.
    pub async fn start_with(pool: &PgPool, limits: Limits) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let mut config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), limits, ..Config::default() };
        config.database.data_dir = data_dir.path().to_owned();
        let application = Application::build(&config, pool.clone()).unwrap();
        let (address, stop) = (application.address(), application.stop_handle());
        tokio::spawn(application.run());
        Self { address, data_dir, stop }
    }

    /// The address of a path.
    pub fn address(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The folder of the models.
    pub fn models_dir(&self) -> PathBuf {
        self.data_dir.path().join("models")
    }

    /// Sends a request; the path is given instead of a whole address.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Answer {
        let address = self.address(&request.uri().to_string());
        let (mut parts, body) = request.into_parts();
        parts.uri = address.parse().unwrap();
        spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .allow_non_standard_methods(true)
                .build()
                .into();
            let mut response = agent.run(Request::from_parts(parts, body)).unwrap();
            let headers = response.headers().iter();
            Answer {
                status: response.status().as_u16(),
                headers: headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect(),
                body: response.body_mut().with_config().limit(100_000_000).read_to_vec().unwrap(),
            }
        })
        .await
        .unwrap()
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Vec::new()).unwrap()).await
    }

    /// `POST` without a body.
    pub async fn act(&self, path: &str) -> Answer {
        self.send(Request::post(path).body(Vec::new()).unwrap()).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path).body(Vec::new()).unwrap()).await
    }

    /// `GET`, with what is accepted.
    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Request::get(path).header("accept", accept).body(Vec::new()).unwrap()).await
    }

    /// `POST /v1/forecasts`.
    pub async fn make_forecast(&self, body: &Value) -> Answer {
        self.post_forecast(body, None).await
    }

    /// `POST /v1/forecasts` with an idempotency key.
    pub async fn make_forecast_once(&self, key: &str, body: &Value) -> Answer {
        self.post_forecast(body, Some(key)).await
    }

    async fn post_forecast(&self, body: &Value, key: Option<&str>) -> Answer {
        let mut request = Request::post("/v1/forecasts").header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.body(body.to_string().into_bytes()).unwrap()).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(body.to_string().into_bytes()).unwrap()).await
    }

    /// `GET /v1/forecasts`.
    pub async fn forecasts(&self, query: &str) -> Answer {
        self.get(&format!("/v1/forecasts?{query}")).await
    }

    /// `GET /v1/forecasts/{id}`.
    pub async fn forecast(&self, forecast_id: &str) -> Answer {
        self.get(&format!("/v1/forecasts/{forecast_id}")).await
    }

    /// `GET /v1/forecasts/{id}/quantiles`.
    pub async fn quantiles(&self, forecast_id: &str, query: &str) -> Answer {
        self.get(&format!("/v1/forecasts/{forecast_id}/quantiles?{query}")).await
    }

    /// `GET /v1/forecasts/{id}/trajectories`.
    pub async fn trajectories(&self, forecast_id: &str, query: &str) -> Answer {
        self.get(&format!("/v1/forecasts/{forecast_id}/trajectories?{query}")).await
    }

    /// `GET /v1/forecasts/{id}/trajectories` as an Arrow IPC stream.
    pub async fn trajectories_arrow(&self, forecast_id: &str) -> Answer {
        self.get_as(&format!("/v1/forecasts/{forecast_id}/trajectories"), "application/vnd.apache.arrow.stream").await
    }

    /// `GET /v1/forecasts/{id}/aggregate`.
    pub async fn aggregate(&self, forecast_id: &str, query: &str) -> Answer {
        self.get(&format!("/v1/forecasts/{forecast_id}/aggregate?{query}")).await
    }

    /// `GET /v1/panels/{panel}/observations`.
    pub async fn observations(&self, panel: &str, query: &str) -> Answer {
        self.get(&format!("/v1/panels/{panel}/observations?{query}")).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.abort();
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The JSON of a success.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// The problem of a failure, which has all that every problem must have.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Problem {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.code, code, "{}", self.text());
        assert_eq!(problem.type_uri, format!("urn:plumecast:problem:{code}"));
        assert_eq!(problem.status, status);
        assert!(problem.instance.is_some());
        assert_eq!(problem.request_id.as_deref(), self.header("x-request-id"));
        problem
    }
}

/// Midnight at which the panels below begin.
pub fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2025, 3, 1, 0, 0, 0).unwrap()
}

/// An instant so many hours after [`start`].
pub fn hour(hour: usize) -> DateTime<Utc> {
    start() + TimeDelta::hours(i64::try_from(hour).unwrap())
}

/// Loads an hourly panel of two series, `heat` (a sum, kWh) and `wind` (a mean, m/s), with a daily cycle.
pub async fn load_panel(pool: &PgPool, name: &str, n_hours: usize) -> Loaded {
    let series = [("heat", Kind::Sum, "kWh"), ("wind", Kind::Mean, "m/s")].map(|(name, kind, unit)| NewSeries {
        name: name.to_owned(),
        kind: Some(kind),
        unit: Some(unit.to_owned()),
        lower_bound: Some(0.0),
        ..NewSeries::default()
    });
    let values: Vec<LoadedValue> = (0..n_hours)
        .flat_map(|step| {
            let phase = (step % 24) as f64 / 24.0 * std::f64::consts::TAU;
            // An irregular, but repeatable disturbance, shared by both series.
            let disturbance = ((step * 7919) % 101) as f64 / 101.0;
            [(0, 50.0 + 20.0 * phase.cos() + 5.0 * disturbance), (1, 6.0 + 3.0 * phase.sin() + disturbance)]
                .map(|(series, value)| observation(series, step, value))
        })
        .collect();
    let panel = NewPanel { name, frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    load(pool, TENANT, &Load { panel, series: &series, values: &values, load_time: hour(n_hours) }).await.unwrap()
}

/// An hourly value whose source does not say when it became known.
pub fn observation(series: usize, step: usize, value: f64) -> LoadedValue {
    LoadedValue { series, valid_time: hour(step), interval_end: hour(step + 1), available_at: None, value, sd: None }
}

/// Trains a small model of a panel of [`load_panel`] for a few steps, and makes it the champion.
pub async fn train(pool: &PgPool, service: &Service, loaded: &Loaded) -> Model {
    let version = loaded.panel_version.panel_version_id;
    let known = db::observation::as_of(pool, TENANT, version, Utc::now(), start()..Utc::now()).await.unwrap();
    let names = vec!["heat".to_owned(), "wind".to_owned()];
    let observations = known.iter().map(|row| ingest::Observation {
        series: usize::try_from(row.position).unwrap() - 1,
        valid_time: row.valid_time,
        available_at: Some(row.available_at),
        value: row.value,
        sd: row.sd,
    });
    let config = ingest::PanelConfig::new(&loaded.panel.name, "1h".parse().unwrap(), "UTC".parse().unwrap());
    let history = ingest::Panel::from_observations(config, names, observations).unwrap().history().unwrap();

    let folder = format!("{}/1", loaded.panel.panel_id);
    let path = service.models_dir().join(&folder);
    let digest = spawn_blocking(move || {
        let mut config = TrainConfig::new(12, Budget::Steps(5), 1);
        config.network.d_model = Some(16);
        let fitted = forecast::fit(&history, &config, &forecast::cpu(), &mut |_| ControlFlow::Continue(())).unwrap();
        fitted.model.save(&path).unwrap()
    })
    .await
    .unwrap();
    register(pool, loaded, &folder, &digest).await
}

/// Registers a model and makes it the champion, whether or not there is a checkpoint.
pub async fn register(pool: &PgPool, loaded: &Loaded, folder: &str, digest: &str) -> Model {
    let new = NewModel {
        panel_version_id: loaded.panel_version.panel_version_id,
        config: &json!({"horizon": 12}),
        metrics: &json!({}),
        digest,
        snapshot_digest: &"0".repeat(64),
        artefact_path: folder,
        artefact_bytes: None,
        data_cutoff: hour(1),
    };
    let model = db::model::insert(pool, TENANT, &new).await.unwrap();
    db::model::promote(pool, TENANT, model.model_id, "the only one").await.unwrap();
    model
}

/// Stores a forecast of a panel of [`load_panel`] with given trajectories of `heat` and `wind`, `[sample, step, series]`.
/// No model is run.
pub async fn store_forecast(pool: &PgPool, loaded: &Loaded, model: &Model, trajectories: &Trajectories) -> String {
    let levels = [0.1, 0.5, 0.9];
    let quantile_levels = levels.map(|level| QuantileLevel::new(level).unwrap());
    let forecast_id = Uuid::now_v7();
    let n_steps = trajectories.n_steps();
    let nowcasts = usize::try_from(1 - trajectories.first_step()).unwrap();
    let new = NewForecast {
        forecast_id,
        panel_version_id: model.panel_version_id,
        model_id: Some(model.model_id),
        issue_time: hour(48),
        data_cutoff: hour(48 - nowcasts),
        first_step: trajectories.first_step(),
        num_samples: trajectories.n_samples(),
        seed: 7,
        schedule: "autoregressive",
        passes: 8,
        quantile_levels: &levels,
        params: &json!({"warnings": []}),
        quality: Quality::Ok,
        scenario: None,
        idempotency: None,
    };
    let values = NewValues {
        series_ids: &loaded.series_ids,
        valid_times: &(0..n_steps).map(|step| hour(48 - nowcasts + step)).collect::<Vec<_>>(),
        means: &trajectories.mean(),
        quantiles: &trajectories.quantiles(&quantile_levels),
        trajectories: trajectories.values(),
    };
    db::forecast::insert(pool, TENANT, &new, &values).await.unwrap();
    forecast_id.to_string()
}

/// Checks that sums of scores are what a full count says; tells how many scores they sum up.
pub async fn check_score_sums(pool: &PgPool) -> i64 {
    let wrong: i64 = sqlx::query_scalar(
        "select (select count(*) from (
             (select * from score_sum except select * from score_sum_recounted)
             union all
             (select * from score_sum_recounted except select * from score_sum)
         ) as wrong) + (select count(*) from (
             (select * from score_step_sum except select * from score_step_sum_recounted)
             union all
             (select * from score_step_sum_recounted except select * from score_step_sum)
         ) as wrong)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "sums of scores that are not what a full count says");
    sqlx::query_scalar("select coalesce(sum(n_values), 0)::bigint from score_sum").fetch_one(pool).await.unwrap()
}

/// Asks for a job and does it in this process, with a clock that stands; gives the job as it ended.
pub async fn do_job(pool: &PgPool, data_dir: &Path, kind: &str, arguments: Value, now: DateTime<Utc>) -> Job {
    let work = Work::parse(kind, arguments).unwrap();
    let ask = Ask { by: "test", run_after: now, now, key: None };
    let mut connection = pool.acquire().await.unwrap();
    let job_id = enqueue(&mut connection, &work, &ask, &Limits::default()).await.unwrap();
    drop(connection);
    let job = do_next_job(pool, data_dir, kind, now).await;
    assert_eq!(job.job_id, job_id);
    job
}

/// Does the job of a kind that waits for longest, as [`do_job`] does.
pub async fn do_next_job(pool: &PgPool, data_dir: &Path, kind: &str, now: DateTime<Utc>) -> Job {
    let mut config = Config::default();
    config.database.data_dir = data_dir.to_owned();
    let Config { database, pipelines, device, limits, log_format, .. } = config;
    let url = database_url(pool);
    let settings = Settings::new(url, &database, &pipelines, device, &limits, &WorkerConfig::default(), log_format);
    let context = Context { pool: pool.clone(), settings, clock: Arc::new(move || now) };
    let taken = queue::take(pool, "test", &[kind], now, Duration::from_secs(600)).await.unwrap().unwrap();
    attempt::make(&context, &taken.lease).await.unwrap();
    db::job::get(pool, TENANT, taken.lease.job_id).await.unwrap().unwrap()
}

/// Packed as any client would.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut process = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(bytes).unwrap();
    process.wait_with_output().unwrap().stdout
}
