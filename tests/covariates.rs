//! A panel with covariates, from a file whose last rows have only the planned values to a forecast by REST.

use std::fmt::Write;

use api::{db, training};
use chrono::Utc;
use forecast::{Budget, TrainConfig};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::{Service, hour, register};

const N_OBSERVED: usize = 400;
const HORIZON: usize = 6;
/// Steps for which the plan is loaded.
const N_PLANNED: usize = 4;

/// Output that follows the plan, and a sensor that nobody needs to forecast.
fn file() -> String {
    let mut text = "time,output,plan,sensor\n".to_owned();
    for step in 0..N_OBSERVED + N_PLANNED {
        let plan = planned(step);
        let noise = ((step * 7919) % 101) as f64 / 101.0;
        let time = hour(step).to_rfc3339();
        match step < N_OBSERVED {
            true => writeln!(text, "{time},{},{plan},{}", 5.0 + 10.0 * plan + noise, 20.0 + noise),
            false => writeln!(text, "{time},,{plan},"),
        }
        .unwrap();
    }
    text
}

/// A plan that does not repeat itself.
fn planned(step: usize) -> f64 {
    let mixed = (step as u32).wrapping_mul(2_654_435_761);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519);
    f64::from((mixed ^ (mixed >> 13)) % 17)
}

/// The service with a trained panel `plant`.
async fn plant(pool: &PgPool) -> Service {
    let service = Service::start(pool).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plant.csv");
    std::fs::write(&path, file()).unwrap();
    let file = spawn_blocking(move || ingest::load(&path, &ingest::LoadConfig::default()).unwrap()).await.unwrap();
    let role = |name: &str| match name {
        "plan" => db::words::Role::Known,
        "sensor" => db::words::Role::Past,
        _ => db::words::Role::Target,
    };
    let declare = |name: &str| db::series::NewSeries {
        name: name.to_owned(),
        role: Some(role(name)),
        ..db::series::NewSeries::default()
    };
    let target = api::loading::Target {
        panel: "plant",
        source: "plant.csv",
        publication_delay: None,
        holidays: None,
        pipeline_id: None,
        watermark: None,
        data_dir: service.data_dir(),
        load_time: Utc::now(),
    };
    let loaded = api::loading::store(pool, &target, &file, declare).await.unwrap().loaded;

    let data = training::read(pool, "plant", Utc::now()).await.unwrap();
    let history = data.values.history().unwrap();
    assert_eq!(history.values.n_steps(), N_OBSERVED);
    let checkpoint = service.models_dir().join("plant");
    let digest = spawn_blocking(move || {
        let mut config = TrainConfig::new(HORIZON, Budget::Steps(4), 1);
        config.network.d_model = Some(16);
        let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
        let fitted = forecast::fit(&history, &config, &forecast::cpu(), go_on).unwrap();
        fitted.model.save(&checkpoint).unwrap()
    });
    register(pool, &loaded, "plant", &digest.await.unwrap()).await;
    service
}

