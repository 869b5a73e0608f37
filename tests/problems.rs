//! Each way in which a request can be wrong: what is answered, and that nothing stored has changed.

use std::time::Duration;

use api::config::Limits;
use serde_json::{Value, json};
use sqlx::PgPool;
use ureq::http::Request;

use crate::support::{Service, hour, load_panel, register, train};

/// A JSON request for a forecast, as bytes that need not be JSON.
fn forecast_request(body: &[u8], content_type: Option<&str>) -> Request<Vec<u8>> {
    let mut request = Request::post("/v1/forecasts");
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.body(body.to_vec()).unwrap()
}

/// Number of rows in the tables that requests can write to.
async fn rows(pool: &PgPool) -> (i64, i64, i64) {
    sqlx::query_as(
        "select (select count(*) from forecast), (select count(*) from forecast_value), (select count(*) from trajectory)",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn paths_and_methods_that_do_not_exist(pool: PgPool) {
    let service = Service::start(&pool).await;
    for path in ["/v1/forecast", "/v2/forecasts", "/assets/secret", "/v1/panels/a/b/c"] {
        service.get(path).await.problem(404, "unknown-path");
    }

    let answer = service.send(Request::delete("/v1/panels").body(Vec::new()).unwrap()).await;
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("GET"));

    let answer = service.send(Request::put("/v1/forecasts").body(Vec::new()).unwrap()).await;
    answer.problem(405, "method-not-allowed");
    assert!(answer.header("allow").unwrap().contains("POST"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn changes_that_a_page_of_another_site_asks_for(pool: PgPool) {
    let service = Service::start(&pool).await;
    let send = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        service.send(request.body(Vec::new()).unwrap()).await
    };
    let ours = service.address("");
    let ours = ours.as_str();
    for headers in [
        [("sec-fetch-site", "cross-site")].as_slice(),
        &[("sec-fetch-site", "cross-site"), ("origin", ours)],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://elsewhere.example")],
        &[("origin", "http://127.0.0.1:1")],
        &[("origin", "null")],
    ] {
        for (method, path) in [
            ("POST", "/v1/models/nowhere/rollback"),
            ("DELETE", "/v1/models/nowhere/1"),
            ("PUT", "/v1/pipelines/meters"),
            ("POST", "/nowhere"),
        ] {
            send(method, path, headers).await.problem(403, "cross-site");
        }
        send("GET", "/v1/panels", headers).await.expect(200);
    }
    for headers in [
        [("sec-fetch-site", "same-origin")].as_slice(),
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "same-origin"), ("origin", "http://proxy.example")],
        &[("origin", ours)],
        &[],
    ] {
        send("POST", "/v1/models/nowhere/rollback", headers).await.problem(404, "unknown-panel");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn names_and_identifiers_that_do_not_exist(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 48).await;

    service.get("/v1/panels/nowhere").await.problem(404, "unknown-panel");
    service.get("/v1/panels/nowhere/series").await.problem(404, "unknown-panel");
    service.observations("nowhere", "").await.problem(404, "unknown-panel");
    service.get("/v1/models?panel=nowhere").await.problem(404, "unknown-panel");
    service.forecasts("panel=nowhere").await.problem(404, "unknown-panel");
    service.get("/panels/nowhere").await.problem(404, "unknown-panel");
    service.make_forecast(&json!({"panel": "nowhere", "horizon": 3})).await.problem(404, "unknown-panel");

    service.observations("city", "series=rain").await.problem(404, "unknown-series");
    service.get("/panels/city?series=rain").await.problem(404, "unknown-series");

    for identifier in ["0199f3a0-6a3e-7c43-9d1e-0d5f2c1f7a11", "17", "%27%3B%20drop%20table%20forecast"] {
        service.forecast(identifier).await.problem(404, "unknown-forecast");
        service.quantiles(identifier, "").await.problem(404, "unknown-forecast");
        service.trajectories(identifier, "").await.problem(404, "unknown-forecast");
        service.aggregate(identifier, "fn=sum&over=horizon").await.problem(404, "unknown-forecast");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn bodies_that_are_not_json(pool: PgPool) {
    let service = Service::start(&pool).await;
    let json = Some("application/json");

    for body in
        ["", "{", "panel=city", r#"{"panel": "city", "horizon": 3,}"#, r#"{"panel": "a", "horizon": 1} and more"#]
    {
        let problem = service.send(forecast_request(body.as_bytes(), json)).await.problem(400, "malformed-body");
        assert!(problem.detail.contains("line 1 column"), "{}", problem.detail);
    }
    service.send(forecast_request(b"\xff\xfe", json)).await.problem(400, "malformed-body");

    let body = br#"{"panel": "city", "horizon": 3}"#;
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        service.send(forecast_request(body, content_type)).await.problem(415, "unsupported-media-type");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn bodies_of_the_wrong_shape(pool: PgPool) {
    let service = Service::start(&pool).await;
    let check = async |body: Value, pointer: &str, code: &str| {
        let problem = service.make_forecast(&body).await.problem(422, "invalid-body");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some(pointer), "{body}");
        assert_eq!(problem.errors[0].code, code, "{body}");
    };
    check(json!([1, 2]), "", "wrong-type").await;
    check(json!({"horizon": 3}), "", "missing-field").await;
    check(json!({"panel": "city", "horizon": 3, "colour": "red"}), "/colour", "unknown-field").await;
    check(json!({"panel": "city", "horizon": "3"}), "/horizon", "wrong-type").await;
    check(json!({"panel": "city", "horizon": -3}), "/horizon", "wrong-type").await;
    check(json!({"panel": "city", "horizon": 3, "quantiles": [0.5, "p90"]}), "/quantiles/1", "wrong-type").await;
    check(json!({"panel": "city", "horizon": 3, "issue_time": "yesterday"}), "/issue_time", "wrong-type").await;
    check(json!({"panel": "city", "horizon": 3, "issue_time": "2025-03-01T00:00:00"}), "/issue_time", "wrong-type")
        .await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn numbers_out_of_range(pool: PgPool) {
    let service = Service::start(&pool).await;
    let check = async |field: &str, value: Value, pointer: &str| {
        let mut body = json!({"panel": "city", "horizon": 3});
        body[field] = value;
        let problem = service.make_forecast(&body).await.problem(422, "invalid-body");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some(pointer), "{body}");
    };
    check("horizon", json!(0), "/horizon").await;
    check("horizon", json!(1_000_000), "/horizon").await;
    check("num_samples", json!(0), "/num_samples").await;
    check("num_samples", json!(1_001), "/num_samples").await;
    check("passes", json!(0), "/passes").await;
    check("seed", json!(u64::MAX), "/seed").await;
    check("schedule", json!("backwards"), "/schedule").await;
    check("quantiles", json!([0.5, 1.5]), "/quantiles/1").await;
    check("quantiles", json!([0.0]), "/quantiles/0").await;
    check("quantiles", json!([]), "/quantiles").await;
    check("level", json!([100]), "/level/0").await;

    let both = json!({"panel": "city", "horizon": 3, "quantiles": [0.5], "level": [80]});
    let problem = service.make_forecast(&both).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].code, "contradiction");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn parameters_that_are_wrong(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 48).await;
    let check = async |path: &str, parameter: &str| {
        let problem = service.get(path).await.problem(400, "invalid-parameter");
        assert_eq!(problem.errors[0].parameter.as_deref(), Some(parameter), "{path}");
    };
    check("/v1/panels?limit=0", "limit").await;
    check("/v1/panels?limit=all", "limit").await;
    check("/v1/panels?limit=1&limit=2", "limit").await;
    check("/v1/panels?page=2", "page").await;
    check("/v1/panels?cursor=abc", "cursor").await;
    check("/v1/forecasts?cursor=00", "cursor").await;
    check("/v1/panels/city/observations?start=2025-03-01", "start").await;
    check("/v1/panels/city/observations?as_of=now", "as_of").await;
    check("/v1/panels/city/observations?start=2025-03-02T00:00:00Z&end=2025-03-01T00:00:00Z", "end").await;

    let forecast = "/v1/forecasts/0199f3a0-6a3e-7c43-9d1e-0d5f2c1f7a11";
    check(&format!("{forecast}/quantiles?quantiles=1.5"), "quantiles").await;
    check(&format!("{forecast}/quantiles?quantiles=p90"), "quantiles").await;
    check(&format!("{forecast}/trajectories?samples=0"), "samples").await;
    check(&format!("{forecast}/aggregate?over=horizon"), "fn").await;
    check(&format!("{forecast}/aggregate?fn=median&over=horizon"), "fn").await;
    check(&format!("{forecast}/aggregate?fn=sum&over=time"), "over").await;
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_text_with_nul_is_refused_where_it_stands(pool: PgPool) {
    let service = Service::start(&pool).await;
    for path in ["/v1/loads?panel=%00", "/v1/forecasts?panel=a%00b", "/v1/jobs?panel=%00"] {
        let problem = service.get(path).await.problem(400, "invalid-parameter");
        assert_eq!(problem.errors[0].parameter.as_deref(), Some("panel"), "{path}");
    }
    let problem = service.get("/v1/panels/%00").await.problem(400, "invalid-parameter");
    assert!(problem.detail.contains("such as NUL"), "{}", problem.detail);

    let problem = service.make_forecast(&json!({"panel": "\0", "horizon": 3})).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/panel"));
    let job = json!({"kind": "train", "arguments": {"panel": "a\0", "horizon": 3}});
    let problem = service.post("/v1/jobs", &job).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/arguments/panel"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_body_over_the_limit(pool: PgPool) {
    let service = Service::start_with(&pool, Limits { body_bytes_max: 200, ..Limits::default() }).await;
    let body = json!({"panel": "x".repeat(200), "horizon": 3});
    let problem = service.make_forecast(&body).await.problem(413, "body-too-large");
    assert!(problem.detail.contains("200 bytes"), "{}", problem.detail);
    service.make_forecast(&json!({"panel": "x", "horizon": 3})).await.problem(404, "unknown-panel");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_type_that_is_not_on_offer(pool: PgPool) {
    let service = Service::start(&pool).await;
    let request = Request::get("/v1/forecasts/0199f3a0-6a3e-7c43-9d1e-0d5f2c1f7a11/trajectories");
    let answer = service.send(request.header("accept", "text/html").body(Vec::new()).unwrap()).await;
    answer.problem(406, "not-acceptable");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_panel_without_a_model(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 48).await;
    let request = json!({"panel": "city", "horizon": 3, "fallback": false});
    service.make_forecast(&request).await.problem(409, "no-model");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_model_whose_files_are_gone_or_damaged_fails_alone(pool: PgPool) {
    let service = Service::start(&pool).await;
    let broken = load_panel(&pool, "broken", 240).await;
    register(&pool, &broken, "gone", &"a".repeat(64)).await;
    let damaged = load_panel(&pool, "damaged", 240).await;
    let model = train(&pool, &service, &damaged).await;
    let weights = service.models_dir().join(&model.artefact_path).join("weights.safetensors");
    std::fs::write(weights, "nonsense").unwrap();
    let whole = load_panel(&pool, "whole", 240).await;
    train(&pool, &service, &whole).await;

    for panel in ["broken", "damaged"] {
        let answer = service.make_forecast(&json!({"panel": panel, "horizon": 3, "fallback": false})).await;
        let problem = answer.problem(503, "model-unavailable");
        assert!(!problem.detail.contains('/'), "no path is revealed: {}", problem.detail);
    }
    service.make_forecast(&json!({"panel": "whole", "horizon": 3, "num_samples": 2})).await.expect(201);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn an_issue_time_at_which_there_is_nothing_to_forecast_from(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let at = |issue_time: &str| json!({"panel": "city", "horizon": 3, "issue_time": issue_time});

    service.make_forecast(&at("2001-01-01T00:00:00Z")).await.problem(409, "no-observations");
    let problem = service.make_forecast(&at("2999-01-01T00:00:00Z")).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/issue_time"));
    assert_eq!(rows(&pool).await, (0, 0, 0));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_over_the_cost_limit(pool: PgPool) {
    let service = Service::start_with(&pool, Limits { cost_max: 100, job_cost_max: 100, ..Limits::default() }).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;

    let too_large = json!({"panel": "city", "horizon": 6, "num_samples": 10});
    let problem = service.make_forecast(&too_large).await.problem(422, "too-costly");
    assert!(problem.detail.contains("120 values"), "{}", problem.detail);
    assert_eq!(rows(&pool).await, (0, 0, 0));
    service.make_forecast(&json!({"panel": "city", "horizon": 5, "num_samples": 10})).await.expect(201);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn an_idempotency_key_that_is_wrong(pool: PgPool) {
    let service = Service::start(&pool).await;
    let body = json!({"panel": "city", "horizon": 3});
    let long = "x".repeat(256);
    service.make_forecast_once(&long, &body).await.problem(400, "invalid-parameter");
    let not_stored = json!({"panel": "city", "horizon": 3, "store": false});
    let problem = service.make_forecast_once("a", &not_stored).await.problem(400, "invalid-parameter");
    assert_eq!(problem.errors[0].parameter.as_deref(), Some("Idempotency-Key"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_request_that_takes_too_long(pool: PgPool) {
    let limits = Limits { request_timeout: Duration::from_millis(300), ..Limits::default() };
    let service = Service::start_with(&pool, limits).await;
    load_panel(&pool, "city", 48).await;

    // Whoever reads the panel waits for this lock.
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("lock table panel in access exclusive mode").execute(&mut *transaction).await.unwrap();
    service.get("/v1/panels").await.problem(504, "timeout");
    transaction.rollback().await.unwrap();

    service.get("/v1/panels").await.expect(200);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_database_that_is_gone(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 48).await;
    service.get("/readyz").await.expect(200);

    pool.close().await;
    for path in ["/v1/panels", "/v1/forecasts", "/v1/panels/city/observations", "/"] {
        let answer = service.get(path).await;
        answer.problem(503, "database-unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    let answer = service.make_forecast(&json!({"panel": "city", "horizon": 3})).await;
    answer.problem(503, "database-unavailable");

    let answer = service.get("/readyz").await;
    assert_eq!(answer.problem(503, "not-ready").errors[0].code, "database");
    assert!(answer.header("retry-after").is_some());
    service.get("/livez").await.expect(200);
    assert_eq!(service.get("/metrics").await.status, 200);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_connection_that_is_lost_during_a_request(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 48).await;
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("lock table panel in access exclusive mode").execute(&mut *transaction).await.unwrap();

    let terminate = async {
        // The request waits for the lock as soon as it has reached the database.
        let terminated = "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like 'select panel_id%'";
        while sqlx::query(terminated).fetch_optional(&pool).await.unwrap().is_none() {}
    };
    let (answer, ()) = tokio::join!(service.get("/v1/panels/city"), terminate);
    answer.problem(503, "database-unavailable");
    transaction.rollback().await.unwrap();

    service.get("/v1/panels/city").await.expect(200);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn more_requests_than_may_wait_for_the_model(pool: PgPool) {
    let service = Service::start_with(&pool, Limits { queue_length_max: 1, ..Limits::default() }).await;
    let loaded = load_panel(&pool, "city", 240).await;
    register(&pool, &loaded, "pipe", &"a".repeat(64)).await;
    // Who reads this checkpoint waits until somebody opens it to write.
    let checkpoint = service.models_dir().join("pipe/config.json");
    let (pipe, nonsense) = (checkpoint.with_file_name("pipe"), checkpoint.with_file_name("nonsense"));
    std::fs::create_dir_all(checkpoint.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::hard_link(&pipe, &checkpoint).unwrap();
    std::fs::write(&nonsense, "nonsense").unwrap();

    let request = json!({"panel": "city", "horizon": 3, "fallback": false});
    let refuse_the_third = async {
        while !service.get("/metrics").await.text().contains("plumecast_queue_length 2") {}
        let answer = service.make_forecast(&request).await;
        answer.problem(503, "queue-full");
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        service.get("/v1/panels").await.expect(200);
        // Both that wait find a checkpoint that is nonsense: the second a file, the first, if it has it open, the pipe.
        std::fs::rename(&nonsense, &checkpoint).unwrap();
        // Opened in both directions, a pipe keeps nobody waiting.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap());
    };
    // As long as the model's thread has not taken one of them, the other is refused.
    let until_it_waits = async || {
        loop {
            let answer = service.make_forecast(&request).await;
            if answer.json()["code"] != "queue-full" {
                break answer;
            }
        }
    };
    let (first, second, ()) = tokio::join!(until_it_waits(), until_it_waits(), refuse_the_third);
    first.problem(503, "model-unavailable");
    second.problem(503, "model-unavailable");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_failure_of_ours_says_nothing_of_the_inside(pool: PgPool) {
    let service = Service::start(&pool).await;
    sqlx::query("alter table panel rename column frequency to pace").execute(&pool).await.unwrap();
    let problem = service.get("/v1/panels").await.problem(500, "internal");
    assert_eq!(problem.detail, "the service failed to answer; its log says why");
    assert!(problem.errors.is_empty());
}

#[sqlx::test(migrations = false)]
async fn a_database_without_a_schema_is_not_ready(pool: PgPool) {
    let service = Service::start(&pool).await;
    let problem = service.get("/readyz").await.problem(503, "not-ready");
    assert_eq!(problem.errors[0].code, "migrations");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_request_keeps_the_identifier_that_its_client_gave_it(pool: PgPool) {
    let service = Service::start(&pool).await;
    let with_id = |id: &str| Request::get("/v1/panels/nowhere").header("x-request-id", id).body(Vec::new()).unwrap();

    let answer = service.send(with_id("order-7")).await;
    assert_eq!(answer.problem(404, "unknown-panel").request_id.as_deref(), Some("order-7"));
    let answer = service.send(with_id("two words")).await;
    assert_ne!(answer.problem(404, "unknown-panel").request_id.as_deref(), Some("two words"));
    assert!(service.get("/livez").await.header("x-request-id").is_some());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_is_wrong_leaves_what_is_stored_as_it_was(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 240).await;
    train(&pool, &service, &loaded).await;
    let good = json!({"panel": "city", "horizon": 4, "num_samples": 3, "issue_time": hour(200)});
    service.make_forecast_once("key", &good).await.expect(201);
    let before = rows(&pool).await;
    assert_eq!(before, (1, 8, 2));

    let other = json!({"panel": "city", "horizon": 5, "num_samples": 3, "issue_time": hour(200)});
    service.make_forecast_once("key", &other).await.problem(409, "idempotency-conflict");
    service.make_forecast(&json!({"panel": "city", "horizon": 0})).await.problem(422, "invalid-body");
    assert_eq!(rows(&pool).await, before);
}
