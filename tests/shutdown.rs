//! A service whose log nobody reads any more.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::task::spawn_blocking;

use crate::support::{Program, database_url, program};

/// Longest wait for an end; more than what a service gives its requests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a command and reads what it logs up to a line with some text; then nobody reads on. Gives that line.
fn start_and_turn_away(pool: &PgPool, arguments: &[&str], until: &str) -> (Program, String, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let mut running = Program::start(program(&database_url(pool), data.path(), arguments));
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains(until)).unwrap();
    (running, line, data)
}

/// Tells a command to stop, and waits until it has.
async fn stop(mut running: Program) {
    running.signal("-TERM");
    let (started, mut pause) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < PATIENCE, "it does not stop");
        pause.tick().await;
    };
    assert!(status.success(), "{status}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_service_answers_and_stops_although_nobody_reads_its_log(pool: PgPool) {
    for format in ["text", "json"] {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--log-format", format];
        let (running, line, _data) = start_and_turn_away(&pool, &arguments, "listening on http");
        let address: String = line.split("http://").nth(1).unwrap().chars().take_while(|&c| c != '"').collect();
        let answer = spawn_blocking(move || ureq::get(format!("http://{address}/livez")).call().unwrap().status());
        assert_eq!(answer.await.unwrap(), 200);
        stop(running).await;
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_worker_stops_although_nobody_reads_its_log(pool: PgPool) {
    let (running, ..) = start_and_turn_away(&pool, &["work"], "is ready");
    stop(running).await;
}
