//! Pipelines whose source is a query of somebody's own database: the test's database plays both parts.

use api::config::DatabaseUrl;
use api::db::query::{self, Error as QueryError};
use ingest::pipeline::Query;
use serde_json::json;
use sqlx::PgPool;
use tokio::task::spawn_blocking;
use ureq::http::Request;

use crate::support::{Operator, Service, complaint, count, database_url};

const VARIABLE: &str = "METERS_DATABASE_URL";

/// The pipeline of a query, with more lines of its source.
fn declaration(query: &str, more: &str) -> String {
    format!(
        "panel = \"city\"\nfrequency = \"1h\"\n[source]\nurl_variable = \"{VARIABLE}\"\nquery = '''\n{query}\n'''\n{more}\n"
    )
}

const READINGS: &str = "-- all of them\nselect meter as series, read_at as valid_time, kwh as value, changed_at
    from reading -- and no more;\n;";

/// An operator of a service whose users have a table of readings.
async fn operator(pool: &PgPool, declaration: &str) -> Operator {
    sqlx::raw_sql(
        "create table reading (meter text, read_at timestamptz, kwh numeric, changed_at timestamptz);
         insert into reading values
             ('a', '2025-03-01 01:00+01', 1.5, '2025-03-01 03:00Z'),
             ('a', '2025-03-01 02:00+01', 2, '2025-03-01 03:00Z'),
             ('b, the \"second\"', '2025-03-01 02:00+01', 'NaN', '2025-03-01 02:00Z'),
             ('b, the \"second\"', '2025-03-01 01:00+01', -7, '2025-03-01 02:00Z')",
    )
    .execute(pool)
    .await
    .unwrap();
    let operator = Operator::new(pool).with(VARIABLE, &database_url(pool));
    operator.write("pipelines/meters.toml", declaration);
    operator
}

async fn change(pool: &PgPool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.unwrap();
}

