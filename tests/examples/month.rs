//! A month of a service that is left alone, in minutes; see `docs/SIMULATION.md`.
//!
//! ```sh
//! ./run plumecast dev-db -- cargo run --release -p tests --example month
//! ```

// It ends where it cannot go on.
#![expect(clippy::unwrap_used, reason = "a demonstration that cannot go on has failed")]

#[path = "../simulation.rs"]
mod simulation;

use std::time::Instant;

use simulation::{Outcome, Plan, Summary};
use sqlx::postgres::PgPoolOptions;

#[tokio::main]
async fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL names an empty database");
    let pool = PgPoolOptions::new().max_connections(5).connect(&url).await.unwrap();
    api::MIGRATOR.run(&pool).await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let plan =
        Plan { n_days_before: 21, n_days: 30, shift_day: 14, forecast_hours: 1, train_steps: 40, history_days: 7 };
    let started = Instant::now();
    let outcome = simulation::run(&pool, data.path(), &plan, |day| {
        println!("{:>5.0} s: {}", started.elapsed().as_secs_f64(), day.format("%Y-%m-%d"));
    })
    .await;
    print(&outcome);
}

fn print(outcome: &Outcome) {
    let Outcome { shift, alarms, comparisons, repaired_at, days, phases, jobs } = outcome;
    println!("\n| issued on | values | CRPS | inside 80 % | skill | versions |\n|---|---|---|---|---|---|");
    for (day, summary) in days {
        println!("| {} {}", day.format("%Y-%m-%d"), row(summary));
    }
    println!("\n| | values | CRPS | inside 80 % | skill | versions |\n|---|---|---|---|---|---|");
    for (name, summary) in ["before", "between change and repair", "after"].iter().zip(phases) {
        println!("| {name} {}", summary.as_ref().map_or_else(|| "| nothing".to_owned(), row));
    }
    println!("\nThe law of the values changes at {shift}.");
    alarms.iter().for_each(|(raised_at, message)| println!("{raised_at}: drift: {message}"));
    for (at, version, decision, reason) in comparisons {
        println!("{at}: version {version} {decision}: {reason}");
    }
    println!("repaired at {repaired_at:?}");
    jobs.iter().for_each(|(kind, state, n)| println!("{n} jobs of kind {kind} {state}"));
}

fn row(summary: &Summary) -> String {
    let Summary { n_values, crps, coverage_80, skill, first_version, last_version } = summary;
    format!("| {n_values} | {crps:.2} | {:.0} % | {skill:.2} | {first_version}–{last_version} |", 100.0 * coverage_80)
}
