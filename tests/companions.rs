//! Companions: a network that learns from many panels, and what is remembered of that.

use api::db::DEFAULT_TENANT;
use api::db::job::{self, Job};
use api::db::load::{Load, Value as LoadedValue, load};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::JobState;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Service, do_job, hour, load_panel, observation};

async fn succeeded(pool: &PgPool, service: &Service, kind: &str, arguments: Value, now: usize) -> Vec<String> {
    let job = do_job(pool, service.data_dir(), kind, arguments, hour(now)).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let lines = job::log::list(pool, DEFAULT_TENANT, job.job_id, None, 100).await.unwrap();
    lines.into_iter().map(|line| line.text).collect()
}

async fn failed(pool: &PgPool, service: &Service, arguments: Value, now: usize) -> Job {
    let job = do_job(pool, service.data_dir(), "train", arguments, hour(now)).await;
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    job
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_network_learns_from_companions_and_a_new_panel_begins_with_it(pool: PgPool) {
    let service = Service::start(&pool).await;
    for (panel, n_hours) in [("city", 240), ("town", 300), ("village", 120)] {
        load_panel(&pool, panel, n_hours).await;
    }
    let order = json!({"panel": "city", "horizon": 6, "train_steps": 2, "companions": ["town"], "test_windows": 4});
    succeeded(&pool, &service, "train", order, 300).await;
    let model = service.get("/v1/models/city/1").await.expect(200);
    let companions = &model["config"]["companions"];
    assert_eq!((companions[0]["panel"].as_str(), companions.as_array().unwrap().len()), (Some("town"), 1));
    // Nothing of a companion is learned that came after what is learned of the panel itself.
    assert_eq!(companions[0]["learned_until"], json!(hour(240 - 4 * 6)));

    // A panel of which the network knows nothing begins with its weights; the companion's own data it has seen.
    let order = |panel: &str| json!({"panel": panel, "horizon": 6, "train_steps": 2, "warm_start": "city/1"});
    let told = succeeded(&pool, &service, "train", order("village"), 300).await;
    let began = |told: &[String]| told.iter().find(|line| line.starts_with("began")).cloned().unwrap();
    assert!(began(&told).starts_with("began with the weights of version 1 of panel `city`"), "{told:?}");
    let told = succeeded(&pool, &service, "train", order("town"), 220).await;
    assert!(began(&told).contains("origins come after what it was trained on"), "{told:?}");

    // The successor of a model takes after it in its companions, but for one that is not there any more.
    let policy = json!({"windows": 4, "windows_min": 2, "train_steps": 2, "num_samples": 20});
    let retrain = json!({"panel": "city", "policy": policy});
    succeeded(&pool, &service, "retrain", retrain.clone(), 300).await;
    let model = service.get("/v1/models/city/2").await.expect(200);
    assert_eq!(model["config"]["companions"][0]["panel"], "town");
    sqlx::query("update panel set name = 'gone' where name = 'town'").execute(&pool).await.unwrap();
    succeeded(&pool, &service, "retrain", retrain, 300).await;
    let model = service.get("/v1/models/city/3").await.expect(200);
    assert_eq!(model["config"]["companions"], json!([]));
}

/// Loads a daily panel of one series.
async fn load_days(pool: &PgPool, name: &str, n_days: usize) {
    let series = [NewSeries { name: "heat".to_owned(), ..NewSeries::default() }];
    let day = |day: usize| LoadedValue { interval_end: hour(24 * (day + 1)), ..observation(0, 24 * day, 1.0) };
    let values: Vec<LoadedValue> = (0..n_days).map(day).collect();
    let panel = NewPanel { name, frequency: "1d", time_zone: "UTC", publication_delay: None, holidays: None };
    let order = Load { panel, series: &series, values: &values, load_time: hour(24 * n_days) };
    load(pool, DEFAULT_TENANT, &order).await.unwrap();
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn companions_that_cannot_be_learned_from_are_named(pool: PgPool) {
    let service = Service::start(&pool).await;
    for panel in ["city", "town"] {
        load_panel(&pool, panel, 240).await;
    }
    let order =
        |companions: &[&str]| json!({"panel": "city", "horizon": 6, "train_steps": 2, "companions": companions});
    for (companions, pointer) in [(vec!["city"], "/companions/0"), (vec!["town", "town"], "/companions/1")] {
        let asked = service.post("/v1/jobs", &json!({"kind": "train", "arguments": order(&companions)})).await;
        let problem = asked.problem(422, "invalid-body");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some(format!("/arguments{pointer}").as_str()));
    }
    let unknown = failed(&pool, &service, order(&["nowhere"]), 240).await;
    assert!(unknown.failure.as_deref().unwrap().contains("there is no panel `nowhere`"), "{unknown:?}");
    load_days(&pool, "days", 10).await;
    let daily = failed(&pool, &service, order(&["days"]), 240).await;
    let told = daily.failure.as_deref().unwrap();
    assert!(told.contains("companion `days` has steps of 1d, panel `city` of 1h"), "{told}");
    assert_eq!(daily.attempts, 1, "it is not tried again");
}
