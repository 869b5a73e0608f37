//! Gaps that are filled from what was observed before and after them.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Service, hour, load_panel, train};

/// A service with a trained panel of two series, of which some hours are then lost.
async fn with_gaps(pool: &PgPool, lost: &[(&str, std::ops::Range<usize>)]) -> Service {
    let service = Service::start(pool).await;
    let loaded = load_panel(pool, "city", 240).await;
    train(pool, &service, &loaded).await;
    for (series, hours) in lost {
        let delete = "delete from observation o using series s where s.series_id = o.series_id and s.name = $1 \
                      and o.valid_time >= $2 and o.valid_time < $3";
        sqlx::query(delete).bind(series).bind(hour(hours.start)).bind(hour(hours.end)).execute(pool).await.unwrap();
    }
    service
}

fn numbers(list: &Value) -> Vec<f64> {
    serde_json::from_value(list.clone()).unwrap()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn gaps_are_filled_with_draws_and_nothing_is_stored(pool: PgPool) {
    let service = with_gaps(&pool, &[("heat", 200..204), ("wind", 202..203), ("heat", 220..222)]).await;
    let path = "/v1/panels/city/imputation?start=2025-03-09T05:00:00Z&end=2025-03-09T18:00:00Z";
    let filled = service.get(&format!("{path}&num_samples=40&quantiles=0.1,0.9&draws=true")).await.expect(200);
    assert_eq!((&filled["model"]["version"], &filled["warnings"]), (&json!(1), &json!([])));
    let (heat, wind) = (&filled["series"][0], &filled["series"][1]);
    assert_eq!(heat["valid_time"], json!([hour(200), hour(201), hour(202), hour(203)]), "and none after the end");
    assert_eq!(wind["valid_time"], json!([hour(202)]));
    assert_eq!((heat["samples"].as_array().unwrap().len(), &wind["unit"]), (40, &json!("m/s")));
    let (low, high) = (numbers(&heat["quantiles"]["0.1"]), numbers(&heat["quantiles"]["0.9"]));
    for (index, mean) in numbers(&heat["mean"]).into_iter().enumerate() {
        let draws = heat["samples"].as_array().unwrap().iter().map(|sample| sample[index].as_f64().unwrap());
        assert!((draws.sum::<f64>() / 40.0 - mean).abs() < 1e-3);
        let season = 50.0 + 20.0 * ((200 + index) as f64 % 24.0 / 24.0 * std::f64::consts::TAU).cos();
        assert!((mean - season - 2.5).abs() < 6.0 && low[index] < high[index], "{mean} where {season} is usual");
    }
    let again = service.get(&format!("{path}&num_samples=40&quantiles=0.1,0.9&draws=true")).await.expect(200);
    assert_eq!(again, filled);
    let n_forecasts: i64 = sqlx::query_scalar("select count(*) from forecast").fetch_one(&pool).await.unwrap();
    assert_eq!(n_forecasts, 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_gap_that_is_too_long_is_named(pool: PgPool) {
    let service = with_gaps(&pool, &[("wind", 190..202)]).await;
    let refused = async |query: &str| {
        let problem =
            service.get(&format!("/v1/panels/city/imputation?{query}")).await.problem(400, "invalid-parameter");
        let error = &problem.errors[0];
        (error.parameter.clone().unwrap(), error.code.clone(), error.message.clone())
    };
    let (parameter, code, message) = refused("start=2025-03-09T00:00:00Z&end=2025-03-10T00:00:00Z").await;
    assert_eq!((parameter.as_str(), code.as_str()), ("start", "gap-too-long"));
    let expected = "series `wind` has a gap of 12 steps from 2025-03-08T22:00:00+00:00; at most 11 can be imputed";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(refused("start=2025-03-09T00:00:00Z").await.0, "end");
    assert_eq!(refused("start=2025-03-09T00:00:00Z&end=2025-03-08T00:00:00Z").await.0, "end");
    let long = "/v1/panels/city/imputation?start=2020-03-09T00:00:00Z&end=2025-03-10T00:00:00Z";
    service.get(long).await.problem(422, "too-costly");
    service
        .get("/v1/panels/town/imputation?start=2020-03-09T00:00:00Z&end=2025-03-10T00:00:00Z")
        .await
        .problem(404, "unknown-panel");
}
