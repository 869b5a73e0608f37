//! All SQL of the service: a file per table, static text, columns listed.
//!
//! Functions take plain values and give back plain rows; they know no route, no file and no clock. Those that run one
//! statement take any executor (a pool, a connection, a transaction); those that run several take what they need.
//!
//! [`load::load`] and [`forecast::insert`] are the two ways in which much data is written; each is one transaction.

pub mod artefact_folder;
pub mod backtest;
pub mod comparison;
pub(crate) mod copy;
pub mod drift_event;
mod error;
pub mod forecast;
pub mod job;
pub mod latest;
pub mod load;
pub mod matrix;
pub mod model;
pub mod observation;
pub mod overview;
pub mod panel;
pub mod panel_version;
pub mod partition;
pub mod pipeline;
pub mod query;
pub mod reader;
pub mod retention;
pub mod schedule;
pub mod score;
pub mod score_sum;
pub mod series;
pub mod words;
pub mod worker;

pub use error::Error;

/// The tenant of an installation that has only one; `migrations/0001_tenant.sql` makes it.
pub const DEFAULT_TENANT: i32 = 1;
