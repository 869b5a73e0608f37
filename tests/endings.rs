//! Processes that are ended at a bad moment: a training between its files and its row, or while it takes the place of the champion; a
//! service under load. Nothing is lost, nothing is done twice, nothing is left behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::config::Limits;
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::task::spawn_blocking;

use crate::support::{Program, Service, count, database_url, load_panel, program};

fn start(pool: &PgPool, service: &Service, arguments: &[&str]) -> Program {
    Program::start(program(&database_url(pool), service.data_dir(), arguments))
}

/// Kills a worker, and comes back once the processes of its jobs have noticed and are gone, too.
async fn kill_with_its_jobs(worker: &Program) {
    let tasks = fs::read_dir(format!("/proc/{}/task", worker.0.id())).unwrap();
    let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
    let children: Vec<String> =
        children.collect::<String>().split_whitespace().map(|child| format!("/proc/{child}/stat")).collect();
    assert!(!children.is_empty(), "no job runs");
    worker.signal("-KILL");
    // A zombie does nothing any more.
    let runs = |stat: &String| fs::read_to_string(stat).is_ok_and(|stat| !stat.contains(") Z "));
    let (mut pause, started) = (tokio::time::interval(Duration::from_millis(20)), Instant::now());
    while children.iter().any(runs) {
        assert!(started.elapsed() < Duration::from_secs(60), "a job outlives its worker");
        pause.tick().await;
    }
}

/// Looks until a query counts so many.
async fn wait_for(pool: &PgPool, query: &'static str, n: i64) {
    let (mut pause, started) = (tokio::time::interval(Duration::from_millis(20)), Instant::now());
    while count(pool, query).await != n {
        assert!(started.elapsed() < Duration::from_secs(180), "waited too long for {n}: {query}");
        pause.tick().await;
    }
}

/// Statements of others that wait for a lock.
const WAITING: &str = "select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()";
/// Connections of programs.
const CONNECTED: &str = "select count(*) from pg_stat_activity
     where datname = current_database() and application_name like 'plumecast%'";
const CHAMPION: &str = "select coalesce(max(version), 0)::bigint from model where stage = 'champion'";

