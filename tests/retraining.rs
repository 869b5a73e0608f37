//! Retraining: candidates that are promoted, rejected or left alone, and what is stored of it.

use std::f64::consts::TAU;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use api::artefacts::Artefacts;
use api::db::load::{Load, Loaded, load};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::{Decision, JobState, ReferenceKind, Stage};
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::retraining::{Policy, Retrained, Retraining, Stopped, retrain};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::{Service, database_url, do_job, hour, load_panel, observation, program, register, train};

/// An irregular, but repeatable number between 0 and 1.
fn disturbance(step: usize) -> f64 {
    ((step * 7919) % 101) as f64 / 101.0
}

/// The value of a series in an hour.
type Value = fn(usize) -> f64;

/// Loads hours of a panel with a series per function.
async fn load_hours(pool: &PgPool, hours: Range<usize>, series: &[(&str, Value)]) -> Loaded {
    let names: Vec<NewSeries> =
        series.iter().map(|(name, _)| NewSeries { name: (*name).to_owned(), ..NewSeries::default() }).collect();
    let values: Vec<_> = hours
        .clone()
        .flat_map(|step| {
            series.iter().enumerate().map(move |(index, (_, value))| observation(index, step, value(step)))
        })
        .collect();
    let panel = NewPanel { name: "city", frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    load(pool, TENANT, &Load { panel, series: &names, values: &values, load_time: hour(hours.end) }).await.unwrap()
}

/// Few steps, few windows.
fn policy() -> Policy {
    Policy { windows: 6, train_steps: Some(2), num_samples: 40, ..Policy::default() }
}

async fn retrain_at(pool: &PgPool, data_dir: &Path, end: usize, horizon: Option<usize>) -> anyhow::Result<Retrained> {
    let order = Retraining { panel: "city".to_owned(), horizon, as_of: hour(end), policy: policy() };
    let artefacts = Artefacts::local(data_dir).unwrap();
    let judged = retrain(pool, &artefacts, &forecast::cpu(), &order, |_, _| ControlFlow::Continue(())).await?;
    let mut transaction = pool.begin().await?;
    let retrained = judged.store(&mut transaction, pool, &artefacts).await?;
    transaction.commit().await?;
    Ok(retrained)
}

/// No season at first, a strong one from hour 300 on.
fn changing(step: usize) -> f64 {
    let amplitude = if step < 300 { 0.0 } else { 20.0 };
    50.0 + amplitude * ((step % 24) as f64 / 24.0 * TAU).cos() + 3.0 * disturbance(step)
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_candidate_serves_when_it_is_better_and_not_when_it_is_the_same(pool: PgPool) {
    let service = Service::start(&pool).await;
    let data_dir = service.models_dir().parent().unwrap().to_owned();
    load_hours(&pool, 0..300, &[("heat", changing)]).await;

    let first = retrain_at(&pool, &data_dir, 300, Some(6)).await.unwrap();
    assert_eq!(first.model.stage, Stage::Champion);
    assert_eq!(first.comparison.reference, ReferenceKind::SeasonalNaive);
    assert!(first.comparison.reason.starts_with("the panel had no champion"), "{}", first.comparison.reason);
    assert_eq!(first.model.data_cutoff, hour(264), "six windows of six hours were kept out");

    // The same data, seed and steps make the same model, and all windows lie after what the champion learned from.
    let same = retrain_at(&pool, &data_dir, 300, None).await.unwrap();
    assert_eq!((same.model.stage, same.comparison.decision), (Stage::Rejected, Decision::Rejected));
    assert_eq!(same.comparison.candidate_crps, same.comparison.reference_crps);
    assert_eq!((same.comparison.is_fair, same.comparison.difference), (vec![true; 6], Some(0.0)));
    assert_eq!(same.model.parent_version, Some(1));

    load_hours(&pool, 300..640, &[("heat", changing)]).await;
    let better = retrain_at(&pool, &data_dir, 640, None).await.unwrap();
    assert_eq!(better.model.stage, Stage::Champion, "{}", better.comparison.reason);
    assert!(better.comparison.difference_upper.unwrap() < 0.0, "{}", better.comparison.reason);
    assert_eq!(better.comparison.champion_model_id, Some(first.model.model_id));

    let found = service.get("/v1/models/city/3/comparison").await.expect(200);
    assert_eq!((&found["decision"], &found["champion_version"]), (&json!("promoted"), &json!(1)));
    assert_eq!(found["windows"].as_array().unwrap().len(), 6);
    assert_eq!((&found["policy"]["windows"], &found["policy"]["tolerance"]), (&json!(6), &json!(0.01)));
    let model = service.get("/v1/models/city/3").await.expect(200);
    assert_eq!(model["reason"], found["reason"]);
    assert_eq!(model["metrics"]["backtest"].as_array().unwrap().len(), 3);
    let made = service.make_forecast(&json!({"panel": "city", "horizon": 3, "num_samples": 2})).await.expect(201);
    assert_eq!(made["model"]["version"], 3);
    service.get("/v1/models/city/9/comparison").await.problem(404, "unknown-model");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_champion_that_has_seen_the_windows_is_not_judged_by_them(pool: PgPool) {
    let service = Service::start(&pool).await;
    let data_dir = service.models_dir().parent().unwrap().to_owned();
    let loaded = load_panel(&pool, "city", 240).await;
    let champion = train(&pool, &service, &loaded).await;
    service.get("/v1/models/city/1/comparison").await.problem(404, "no-comparison");
    sqlx::query("update model set data_cutoff = $1").bind(hour(222)).execute(&pool).await.unwrap();

    let order = json!({"panel": "city", "horizon": 6, "policy": policy()});
    let job = do_job(&pool, &data_dir, "retrain", order, hour(240)).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let result = job.result.unwrap();
    assert_eq!((&result["stage"], &result["decision"]), (&json!("candidate"), &json!("undecided")));
    let candidate = db::model::get_by_version(&pool, TENANT, loaded.panel.panel_id, 2).await.unwrap().unwrap();
    let comparison = db::comparison::get(&pool, TENANT, candidate.model_id).await.unwrap().unwrap();
    assert!(comparison.reason.starts_with("3 of 6 windows lie after"), "{}", comparison.reason);
    assert_eq!(comparison.is_fair, [false, false, false, true, true, true]);
    let serving = db::model::champion(&pool, TENANT, loaded.panel.panel_id).await.unwrap().unwrap();
    assert_eq!(serving.model_id, champion.model_id);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn training_begins_with_the_weights_of_another_model_where_these_can_be_judged(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_hours(&pool, 0..300, &[("heat", changing)]).await;
    let log = async |kind: &str, arguments: serde_json::Value, now: usize| {
        let job = do_job(&pool, service.data_dir(), kind, arguments, hour(now)).await;
        assert_eq!(job.state, JobState::Succeeded, "{job:?}");
        let lines = db::job::log::list(&pool, TENANT, job.job_id, None, 100).await.unwrap();
        lines.into_iter().map(|line| line.text).filter(|line| line.starts_with("began with")).collect::<Vec<_>>()
    };
    let policy = json!({"windows": 6, "train_steps": 12, "num_samples": 20, "warm_start": true});
    let retrain = json!({"panel": "city", "horizon": 6, "policy": policy});
    assert!(log("retrain", retrain.clone(), 300).await.is_empty(), "there is no champion to begin with");

    // Everything that could be chosen by has been seen, later most of it not.
    let told = log("retrain", retrain.clone(), 300).await;
    let refused = "began with nothing, not with version 1 of panel `city`: 0 origins come after what it was trained on";
    assert!(told[0].starts_with(refused), "{told:?}");
    load_hours(&pool, 300..640, &[("heat", changing)]).await;
    let told = log("retrain", retrain, 640).await;
    assert!(told[0].starts_with("began with the weights of version 1 of panel `city`, chosen by"), "{told:?}");
    let model = service.get("/v1/models/city/3").await.expect(200);
    let origin = &model["config"]["warm_start"];
    assert_eq!((&origin["panel"], &origin["version"]), (&json!("city"), &json!(1)));
    assert_eq!(origin["learned_until"].as_object().unwrap().values().next().unwrap(), &json!(hour(264)));
    assert!(model["metrics"]["training"]["warm_start"]["weights"]["n_origins"].as_u64().unwrap() >= 18, "{model}");
    assert_eq!(service.get("/v1/models/city/2").await.expect(200)["config"]["warm_start"], json!(null));

    // Of other data nothing has been seen; what its weights had learned from before stays known.
    load_panel(&pool, "town", 240).await;
    let order = |from: &str| json!({"panel": "city", "horizon": 6, "train_steps": 12, "warm_start": from});
    let wide = json!({"panel": "town", "horizon": 6, "train_steps": 12});
    assert!(log("train", wide, 240).await.is_empty());
    let told = log("train", order("town/champion"), 640).await;
    assert_eq!(
        told,
        ["began with nothing, not with version 1 of panel `town`: its number of series is 2, this network's is 1"]
    );
    let told = log("train", order("3"), 640).await;
    assert!(told[0].contains("with version 3 of panel `city`: ") || told[0].contains("of version 3"), "{told:?}");

    let problem = service.post("/v1/jobs", &json!({"kind": "train", "arguments": order("best")})).await;
    let problem = problem.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/arguments/warm_start"));
    let job = do_job(&pool, service.data_dir(), "train", order("77"), hour(640)).await;
    assert!(job.failure.unwrap().contains("no model of version 77"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_champion_that_is_broken_is_replaced(pool: PgPool) {
    let data = tempfile::tempdir().unwrap();
    let loaded = load_panel(&pool, "city", 240).await;
    register(&pool, &loaded, "gone", &"a".repeat(64)).await;
    let repaired = retrain_at(&pool, data.path(), 240, None).await.unwrap();
    assert_eq!(repaired.model.stage, Stage::Champion);
    assert_eq!(repaired.comparison.horizon, 12, "that of the champion's configuration");
    let reason = &repaired.comparison.reason;
    assert!(reason.starts_with("the champion, version 1, cannot be used"), "{reason}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_model_that_was_promoted_meanwhile_is_not_replaced_without_a_comparison(pool: PgPool) {
    let data = tempfile::tempdir().unwrap();
    let loaded = load_panel(&pool, "city", 240).await;
    let artefacts = Artefacts::local(data.path()).unwrap();
    let order = Retraining { panel: "city".to_owned(), horizon: Some(6), as_of: hour(240), policy: policy() };
    // First the panel has no champion, then one whose files are gone.
    for version in [1, 3] {
        let device = forecast::cpu();
        let judged = retrain(&pool, &artefacts, &device, &order, |_, _| ControlFlow::Continue(())).await.unwrap();
        let promoted = register(&pool, &loaded, "gone", &"a".repeat(64)).await;
        assert_eq!(promoted.version, version);
        let mut transaction = pool.begin().await.unwrap();
        let retrained = judged.store(&mut transaction, &pool, &artefacts).await.unwrap();
        transaction.commit().await.unwrap();
        let Retrained { model, comparison } = retrained;
        assert_eq!(comparison.reference, ReferenceKind::SeasonalNaive);
        assert_eq!((model.stage, comparison.decision), (Stage::Candidate, Decision::Undecided));
        let reason = comparison.reason;
        assert!(reason.starts_with("another model serves by now; before that: the "), "{reason}");
        let serving = db::model::champion(&pool, TENANT, loaded.panel.panel_id).await.unwrap().unwrap();
        assert_eq!(serving.model_id, promoted.model_id);
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_panel_that_has_gained_a_series_is_compared_by_those_of_the_champion(pool: PgPool) {
    let data = tempfile::tempdir().unwrap();
    load_hours(&pool, 0..240, &[("heat", changing)]).await;
    retrain_at(&pool, data.path(), 240, Some(6)).await.unwrap();
    // The new series begins and ends later than the old one.
    load_hours(&pool, 240..276, &[("heat", changing), ("wind", disturbance)]).await;
    load_hours(&pool, 276..278, &[("wind", disturbance)]).await;
    let wider = retrain_at(&pool, data.path(), 278, None).await.unwrap();
    assert_eq!(wider.comparison.reference, ReferenceKind::Champion);
    assert_eq!(wider.comparison.candidate_crps.len(), 6);
    assert!(wider.comparison.reference_crps.iter().all(|crps| crps.is_finite() && *crps < 0.5));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_retraining_that_is_stopped_leaves_nothing_behind(pool: PgPool) {
    let data = tempfile::tempdir().unwrap();
    load_panel(&pool, "city", 240).await;
    let order = Retraining { panel: "city".to_owned(), horizon: Some(6), as_of: hour(240), policy: policy() };
    for stop_at in ["training: base", "training: select", "testing seasonal_naive"] {
        let report =
            move |_: f64, text: &str| if text == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let stopped = retrain(&pool, &Artefacts::local(data.path()).unwrap(), &forecast::cpu(), &order, report)
            .await
            .err()
            .unwrap();
        assert!(stopped.is::<Stopped>(), "{stop_at}: {stopped:#}");
        assert!(!data.path().join("models").exists(), "{stop_at}");
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from model").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_command_shows_the_comparison_and_names_what_is_wrong(pool: PgPool) {
    let data = tempfile::tempdir().unwrap();
    load_panel(&pool, "city", 240).await;
    let rules = data.path().join("policy.toml");
    std::fs::write(&rules, "windows = 5\ntrain_steps = 2\nnum_samples = 20\n").unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = program(&database_url(&pool), data.path(), &["retrain", "--panel", "city", "--policy"]);
        command.arg(&rules).args(arguments);
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (is_done, complaint) = run(&[]).await;
    assert!(!is_done && complaint.contains("panel `city` has no model yet"), "{complaint}");
    let (is_done, complaint) = run(&["--horizon", "60"]).await;
    assert!(!is_done && complaint.contains("panel `city` is too short for 5 windows"), "{complaint}");
    let (is_done, complaint) = run(&["--horizon", "6", "--windows", "3"]).await;
    assert!(!is_done && complaint.contains("`windows` of the retraining policy"), "{complaint}");

    let (is_done, text) = run(&["--horizon", "6", "--as-of", "2025-03-11T00:00:00Z"]).await;
    assert!(is_done && text.contains("version 1 of panel `city` is champion, promoted"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("2025-03-")).count(), 5, "{text}");
}
