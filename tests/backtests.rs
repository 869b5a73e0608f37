//! Jobs about the past: a model on past windows, and forecasts for past issue times, each as known then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::artefacts::Artefacts;
use api::backfilling::{self, Made};
use api::config::{Config, Limits, WorkerConfig};
use api::db::job::queue;
use api::db::words::JobState;
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::jobs::{Context, Settings, attempt};
use api::metrics::Metrics;
use api::predictor::Predictor;
use api::routes::forecasts::request::ForecastRequest;
use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    Service, count, database_url, do_job, do_next_job, hour, load_panel, output, program, register, said, train,
};

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_model_is_tested_on_past_windows_and_the_result_is_kept(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    let model = train(&pool, &service, &loaded).await;
    // What a model has learned from is no test of it.
    sqlx::query("update model set data_cutoff = $1").bind(hour(210)).execute(&pool).await.unwrap();
    let arguments = json!({"panel": "city", "windows": 5, "num_samples": 20, "seed": 3});
    let job = do_job(&pool, service.data_dir(), "backtest", arguments.clone(), hour(240)).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let result = job.result.unwrap();
    assert_eq!((&result["model"]["version"], &result["backtest_id"]), (&json!(1), &json!(job.job_id)));

    let body = service.get(&format!("/v1/backtests/{}", job.job_id)).await.expect(200);
    let windows = body["windows"].as_array().unwrap();
    let issue_times: Vec<&Value> = windows.iter().map(|window| &window["issue_time"]).collect();
    assert_eq!(issue_times, [180, 192, 204, 216, 228].map(|start| json!(hour(start))).iter().collect::<Vec<_>>());
    let is_fair: Vec<bool> = windows.iter().map(|window| window["is_fair"].as_bool().unwrap()).collect();
    assert_eq!(is_fair, [false, false, false, true, true]);
    let names: Vec<&str> =
        body["scores"].as_array().unwrap().iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert_eq!(names, ["plumecast", "seasonal_naive"]);
    // By hand: the windows are of equal length, so that all together are their mean, weighed by magnitude.
    let all = body["scores"][0]["crps"].as_f64().unwrap();
    let of_windows: Vec<f64> = windows.iter().map(|window| window["crps"].as_f64().unwrap()).collect();
    let [least, most] = [f64::min, f64::max].map(|of| of_windows.iter().copied().reduce(of).unwrap());
    assert!(least > 0.0 && least <= all && all <= most, "{all} of {of_windows:?}");
    assert!(windows.iter().all(|window| window["naive_coverage_80"].as_f64().is_some()));

    // The same forecast, made by REST, scores the same.
    let request = json!({"panel": "city", "horizon": 12, "num_samples": 20, "seed": 7, "issue_time": hour(228)});
    let made = service.make_forecast(&request).await.expect(201);
    let again = json!({"panel": "city", "windows": 1, "num_samples": 20, "seed": 7, "version": 1});
    let job = do_job(&pool, service.data_dir(), "backtest", again, hour(240)).await;
    let tested = service.get(&format!("/v1/backtests/{}", job.job_id)).await.expect(200);
    do_job(&pool, service.data_dir(), "score", json!({"panel": "city"}), hour(240)).await;
    let crps: f64 = sqlx::query_scalar("select crps from forecast_score where forecast_id = $1::text::uuid")
        .bind(made["forecast_id"].as_str().unwrap())
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!((crps - tested["windows"][0]["crps"].as_f64().unwrap()).abs() < 1e-6, "{crps}: {tested}");

    let list = service.get("/v1/backtests?panel=city&limit=1").await.expect(200);
    assert_eq!(list["backtests"][0]["backtest_id"], json!(job.job_id), "the newest first");
    let next = format!("/v1/backtests?panel=city&limit=1&cursor={}", list["next"].as_str().unwrap());
    assert_eq!(service.get(&next).await.expect(200)["backtests"][0]["seed"], 3);
    service.get("/v1/backtests/7").await.problem(404, "unknown-backtest");

    let said = say(&pool, service.data_dir(), &["models", "backtest", "--panel", "city", "--windows", "2"]).await;
    assert!(said.contains("seasonal_naive") && said.contains("of version 1 of panel `city`"), "{said}");
    assert_eq!(count(&pool, "select count(*) from backtest").await, 3);
    // They go with their model.
    sqlx::query("delete from forecast").execute(&pool).await.unwrap();
    register(&pool, &loaded, "other", &"a".repeat(64)).await;
    service.delete(&format!("/v1/models/city/{}", model.version)).await;
    assert_eq!(count(&pool, "select count(*) from backtest").await, 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_window_is_forecast_from_the_first_versions_of_what_was_corrected_later(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let request = json!({"panel": "city", "horizon": 12, "num_samples": 20, "seed": 7, "issue_time": hour(216)});
    let made = service.make_forecast(&request).await.expect(201);
    let corrected = "insert into observation (tenant_id, series_id, valid_time, available_at, value)
                     select tenant_id, series_id, valid_time, $1, value + 1 from observation";
    sqlx::query(corrected).bind(hour(241)).execute(&pool).await.unwrap();

    let order = json!({"panel": "city", "windows": 2, "num_samples": 20, "seed": 7});
    let job = do_job(&pool, service.data_dir(), "backtest", order, hour(242)).await;
    let tested = service.get(&format!("/v1/backtests/{}", job.job_id)).await.expect(200);
    do_job(&pool, service.data_dir(), "score", json!({"panel": "city"}), hour(242)).await;
    let crps: f64 = sqlx::query_scalar("select crps from forecast_score where forecast_id = $1::text::uuid")
        .bind(made["forecast_id"].as_str().unwrap())
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(tested["windows"].as_array().unwrap().len(), 2);
    assert!((crps - tested["windows"][0]["crps"].as_f64().unwrap()).abs() < 1e-6, "{crps}: {tested}");
    assert!(tested["windows"][1]["crps"].as_f64().is_some(), "{tested}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_backtest_that_cannot_be_made_says_why(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 48).await;
    let fail = async |arguments: Value| {
        let job = do_job(&pool, service.data_dir(), "backtest", arguments, hour(48)).await;
        assert_eq!(job.state, JobState::Failed, "{job:?}");
        job.failure.unwrap()
    };
    assert!(fail(json!({"panel": "city"})).await.contains("has no model yet"));
    register(&pool, &loaded, "gone", &"a".repeat(64)).await;
    assert!(fail(json!({"panel": "city", "version": 7})).await.contains("no model of version 7"));
    let told = fail(json!({"panel": "city", "windows": 100})).await;
    assert!(told.contains("too short for 100 windows"), "{told}");
    // Out of range is refused before there is a job.
    let body = json!({"kind": "backtest", "arguments": {"panel": "city", "windows": 0, "num_samples": 1_000_000}});
    let problem = service.post("/v1/jobs", &body).await.problem(422, "invalid-body");
    let pointers: Vec<_> = problem.errors.iter().filter_map(|error| error.pointer.as_deref()).collect();
    assert_eq!(pointers, ["/arguments/windows", "/arguments/num_samples"]);
}

/// Forecasts of every sixth hour of two days.
fn backfill() -> Value {
    json!({"start": hour(180), "end": hour(228), "every": 6,
           "forecast": {"panel": "city", "horizon": 6, "num_samples": 5, "seed": 2}})
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn past_issue_times_are_forecast_once_each_from_what_was_known_then(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    // One is there already, and one of another length is another.
    for (horizon, issue_time) in [(6, 192), (7, 186)] {
        let request =
            json!({"panel": "city", "horizon": horizon, "num_samples": 5, "seed": 2, "issue_time": hour(issue_time)});
        service.make_forecast(&request).await.expect(201);
    }
    let job = do_job(&pool, service.data_dir(), "backfill", backfill(), hour(240)).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    assert_eq!(job.result.unwrap(), json!({"n_made": 7, "n_stored": 1, "n_without_observations": 0}));
    let job = do_job(&pool, service.data_dir(), "backfill", backfill(), hour(240)).await;
    assert_eq!(job.result.unwrap(), json!({"n_made": 0, "n_stored": 8, "n_without_observations": 0}));
    let later = "select count(*) from forecast where data_cutoff > issue_time or quality = 'fallback'";
    assert_eq!((count(&pool, "select count(*) from forecast").await, count(&pool, later).await), (9, 0));

    // The same as if it had been asked for.
    let one =
        json!({"panel": "city", "horizon": 6, "num_samples": 5, "seed": 2, "issue_time": hour(204), "store": false});
    let asked = service.make_forecast(&one).await.expect(200);
    let id: String = sqlx::query_scalar("select forecast_id::text from forecast where issue_time = $1")
        .bind(hour(204))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(service.forecast(&id).await.expect(200)["series"], asked["series"]);

    // Before anything was known there is nothing to forecast from; by the command, and from where the other one ended.
    let words = ["backfill", "--panel", "city", "--horizon", "6", "--num-samples", "5", "--seed", "2", "--every", "6"];
    let period = ["--start", "2025-02-28T12:00:00Z", "--end", "2025-03-01T00:00:00Z"];
    let said = say(&pool, service.data_dir(), &[words.as_slice(), &period].concat()).await;
    assert_eq!(said.trim(), "0 forecasts made, 0 were stored, 2 without observations");
    let period = ["--start", "2025-03-10T00:00:00Z", "--end", "2025-03-10T13:00:00Z"];
    let said = say(&pool, service.data_dir(), &[words.as_slice(), &period].concat()).await;
    assert_eq!(said.trim(), "1 forecasts made, 2 were stored, 0 without observations");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_backfill_that_was_withdrawn_stores_nothing_more_and_another_attempt_goes_on(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let body = json!({"kind": "backfill", "arguments": backfill()});
    let asked = service.post("/v1/jobs", &body).await;
    let location = asked.header("location").unwrap().to_owned();
    let job = asked.expect(202);
    assert_eq!(location, format!("/v1/jobs/{}", job["job_id"].as_str().unwrap()));

    let context = context(&pool, service.data_dir());
    // REST asks by the clock of the machine.
    let lease = Duration::from_secs(600);
    let take = async || queue::take(&pool, "test", &["backfill"], Utc::now(), lease).await.unwrap().unwrap();
    let taken = take().await;
    // It is cancelled while it stores the first one.
    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("lock table forecast in share mode").execute(&mut *blocker).await.unwrap();
    let attempt = tokio::spawn({
        let (context, lease) = (context.clone(), taken.lease.clone());
        async move { attempt::make(&context, &lease).await }
    });
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    while count(&pool, waiting).await == 0 {}
    service.act(&format!("{location}/cancel")).await.expect(200);
    blocker.rollback().await.unwrap();
    assert_eq!(attempt.await.unwrap().unwrap(), None);
    assert_eq!(count(&pool, "select count(*) from forecast").await, 0, "not one of a job that was cancelled");

    // An attempt that ended after three of eight.
    service.act(&format!("{location}/retry")).await.expect(200);
    for issue_time in [180, 186, 192] {
        let request =
            json!({"panel": "city", "horizon": 6, "num_samples": 5, "seed": 2, "issue_time": hour(issue_time)});
        service.make_forecast(&request).await.expect(201);
    }
    let taken = take().await;
    attempt::make(&context, &taken.lease).await.unwrap();
    let job = db::job::get(&pool, TENANT, taken.lease.job_id).await.unwrap().unwrap();
    assert_eq!(job.result.unwrap(), json!({"n_made": 5, "n_stored": 3, "n_without_observations": 0}));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn two_backfills_at_once_store_each_forecast_once(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    for _ in 0..2 {
        service.post("/v1/jobs", &json!({"kind": "backfill", "arguments": backfill()})).await.expect(202);
    }
    let work = || do_next_job(&pool, service.data_dir(), "backfill", Utc::now());
    let (one, other) = tokio::join!(work(), work());
    let jobs = [one, other];
    let of_both = |what: &str| jobs.iter().map(|job| job.result.as_ref().unwrap()[what].as_u64().unwrap()).sum::<u64>();
    assert_eq!((of_both("n_made"), of_both("n_stored")), (8, 8), "{jobs:?}");
    assert_eq!(count(&pool, "select count(*) from forecast").await, 8);

    // To the same moment: one has stored its forecast and not committed it while the other makes its own.
    let metrics = Metrics::new().unwrap();
    let predictor =
        Predictor::start(Artefacts::local(service.data_dir()).unwrap(), 2, 1, forecast::cpu(), metrics.clone())
            .unwrap();
    let request = json!({"panel": "city", "horizon": 6, "num_samples": 5});
    let order = serde_json::from_value::<ForecastRequest>(request).unwrap().order(&Limits::default()).unwrap();
    let make = || backfilling::make(&pool, &predictor, &metrics, &order, hour(228), hour(240));
    let Made::Forecast(first) = make().await.unwrap() else { panic!("there is none yet") };
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                     and database = (select oid from pg_database where datname = current_database())";
    let commit = async {
        while count(&pool, waiting).await == 0 {}
        first.commit().await.unwrap();
    };
    let (second, ()) = tokio::join!(make(), commit);
    assert!(matches!(second, Ok(Made::Stored)), "{second:?}");
    assert_eq!(count(&pool, "select count(*) from forecast").await, 9);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_no_backfill_can_be_is_refused_with_the_place(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 48).await;
    let arguments = json!({"start": hour(8), "end": hour(8), "every": 0, "forecast":
        {"panel": "city", "horizon": 0, "issue_time": hour(1), "store": false}});
    let problem = service.post("/v1/jobs", &json!({"kind": "backfill", "arguments": arguments})).await;
    let problem = problem.problem(422, "invalid-body");
    let pointers: Vec<_> = problem.errors.iter().filter_map(|error| error.pointer.as_deref()).collect();
    let below = ["/forecast/horizon", "/forecast/issue_time", "/forecast/store", "/every", "/end"];
    assert_eq!(pointers, below.map(|pointer| format!("/arguments{pointer}")));

    register(&pool, &loaded, "gone", &"a".repeat(64)).await;
    let long = json!({"start": "2020-01-01T00:00:00Z", "forecast": {"panel": "city", "horizon": 1}});
    let job = do_job(&pool, service.data_dir(), "backfill", long, hour(48)).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.failure.unwrap().contains("at most 2000 issue times"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_of_what_its_model_has_learned_from_says_so_and_is_not_scored(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let learned = "update model set metrics = jsonb_build_object('trained_until', $1)";
    sqlx::query(learned).bind(hour(200)).execute(&pool).await.unwrap();
    for (issue_time, is_seen) in [(190, true), (200, false), (210, false)] {
        let request = json!({"panel": "city", "horizon": 3, "num_samples": 2, "issue_time": hour(issue_time)});
        let made = service.make_forecast(&request).await.expect(201);
        let codes: Vec<&Value> = made["warnings"].as_array().unwrap().iter().map(|warning| &warning["code"]).collect();
        assert_eq!(codes.contains(&&json!("seen-in-training")), is_seen, "{issue_time}: {codes:?}");
    }
    let job = do_job(&pool, service.data_dir(), "score", json!({"panel": "city"}), hour(240)).await;
    let result = job.result.unwrap();
    assert_eq!((&result["n_values"], &result["n_forecasts"]), (&json!(12), &json!(2)));
}

/// What jobs work with, at hour 240.
fn context(pool: &PgPool, data_dir: &Path) -> Context {
    let mut config = Config::default();
    config.database.data_dir = data_dir.to_owned();
    let Config { database, pipelines, device, limits, log_format, .. } = config;
    let url = database_url(pool);
    let settings = Settings::new(url, &database, &pipelines, device, &limits, &WorkerConfig::default(), log_format);
    Context { pool: pool.clone(), settings, clock: Arc::new(|| hour(240)) }
}

/// What the program says.
async fn say(pool: &PgPool, data_dir: &Path, arguments: &[&str]) -> String {
    said(output(program(&database_url(pool), data_dir, arguments)).await)
}
