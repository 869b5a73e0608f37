//! What becomes of a load when the disk is full, the database goes away, a source is cut off or the process is killed:
//! nothing is lost and nothing doubled, and the next run is as good as a first.

use std::fs;
use std::process::Command;

use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::{Operator, complaint, count, load_panel, output};

const RUN: [&str; 2] = ["--pipeline", "meters"];

/// An operator whose files have 3 series and 2000 hours, in which every tenth value is none.
fn operator(pool: &PgPool) -> Operator {
    let operator = Operator::new(pool);
    operator.write("pipelines/meters.toml", "panel = \"city\"\nsource = \"in\"\nfrequency = \"1h\"\n");
    operator.write("pipelines/clean.toml", "panel = \"clean\"\nsource = \"in\"\nfrequency = \"1h\"\n");
    for day in 0..2 {
        operator.write(&format!("pipelines/in/{day}.csv"), &hours(day * 1_000..(day + 1) * 1_000));
    }
    operator
}

fn hours(hours: std::ops::Range<usize>) -> String {
    let cell = |hour: usize, series: usize| match (7 * hour + series) % 30 {
        0 => format!("broken {hour}"),
        value => value.to_string(),
    };
    let line = |hour: usize| {
        let time = crate::support::hour(hour).format("%FT%RZ");
        format!("{time},{},{},{}\n", cell(hour, 0), cell(hour, 10), cell(hour, 20))
    };
    format!("time,a,b,c\n{}", hours.map(line).collect::<String>())
}

const N_VALUES: i64 = 5_800;

/// Runs the other pipeline, which has the same source, and compares the panels.
async fn is_like_a_clean_run(pool: &PgPool, operator: &Operator) -> bool {
    operator.say(&["--pipeline", "clean"]).await;
    let differences = "
        with known as (
            select panel.name as panel, series.name as series, valid_time, available_at, value, assumed
            from observation join series using (tenant_id, series_id) join panel using (tenant_id, panel_id)
        )
        select count(*) from (select series, valid_time, available_at, value, assumed from known where panel = 'city') a
        full join (select series, valid_time, available_at, value, assumed from known where panel = 'clean') b
            using (series, valid_time, available_at, value, assumed)
        where a is null or b is null";
    count(pool, differences).await == 0
        && count(pool, "select count(*) from observation").await == 2 * N_VALUES
        && count(pool, "select count(*) from load where status = 'succeeded'").await == 2
}

