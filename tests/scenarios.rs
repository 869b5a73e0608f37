//! Forecasts that suppose something of the future.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Service, hour, load_panel, train};
use api::db::{self, DEFAULT_TENANT as TENANT};

/// A service with a trained panel of two series, whose observations end before hour 240.
async fn with_model(pool: &PgPool) -> Service {
    let service = Service::start(pool).await;
    let loaded = load_panel(pool, "city", 240).await;
    train(pool, &service, &loaded).await;
    service
}

fn request(scenario: &Value) -> Value {
    json!({"panel": "city", "horizon": 12, "num_samples": 40, "seed": 3, "issue_time": hour(240), "scenario": scenario})
}

/// `[sample][step]` of a series.
fn samples(body: &Value, series: usize) -> Vec<Vec<f64>> {
    serde_json::from_value(body["series"][series]["samples"].clone()).unwrap()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn every_trajectory_has_what_is_supposed(pool: PgPool) {
    let service = with_model(&pool).await;
    let plain =
        service.make_forecast(&json!({"panel": "city", "horizon": 12, "issue_time": hour(240)})).await.expect(201);
    let total: f64 = plain["series"][0]["mean"].as_array().unwrap().iter().map(|mean| mean.as_f64().unwrap()).sum();
    let wind = &plain["series"][1]["mean"][3];
    let scenario = json!({
        "pins": [{"series": "wind", "valid_time": hour(243), "value": wind}],
        "conditions": [
            {"fn": "sum", "series": ["heat"], "equal": total + 2.0},
            {"fn": "value", "series": ["heat"], "valid_time": hour(251), "at_least": plain["series"][0]["mean"][11]},
        ],
    });
    let made = service.make_forecast(&request(&scenario)).await.expect(201);

    let guidance = &made["guidance"];
    for condition in guidance["conditions"].as_array().unwrap() {
        assert_eq!(condition["satisfaction"], 1.0);
    }
    assert!(guidance["conditions"][0]["quantile_level"].as_f64().unwrap() > 0.5, "more than usual: {guidance}");
    let rate = guidance["base_rate"]["probability"].as_f64().unwrap();
    assert!((0.1..0.9).contains(&rate) && guidance["base_rate"]["num_candidates"] == 1000, "{guidance}");
    assert!(guidance["effective_sample_size"].as_f64().unwrap() > 10.0);

    let forecast_id = made["forecast_id"].as_str().unwrap();
    let drawn = service.trajectories(forecast_id, "").await.expect(200);
    assert_eq!(drawn["step"][0], 1);
    let (heat, winds) = (samples(&drawn, 0), samples(&drawn, 1));
    assert!(winds.iter().all(|path| (path[3] - wind.as_f64().unwrap()).abs() < 1e-5));
    for path in &heat {
        assert!((path.iter().sum::<f64>() - total - 2.0).abs() < 1e-3, "{path:?}");
        assert!(path[11] >= plain["series"][0]["mean"][11].as_f64().unwrap());
    }
    assert!(heat.iter().any(|path| path[0] != heat[0][0]), "what is not supposed is open");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_scenario_is_stored_and_never_taken_for_the_plain_forecast(pool: PgPool) {
    let service = with_model(&pool).await;
    let plain =
        service.make_forecast(&json!({"panel": "city", "horizon": 12, "issue_time": hour(240)})).await.expect(201);
    let scenario = json!({"conditions": [{"fn": "max", "series": ["wind"], "start": hour(242), "end": hour(246), "at_most": 50.0}]});
    let made = service.make_forecast_once("windy", &request(&scenario)).await.expect(201);
    let again = service.make_forecast_once("windy", &request(&scenario)).await.expect(201);
    assert_eq!(made["forecast_id"], again["forecast_id"]);
    let stored = service.forecast(made["forecast_id"].as_str().unwrap()).await.expect(200);
    assert_eq!((&stored["guidance"], &stored["scenario"]), (&made["guidance"], &made["scenario"]));
    assert_eq!(stored["scenario"]["conditions"][0]["at_most"], 50.0);
    assert_eq!(stored["guidance"]["base_rate"]["probability"], 1.0, "it always holds");

    let listed = service.forecasts("panel=city").await.expect(200);
    let is_scenario = |index: usize| listed["forecasts"][index].get("scenario").is_some();
    assert_eq!((is_scenario(0), is_scenario(1)), (true, false), "the newest first");
    let panel = db::panel::get(&pool, TENANT, "city").await.unwrap().unwrap();
    let latest = db::forecast::latest(&pool, TENANT, panel.panel_id).await.unwrap().unwrap();
    assert_eq!(json!(latest.forecast_id), plain["forecast_id"]);
    let html = service.get("/panels/city?series=wind").await.text();
    assert!(html.contains(plain["forecast_id"].as_str().unwrap()));
    assert!(!html.contains(made["forecast_id"].as_str().unwrap()));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_cannot_be_supposed_is_told_by_its_pointer(pool: PgPool) {
    let service = with_model(&pool).await;
    let refused = async |scenario: Value| {
        let problem = service.make_forecast(&request(&scenario)).await.problem(422, "invalid-body");
        let of = |error: &api::problem::Violation| (error.pointer.clone().unwrap(), error.code.clone());
        problem.errors.iter().map(of).collect::<Vec<_>>()
    };
    let only = |pointer: &str, code: &str| vec![(pointer.to_owned(), code.to_owned())];
    let condition = |body: Value| json!({ "conditions": [body] });
    assert_eq!(refused(json!({"pin": []})).await, only("/scenario/pin", "unknown-field"));
    assert_eq!(refused(json!({})).await, only("/scenario", "missing-field"));
    assert_eq!(
        refused(json!({"pins": [{"series": "rain", "valid_time": hour(252), "value": 1.0}]})).await,
        [only("/scenario/pins/0/series", "unknown-series"), only("/scenario/pins/0/valid_time", "no-step")].concat()
    );
    assert_eq!(
        refused(json!({"pins": [{"series": "heat", "valid_time": hour(240), "value": -1e31}]})).await,
        only("/scenario/pins/0/value", "out-of-range")
    );
    assert_eq!(
        refused(condition(json!({"fn": "sum", "series": ["heat"], "at_most": -1.0}))).await,
        only("/scenario/conditions/0", "out-of-bounds")
    );
    assert_eq!(
        refused(condition(json!({"fn": "ramp", "series": ["heat"], "at_most": 0.0}))).await,
        only("/scenario/conditions/0", "not-met")
    );
    let known = json!({
        "pins": [{"series": "heat", "valid_time": hour(240), "value": 60.0}],
        "conditions": [{"fn": "value", "series": ["heat"], "valid_time": hour(240), "equal": 61.0}],
    });
    assert_eq!(refused(known).await, only("/scenario/conditions/0", "already-decided"));
    let mut far = request(&condition(json!({"fn": "sum", "series": ["heat"], "equal": 900.0})));
    far["horizon"] = json!(14);
    let problem = service.make_forecast(&far).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].code, "beyond-trained-horizon");
}
