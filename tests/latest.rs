//! The latest forecast of each interval, made long enough ahead.

use std::collections::BTreeSet;

use api::db::forecast::{NewForecast, NewValues};
use api::db::load::Loaded;
use api::db::model::Model;
use api::db::partition::{Partitioned, ensure};
use api::db::words::Quality;
use api::db::{self, DEFAULT_TENANT as TENANT};
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::support::{Service, hour, load_panel, register};

/// Stores a forecast of six hours, made at an hour, whose mean is that hour.
async fn store(pool: &PgPool, loaded: &Loaded, model: &Model, at: usize, scenario: Option<&Value>) -> Uuid {
    let forecast_id = Uuid::now_v7();
    let new = NewForecast {
        forecast_id,
        panel_version_id: model.panel_version_id,
        model_id: Some(model.model_id),
        issue_time: hour(at),
        data_cutoff: hour(at),
        first_step: 1,
        num_samples: 1,
        seed: 7,
        schedule: "autoregressive",
        passes: 8,
        quantile_levels: &[0.1, 0.9],
        params: &json!({"warnings": []}),
        quality: Quality::Ok,
        scenario,
        idempotency: None,
    };
    let values = NewValues {
        series_ids: &loaded.series_ids,
        valid_times: &(at..at + 6).map(hour).collect::<Vec<_>>(),
        means: &[at as f64; 12],
        quantiles: &[[at as f64 - 1.0, at as f64 + 1.0]; 12].concat(),
        trajectories: &[at as f32; 12],
    };
    db::forecast::insert(pool, TENANT, &new, &values).await.unwrap();
    forecast_id
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn each_interval_has_the_last_forecast_that_was_made_early_enough(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    for at in [100, 103, 104] {
        store(&pool, &loaded, &model, at, None).await;
    }
    let again = store(&pool, &loaded, &model, 104, None).await;
    store(&pool, &loaded, &model, 105, Some(&json!({"pins": []}))).await;
    let read = async |query: &str| {
        let path = "/v1/panels/city/forecast?start=2025-03-05T03:30:00Z&end=2025-03-05T11:00:00Z";
        service.get(&format!("{path}&{query}")).await.expect(200)
    };
    // Hours 100 to 106 of one series: when the forecast of each was made.
    let made = |page: &Value| -> Vec<(i64, f64)> {
        let values = page["values"].as_array().unwrap().iter();
        values.map(|value| (value["lead_seconds"].as_i64().unwrap() / 3600, value["mean"].as_f64().unwrap())).collect()
    };
    let page = read("series=heat").await;
    let expected = [(0, 100.0), (1, 100.0), (2, 100.0), (0, 103.0), (0, 104.0), (1, 104.0), (2, 104.0)];
    assert_eq!(made(&page), expected);
    assert_eq!(page["values"][4]["forecast_id"], again.to_string(), "of two of one issue time the one made last");
    let first = &page["values"][0];
    assert_eq!(first["quantiles"], json!({"0.1": 99.0, "0.9": 101.0}));
    assert_eq!((&first["series"], &first["step"]), (&json!("heat"), &json!(1)));
    assert_eq!(first["valid_time"], "2025-03-05T04:00:00Z");

    let early = made(&read("series=heat&lead_seconds_min=7200").await);
    assert_eq!(early, [(2, 100.0), (3, 100.0), (4, 100.0), (2, 103.0), (2, 104.0)]);
    let back_then = made(&read("series=heat&as_of=2025-03-05T07:00:00Z").await);
    assert_eq!(back_then[3..], [(0, 103.0), (1, 103.0), (2, 103.0), (3, 103.0)]);

    // A page covers so many intervals, with or without a forecast.
    let (mut pages, mut cursor) = (vec![], String::new());
    loop {
        let page = read(&format!("limit=3{cursor}")).await;
        pages.extend(page["values"].as_array().unwrap().iter().map(|value| {
            (value["series"].as_str().unwrap().to_owned(), value["valid_time"].as_str().unwrap().to_owned())
        }));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((pages.len(), pages.iter().collect::<BTreeSet<_>>().len()), (14, 14));

    for (query, code) in
        [("start=2025-03-05T00:00:00Z", 400), ("start=2025-03-05T00:00:00Z&end=2025-03-04T00:00:00Z", 400)]
    {
        service.get(&format!("/v1/panels/city/forecast?{query}")).await.problem(code, "invalid-parameter");
    }
    let all_time = "/v1/panels/city/forecast?start=1900-01-01T00:00:00Z&end=2100-01-01T00:00:00Z";
    let wrong = service.get(all_time).await.problem(400, "invalid-parameter");
    assert_eq!(wrong.errors[0].parameter.as_deref(), Some("end"));
    let negative = "/v1/panels/city/forecast?start=2025-03-05T00:00:00Z&end=2025-03-06T00:00:00Z&lead_seconds_min=-1";
    service.get(negative).await.problem(400, "invalid-parameter");
    service
        .get("/v1/panels/town/forecast?start=2025-03-05T00:00:00Z&end=2025-03-06T00:00:00Z")
        .await
        .problem(404, "unknown-panel");
    let nobody = "/v1/panels/city/forecast?start=2025-03-05T00:00:00Z&end=2025-03-06T00:00:00Z&series=sun";
    service.get(nobody).await.problem(404, "unknown-series");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn only_the_partition_of_an_interval_is_read_and_by_its_index(pool: PgPool) {
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    // Three months of forecasts, of which the statistics know.
    for at in (100..2300).step_by(20) {
        store(&pool, &loaded, &model, at, None).await;
    }
    ensure(&pool, Partitioned::ForecastValue, [hour(20_000)]).await.unwrap();
    sqlx::raw_sql("analyze").execute(&pool).await.unwrap();
    // A connection of its own: counts of earlier transactions would be among its own.
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let (series_ids, times) = (vec![loaded.series_ids[0]; 6], (760..766).map(hour).collect::<Vec<_>>());
    let found =
        db::latest::latest(&mut *transaction, TENANT, &series_ids, &times, TimeDelta::zero(), None).await.unwrap();
    assert_eq!(found.len(), 6);
    let scans: Vec<(String, i64, i64)> = sqlx::query_as(
        "select relname::text, coalesce(seq_scan, 0), coalesce(idx_scan, 0) from pg_stat_xact_user_tables
         where relname ~ '^forecast_value' and coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0",
    )
    .fetch_all(&mut *transaction)
    .await
    .unwrap();
    assert_eq!(scans, [("forecast_value_y2025m04".to_owned(), 0, 6)]);
}
