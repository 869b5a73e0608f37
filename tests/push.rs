//! Values that clients send: every format, what is rejected, what is refused, and that nothing is stored twice.

use std::sync::Arc;

use api::config::Limits;
use arrow::array::{Float64Array, RecordBatch, StringArray};
use arrow::ipc::writer::StreamWriter;
use serde_json::{Value, json};
use sqlx::PgPool;
use ureq::http::Request;

use crate::support::{Answer, Service, do_job, gzip, hour, load_panel, train};

const PATH: &str = "/v1/observations?panel=city&frequency=1h";

async fn push(service: &Service, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Answer {
    let request = Request::post(path).header("content-type", content_type);
    service.send(request.body(body.as_ref().to_vec()).unwrap()).await
}

async fn push_json(service: &Service, path: &str, observations: &Value) -> Answer {
    push(service, path, "application/json", json!({ "observations": observations }).to_string()).await
}

fn rows() -> Value {
    json!([
        {"series": "heat", "valid_time": "2025-03-01T00:00:00Z", "value": 1.5},
        {"series": "heat", "valid_time": "2025-03-01T01:00:00Z", "value": null},
        {"series": "wind", "valid_time": "2025-03-01T00:00:00Z", "value": 7},
    ])
}

const CSV: &str =
    "series,valid_time,value\nheat,2025-03-01T00:00Z,1.5\nheat,2025-03-01T01:00Z,\nwind,2025-03-01T00:00Z,7\n";

fn arrow_stream() -> Vec<u8> {
    let batch = RecordBatch::try_from_iter([
        ("series", Arc::new(StringArray::from(vec!["heat", "heat", "wind"])) as _),
        (
            "valid_time",
            Arc::new(StringArray::from(vec!["2025-03-01T00:00Z", "2025-03-01T01:00Z", "2025-03-01T00:00Z"])) as _,
        ),
        ("value", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(7.0)])) as _),
    ])
    .unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

