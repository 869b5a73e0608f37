//! End-to-end stories against a real Postgres, HTTP and a browser.
//!
//! They need a database: `plumecast dev-db -- cargo test --release -p tests`.

// Each test says what it expects by unwrapping.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backtests;
mod buckets;
mod companions;
mod covariates;
mod dashboards;
mod database;
mod endings;
mod fallback;
mod faults;
mod forecasts;
mod holidays;
mod imputation;
mod jobs;
mod latest;
mod objects;
mod openapi;
mod page;
mod pipelines;
mod plots;
mod postgres;
mod problems;
mod properties;
mod push;
mod reader;
mod registry;
mod retention;
mod retraining;
mod scenarios;
mod schedules;
mod scores;
mod shutdown;
mod simulation;
mod sources;
mod story;
mod support;
mod tidy;
mod upkeep;