/// The transactions of others.
const OTHERS: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
      and backend_type = 'client backend'";

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_run_that_is_killed_anywhere_leaves_nothing_and_the_next_is_as_good_as_a_first(pool: PgPool) {
    let operator = operator(&pool);
    // Each table is written to at another point; `observation` by rows, and `pipeline` at the beginning and at the end.
    for table in ["pipeline", "panel", "series", "panel_version", "observation", "load"] {
        let (mut child, blocker) = operator.start_blocked(&pool, &RUN, table).await;
        child.kill().unwrap();
        child.wait().unwrap();
        blocker.rollback().await.unwrap();
        while count(&pool, OTHERS).await > 0 {}
        for table in ["select count(*) from observation", "select count(*) from load", "select count(*) from panel"] {
            assert_eq!(count(&pool, table).await, 0, "{table}");
        }
    }
    operator.say(&RUN).await;
    assert!(is_like_a_clean_run(&pool, &operator).await);
    // What was left over of rejected rows belongs to no load, and nothing is half written.
    let kept: Vec<String> = fs::read_dir(operator.path("quarantine"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(kept.iter().all(|name| name.ends_with(".parquet")), "{kept:?}");
    assert!(operator.say(&RUN).await.contains("nothing new"));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_database_that_goes_away_during_a_load_and_comes_back_has_lost_nothing(pool: PgPool) {
    let operator = operator(&pool);
    let (child, blocker) = operator.start_blocked(&pool, &RUN, "load").await;
    // All connections of the loading process end, as when the server restarts.
    let ended: Vec<bool> = sqlx::query_scalar(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'plumecast' and backend_type = 'client backend'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(ended.len() >= 2 && ended.iter().all(|is_ended| *is_ended), "{ended:?}");
    blocker.rollback().await.unwrap();
    let complaint = complaint(spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap());
    assert!(complaint.contains("the database is not available"), "{complaint}");
    assert_eq!(count(&pool, "select count(*) from observation").await, 0);
    let failures = "select count(*) from load where status = 'failed' and failure = 'the database is not available'";
    assert_eq!(count(&pool, failures).await, 1, "it is back, and on record");
    let kept = fs::read_dir(operator.path("quarantine")).unwrap().count();
    assert_eq!(kept, 0, "no row names the rejected rows");
    operator.say(&RUN).await;
    assert!(is_like_a_clean_run(&pool, &operator).await);
}

/// The same command on a disk on which no file can be longer than 2 KiB.
fn on_a_full_disk(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    // Ignored, the signal of the limit leaves an error of the write.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""]).arg(command.get_program());
    shell.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_full_disk_is_told_and_leaves_nothing(pool: PgPool) {
    let operator = operator(&pool);
    let complaint_of = async |command: Command| complaint(output(on_a_full_disk(&command)).await);
    let told = complaint_of(operator.command(&RUN)).await;
    assert!(told.contains("keeping rejected rows") && told.contains("File too large"), "{told}");
    assert_eq!(count(&pool, "select count(*) from observation").await, 0);
    let failures = "select count(*) from load where status = 'failed' and failure like 'keeping rejected rows%'";
    assert_eq!(count(&pool, failures).await, 1);
    assert_eq!(fs::read_dir(operator.path("quarantine")).unwrap().count(), 0, "no part of a file is left");

    let query = "panel = \"numbers\"\nfrequency = \"1h\"\n[source]\nurl_variable = \"DATABASE_URL\"\n\
        query = \"select generate_series('2025-01-01Z'::timestamptz, '2025-12-31Z', '1 hour') as time, 1 as a\"\n";
    operator.write("pipelines/numbers.toml", query);
    let told = complaint_of(operator.command(&["--pipeline", "numbers"])).await;
    assert!(told.contains("keeping an answer") && told.contains("File too large"), "{told}");
    assert_eq!(fs::read_dir(operator.path("answers")).unwrap().count(), 0);

    operator.say(&RUN).await;
    assert!(is_like_a_clean_run(&pool, &operator).await);

    load_panel(&pool, "trained", 1_000).await;
    let train = ["train", "--panel", "trained", "--horizon", "6", "--train-steps", "1", "--test-windows", "0"];
    let told = complaint_of(operator.plumecast(&train)).await;
    assert!(told.contains("writing the snapshot") && told.contains("File too large"), "{told}");
    assert_eq!(fs::read_dir(operator.path("snapshots")).unwrap().count(), 0, "no part of a file is left");
    assert_eq!(count(&pool, "select count(*) from model").await, 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_packed_file_that_is_not_complete_waits_for_its_rest(pool: PgPool) {
    let operator = Operator::new(&pool);
    operator.write("pipelines/meters.toml", "panel = \"tourism\"\nsource = \"in/*.gz\"\nfrequency = \"1mo\"\n");
    let bytes = ingest::demo::TOURISM.bytes;
    operator.write("pipelines/in/tourism.csv.gz", "");
    let path = operator.path("pipelines/in/tourism.csv.gz");
    for length in [bytes.len() / 3, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let complaint = operator.fail(&RUN).await;
        assert!(complaint.contains("tourism.csv.gz"), "{complaint}");
    }
    assert_eq!(count(&pool, "select count(*) from load where status = 'failed'").await, 2);
    assert_eq!(count(&pool, "select count(*) from observation").await, 0);
    fs::write(&path, bytes).unwrap();
    let loaded = operator.say(&RUN).await;
    assert!(loaded.contains("0 corrected, 0 known already"), "{loaded}");
    assert!(count(&pool, "select count(*) from observation").await > 228);
    assert!(operator.say(&RUN).await.contains("nothing new"));
}
