//! Jobs: asked for by REST, done by workers, and nothing lost or done twice whatever happens to these.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::config::{Config, Limits, WorkerConfig};
use api::db::job::queue::{self, Taken};
use api::db::words::JobState;
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::jobs::worker::Worker;
use api::jobs::{Ask, Settings, Work, enqueue};
use api::metrics::Metrics;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

use crate::postgres::{Running, folder};
use crate::support::{Program, Service, database_url, hour, load_panel, plumecast, register, train};

/// Longest wait for anything that a test waits for; a busy machine needs some of it.
const PATIENCE: Duration = Duration::from_secs(150);

/// How a worker of a test works: impatiently.
fn config() -> WorkerConfig {
    WorkerConfig {
        job_poll: Duration::from_millis(50),
        job_lease: Duration::from_secs(3),
        job_retry: Duration::from_millis(50),
        // A busy machine would leave them nothing.
        job_niceness: 0,
        ..WorkerConfig::default()
    }
}

/// A worker in this process, whose jobs are processes of the program under test. It stops when it is dropped.
struct Working {
    stop: watch::Sender<bool>,
    metrics: Metrics,
}

impl Working {
    fn start(pool: &PgPool, service: &Service, config: WorkerConfig) -> Self {
        let mut of_service = Config::default();
        of_service.database.data_dir = service.data_dir().to_owned();
        let Config { database, pipelines, device, limits, log_format, .. } = of_service;
        let url = database_url(pool);
        let metrics = Metrics::new().unwrap();
        let worker = Worker {
            pool: pool.clone(),
            settings: Settings::new(url, &database, &pipelines, device, &limits, &config, log_format),
            limits,
            config,
            program: plumecast().into(),
            clock: Arc::new(Utc::now),
            metrics: metrics.clone(),
        };
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(worker.run(stopped));
        Self { stop, metrics }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Looks until there is something to see.
async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(seen) = look().await {
            return seen;
        }
        pause.tick().await;
    }
    panic!("waited too long until {what}");
}

async fn job(pool: &PgPool, job_id: Uuid) -> db::job::Job {
    db::job::get(pool, TENANT, job_id).await.unwrap().unwrap()
}

async fn wait_for_state(pool: &PgPool, job_id: Uuid, state: JobState) -> db::job::Job {
    let what = format!("job {job_id} is {state}");
    wait_for(&what, async || Some(job(pool, job_id).await).filter(|job| job.state == state)).await
}

async fn ask(pool: &PgPool, kind: &str, arguments: Value) -> Uuid {
    let work = Work::parse(kind, arguments).unwrap();
    let now = Utc::now();
    let ask = Ask { by: "test", run_after: now, now, key: None };
    enqueue(&mut pool.acquire().await.unwrap(), &work, &ask, &Limits::default()).await.unwrap()
}

fn short_training() -> Value {
    json!({"panel": "site", "horizon": 6, "train_steps": 3})
}

/// Far longer than any test.
fn endless_training() -> Value {
    json!({"panel": "site", "horizon": 6, "train_steps": 1_000_000})
}

fn id_of(body: &Value) -> Uuid {
    body["job_id"].as_str().unwrap().parse().unwrap()
}