const RUN: [&str; 2] = ["--pipeline", "meters"];

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_query_is_read_from_where_the_last_run_ended(pool: PgPool) {
    let operator = operator(&pool, &declaration(READINGS, "watermark = \"changed_at\"")).await;
    let checked = operator.say(&["--check", "meters"]).await;
    assert!(checked.contains("not_finite in query, line 4, column `value`: `NaN`"), "{checked}");
    assert_eq!(count(&pool, "select count(*) from pipeline").await, 0, "a check stores nothing");
    let first = operator.say(&RUN).await;
    assert!(first.contains("3 observations new, 0 corrected, 0 known already"), "{first}");

    // What was changed, what is new, and what has the time up to which was read, since more may have it.
    change(&pool, "update reading set kwh = 3, changed_at = '2025-03-02 00:00Z' where meter = 'a' and kwh = 2").await;
    change(&pool, "insert into reading values ('a', '2025-03-01 02:00Z', 4, '2025-03-01 03:00Z')").await;
    let second = operator.say(&RUN).await;
    assert!(second.contains("3 rows,") && second.contains("1 observations new, 1 corrected, 1 known"), "{second}");
    let third = operator.say(&RUN).await;
    assert!(third.contains("0 observations new, 0 corrected, 1 known already"), "{third}");
    assert!(operator.say(&RUN).await.contains("nothing new"));
    change(&pool, "delete from reading").await;
    assert!(operator.say(&RUN).await.contains("nothing new"), "an answer without rows");
    change(&pool, "insert into reading values ('a', '2025-03-01 03:00Z', 5, '2025-03-01 23:59Z')").await;
    assert!(operator.say(&RUN).await.contains("nothing new"), "before the watermark");
    change(&pool, "update reading set changed_at = '2025-03-02 00:01Z'").await;
    assert!(operator.say(&RUN).await.contains("1 observations new"));

    let sources = "select count(*) from load where status = 'succeeded' and source = 'query of $METERS_DATABASE_URL'";
    assert_eq!(count(&pool, sources).await, 4);
    let told = "select count(*) from pipeline, load where concat(pipeline, load) like '%postgres://%'";
    assert_eq!(count(&pool, told).await, 0, "the address is nowhere");
    assert_eq!(std::fs::read_dir(operator.path("answers")).unwrap().count(), 0, "no answer is left");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_watermark_without_an_end_does_not_hide_what_comes_later(pool: PgPool) {
    let operator = operator(&pool, &declaration(READINGS, "watermark = \"changed_at\"\noverlap_seconds = 600")).await;
    change(&pool, "update reading set changed_at = 'infinity' where meter = 'a' and kwh = 2").await;
    let first = operator.say(&RUN).await;
    assert!(first.contains("3 observations new") && first.contains("unbounded_watermark: 1 rows have"), "{first}");
    change(&pool, "insert into reading values ('a', '2025-03-01 02:00Z', 4, '2025-03-01 04:00Z')").await;
    let second = operator.say(&RUN).await;
    assert!(second.contains("1 observations new, 0 corrected, 2 known already"), "{second}");
    assert!(operator.say(&RUN).await.contains("0 observations new, 0 corrected, 2 known already"));
    assert!(operator.say(&RUN).await.contains("nothing new"));

    // An earlier release ended there.
    change(&pool, "update pipeline set watermark = jsonb_set(watermark, '{answer,largest}', '\"infinity\"')").await;
    let all = operator.say(&RUN).await;
    assert!(all.contains("5 rows,") && all.contains("0 observations new, 0 corrected, 4 known already"), "{all}");
    let stored = "select count(*) from pipeline where watermark->'answer'->>'largest' = '2025-03-01 04:00:00+00'";
    assert_eq!(count(&pool, stored).await, 1);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_number_that_is_none_does_not_hide_what_comes_later_either(pool: PgPool) {
    let query =
        "select meter as series, read_at as valid_time, kwh as value, kwh as version from reading where meter = 'a'
        union all select 'c', '2025-03-01 00:00Z', 7, 'NaN'";
    let operator = operator(&pool, &declaration(query, "watermark = \"version\"")).await;
    assert!(operator.say(&RUN).await.contains("unbounded_watermark: 1 rows have"));
    change(&pool, "insert into reading values ('a', '2025-03-01 02:00Z', 4, null)").await;
    let second = operator.say(&RUN).await;
    assert!(second.contains("1 observations new, 0 corrected, 2 known already"), "{second}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_job_asks_a_query(pool: PgPool) {
    let operator = operator(&pool, &declaration(READINGS, "watermark = \"changed_at\"")).await;
    let service = Service::start(&pool).await;
    let ask = async || {
        let body = json!({"kind": "load", "arguments": {"pipeline": "meters"}}).to_string().into_bytes();
        let request = Request::post("/v1/jobs").header("content-type", "application/json").body(body).unwrap();
        service.send(request).await.expect(202);
    };
    ask().await;
    // The worker and the process of the job have the address from their environment.
    let mut worker = operator.plumecast(&["work", "--job-poll", "0.05", "--job-niceness", "0"]).spawn().unwrap();
    let n_done = "select count(*) from job where state = 'succeeded'";
    let n_ended = "select count(*) from job where state in ('succeeded', 'failed')";
    while count(&pool, n_ended).await < 1 {}
    ask().await;
    while count(&pool, n_ended).await < 2 {}
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(count(&pool, n_done).await, 2);
    let results: Vec<serde_json::Value> =
        sqlx::query_scalar("select result from job order by job_id").fetch_all(&pool).await.unwrap();
    assert_eq!((&results[0]["is_new"], &results[0]["inserted"]), (&json!(true), &json!(3)));
    assert_eq!((&results[1]["inserted"], &results[1]["unchanged"]), (&json!(0), &json!(2)), "since the watermark");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn an_overlap_finds_rows_that_are_shown_late_and_no_watermark_reads_all(pool: PgPool) {
    let overlap = declaration(READINGS, "watermark = \"changed_at\"\noverlap_seconds = 600");
    let operator = operator(&pool, &overlap).await;
    operator.say(&RUN).await;
    change(&pool, "insert into reading values ('a', '2025-03-01 02:00Z', 4, '2025-03-01 02:50Z')").await;
    change(&pool, "insert into reading values ('a', '2025-03-01 03:00Z', 4, '2025-03-01 02:49Z')").await;
    let late = operator.say(&RUN).await;
    assert!(late.contains("3 rows,") && late.contains("1 observations new, 0 corrected, 2 known"), "{late}");
    assert!(operator.say(&RUN).await.contains("nothing new"));

    operator.write("pipelines/meters.toml", &declaration(READINGS, ""));
    let all = operator.say(&RUN).await;
    assert!(all.contains("6 rows,") && all.contains("1 observations new, 0 corrected, 4 known already"), "{all}");
    assert!(operator.say(&RUN).await.contains("nothing new"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_query_that_is_wrong_or_would_write_is_refused_and_on_record(pool: PgPool) {
    let operator = operator(&pool, "").await;
    sqlx::raw_sql(
        "create function spoil() returns text language plpgsql as
         $$ begin delete from reading; return 'a'; end $$",
    )
    .execute(&pool)
    .await
    .unwrap();
    let one = "select 'a' as series, '2025-03-01 00:00Z'::timestamptz as valid_time, 1 as value";
    for (query, more, expected) in [
        ("select meter from readings", "", "relation \"readings\" does not exist"),
        (READINGS, "watermark = \"changed\"", "column \"changed\" does not exist"),
        ("select spoil() as series, now() as valid_time, 1 as value", "", "in a read-only transaction"),
        ("select 1) as a; delete from reading; select * from (select 1", "", "multiple commands"),
        ("delete from reading returning *", "", "syntax error"),
        (one, "watermark = \"series\"\noverlap_seconds = 1", ""),
    ] {
        operator.write("pipelines/meters.toml", &declaration(query, more));
        if expected.is_empty() {
            // Only the second run has something to compare with.
            operator.say(&RUN).await;
        }
        let complaint = operator.fail(&RUN).await;
        let expected = if expected.is_empty() { "invalid input syntax for type timestamp" } else { expected };
        assert!(complaint.contains("$METERS_DATABASE_URL: the database refuses: "), "{complaint}");
        assert!(complaint.contains(expected), "{query}: {complaint}");
    }
    assert_eq!(count(&pool, "select count(*) from reading").await, 4);
    let failures = "select count(*) from load where status = 'failed' and failure like '$METERS_DATABASE_URL: %'";
    assert_eq!(count(&pool, failures).await, 6);

    operator.write("pipelines/meters.toml", &declaration(one, "").replace(VARIABLE, "NOT_SET"));
    assert!(operator.fail(&RUN).await.contains("the environment variable NOT_SET is not set"));
}

/// A query that waits until nobody has advisory lock 7.
const WAITS: &str = "select meter as series, read_at as valid_time, kwh as value
    from reading, (select pg_advisory_xact_lock_shared(7)) as gate";

/// The processes of the server that wait for it.
const WAITING: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'plumecast source' and wait_event = 'advisory'";

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_database_that_goes_away_or_is_slow_leaves_nothing_and_the_next_run_is_whole(pool: PgPool) {
    let operator = operator(&pool, &declaration(WAITS, "")).await;
    let mut gate = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(7)").execute(&mut *gate).await.unwrap();
    let child = operator.command(&RUN).spawn().unwrap();
    while count(&pool, WAITING).await == 0 {}
    change(&pool, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'plumecast source'")
        .await;
    let complaint = complaint(spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap());
    assert!(complaint.contains("the database is not available"), "{complaint}");

    operator.write("pipelines/meters.toml", &declaration(WAITS, "timeout_seconds = 1"));
    let complaint = operator.fail(&RUN).await;
    assert!(complaint.contains("the query takes longer than 1 seconds"), "{complaint}");
    assert_eq!(count(&pool, "select count(*) from load where status = 'failed'").await, 2);
    assert_eq!(count(&pool, "select count(*) from observation").await, 0);
    gate.rollback().await.unwrap();
    assert!(operator.say(&RUN).await.contains("3 observations new"));

    let nobody = operator.with(VARIABLE, "postgres://nobody@127.0.0.1:1/none");
    let complaint = nobody.fail(&RUN).await;
    assert!(complaint.contains("$METERS_DATABASE_URL: the database is not available"), "{complaint}");
    let nonsense = nobody.with(VARIABLE, "mysql://root:secret@localhost/meters");
    let complaint = nonsense.fail(&RUN).await;
    assert!(complaint.contains("no address of the form") && !complaint.contains("secret"), "{complaint}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn an_answer_has_a_limit(pool: PgPool) {
    let url = DatabaseUrl::from(database_url(&pool).as_str());
    let query = Query {
        url_variable: VARIABLE.to_owned(),
        query: "select n as \"a\"\"b\", now() - now() as none from generate_series(1, 1000) as n".to_owned(),
        watermark: Some("a\"b".to_owned()),
        overlap_seconds: None,
        timeout_seconds: 60,
    };
    let mut answer = Vec::new();
    let end = query::copy(&url, &query, Some("999"), 100, &mut answer).await.unwrap();
    assert_eq!((end.largest.as_deref(), end.n_unbounded), (Some("1000"), 0));
    assert_eq!(String::from_utf8(answer).unwrap(), "\"a\"\"b\",none\n999,00:00:00\n1000,00:00:00\n");
    let refused = query::copy(&url, &query, Some("1"), 100, &mut Vec::new()).await;
    assert!(matches!(refused, Err(QueryError::TooManyBytes { limit: 100 })), "{refused:?}");
    let refused = query::copy(&url, &query, None, 100, &mut &mut [0_u8; 8][..]).await;
    assert!(matches!(refused, Err(QueryError::Write(_))), "{refused:?}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_client_cannot_declare_a_query(pool: PgPool) {
    let service = Service::start(&pool).await;
    let source = json!({"url_variable": "DATABASE_URL", "query": "select 1"});
    let body = json!({"panel": "city", "frequency": "1h", "source": source}).to_string().into_bytes();
    let request = Request::put("/v1/pipelines/spy").header("content-type", "application/json").body(body).unwrap();
    let problem = service.send(request).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/source"));
    assert_eq!(count(&pool, "select count(*) from pipeline").await, 0);
}