async fn holding(pool: &PgPool, statement: &'static str) -> Transaction<'static, Postgres> {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query(statement).execute(&mut *transaction).await.unwrap();
    transaction
}

async fn n_kept(pool: &PgPool) -> [i64; 2] {
    [count(pool, "select count(*) from model").await, count(pool, "select count(*) from artefact_folder").await]
}

fn n_folders(service: &Service) -> usize {
    fs::read_dir(service.models_dir()).map_or(0, Iterator::count)
}

async fn ask_for_training(service: &Service) {
    let arguments = json!({"panel": "city", "horizon": 6, "train_steps": 1});
    service.post("/v1/jobs", &json!({"kind": "train", "arguments": arguments})).await.expect(202);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_worker_that_is_killed_while_it_stores_or_promotes_has_done_nothing(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 240).await;
    let storing = "lock table model in share mode";
    let promoting = "select from model where stage = 'champion' for no key update";
    for (n_before, blocked) in [(0, storing), (1, promoting)] {
        let blocker = holding(&pool, blocked).await;
        ask_for_training(&service).await;
        let worker = Program::worker(&pool, &service);
        wait_for(&pool, WAITING, 1).await;
        assert_eq!(n_folders(&service), n_before + 1, "its files are written");
        kill_with_its_jobs(&worker).await;
        blocker.rollback().await.unwrap();
        wait_for(&pool, CONNECTED, 0).await;
        let n = i64::try_from(n_before).unwrap();
        assert_eq!((n_kept(&pool).await, count(&pool, CHAMPION).await), ([n, 1], n), "{blocked}");

        let next = Program::worker(&pool, &service);
        wait_for(&pool, "select count(*) from job where state = 'succeeded'", n + 1).await;
        assert_eq!((n_kept(&pool).await, count(&pool, CHAMPION).await), ([n + 1, 0], n + 1), "{blocked}");
        assert_eq!(n_folders(&service), n_before + 1, "what the killed one had written is gone");
        drop(next);
    }
    let attempts = "select count(*) from job where attempts = 2";
    assert_eq!(count(&pool, attempts).await, 2, "each was done by its second attempt");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn files_of_a_training_that_was_killed_go_with_the_next_and_those_of_one_that_runs_stay(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 240).await;
    let train = ["train", "--panel", "city", "--horizon", "6", "--train-steps", "1"];
    let blocker = holding(&pool, "lock table model in share mode").await;
    let killed = start(&pool, &service, &train);
    wait_for(&pool, WAITING, 1).await;
    let running = start(&pool, &service, &train);
    wait_for(&pool, WAITING, 2).await;
    assert_eq!((n_folders(&service), count(&pool, "select count(*) from artefact_folder").await), (2, 2));
    killed.signal("-KILL");
    wait_for(&pool, WAITING, 1).await;
    let mut third = start(&pool, &service, &train);
    wait_for(&pool, WAITING, 2).await;
    assert_eq!(n_folders(&service), 2, "the third has removed what the first has left, and nothing of the second");
    blocker.rollback().await.unwrap();
    let mut running = running;
    for process in [&mut running, &mut third] {
        assert!(process.0.wait().unwrap().success());
    }
    assert_eq!((n_kept(&pool).await, n_folders(&service)), ([2, 0], 2));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_service_that_is_told_to_stop_under_load_answers_what_it_has_begun(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "city", 240).await;
    let arguments = json!({"panel": "city", "horizon": 6, "train_steps": 1_000_000});
    service.post("/v1/jobs", &json!({"kind": "train", "arguments": arguments})).await.expect(202);
    let mut served = start(
        &pool,
        &service,
        &[
            ["serve", "--listen", "127.0.0.1:0"].as_slice(),
            // Beside many other tests a connection may be long in coming.
            &["--log-format", "json", "--job-poll", "0.05", "--job-niceness", "0", "--pool-timeout", "60"],
        ]
        .concat(),
    );
    let mut lines = BufReader::new(served.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| {
        let line: Value = serde_json::from_str(&line).ok()?;
        Some(line["message"].as_str()?.strip_prefix("listening on ")?.to_owned())
    });
    let address = address.unwrap();
    // Whatever else it logs is read away, so that it never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    wait_for(&pool, "select count(*) from job where state = 'running' and progress > 0", 1).await;

    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = address.clone();
            spawn_blocking(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
                let body = json!({"panel": "city", "horizon": 6, "num_samples": 20});
                let mut stored = vec![];
                loop {
                    let was_told = IS_TOLD.load(Ordering::SeqCst);
                    match agent.post(format!("{address}/v1/forecasts")).send_json(&body) {
                        Ok(mut answer) => {
                            let is_told = IS_TOLD.load(Ordering::SeqCst);
                            let status = answer.status();
                            assert_eq!(status, 201, "told: {is_told}, {:?}", answer.body_mut().read_to_string());
                            let made: Value = answer.body_mut().read_json().unwrap();
                            stored.push(made["forecast_id"].as_str().unwrap().to_owned());
                        }
                        // It may refuse what comes after it was told, and nothing else.
                        Err(error) => {
                            assert!(was_told || IS_TOLD.load(Ordering::SeqCst), "{error}");
                            return stored;
                        }
                    }
                }
            })
        })
        .collect();
    wait_for(&pool, "select least(count(*), 20) from forecast", 20).await;
    IS_TOLD.store(true, Ordering::SeqCst);
    let told_at = Instant::now();
    served.signal("-TERM");
    let status = spawn_blocking(move || served.0.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    let patience = Limits::default().shutdown_timeout + Duration::from_secs(5);
    assert!(told_at.elapsed() < patience, "{:?}", told_at.elapsed());
    let mut n_answered = 0;
    for client in clients {
        n_answered += client.await.unwrap().len();
    }
    // Nothing was stored that nobody was told of, and nothing is half there.
    assert_eq!(count(&pool, "select count(*) from forecast").await, i64::try_from(n_answered).unwrap());
    let halves = "select count(*) from forecast f where (select count(*) from trajectory t
                      where t.tenant_id = f.tenant_id and t.forecast_id = f.forecast_id) <> 2";
    assert_eq!(count(&pool, halves).await, 0);
    assert_eq!(count(&pool, "select count(*) from job where state = 'waiting' and attempts = 0").await, 1);
    assert_eq!(count(&pool, "select count(*) from worker").await, 0);
}
