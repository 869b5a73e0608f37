//! The Plumecast service: command line, REST, Postgres, page.

pub mod artefacts;
pub mod backfilling;
pub mod backtesting;
mod blocking;
pub mod commands;
mod companions;
pub mod config;
mod cross_site;
pub mod curves;
pub mod database;
pub mod db;
pub mod drift;
mod error;
pub mod forecaster;
pub mod grafana;
pub mod instant;
pub mod jobs;
pub mod loading;
pub mod metrics;
pub mod openapi;
mod page;
pub mod pipelines;
mod plot;
pub mod postgres;
pub mod predictor;
pub mod problem;
pub mod progress;
pub mod reader;
pub mod registry;
pub mod retention;
pub mod retraining;
pub mod routes;
pub mod schedule;
pub mod scoring;
pub mod server;
pub mod table;
pub mod telemetry;
pub mod training;
pub mod training_state;
pub mod warm_start;

pub use config::Config;
pub use error::Error;
pub use server::Application;

/// The schema, as carried by the binary.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");