async fn n_rows(pool: &PgPool) -> (i64, i64) {
    sqlx::query_as("select (select count(*) from observation), (select count(*) from load)")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn every_format_says_the_same_and_nothing_is_stored_twice(pool: PgPool) {
    let service = Service::start(&pool).await;
    let first = push_json(&service, PATH, &rows()).await.expect(200);
    assert_eq!((&first["inserted"], &first["corrected"], &first["unchanged"]), (&json!(2), &json!(0), &json!(0)));
    assert_eq!((&first["report"]["n_gaps"], &first["report"]["frequency"]), (&json!(1), &json!("1h")));

    let ndjson: String = rows().as_array().unwrap().iter().map(|row| format!("{row}\n")).collect();
    for (content_type, body) in [
        ("application/json", json!({ "observations": rows() }).to_string().into_bytes()),
        ("application/x-ndjson", ndjson.into_bytes()),
        ("text/csv; charset=utf-8", CSV.into()),
        ("text/csv", gzip(CSV.as_bytes())),
        ("application/vnd.apache.arrow.stream", arrow_stream()),
    ] {
        // The panel knows its frequency by now.
        let again = push(&service, "/v1/observations?panel=city", content_type, body).await.expect(200);
        assert_eq!((&again["inserted"], &again["unchanged"]), (&json!(0), &json!(2)), "{content_type}");
    }
    let request = Request::post(PATH).header("content-type", "text/csv").header("content-encoding", "gzip");
    let packed = service.send(request.body(gzip(CSV.as_bytes())).unwrap()).await.expect(200);
    assert_eq!(packed["unchanged"], 2);
    assert_eq!(n_rows(&pool).await, (2, 7));

    let other = json!([{"series": "wind", "valid_time": "2025-03-01T00:00:00Z", "value": 8}]);
    assert_eq!(push_json(&service, PATH, &other).await.expect(200)["corrected"], 1);
    let observed = service.observations("city", "series=wind").await.expect(200);
    assert_eq!(observed["observations"][0]["value"], 8.0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn attributes_are_kept_with_their_series(pool: PgPool) {
    let service = Service::start(&pool).await;
    let path = format!("{PATH}&attributes=site,kw");
    let rows = json!([
        {"series": "heat", "valid_time": "2025-03-01T00:00:00Z", "value": 1, "site": "north", "kw": 7.5},
        {"series": "wind", "valid_time": "2025-03-01T00:00:00Z", "value": 1, "site": "south"},
    ]);
    push_json(&service, &path, &rows).await.expect(200);
    // Another body may say less.
    push_json(&service, PATH, &json!([{"series": "heat", "valid_time": "2025-03-01T01:00:00Z", "value": 2}]))
        .await
        .expect(200);
    let moved = json!([{"series": "wind", "valid_time": "2025-03-01T01:00:00Z", "value": 2, "site": "west"}]);
    push_json(&service, &format!("{PATH}&attributes=site"), &moved).await.expect(200);
    let listed = service.get("/v1/panels/city/series").await.expect(200);
    let attributes: Vec<&Value> = listed["series"].as_array().unwrap().iter().map(|s| &s["attributes"]).collect();
    assert_eq!(attributes, [&json!({"site": "north", "kw": "7.5"}), &json!({"site": "west"})]);
    let page = service.get("/panels/city/data").await.text();
    assert!(page.contains("<td>kw 7.5, site north</td>"), "{page}");

    let nowhere = push_json(&service, &format!("{PATH}&attributes=nowhere"), &rows).await;
    let problem = nowhere.problem(422, "unusable-data");
    assert!(problem.detail.contains("has no column `nowhere`"), "{}", problem.detail);
    push_json(&service, &format!("{PATH}&attributes=site,,kw"), &rows).await.problem(400, "invalid-parameter");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_is_wrong_is_rejected_where_it_stands_and_the_rest_is_stored(pool: PgPool) {
    let service = Service::start(&pool).await;
    let mut rows = rows();
    rows.as_array_mut().unwrap().push(json!({"series": "wind", "valid_time": "2025-03-01T00:30:00Z", "value": 1}));
    rows.as_array_mut()
        .unwrap()
        .push(json!({"series": "wind", "valid_time": "2025-03-01T02:00:00Z", "value": 9007199254740993_u64}));

    let checked = push_json(&service, &format!("{PATH}&dry_run=true"), &rows).await.expect(200);
    assert_eq!((&checked["status"], &checked["rejected"]), (&json!("checked"), &json!(2)));
    assert_eq!(n_rows(&pool).await, (0, 0), "a dry run stores nothing");

    let stored = push_json(&service, PATH, &rows).await.expect(200);
    assert_eq!((&stored["inserted"], &stored["rejected"]), (&json!(2), &json!(2)));
    let rejected = &stored["report"]["rejected"];
    assert_eq!(
        (&rejected[0]["reason"], &rejected[0]["pointer"]),
        (&json!("off_grid"), &json!("/observations/3/valid_time"))
    );
    assert_eq!(
        (&rejected[1]["reason"], &rejected[1]["pointer"]),
        (&json!("integer_too_large"), &json!("/observations/4/value"))
    );

    // The record says the same, and the rows are kept.
    let load_id = stored["load_id"].as_str().unwrap();
    let record = service.get(&format!("/v1/loads/{load_id}")).await.expect(200);
    assert_eq!(
        (&record["source"], &record["status"], &record["report"]),
        (&json!("push"), &json!("succeeded"), &stored["report"])
    );
    let file = service.data_dir().join(record["quarantine"].as_str().unwrap());
    let config =
        ingest::LoadConfig { may_be_empty: true, frequency: Some("1h".parse().unwrap()), ..Default::default() };
    let kept = tokio::task::spawn_blocking(move || ingest::load(&file, &config).unwrap()).await.unwrap();
    assert_eq!(kept.report.n_lost(), 2);
    let list = service.get("/v1/loads?panel=city&limit=1").await.expect(200);
    assert_eq!((&list["loads"][0]["load_id"], &list["loads"][0]["report"]), (&json!(load_id), &Value::Null));
    service.get("/v1/loads/nothing").await.problem(404, "unknown-load");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn nul_is_rejected_where_it_stands_and_the_rest_is_stored(pool: PgPool) {
    let service = Service::start(&pool).await;
    let mut rows = rows();
    rows.as_array_mut().unwrap().extend([
        json!({"series": "wind", "valid_time": "2025-03-01T02:00:00Z", "value": "x\0"}),
        json!({"series": "wi\0nd", "valid_time": "2025-03-01T02:00:00Z", "value": 1, "site": "north"}),
        json!({"series": "wind", "valid_time": "2025-03-01T03:00:00Z", "value": 1, "site": "no\0rth"}),
    ]);
    let stored = push_json(&service, &format!("{PATH}&attributes=site"), &rows).await.expect(200);
    assert_eq!((&stored["inserted"], &stored["rejected"]), (&json!(3), &json!(2)));
    let rejected = stored["report"]["rejected"].as_array().unwrap();
    let places: Vec<_> = rejected.iter().map(|row| (&row["reason"], &row["pointer"], &row["value"])).collect();
    assert_eq!(
        places,
        [
            (&json!("unparsable_value"), &json!("/observations/3/value"), &json!("x\u{fffd}")),
            (&json!("missing_series"), &json!("/observations/4/series"), &json!("wi\u{fffd}nd")),
        ]
    );
    let record = service.get(&format!("/v1/loads/{}", stored["load_id"].as_str().unwrap())).await.expect(200);
    assert_eq!(record["report"], stored["report"]);
    let listed = service.get("/v1/panels/city/series").await.expect(200);
    assert_eq!(listed["series"][1]["attributes"], json!({"site": "no\u{fffd}rth"}));

    let named = json!([{"time": "2025-03-01T00:00:00Z", "wind\0": 1}]);
    let problem = push_json(&service, PATH, &named).await.problem(422, "unusable-data");
    assert!(problem.detail.contains("NUL in the name of column 2"), "{}", problem.detail);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_comma_at_the_end_of_each_line_is_no_series(pool: PgPool) {
    let service = Service::start(&pool).await;
    let csv = "time,heat,wind,\n2025-03-01T00:00Z,1,2,\n2025-03-01T01:00Z,3,4,\n";
    let stored = push(&service, PATH, "text/csv", csv).await.expect(200);
    assert_eq!((&stored["inserted"], &stored["report"]["n_series"]), (&json!(4), &json!(2)));
    let more = push(&service, PATH, "text/csv", csv.replace("3,4,", "3,4,5")).await;
    let problem = more.problem(422, "unusable-data");
    assert_eq!(problem.detail, "body has values in column 4, which has no name");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_panel_is_not_made_of_nothing(pool: PgPool) {
    let service = Service::start(&pool).await;
    let expected = "panel `city` does not exist yet, and the data name no series for it";
    for answer in [push_json(&service, PATH, &json!([])).await, push(&service, PATH, "text/csv", "time,heat\n").await] {
        assert_eq!(answer.problem(422, "unusable-data").detail, expected);
    }
    let list = service.get("/v1/loads").await.expect(200);
    assert_eq!((&list["loads"][0]["status"], &list["loads"][0]["failure"]), (&json!("failed"), &json!(expected)));
    push(&service, PATH, "text/csv", CSV).await.expect(200);
    push_json(&service, PATH, &json!([])).await.expect(200);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_body_of_which_nothing_is_right_is_refused_and_stays_on_record(pool: PgPool) {
    let service = Service::start(&pool).await;
    let wrong = json!([{"series": "a", "valid_time": "2025-03-01T00:00:00Z", "value": "x"}, 7]);
    let problem = push_json(&service, PATH, &wrong).await.problem(422, "unusable-data");
    let places: Vec<_> = problem.errors.iter().map(|error| (error.code.as_str(), error.pointer.as_deref())).collect();
    assert_eq!(
        places,
        [("unparsable_value", Some("/observations/0/value")), ("malformed_line", Some("/observations/1"))]
    );
    assert_eq!(n_rows(&pool).await, (0, 1));
    let list = service.get("/v1/loads").await.expect(200);
    assert_eq!((&list["loads"][0]["status"], &list["loads"][0]["rejected"]), (&json!("failed"), &json!(2)));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_push_that_cannot_be_read_says_why(pool: PgPool) {
    let service = Service::start_with(&pool, Limits { push_bytes_max: 2_000, ..Limits::default() }).await;
    push(&service, PATH, "text/plain", "x").await.problem(415, "unsupported-media-type");
    push(&service, PATH, "text/csv", "x".repeat(2_001)).await.problem(413, "body-too-large");
    push(&service, PATH, "text/csv", gzip("time,a\n".repeat(1_000).as_bytes())).await.problem(422, "unusable-data");
    let request = Request::post(PATH).header("content-type", "text/csv").header("content-encoding", "gzip");
    service.send(request.body(gzip(&[b'x'; 3_000])).unwrap()).await.problem(413, "body-too-large");
    push(&service, PATH, "application/json", "[]").await.problem(422, "unusable-data");
    push(&service, PATH, "text/csv", "").await.problem(422, "unusable-data");
    push(&service, PATH, "application/vnd.apache.parquet", "PAR1 and no more").await.problem(422, "unusable-data");
    push(&service, "/v1/observations", "text/csv", CSV).await.problem(400, "invalid-parameter");
    push(&service, &format!("{PATH}&unit=m"), "text/csv", CSV).await.problem(400, "invalid-parameter");
    // One time says nothing of the grid of a panel that does not exist yet.
    let problem = push(&service, "/v1/observations?panel=new", "text/csv", CSV).await.problem(422, "unusable-data");
    assert!(problem.detail.contains("the frequency is not clear"), "{}", problem.detail);

    push(&service, PATH, "text/csv", CSV).await.expect(200);
    let other = PATH.replace("1h", "1d");
    push(&service, &other, "text/csv", CSV).await.problem(409, "panel-differs");
    push(&service, &format!("{PATH}&time_zone=Europe/Madrid"), "text/csv", CSV).await.problem(409, "panel-differs");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn any_order_of_pushes_makes_the_same_panel_and_the_past_never_changes(pool: PgPool) {
    let service = Service::start(&pool).await;
    let piece = |hours: std::ops::Range<u32>, value: u32| -> Value {
        let row = |hour| {
            json!({
                "series": if hour % 2 == 0 { "a" } else { "b" },
                "valid_time": format!("2025-03-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24),
                "value": value + hour, "available_at": format!("2025-03-{:02}T00:00:00Z", 2 + hour / 24 + value),
            })
        };
        hours.map(row).collect()
    };
    // Two overlap, and the last one corrects, two days later.
    let pieces = [piece(0..40, 0), piece(30..70, 0), piece(60..72, 0), piece(10..20, 2)];
    let known = async |panel: &str, as_of: &str| -> Value {
        service.observations(panel, &format!("as_of={as_of}")).await.expect(200)["observations"].clone()
    };
    for (panel, order) in [("first", [0, 1, 2, 3]), ("second", [2, 0, 3, 1]), ("third", [1, 0, 2, 3])] {
        for index in order {
            push_json(&service, &format!("/v1/observations?panel={panel}&frequency=1h"), &pieces[index])
                .await
                .expect(200);
        }
        for index in order {
            let path = format!("/v1/observations?panel={panel}");
            let again = push_json(&service, &path, &pieces[index]).await.expect(200);
            assert_eq!((&again["inserted"], &again["corrected"]), (&json!(0), &json!(0)), "{panel} {index}");
        }
    }
    for as_of in ["2025-03-02T00:00:00Z", "2025-03-04T12:00:00Z", "2025-04-01T00:00:00Z"] {
        let expected = known("first", as_of).await;
        assert!(!expected.as_array().unwrap().is_empty());
        assert_eq!(known("second", as_of).await, expected);
        assert_eq!(known("third", as_of).await, expected);
        // What becomes known later changes nothing of what was known then.
        let later = json!([{"series": "a", "valid_time": "2025-03-01T00:00:00Z", "value": 99, "available_at": "2025-05-01T00:00:00Z"}]);
        push_json(&service, "/v1/observations?panel=first", &later).await.expect(200);
        assert_eq!(known("first", as_of).await, expected);
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_panel_that_gets_holidays_is_still_served_and_the_next_model_is_told_of_them(pool: PgPool) {
    let service = Service::start(&pool).await;
    let loaded = load_panel(&pool, "city", 1_000).await;
    train(&pool, &service, &loaded).await;
    let forecast = json!({"panel": "city", "horizon": 3, "issue_time": hour(900), "fallback": false});
    let holidays = async || service.get("/v1/panels").await.expect(200)["panels"][0]["holidays"].clone();
    assert_eq!(holidays().await, Value::Null);

    push_json(&service, &format!("{PATH}&holidays=nowhere"), &rows()).await.problem(400, "invalid-parameter");
    push_json(&service, &format!("{PATH}&holidays=es"), &rows()).await.expect(200);
    assert_eq!(holidays().await, "ES");
    // What a later push does not say stays, and a model that has learned without them goes on without them.
    push_json(&service, PATH, &rows()).await.expect(200);
    assert_eq!(holidays().await, "ES");
    service.make_forecast(&forecast).await.expect(201);
    assert!(service.get("/panels/city").await.text().contains("UTC · holidays of ES"));

    let arguments = json!({"panel": "city", "horizon": 3, "train_steps": 1});
    let job = do_job(&pool, service.data_dir(), "train", arguments, chrono::Utc::now()).await;
    assert_eq!(job.failure, None);
    let made = service.make_forecast(&forecast).await.expect(201);
    assert_eq!(made["model"]["version"], 2, "{made}");
}
