//! Pipelines whose source is objects of an S3-compatible store, read over HTTP.

use serde_json::json;
use sqlx::PgPool;
use ureq::http::Request;

use crate::support::{Fault, Operator, Service, Store, count, gzip};

const RUN: [&str; 2] = ["--pipeline", "meters"];
const NORTH: &str = "in/site=north/day 1.csv.gz";
const SOUTH: &str = "in/site=south/day 1.csv";
const HEADER: &str = "when,kwh\n";

fn declaration(source: &str) -> String {
    format!(
        "panel = \"city\"\nfrequency = \"1h\"\n{source}\n[columns]\nseries = \"site\"\ntime = \"when\"\nvalue = \"kwh\"\n"
    )
}

fn hour(hour: usize, value: &str) -> String {
    format!("2025-03-01T{hour:02}:00Z,{value}\n")
}

/// A store with two objects, and an operator who reads them.
fn operator(pool: &PgPool) -> (Store, Operator) {
    let store = Store::start();
    store.put(NORTH, gzip(format!("{HEADER}{}{}", hour(0, "1"), hour(1, "x")).as_bytes()));
    store.put(SOUTH, format!("{HEADER}{}{}", hour(0, "3"), hour(1, "4")));
    store.put("in/site=south/_unfinished.csv", "not this one");
    store.put("other/day.csv", "nor this one");
    let operator = Operator::new(pool)
        .with("AWS_ENDPOINT_URL", &store.address)
        .with("AWS_ACCESS_KEY_ID", "reader")
        .with("AWS_SECRET_ACCESS_KEY", "a secret");
    operator.write("pipelines/meters.toml", &declaration("source = \"s3://meters/in/site=*/*.csv*\""));
    (store, operator)
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn only_objects_that_are_new_or_have_changed_are_fetched(pool: PgPool) {
    let (store, operator) = operator(&pool);
    let checked = operator.say(&["--check", "meters"]).await;
    let place = "unparsable_value in s3://meters/in/site=north/day 1.csv.gz, line 3, column `kwh`: `x`";
    assert!(checked.contains(place), "{checked}");
    let first = operator.say(&RUN).await;
    assert!(first.contains("2 series") && first.contains("3 observations new"), "{first}");
    store.given();
    assert!(operator.say(&RUN).await.contains("nothing new"));
    assert!(store.given().is_empty(), "their tags say that they are the same");

    // One has grown, one is corrected, one is new.
    store.put(SOUTH, format!("{HEADER}{}{}{}", hour(0, "3"), hour(1, "4"), hour(2, "5")));
    store.put(NORTH, gzip(format!("{HEADER}{}{}", hour(0, "9"), hour(1, "2")).as_bytes()));
    store.put("in/site=west/day.csv", format!("{HEADER}{}", hour(0, "7")));
    let second = operator.say(&RUN).await;
    assert!(second.contains("4 rows,") && second.contains("3 observations new, 1 corrected, 0 known"), "{second}");
    assert!(second.contains("rewritten"), "{second}");
    assert_eq!(store.given().len(), 3);
    store.put("in/site=west/day 2.csv", format!("{HEADER}{}", hour(1, "7")));
    assert!(operator.say(&RUN).await.contains("1 observations new"));
    assert_eq!(store.given(), ["in/site=west/day 2.csv"]);

    let names: Vec<String> =
        sqlx::query_scalar("select name from series order by name").fetch_all(&pool).await.unwrap();
    assert_eq!(names, ["north", "south", "west"], "by their place");
    let told = "select count(*) from pipeline, load where concat(pipeline, load) like '%a secret%'";
    assert_eq!(count(&pool, told).await, 0);
    assert_eq!(std::fs::read_dir(operator.path("objects")).unwrap().count(), 0, "no copy is left");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_store_that_fails_leaves_nothing_and_the_next_run_is_whole(pool: PgPool) {
    let (store, operator) = operator(&pool);
    for (fault, expected) in [
        (Fault::Gone, "day 1.csv.gz is gone since it was listed"),
        (Fault::Changed, "day 1.csv.gz was changed while it was read"),
        (Fault::Cut(100), "day 1.csv.gz: the store is not available"),
        (Fault::Overloaded(100), "s3://meters/in/site=*/*.csv*: the store is not available: SlowDown: Later"),
    ] {
        store.fail(fault);
        let complaint = operator.fail(&RUN).await;
        assert!(complaint.contains(expected), "{fault:?}: {complaint}");
    }
    assert_eq!(count(&pool, "select count(*) from observation").await, 0);
    assert_eq!(count(&pool, "select count(*) from load where status = 'failed'").await, 4);
    // What passes is waited for: an answer that ends is asked for from where it ended.
    store.fail(Fault::Overloaded(1));
    operator.say(&["--check", "meters"]).await;
    store.fail(Fault::Cut(1));
    store.given();
    assert!(operator.say(&RUN).await.contains("3 observations new"));
    assert_eq!(store.given(), [NORTH, NORTH, SOUTH]);

    for (source, expected) in [
        ("s3://nowhere/in/", "s3://nowhere/in/: there is no bucket `nowhere`"),
        ("s3://nowhere/a.csv", "s3://nowhere/a.csv: there is no bucket `nowhere`"),
        ("s3://meters/in/nothing.csv", "`s3://meters/in/nothing.csv` names no file"),
    ] {
        operator.write("pipelines/meters.toml", &declaration(&format!("source = \"{source}\"")));
        let complaint = operator.fail(&RUN).await;
        assert!(complaint.contains(expected), "{source}: {complaint}");
    }
    let stranger = operator.with("AWS_ACCESS_KEY_ID", "stranger");
    let complaint = stranger.fail(&RUN).await;
    assert!(complaint.contains("does not let us in") && !complaint.contains("a secret"), "{complaint}");
    let away = stranger.with("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    assert!(away.fail(&RUN).await.contains("the store is not available"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_large_object_is_stored_part_by_part_from_the_store_that_is_named(pool: PgPool) {
    let (store, operator) = operator(&pool);
    let operator = operator
        .with("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .with("COLD_STORE", &store.address)
        .with("COLD_KEY", "reader")
        .with("COLD_SECRET", "a secret");
    let hours: String = (0..24).map(|n| hour(n, &n.to_string())).collect();
    store.put("big/site=a/day.csv", format!("{HEADER}{hours}"));
    let source = "part_bytes = 200\n[source]\nobjects = \"s3://meters/big/\"\nendpoint_variable = \"COLD_STORE\"\n\
        access_key_id_variable = \"COLD_KEY\"\nsecret_access_key_variable = \"COLD_SECRET\"";
    operator.write("pipelines/meters.toml", &declaration(source));
    let said = operator.say(&RUN).await;
    assert!(said.matches("observations new").count() > 2, "{said}");
    assert_eq!(count(&pool, "select count(*) from observation").await, 24);
    assert!(operator.say(&RUN).await.contains("nothing new"));

    operator.write("pipelines/meters.toml", &declaration(&source.replace("COLD_KEY", "NOT_SET")));
    assert!(operator.fail(&RUN).await.contains("the environment variable NOT_SET is not set"));
    operator.write("pipelines/meters.toml", &declaration(&source.replace("COLD_SECRET", "a secret")));
    assert!(operator.fail(&RUN).await.contains("must name environment variables, and not what they hold"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_client_cannot_declare_objects(pool: PgPool) {
    let service = Service::start(&pool).await;
    for source in [json!("s3://meters/in/"), json!({"objects": "s3://meters/in/"})] {
        let body = json!({"panel": "city", "source": source}).to_string().into_bytes();
        let request = Request::put("/v1/pipelines/spy").header("content-type", "application/json").body(body).unwrap();
        let problem = service.send(request).await.problem(422, "invalid-body");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/source"));
    }
    assert_eq!(count(&pool, "select count(*) from pipeline").await, 0);
}
