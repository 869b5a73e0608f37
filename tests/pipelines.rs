//! Pipelines by command and by REST: what is new, what fails, and who may read what.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use api::db::words::JobState;
use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::spawn_blocking;
use ureq::http::Request;

use crate::support::{Answer, Operator, Service, count, do_job, output, plumecast};

const DECLARATION: &str = "panel = \"city\"\nsource = \"in/*.csv\"\nfrequency = \"1h\"\n";
const DAY: &str = "time,heat,wind\n2025-03-01T00:00Z,1,2\n2025-03-01T01:00Z,x,4\n2025-03-01T02:00Z,5,6\n";

/// An operator with one pipeline and one file.
fn operator(pool: &PgPool) -> Operator {
    let operator = Operator::new(pool);
    operator.write("pipelines/meters.toml", DECLARATION);
    operator.write("pipelines/in/day.csv", DAY);
    operator
}

async fn n_observations(pool: &PgPool) -> i64 {
    count(pool, "select count(*) from observation").await
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_pipeline_reads_what_is_new_and_keeps_what_was_wrong(pool: PgPool) {
    let operator = operator(&pool);
    let checked = operator.say(&["--check", "meters"]).await;
    assert!(checked.contains("unparsable_value in in/day.csv, line 3, column `heat`: `x`"), "{checked}");
    assert_eq!(count(&pool, "select count(*) from pipeline").await, 0, "a check stores nothing");

    let first = operator.say(&["--pipeline", "meters"]).await;
    assert!(first.contains("5 observations new, 0 corrected, 0 known already"), "{first}");
    let again = operator.say(&["--pipeline", "meters"]).await;
    assert!(again.contains("nothing new"), "{again}");

    // A grown file, read from where it ended; and a new one.
    operator.write("pipelines/in/day.csv", &format!("{DAY}2025-03-01T03:00Z,7,8\n"));
    operator.write("pipelines/in/other.csv", "time,heat,wind\n2025-03-01T04:00Z,9,10\n");
    let second = operator.say(&["--pipeline", "meters"]).await;
    assert!(second.contains("2 rows,") && second.contains("4 observations new"), "{second}");

    // The row that was not taken is corrected where it was kept, and loaded.
    let kept: Vec<PathBuf> =
        fs::read_dir(operator.path("quarantine")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    let kept_again = operator.say(&[kept[0].to_str().unwrap(), "--panel", "city", "--freq", "1h"]).await;
    assert!(kept_again.contains("0 observations new, 0 corrected, 1 known already"), "{kept_again}");

    let loads: Vec<(String, i64, i64)> =
        sqlx::query_as("select status, n_inserted, n_rejected from load order by load_id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(loads, [("succeeded".to_owned(), 5, 1), ("succeeded".to_owned(), 4, 0), ("succeeded".to_owned(), 0, 1)]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_is_too_much_for_one_run_is_stored_part_by_part(pool: PgPool) {
    let operator = operator(&pool);
    operator.write("pipelines/meters.toml", &format!("{DECLARATION}part_bytes = 30\n"));
    let checked = operator.say(&["--check", "meters"]).await;
    assert!(checked.contains("1 rows,") && checked.contains("the first part only"), "{checked}");
    let said = operator.say(&["--pipeline", "meters"]).await;
    assert_eq!(said.matches("panel `city` version 1").count(), 3, "{said}");
    assert!(said.contains("unparsable_value in in/day.csv, line 3, column `heat`: `x`"), "{said}");
    assert_eq!(n_observations(&pool).await, 5);
    assert!(operator.say(&["--pipeline", "meters"]).await.contains("nothing new"));

    // A job does the same; a request does one part, and says that there is more.
    operator.write("pipelines/in/other.csv", &DAY.replace("2025-03-01", "2025-03-02"));
    let job = do_job(&pool, &operator.path(""), "load", json!({"pipeline": "meters"}), Utc::now()).await;
    assert_eq!((job.state, &job.result.unwrap()["inserted"]), (JobState::Succeeded, &json!(5)), "{:?}", job.failure);
    assert_eq!(count(&pool, "select count(*) from load where status = 'succeeded'").await, 6);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_run_that_has_what_its_pipeline_fails_on_stores_nothing_but_its_report(pool: PgPool) {
    let operator = operator(&pool);
    operator.write("pipelines/meters.toml", &format!("{DECLARATION}fail_on = [\"gap\", \"unparsable_value\"]\n"));
    let complaint = operator.fail(&["--pipeline", "meters"]).await;
    assert!(complaint.contains("the pipeline fails on gap, unparsable_value"), "{complaint}");
    assert_eq!(n_observations(&pool).await, 0);
    let record: (String, String, Value) =
        sqlx::query_as("select status, failure, report from load").fetch_one(&pool).await.unwrap();
    assert_eq!((record.0.as_str(), &record.2["n_findings"]["gap"]), ("failed", &json!(1)));

    // Once the file is right, all of it is read.
    operator.write("pipelines/in/day.csv", &DAY.replace('x', "3"));
    let mended = operator.say(&["--pipeline", "meters"]).await;
    assert!(mended.contains("6 observations new"), "{mended}");
    let complaint = operator.fail(&["--pipeline", "nothing"]).await;
    assert!(complaint.contains("there is no pipeline `nothing`"), "{complaint}");
    operator.write("pipelines/other.toml", "panel = 1\n");
    let complaint = operator.fail(&["--pipeline", "meters"]).await;
    assert!(complaint.contains("other.toml"), "{complaint}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_source_that_is_broken_or_gone_is_on_record(pool: PgPool) {
    let operator = operator(&pool);
    operator.say(&["--pipeline", "meters"]).await;
    operator.write("pipelines/in/broken.csv", "time,a\n2025-03-01T00:00Z,1,2,3\n");
    let complaint = operator.fail(&["--pipeline", "meters"]).await;
    assert!(complaint.contains("broken.csv, line 2 has 4 fields, the header has 2"), "{complaint}");
    fs::remove_dir_all(operator.path("pipelines/in")).unwrap();
    let complaint = operator.fail(&["--pipeline", "meters"]).await;
    assert!(complaint.contains("`in/*.csv` names no file"), "{complaint}");
    assert_eq!(count(&pool, "select count(*) from load where status = 'failed' and report is null").await, 2);
    assert_eq!(n_observations(&pool).await, 5, "what was stored stays");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_second_run_at_the_same_time_is_refused_and_changes_nothing(pool: PgPool) {
    let operator = operator(&pool);
    let (child, blocker) = operator.start_blocked(&pool, &["--pipeline", "meters"], "load").await;
    let complaint = operator.fail(&["--pipeline", "meters"]).await;
    assert!(complaint.contains("pipeline `meters` is being run"), "{complaint}");
    blocker.rollback().await.unwrap();
    let first = spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(operator.say(&["--pipeline", "meters"]).await.contains("nothing new"));
    assert_eq!((n_observations(&pool).await, count(&pool, "select count(*) from load").await), (5, 1));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_is_declared_anew_during_a_run_reads_all_files_again(pool: PgPool) {
    let operator = operator(&pool);
    let (child, blocker) = operator.start_blocked(&pool, &["--pipeline", "meters"], "load").await;
    operator.write("pipelines/meters.toml", &format!("{DECLARATION}resample = \"sum\"\n"));
    let complaint = operator.fail(&["--pipeline", "meters"]).await;
    assert!(complaint.contains("pipeline `meters` is being run"), "{complaint}");
    blocker.rollback().await.unwrap();
    let first = spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let again = operator.say(&["--pipeline", "meters"]).await;
    assert!(again.contains("0 observations new, 0 corrected, 5 known already"), "{again}");
    assert!(operator.say(&["--pipeline", "meters"]).await.contains("nothing new"));
}

async fn put(service: &Service, name: &str, declaration: &Value) -> Answer {
    let request = Request::put(format!("/v1/pipelines/{name}")).header("content-type", "application/json");
    service.send(request.body(declaration.to_string().into_bytes()).unwrap()).await
}

async fn post(service: &Service, path: &str) -> Answer {
    service.send(Request::post(path).body(Vec::new()).unwrap()).await
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_pipeline_that_is_declared_by_rest_reads_from_the_folder_of_sources_only(pool: PgPool) {
    let service = Service::start(&pool).await;
    let sources = service.data_dir().join("sources");
    fs::create_dir_all(&sources).unwrap();
    fs::write(sources.join("day.csv"), DAY).unwrap();
    let declaration = json!({"panel": "city", "source": "day.csv", "frequency": "1h", "series": {"*": {"unit": "MW"}}});
    let made = put(&service, "meters", &declaration).await.expect(200);
    assert_eq!((&made["declared_by"], &made["declaration"]["source"]), (&json!("rest"), &json!("day.csv")));
    assert_eq!(service.get("/v1/pipelines/meters").await.expect(200), made);
    assert_eq!(service.get("/v1/pipelines").await.expect(200)["pipelines"][0], made);

    let checked = post(&service, "/v1/pipelines/meters/runs?dry_run=true").await.expect(200);
    assert_eq!((&checked["is_new"], &checked["load"]["status"]), (&json!(true), &json!("checked")));
    let run = post(&service, "/v1/pipelines/meters/runs").await.expect(200);
    assert_eq!((&run["load"]["inserted"], &run["load"]["rejected"]), (&json!(5), &json!(1)));
    assert_eq!(
        post(&service, "/v1/pipelines/meters/runs").await.expect(200),
        json!({"is_new": false, "has_more": false})
    );
    let loads = service.get("/v1/loads?pipeline=meters").await.expect(200);
    assert_eq!(loads["loads"].as_array().unwrap().len(), 1);

    // A job does what the route does; a schedule makes such jobs.
    let more = DAY.replace("2025-03-01", "2025-03-02");
    fs::write(sources.join("day.csv"), format!("{DAY}{}", more.split_once('\n').unwrap().1)).unwrap();
    let as_job = async || do_job(&pool, service.data_dir(), "load", json!({"pipeline": "meters"}), Utc::now()).await;
    let job = as_job().await;
    assert_eq!((job.state, &job.result.unwrap()["inserted"]), (JobState::Succeeded, &json!(5)), "{:?}", job.failure);
    assert_eq!(as_job().await.result, Some(json!({"is_new": false})));
    let series = service.get("/v1/panels/city/series").await.expect(200);
    assert_eq!(series["series"][0]["unit"], "MW");

    // The same declaration keeps what was read, another one does not.
    put(&service, "meters", &declaration).await.expect(200);
    assert_eq!(post(&service, "/v1/pipelines/meters/runs").await.expect(200)["is_new"], false);
    let sum = json!({"panel": "city", "source": "day.csv", "frequency": "1h", "resample": "sum"});
    put(&service, "meters", &sum).await.expect(200);
    assert_eq!(post(&service, "/v1/pipelines/meters/runs").await.expect(200)["load"]["unchanged"], 10);

    for source in ["../secret.csv", "/etc/passwd"] {
        let outside = json!({"panel": "city", "source": source});
        let problem = put(&service, "spy", &outside).await.problem(422, "invalid-body");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/source"));
    }
    fs::write(service.data_dir().join("secret.csv"), DAY).unwrap();
    std::os::unix::fs::symlink("../secret.csv", sources.join("link.csv")).unwrap();
    put(&service, "spy", &json!({"panel": "city", "source": "link.csv", "frequency": "1h"})).await.expect(200);
    let problem = post(&service, "/v1/pipelines/spy/runs").await.problem(422, "unusable-data");
    assert!(problem.detail.contains("outside of the folder of sources"), "{}", problem.detail);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn bounds_that_contradict_what_is_stored_are_refused_and_not_tried_again(pool: PgPool) {
    let service = Service::start(&pool).await;
    let sources = service.data_dir().join("sources");
    fs::create_dir_all(&sources).unwrap();
    fs::write(sources.join("day.csv"), DAY).unwrap();
    let declaration =
        |series: Value| json!({"panel": "city", "source": "day.csv", "frequency": "1h", "series": series});
    put(&service, "meters", &declaration(json!({"*": {"lower_bound": 0}}))).await.expect(200);
    post(&service, "/v1/pipelines/meters/runs").await.expect(200);

    put(&service, "meters", &declaration(json!({"wind": {"upper_bound": -1}}))).await.expect(200);
    let problem = post(&service, "/v1/pipelines/meters/runs").await.problem(422, "unusable-data");
    let expected = "series `wind` would have a lower bound of 0, which is not below its upper bound of -1";
    assert_eq!(problem.detail, expected);
    let job = do_job(&pool, service.data_dir(), "load", json!({"pipeline": "meters"}), Utc::now()).await;
    assert_eq!((job.state, job.failure.as_deref()), (JobState::Failed, Some(expected)));
    let failures = service.get("/v1/loads?pipeline=meters&limit=1").await.expect(200);
    assert_eq!(failures["loads"][0]["failure"], expected);

    // So are those of a file that are none.
    let folder = service.data_dir().join("pipelines");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("meters.toml"), format!("{DECLARATION}[series.wind]\nupper_bound = inf\n")).unwrap();
    let job = do_job(&pool, service.data_dir(), "load", json!({"pipeline": "meters"}), Utc::now()).await;
    let failure = job.failure.unwrap();
    assert!(job.state == JobState::Failed && failure.contains("a bound that is not a finite number"), "{failure}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_declaration_that_is_wrong_or_stands_in_a_file_is_refused(pool: PgPool) {
    let service = Service::start(&pool).await;
    let refused = async |declaration: Value, pointer: &str| {
        let problem = put(&service, "p", &declaration).await.problem(422, "invalid-body");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some(pointer), "{declaration}");
    };
    refused(json!({"panel": "a", "source": "b", "colour": 1}), "/colour").await;
    refused(json!({"panel": "a", "source": "b", "fail_on": ["gaps"]}), "/fail_on").await;
    refused(json!({"panel": "a", "source": "b", "time_zone": "Madrid"}), "/time_zone").await;
    refused(json!({"panel": "a", "source": "b", "series": {"x": {"kind": "total"}}}), "/series/x").await;
    refused(json!({"name": "q", "panel": "a", "source": "b"}), "/name").await;
    service.get("/v1/pipelines/p").await.problem(404, "unknown-pipeline");

    let folder = service.data_dir().join("pipelines");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("meters.toml"), DECLARATION).unwrap();
    assert_eq!(service.get("/v1/pipelines/meters").await.expect(200)["declared_by"], "file");
    let other = json!({"panel": "a", "source": "b"});
    put(&service, "meters", &other).await.problem(409, "pipeline-in-file");
}

#[tokio::test]
async fn a_benchmark_of_ingest_prints_a_line_for_each_figure() {
    let mut command = Command::new(plumecast());
    command.args(["bench", "ingest", "--rows", "3000", "--json"]).env_remove("DATABASE_URL");
    let output = output(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    let expected = [
        "CSV to frame",
        "Parquet to frame",
        "peak memory, CSV to frame",
        "windows to batches",
        "snapshot to 2000 batches",
        "peak memory, CSV to Postgres",
        "CSV to Postgres",
    ];
    assert_eq!(names, expected);
    for line in &lines {
        assert_eq!(line["suite"], "ingest");
        for figure in ["value", "reference_value", "ratio"] {
            assert!(line[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} of {line}");
        }
    }
}