/// What the log of a job says, by REST.
async fn log_of(service: &Service, job_id: Uuid) -> Vec<String> {
    let log = service.get(&format!("/v1/jobs/{job_id}/log")).await.expect(200);
    log["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

async fn n_models(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from model").fetch_one(pool).await.unwrap()
}

/// Connections of the processes of jobs; none when no such process is left.
async fn n_job_connections(pool: &PgPool) -> i64 {
    let count = "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'plumecast job'";
    sqlx::query_scalar(count).fetch_one(pool).await.unwrap()
}

async fn wait_for_training(pool: &PgPool, job_id: Uuid) -> db::job::Job {
    let is_training = |job: &db::job::Job| job.state == JobState::Running && job.progress > 0.0;
    wait_for("it trains", async || Some(job(pool, job_id).await).filter(is_training)).await
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_training_is_asked_for_followed_and_takes_effect(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 240).await;
    let answer = service.post("/v1/jobs", &json!({"kind": "train", "arguments": short_training()})).await;
    let asked = answer.expect(202);
    let job_id = id_of(&asked);
    assert_eq!(answer.header("location"), Some(format!("/v1/jobs/{job_id}").as_str()));
    assert_eq!((&asked["state"], &asked["asked_by"]), (&json!("waiting"), &json!("rest")));
    assert_eq!(asked["arguments"]["seed"], 1, "defaults are filled in: {asked}");

    let worker = Working::start(&pool, &service, config());
    wait_for_state(&pool, job_id, JobState::Succeeded).await;
    let done = service.get(&format!("/v1/jobs/{job_id}")).await.expect(200);
    assert_eq!(done["result"]["model"], json!({"name": "site", "version": 1}));
    assert_eq!((&done["progress"], &done["attempts"]), (&json!(1.0), &json!(1)));
    assert!(done["worker"].is_string() && done["finished_at"].is_string(), "{done}");
    let log = log_of(&service, job_id).await;
    assert_eq!(log[0], "240 steps of 2 series");
    assert_eq!(log[log.len() - 1], "model version 1 is champion");

    let models = service.get("/v1/models?panel=site").await.expect(200);
    assert_eq!(models["models"][0]["stage"], "champion");
    service.make_forecast(&json!({"panel": "site", "horizon": 3, "num_samples": 4})).await.expect(201);
    let text = wait_for("the duration is counted", async || {
        Some(worker.metrics.render().unwrap()).filter(|text| text.contains("plumecast_job_duration_seconds_count"))
    });
    assert!(text.await.contains(r#"{kind="train",outcome="succeeded"} 1"#));
    let metrics = service.get("/metrics").await.text();
    assert!(metrics.contains(r#"plumecast_jobs{kind="train",state="succeeded"} 1"#), "{metrics}");
    assert!(metrics.contains("plumecast_worker_heartbeat_age_seconds"), "{metrics}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_too_large_to_wait_for_becomes_a_job(pool: PgPool) {
    let limits = Limits { cost_max: 100, job_cost_max: 1000, ..Limits::default() };
    let service = Service::start_with(&pool, limits).await;
    let loaded = load_panel(&pool, "site", 240).await;
    train(&pool, &service, &loaded).await;
    let request = json!({"panel": "site", "horizon": 12, "num_samples": 5});
    let answer = service.make_forecast_once("a", &request).await;
    let job_id = id_of(&answer.expect(202));
    assert_eq!(answer.header("location"), Some(format!("/v1/jobs/{job_id}").as_str()));

    let _worker = Working::start(&pool, &service, config());
    let done = wait_for_state(&pool, job_id, JobState::Succeeded).await;
    let forecast_id = done.result.unwrap()["forecast_id"].as_str().unwrap().to_owned();
    assert_eq!(forecast_id, job_id.to_string());
    let forecast = service.forecast(&forecast_id).await.expect(200);
    assert_eq!((&forecast["horizon"], &forecast["num_samples"]), (&json!(12), &json!(5)));
    service.trajectories(&forecast_id, "samples=5").await.expect(200);

    // The same request again is the same job; another one with the key is a mistake.
    assert_eq!(id_of(&service.make_forecast_once("a", &request).await.expect(202)), job_id);
    let other = json!({"panel": "site", "horizon": 12, "num_samples": 6});
    service.make_forecast_once("a", &other).await.problem(409, "idempotency-conflict");
    let larger = json!({"panel": "site", "horizon": 12, "num_samples": 50});
    let problem = service.make_forecast(&larger).await.problem(422, "too-costly");
    assert!(problem.detail.contains("1200 values") && problem.detail.contains("1000"), "{}", problem.detail);
    let fleeting = json!({"panel": "site", "horizon": 12, "num_samples": 5, "store": false});
    service.make_forecast(&fleeting).await.problem(422, "too-costly");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_client_may_prefer_not_to_wait(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 48).await;
    let request = ureq::http::Request::post("/v1/forecasts")
        .header("content-type", "application/json")
        .header("prefer", "wait=10, respond-async");
    let body = json!({"panel": "site", "horizon": 1}).to_string().into_bytes();
    let job = service.send(request.body(body).unwrap()).await.expect(202);
    assert_eq!((&job["kind"], &job["state"]), (&json!("forecast"), &json!("waiting")));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_cannot_be_a_job_is_refused_with_the_place(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 48).await;
    for (kind, arguments, status, code, pointer) in [
        ("dance", json!({}), 422, "invalid-body", Some("/kind")),
        ("train", json!({"panel": "site"}), 422, "invalid-body", Some("/arguments")),
        ("train", json!({"panel": "site", "horizon": 0}), 422, "invalid-body", Some("/arguments/horizon")),
        ("train", json!({"panel": "site", "horizon": 1, "x": 1}), 422, "invalid-body", Some("/arguments/x")),
        ("train", json!({"panel": "nowhere", "horizon": 1}), 404, "unknown-panel", None),
    ] {
        let body = json!({"kind": kind, "arguments": arguments});
        let problem = service.post("/v1/jobs", &body).await.problem(status, code);
        assert_eq!(problem.errors.first().and_then(|error| error.pointer.as_deref()), pointer, "{body}");
    }
    let id = Uuid::now_v7();
    for path in [format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/log"), "/v1/jobs/7".to_owned()] {
        service.get(&path).await.problem(404, "unknown-job");
    }
    service.get("/v1/jobs?state=asleep").await.problem(400, "invalid-parameter");
    service.get("/v1/jobs?kind=dance").await.problem(400, "invalid-parameter");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn too_many_waiting_jobs_are_refused(pool: PgPool) {
    let service = Service::start_with(&pool, Limits { jobs_waiting_max: 2, ..Limits::default() }).await;
    load_panel(&pool, "site", 48).await;
    let body = json!({"kind": "train", "arguments": short_training()});
    service.post("/v1/jobs", &body).await.expect(202);
    service.post("/v1/jobs", &body).await.expect(202);
    let refused = service.post("/v1/jobs", &body).await;
    refused.problem(503, "too-many-jobs");
    assert!(refused.header("retry-after").is_some());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn jobs_are_listed_by_panel_state_and_kind_in_pages(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 48).await;
    load_panel(&pool, "other", 48).await;
    let mut ids = vec![];
    for _ in 0..3 {
        ids.push(ask(&pool, "train", short_training()).await.to_string());
    }
    ask(&pool, "forecast", json!({"panel": "other", "horizon": 1})).await;
    service.post(&format!("/v1/jobs/{}/cancel", ids[0]), &json!({})).await.expect(200);

    let list = async |query: &str| {
        let body = service.get(&format!("/v1/jobs?{query}")).await.expect(200);
        let jobs = body["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap().to_owned());
        (jobs.collect::<Vec<_>>(), body["next"].as_str().map(str::to_owned))
    };
    let (first, next) = list("panel=site&limit=2").await;
    assert_eq!(first, [ids[2].clone(), ids[1].clone()]);
    assert_eq!(list(&format!("panel=site&limit=2&cursor={}", next.unwrap())).await, (vec![ids[0].clone()], None));
    assert_eq!(list("state=cancelled").await.0, [ids[0].clone()]);
    assert_eq!(list("kind=train&state=waiting").await.0.len(), 2);
    assert_eq!(list("").await.0.len(), 4);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_job_that_always_fails_is_given_up_with_the_reason(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "site", 48).await;
    register(&pool, &loaded, "gone", &"0".repeat(64)).await;
    let _worker = Working::start(&pool, &service, config());

    let job_id = ask(&pool, "forecast", json!({"panel": "site", "horizon": 3, "fallback": false})).await;
    let failed = wait_for_state(&pool, job_id, JobState::Failed).await;
    assert_eq!((failed.attempts, failed.attempts_max), (3, 3));
    let failure = failed.failure.unwrap();
    assert!(failure.contains("cannot be used") && failure.contains("config.json"), "{failure}");
    let log = log_of(&service, job_id).await;
    assert_eq!(log.iter().filter(|line| line.contains("failed: ")).count(), 3, "{log:?}");

    // It can be repeated, and is given all its attempts again.
    let again = service.post(&format!("/v1/jobs/{job_id}/retry"), &json!({})).await.expect(200);
    assert_ne!(again["state"], "failed");
    assert_eq!(wait_for_state(&pool, job_id, JobState::Failed).await.attempts, 3);

    // What cannot get better is not tried again.
    let job_id = ask(&pool, "train", json!({"panel": "site", "horizon": 40, "train_steps": 1})).await;
    let failed = wait_for_state(&pool, job_id, JobState::Failed).await;
    assert_eq!(failed.attempts, 1);
    assert!(failed.failure.unwrap().contains("too few to learn"), "a reason");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_running_job_is_cancelled_within_two_seconds(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 240).await;
    // Its pace as by default, but for what follows the cancelling.
    let _worker = Working::start(&pool, &service, WorkerConfig { job_niceness: 0, ..WorkerConfig::default() });
    let job_id = ask(&pool, "train", endless_training()).await;
    wait_for_training(&pool, job_id).await;
    assert!(n_job_connections(&pool).await > 0);

    let asked_at = Instant::now();
    let cancelled = service.post(&format!("/v1/jobs/{job_id}/cancel"), &json!({})).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    wait_for("its process is gone", async || (n_job_connections(&pool).await == 0).then_some(())).await;
    assert!(asked_at.elapsed() < Duration::from_secs(2), "{:?}", asked_at.elapsed());
    assert_eq!(n_models(&pool).await, 0);
    service.post(&format!("/v1/jobs/{job_id}/cancel"), &json!({})).await.problem(409, "wrong-job-state");

    // The worker is free for the next.
    let next = ask(&pool, "train", short_training()).await;
    wait_for_state(&pool, next, JobState::Succeeded).await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_killed_worker_is_replaced_by_one_that_goes_on_and_one_model_results(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 240).await;
    let job_id = ask(&pool, "train", json!({"panel": "site", "horizon": 6, "train_steps": 120})).await;
    let first = Program::worker(&pool, &service);
    let running = wait_for_training(&pool, job_id).await;
    let states = service.data_dir().join("trainings");
    // What is still being written has another name.
    let is_whole = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|name| name == "safetensors");
    let n_states = || std::fs::read_dir(&states).map_or(0, |all| all.flatten().filter(is_whole).count());
    wait_for("its state is kept", async || (n_states() == 1).then_some(())).await;
    first.signal("-KILL");
    wait_for("its job is gone with it", async || (n_job_connections(&pool).await == 0).then_some(())).await;
    assert_eq!(job(&pool, job_id).await.state, JobState::Running, "nobody could say otherwise");
    // The next attempt is as of the begin of the first, and sees nothing of this.
    let corrected = json!({"series": "heat", "valid_time": hour(239), "value": 99});
    service.post("/v1/observations?panel=site", &json!({ "observations": [corrected] })).await.expect(200);

    let second = Program::worker(&pool, &service);
    let done = wait_for_state(&pool, job_id, JobState::Succeeded).await;
    assert_eq!(done.attempts, 2);
    assert_ne!(done.worker, running.worker);
    let log = log_of(&service, job_id).await;
    let dead = running.worker.unwrap();
    assert!(log.iter().any(|line| line.starts_with(&format!("worker {dead} stopped answering"))), "{log:?}");
    assert!(log.iter().any(|line| line.starts_with("went on from step ")), "{log:?}");
    assert_eq!((n_models(&pool).await, n_states()), (1, 0));
    assert!(done.arguments["as_of"].is_string(), "{:?}", done.arguments);
    let workers = db::worker::list(&pool, TENANT).await.unwrap();
    assert_eq!(workers.len(), 2, "the dead one is remembered for a while: {workers:?}");
    drop(second);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_worker_that_is_told_to_stop_hands_its_job_back(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 240).await;
    let job_id = ask(&pool, "train", endless_training()).await;
    let mut process = Program::worker(&pool, &service);
    wait_for_training(&pool, job_id).await;

    let told_at = Instant::now();
    process.signal("-TERM");
    let status = wait_for("it stops", async || process.0.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    assert!(told_at.elapsed() < Limits::default().shutdown_timeout, "{:?}", told_at.elapsed());
    let job = job(&pool, job_id).await;
    assert_eq!((job.state, job.attempts, job.progress), (JobState::Waiting, 0, 0.0));
    assert_eq!(n_job_connections(&pool).await, 0);
    assert_eq!(db::worker::list(&pool, TENANT).await.unwrap(), []);
}

/// Takes the next job, as a worker of this name does.
async fn take(pool: &PgPool, worker: &str, lease: Duration) -> Option<Taken> {
    queue::take(pool, worker, Work::KINDS, Utc::now(), lease).await.unwrap()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn who_lost_a_job_can_change_nothing(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    let job_id = ask(&pool, "train", short_training()).await;
    let slow = take(&pool, "slow", Duration::ZERO).await.unwrap();
    let quick = take(&pool, "quick", Duration::from_secs(60)).await.unwrap();
    assert_eq!((quick.lease.job_id, quick.lease.attempt, quick.taken_from.as_deref()), (job_id, 2, Some("slow")));
    assert_eq!(take(&pool, "third", Duration::ZERO).await, None);

    let now = Utc::now();
    let mut connection = pool.acquire().await.unwrap();
    assert!(!queue::renew(&pool, &slow.lease, Duration::from_secs(60)).await.unwrap());
    assert!(!queue::succeed(&mut connection, &slow.lease, &json!({}), now).await.unwrap());
    assert_eq!(queue::fail(&pool, &slow.lease, "late", None, now).await.unwrap(), None);
    queue::hand_back(&pool, &slow.lease).await.unwrap();
    queue::report(&pool, &slow.lease, 0.5, "late").await.unwrap();
    let stored = job(&pool, job_id).await;
    assert_eq!((stored.state, stored.worker.as_deref(), stored.progress), (JobState::Running, Some("quick"), 0.0));

    // Neither can who was cancelled, even when the job is taken by the same worker again.
    assert!(db::job::cancel(&pool, TENANT, job_id, now).await.unwrap());
    assert!(db::job::retry(&pool, TENANT, job_id, now).await.unwrap());
    let again = take(&pool, "quick", Duration::from_secs(60)).await.unwrap();
    assert!(!queue::succeed(&mut connection, &quick.lease, &json!({}), now).await.unwrap());
    assert!(queue::succeed(&mut connection, &again.lease, &json!({}), now).await.unwrap());
    assert_eq!(job(&pool, job_id).await.state, JobState::Succeeded);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_lease_that_ran_out_is_renewed_while_nobody_took_the_job(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    ask(&pool, "train", short_training()).await;
    let taken = take(&pool, "cut off", Duration::ZERO).await.unwrap();
    assert!(queue::renew(&pool, &taken.lease, Duration::from_secs(60)).await.unwrap());
    assert_eq!(take(&pool, "other", Duration::ZERO).await, None);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_job_whose_workers_all_die_fails(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    let job_id = ask(&pool, "train", short_training()).await;
    for worker in ["a", "b", "c"] {
        take(&pool, worker, Duration::ZERO).await.unwrap();
        queue::bury(&pool, Utc::now()).await.unwrap();
    }
    let failed = job(&pool, job_id).await;
    assert_eq!(failed.state, JobState::Failed);
    assert_eq!(failed.failure.as_deref(), Some("worker c stopped answering, in attempt 3 of 3"));
    assert_eq!(take(&pool, "d", Duration::ZERO).await, None);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn jobs_are_taken_once_in_order_when_their_time_has_come(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    let work = Work::parse("train", short_training()).unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let mut ids = vec![];
    for after in [2, 0, 1, 99] {
        let ask = Ask { by: "test", run_after: hour(after), now: hour(0), key: None };
        ids.push(enqueue(&mut connection, &work, &ask, &Limits::default()).await.unwrap());
    }
    let lease = Duration::from_secs(60);
    let take = async || queue::take(&pool, "one", Work::KINDS, hour(3), lease).await.unwrap().map(|t| t.lease.job_id);
    assert_eq!(take().await, Some(ids[1]));
    // At the same time, each takes another one, or none.
    let (a, b, c) = tokio::join!(take(), take(), take());
    let mut taken: Vec<Uuid> = [a, b, c].into_iter().flatten().collect();
    taken.sort();
    let mut due = vec![ids[0], ids[2]];
    due.sort();
    assert_eq!(taken, due);
    assert_eq!(queue::take(&pool, "one", &["forecast"], hour(100), lease).await.unwrap(), None, "not this kind");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_log_of_a_job_has_a_limit(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    let job_id = ask(&pool, "train", short_training()).await;
    let fill = "insert into job_log (tenant_id, job_id, attempt, written_at, text)
         select 1, $1, 1, now(), n::text from generate_series(1, $2) as n";
    sqlx::query(fill).bind(job_id).bind(db::job::log::LINES_MAX - 1).execute(&pool).await.unwrap();
    let now = Utc::now();
    db::job::log::write(&pool, TENANT, job_id, 1, now, &"é\0".repeat(5000)).await.unwrap();
    db::job::log::write(&pool, TENANT, job_id, 1, now + TimeDelta::seconds(1), "one too many").await.unwrap();
    let lines = db::job::log::list(&pool, TENANT, job_id, None, 2000).await.unwrap();
    assert_eq!(lines.len(), 1000);
    assert_eq!(lines[999].text, "é".repeat(2000));
}

#[tokio::test]
async fn a_database_that_stops_and_comes_back_costs_nothing_but_the_wait() {
    let (folder, data_dir) = (folder(), tempfile::tempdir().unwrap());
    let database = Running::start(folder.path());
    let pool = PgPool::connect(&database.url).await.unwrap();
    api::MIGRATOR.run(&pool).await.unwrap();
    load_panel(&pool, "site", 240).await;
    let job_id = ask(&pool, "train", json!({"panel": "site", "horizon": 6, "train_steps": 40})).await;
    // Its lease is shorter than a start of the database takes.
    let _worker = Program::worker_on(&database.url, data_dir.path(), "0.2");
    wait_for_training(&pool, job_id).await;

    database.stop();
    let database = Running::start(folder.path());
    let pool = PgPool::connect(&database.url).await.unwrap();
    let done = wait_for_state(&pool, job_id, JobState::Succeeded).await;
    assert_eq!(done.attempts, 1, "the training went on meanwhile");
    assert_eq!(n_models(&pool).await, 1);

    // And so does the worker.
    let next = ask(&pool, "train", short_training()).await;
    wait_for_state(&pool, next, JobState::Succeeded).await;
    drop(database);
}
