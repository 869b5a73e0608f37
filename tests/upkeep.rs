//! Upkeep when something is in its way: partitions that others use, a run that is stopped, a disk without room, and more forecasts
//! than are worth looking at.

use std::fs;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use api::artefacts::Artefacts;
use api::db::load::{Load, load};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::JobState;
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::retention::{Retained, Retention, RetentionPolicy};
use chrono::{DateTime, TimeZone, Utc};
use forecast::Trajectories;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    Service, count, database_url, do_job, hour, load_panel, observation, plumecast, register, store_forecast,
};

/// A service with a forecast of March and one of April.
async fn with_two_months(pool: &PgPool) -> Service {
    let service = Service::start(pool).await;
    load_panel(pool, "city", 24 * 60).await;
    for issue_time in [hour(24 * 10), hour(24 * 40)] {
        let request = json!({"panel": "city", "horizon": 6, "num_samples": 3, "issue_time": issue_time});
        service.make_forecast(&request).await.expect(201);
    }
    service
}

fn policy() -> RetentionPolicy {
    serde_json::from_value(json!({"keep": {"trajectory_days": 10}})).unwrap()
}

fn summer() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2025, 8, 15, 0, 0, 0).unwrap()
}

async fn retain(pool: &PgPool, service: &Service, tell: impl FnMut(&str) -> ControlFlow<()>) -> Retained {
    let policy = policy();
    let artefacts = Artefacts::local(service.data_dir()).unwrap();
    let retention = Retention {
        pool,
        data_dir: service.data_dir(),
        artefacts: &artefacts,
        policy: &policy,
        now: summer(),
        is_dry: false,
    };
    retention.run(tell).await.unwrap()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_partition_that_others_use_is_left_and_the_others_go(pool: PgPool) {
    let service = with_two_months(&pool).await;
    let mut writer = pool.begin().await.unwrap();
    sqlx::query("lock table trajectory_y2025m03 in row exclusive mode").execute(&mut *writer).await.unwrap();
    let job = do_job(&pool, service.data_dir(), "retain", json!(policy()), summer()).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let result = job.result.unwrap();
    assert_eq!(result["busy"], json!(["trajectory_y2025m03"]));
    assert_eq!((&result["partitions"], &result["n_trajectories"]), (&json!(["trajectory_y2025m04"]), &json!(1)));
    let log = db::job::log::list(&pool, TENANT, job.job_id, None, 10).await.unwrap();
    assert!(log.iter().any(|line| line.text.starts_with("trajectory_y2025m03 is used by others")), "{log:?}");

    writer.rollback().await.unwrap();
    let retained = retain(&pool, &service, |_| ControlFlow::Continue(())).await;
    assert_eq!((retained.partitions, retained.n_trajectories), (vec!["trajectory_y2025m03".to_owned()], 1));
    assert_eq!((retained.busy.len(), count(&pool, "select count(*) from trajectory").await), (0, 0));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_run_that_is_stopped_tells_what_went_and_not_what_was_to_go(pool: PgPool) {
    let service = with_two_months(&pool).await;
    let mut n_told = 0;
    // Before the first table, and after its first partition.
    let stop = |_: &str| {
        n_told += 1;
        if n_told < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let retained = retain(&pool, &service, stop).await;
    assert_eq!((retained.partitions.len(), retained.n_trajectories), (1, 1));
    let retained = retain(&pool, &service, |_| ControlFlow::Break(())).await;
    assert_eq!((retained.partitions.len(), retained.n_trajectories), (0, 0));
    let retained = retain(&pool, &service, |_| ControlFlow::Continue(())).await;
    assert_eq!((retained.partitions.len(), retained.n_trajectories), (1, 1));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_training_without_room_for_its_model_is_tried_again_and_leaves_nothing(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 48).await;
    let body = json!({"kind": "train", "arguments": {"panel": "city", "horizon": 3, "train_steps": 1}});
    let job_id = service.post("/v1/jobs", &body).await.expect(202)["job_id"].as_str().unwrap().to_owned();
    let work = |kilobytes: u32| {
        // No file can be longer than that; ignored, the signal of the limit leaves an error of the write.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 2 * kilobytes);
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(plumecast());
        command.args(["work", "--job-poll", "0.05", "--job-retry", "0.05", "--job-niceness", "0", "--data-dir"]);
        command.arg(service.data_dir()).env("DATABASE_URL", database_url(&pool));
        command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let state = async || service.get(&format!("/v1/jobs/{job_id}")).await.expect(200);
    let wait_for = async |states: &[&str]| {
        let started = Instant::now();
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            let job = state().await;
            if states.contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            assert!(started.elapsed() < Duration::from_secs(150), "{job}");
            pause.tick().await;
        }
    };
    // Room for the snapshot, but not for the weights.
    let mut cramped = work(16);
    let failed = wait_for(&["failed"]).await;
    let failure = failed["failure"].as_str().unwrap();
    assert!(failure.contains("writing the checkpoint") && failure.contains("File too large"), "{failure}");
    assert_eq!(failed["attempts"], 3);
    assert_eq!(fs::read_dir(service.models_dir()).unwrap().count(), 0, "no half of a model is left");
    assert_eq!(count(&pool, "select count(*) from model").await, 0);
    cramped.kill().unwrap();
    cramped.wait().unwrap();

    service.act(&format!("/v1/jobs/{job_id}/retry")).await.expect(200);
    let mut roomy = work(1_000_000);
    wait_for(&["succeeded"]).await;
    roomy.kill().unwrap();
    roomy.wait().unwrap();
    assert_eq!(count(&pool, "select count(*) from model").await, 1);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn scoring_without_a_beginning_leaves_alone_what_was_scored_long_ago(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 24 * 60).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    let trajectories = Trajectories::new(2, 1, 3, 2, vec![1.0; 12]).unwrap();
    store_forecast(&pool, &loaded, &model, &trajectories).await;
    let score = async |arguments: Value| {
        let job = do_job(&pool, service.data_dir(), "score", arguments, hour(24 * 60)).await;
        job.result.unwrap()["n_values"].as_i64().unwrap()
    };
    let (all, new) = (json!({"panel": "city", "since": hour(0)}), json!({"panel": "city"}));
    // It ends weeks before the newest value, but nobody has scored it.
    assert_eq!(score(new.clone()).await, 6);
    let correct = async |value: f64| {
        let series = [NewSeries { name: "heat".to_owned(), ..NewSeries::default() }];
        let panel =
            NewPanel { name: "city", frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
        let values = [observation(0, 48, value)];
        load(&pool, TENANT, &Load { panel, series: &series, values: &values, load_time: hour(24 * 60) }).await.unwrap();
    };
    correct(99.0).await;
    assert_eq!((score(new.clone()).await, score(all).await), (0, 1));

    // Of a later one, corrections are looked for.
    let later = "update forecast set issue_time = issue_time + $1, first_valid_time = first_valid_time + $1,
        last_valid_time = last_valid_time + $1";
    let days = hour(24 * 28) - hour(0);
    sqlx::query(later).bind(days).execute(&pool).await.unwrap();
    let values = "update forecast_value set issue_time = issue_time + $1, valid_time = valid_time + $1";
    sqlx::query(values).bind(days).execute(&pool).await.unwrap();
    sqlx::query("update trajectory set issue_time = issue_time + $1").bind(days).execute(&pool).await.unwrap();
    assert_eq!(score(new).await, 6);
}
