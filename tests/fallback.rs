//! Where the model cannot answer, a baseline does, and is told apart from it everywhere; once it can, it does.

use std::fs;
use std::path::PathBuf;

use api::db::load::{Load, load};
use api::db::model::Model;
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use api::db::words::JobState;
use api::db::{self, DEFAULT_TENANT as TENANT};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::reader::Reader;
use crate::support::{Service, count, do_job, hour, load_panel, observation, register, train};

fn request(fallback: bool) -> Value {
    json!({"panel": "city", "horizon": 3, "num_samples": 20, "seed": 5, "fallback": fallback})
}

fn weights(service: &Service, model: &Model) -> PathBuf {
    service.models_dir().join(&model.artefact_path).join("weights.safetensors")
}

/// Codes of the warnings of a forecast.
fn codes(forecast: &Value) -> Vec<&str> {
    forecast["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap()).collect()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_model_whose_files_are_damaged_or_gone_is_stood_in_for_until_they_are_whole(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    let model = train(&pool, &service, &loaded).await;
    let file = weights(&service, &model);
    let whole = fs::read(&file).unwrap();
    let aside = service.models_dir().join("aside");

    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let damaged = service.make_forecast(&request(true)).await.expect(201);
    fs::rename(&file, &aside).unwrap();
    let gone = service.make_forecast(&request(true)).await.expect(201);
    for made in [&damaged, &gone] {
        assert_eq!((&made["quality"], &made["model"]), (&json!("fallback"), &Value::Null));
        assert_eq!(codes(made), ["model-unavailable"]);
        let message = made["warnings"][0]["message"].as_str().unwrap();
        assert!(message.contains("version 1") && !message.contains('/'), "{message}");
        assert_eq!((&made["issue_time"], &made["first_step"]), (&json!(hour(240)), &json!(1)));
        let read = service.forecast(made["forecast_id"].as_str().unwrap()).await.expect(200);
        for key in ["quality", "model", "warnings", "series"] {
            assert_eq!(read[key], made[key], "{key}");
        }
    }
    assert_eq!(damaged["series"], gone["series"], "the same seed and data give the same");
    service.make_forecast(&request(false)).await.problem(503, "model-unavailable");

    let page = service.get("/panels/city").await.text();
    assert!(page.contains("fallback") && page.contains("are missing or damaged"), "{page}");
    assert!(service.get("/").await.text().contains(">fallback<"));
    let metrics = service.get("/metrics").await.text();
    for line in [r#"plumecast_forecasts_total{quality="fallback"} 2"#, r#"plumecast_fallback{panel="city"} 1"#] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }

    fs::rename(&aside, &file).unwrap();
    fs::write(&file, &whole).unwrap();
    let made = service.make_forecast(&request(true)).await.expect(201);
    assert_eq!((&made["quality"], &made["model"]["version"]), (&json!("ok"), &json!(1)));
    let metrics = service.get("/metrics").await.text();
    for line in [r#"plumecast_forecasts_total{quality="ok"} 1"#, r#"plumecast_fallback{panel="city"} 0"#] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_baseline_repeats_the_past_with_joint_errors(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 240).await;
    let made = service.make_forecast(&request(true)).await.expect(201);
    assert_eq!((&made["quality"], codes(&made).as_slice()), (&json!("fallback"), ["no-model"].as_slice()));
    let trajectories = service.trajectories(made["forecast_id"].as_str().unwrap(), "").await.expect(200);
    let samples = |series: usize| trajectories["series"][series]["samples"].as_array().unwrap().clone();
    // One disturbance moves both series: five times as far as wind, heat leaves the value of a day before.
    let value = |sample: &Value, step: usize| sample[step].as_f64().unwrap();
    let [heat, wind] = [samples(0), samples(1)];
    for step in 0..3 {
        let apart: Vec<f64> =
            heat.iter().zip(&wind).map(|(heat, wind)| value(heat, step) - 5.0 * value(wind, step)).collect();
        assert!(apart.iter().all(|one| (one - apart[0]).abs() < 1e-3), "step {step}: {apart:?}");
        assert!(heat.iter().any(|sample| (value(sample, step) - value(&heat[0], step)).abs() > 0.1), "step {step}");
    }
    // What is not the model's fault is no case for a baseline, and what it knows nothing of neither.
    let scenario = json!({"pins": [{"series": "heat", "valid_time": hour(241), "value": 1.0}]});
    let request = json!({"panel": "city", "horizon": 3, "scenario": scenario});
    service.make_forecast(&request).await.problem(409, "no-model");
    let unknown = json!({"panel": "city", "horizon": 3, "covariates": {"rain": []}});
    service.make_forecast(&unknown).await.problem(422, "invalid-body");
    let early = json!({"panel": "city", "horizon": 3, "issue_time": hour(2)});
    service.make_forecast(&early).await.problem(409, "no-model");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_model_that_fails_is_stood_in_for(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    // It is asked about a series that it does not know.
    let series = [NewSeries { name: "rain".to_owned(), ..NewSeries::default() }];
    let values: Vec<_> = (0..240).map(|step| observation(0, step, (step % 24) as f64)).collect();
    let panel = NewPanel { name: "city", frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    let more =
        load(&pool, TENANT, &Load { panel, series: &series, values: &values, load_time: hour(240) }).await.unwrap();
    let version = more.panel_version.panel_version_id;
    sqlx::query("update model set panel_version_id = $1").bind(version).execute(&pool).await.unwrap();

    let problem = service.make_forecast(&request(false)).await.problem(500, "model-failed");
    assert_eq!(problem.detail, "the service failed to answer; its log says why");
    let made = service.make_forecast(&request(true)).await.expect(201);
    assert_eq!((&made["quality"], codes(&made).as_slice()), (&json!("fallback"), ["model-failed"].as_slice()));
    let rain = &made["series"].as_array().unwrap()[2];
    assert_eq!(rain["name"], "rain");
    let means = rain["mean"].as_array().unwrap().iter().map(|mean| mean.as_f64().unwrap());
    assert!(means.enumerate().all(|(step, mean)| (mean - step as f64).abs() < 1e-9), "{rain}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn fallbacks_of_a_schedule_are_stored_but_no_part_of_a_models_scores(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    let model = register(&pool, &loaded, "gone", &"a".repeat(64)).await;
    let arguments = json!({"panel": "city", "horizon": 3});
    let job = do_job(&pool, service.data_dir(), "forecast", arguments.clone(), hour(240)).await;
    assert_eq!(job.state, JobState::Succeeded);
    let result = job.result.unwrap();
    assert_eq!((&result["quality"], &result["model"]), (&json!("fallback"), &Value::Null));
    let mut refusing = arguments;
    refusing["fallback"] = json!(false);
    let job = do_job(&pool, service.data_dir(), "forecast", refusing, hour(240)).await;
    assert_ne!(job.state, JobState::Succeeded);

    let series = ["heat", "wind"].map(|name| NewSeries { name: name.to_owned(), ..NewSeries::default() });
    let values: Vec<_> = (240..243).flat_map(|step| [observation(0, step, 60.0), observation(1, step, 6.0)]).collect();
    let panel = NewPanel { name: "city", frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
    load(&pool, TENANT, &Load { panel, series: &series, values: &values, load_time: hour(243) }).await.unwrap();
    let scored = do_job(&pool, service.data_dir(), "score", json!({"panel": "city"}), hour(244)).await;
    assert_eq!(scored.result.unwrap()["n_values"], 0);
    assert_eq!(count(&pool, "select count(*) from score").await, 0);
    let scores = db::score_sum::recent(&pool, TENANT, loaded.panel.panel_id, model.model_id, 1e6).await.unwrap();
    assert_eq!(scores.coverage_80, None);

    // It is what is known of the future all the same.
    let query = format!("start={}&end={}&series=heat", hour(240).format("%FT%TZ"), hour(243).format("%FT%TZ"));
    let latest = service.get(&format!("/v1/panels/city/forecast?{query}")).await.expect(200);
    let qualities: Vec<&Value> = latest["values"].as_array().unwrap().iter().map(|value| &value["quality"]).collect();
    assert_eq!(qualities, [&json!("fallback"); 3]);
    let mut reader = Reader::connect(&pool).await;
    let label: (String, String) = sqlx::query_as("select label, quality from dashboard_forecast")
        .fetch_one(&mut reader.connection)
        .await
        .unwrap();
    assert_eq!(label, ("2025-03-11 00:00, fallback".to_owned(), "fallback".to_owned()));
    let panel: (String,) =
        sqlx::query_as("select quality from dashboard_panel").fetch_one(&mut reader.connection).await.unwrap();
    assert_eq!(panel.0, "fallback");
    reader.remove(&pool).await;
}