fn means(answer: &Value) -> Vec<f64> {
    answer["series"][0]["mean"].as_array().unwrap().iter().map(|mean| mean.as_f64().unwrap()).collect()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_plan_moves_the_forecast_and_what_is_not_planned_is_drawn(pool: PgPool) {
    let service = plant(&pool).await;
    let request = json!({"panel": "plant", "horizon": HORIZON, "seed": 3, "level": [80]});
    let made = service.make_forecast(&request).await.expect(201);
    assert_eq!(made["issue_time"], json!("2025-03-17T16:00:00Z"), "where the output ends, not the plan");
    assert_eq!(made["series"].as_array().unwrap().len(), 1);
    assert_eq!(made["series"][0]["name"], "output");
    let of_plan = |step: usize| 5.5 + 10.0 * planned(N_OBSERVED + step);
    for (step, mean) in means(&made).into_iter().take(N_PLANNED).enumerate() {
        assert!((mean - of_plan(step)).abs() < 12.0, "step {step}: {mean}, planned {}", of_plan(step));
    }
    let width = |answer: &Value, step: usize| {
        let quantiles = &answer["series"][0]["quantiles"];
        quantiles["0.9"][step].as_f64().unwrap() - quantiles["0.1"][step].as_f64().unwrap()
    };
    assert!(width(&made, HORIZON - 1) > 4.0 * width(&made, 0), "what is not planned is uncertain");
    let warning = &made["warnings"][0];
    assert_eq!(warning["code"], "unknown-covariate");
    assert_eq!(
        warning["message"],
        "covariate `plan` is not known from step 5 on (2025-03-17T20:00:00+00:00); it was drawn"
    );

    let forecast_id = made["forecast_id"].as_str().unwrap();
    assert_eq!(service.forecast(forecast_id).await.expect(200)["series"], made["series"]);
    let trajectories = service.trajectories(forecast_id, "samples=1").await.expect(200);
    assert_eq!(trajectories["series"].as_array().unwrap().len(), 1);

    // The same with another plan, and a plan for the last steps.
    let supplied: Vec<Value> =
        (0..HORIZON).map(|step| json!({"valid_time": hour(N_OBSERVED + step), "value": 8.0})).collect();
    let mut other = request.clone();
    other["covariates"] = json!({"plan": supplied});
    let other = service.make_forecast(&other).await.expect(201);
    assert_eq!(other["warnings"], json!([]));
    assert!(means(&other).iter().all(|mean| (mean - 85.5).abs() < 12.0), "{other}");
    assert!(width(&other, HORIZON - 1) < 0.5 * width(&made, HORIZON - 1));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_plan_is_no_news_of_its_panel(pool: PgPool) {
    let _service = plant(&pool).await;
    let newest = Some(hour(N_OBSERVED - 1));
    let panels = db::overview::list(&pool, db::DEFAULT_TENANT, Utc::now(), 10).await.unwrap();
    assert_eq!((panels[0].newest_valid_time, panels[0].n_series), (newest, 3));
    let of_dashboards = sqlx::query_scalar("select newest_valid_time from dashboard_panel");
    assert_eq!(of_dashboards.fetch_one(&pool).await.ok(), newest);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_supplied_future_that_has_no_place_is_refused(pool: PgPool) {
    let service = plant(&pool).await;
    let refused = |covariates: Value| {
        let request = json!({"panel": "plant", "horizon": HORIZON, "covariates": covariates});
        let service = &service;
        async move {
            let problem = service.make_forecast(&request).await.problem(422, "invalid-body");
            let errors = problem.errors.into_iter();
            errors.map(|error| (error.pointer.unwrap(), error.code)).collect::<Vec<_>>()
        }
    };
    let at = |pointer: &str, code: &str| vec![(pointer.to_owned(), code.to_owned())];
    let value = |step: usize| json!([{"valid_time": hour(step), "value": 1.0}]);
    let beyond = refused(json!({"plan": value(N_OBSERVED + HORIZON)})).await;
    assert_eq!(beyond, at("/covariates/plan/0/valid_time", "no-step"));
    let large = refused(json!({"plan": [{"valid_time": hour(N_OBSERVED), "value": 1e31}]})).await;
    assert_eq!(large, at("/covariates/plan/0/value", "out-of-range"));
    let past = refused(json!({"sensor": value(N_OBSERVED)})).await;
    assert_eq!(past, at("/covariates/sensor", "not-a-known-covariate"));
    assert_eq!(refused(json!({"rain": []})).await, at("/covariates/rain", "unknown-series"));
    let request =
        json!({"panel": "plant", "horizon": 1, "covariates": {"plan": [{"valid_time": "today", "value": 1.0}]}});
    let problem = service.make_forecast(&request).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/covariates/plan/0/valid_time"));
}
