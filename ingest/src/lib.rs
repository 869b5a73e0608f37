//! From files of measured series to what a model sees: file, [`Frame`], [`Panel`], [`forecast::Window`].
//!
//! - [`load`] and [`read`] read CSV, NDJSON, JSON, Parquet and Arrow and report, by line, what was rejected;
//! - [`Checks`] decide what is noticed that may be wrong though it can be read;
//! - [`Frequency`] knows the regular grids and their calendars;
//! - [`Panel`] lays observations on a grid and answers what was known at an issue time;
//! - [`pipeline`] declares a source, and remembers what was read of it;
//! - [`trajectories`] writes sampled futures to Parquet;
//! - [`export`] writes what is removed from the database to Parquet;
//! - [`bench`] measures reading;
//! - [`demo`] holds two real data sets.
//!
//! Knows no route, no table of a database and no clock. It is the only crate that knows Polars.

pub mod bench;
pub mod demo;
pub mod export;
pub mod pipeline;
pub mod snapshot;
pub mod trajectories;

mod block;
mod calendar;
mod error;
mod frame;
mod frequency;
mod holiday_search;
mod holidays;
mod layout;
mod load;
mod numbers;
mod observations;
mod panel;
mod quality;
mod quarantine;
mod report;
mod resample;
mod selection;
mod source;
mod stamp;
mod times;
mod whole;

pub use error::Error;
pub use frame::{AVAILABLE_AT, Frame, Row, SD, SERIES, VALUE};
pub use frequency::Frequency;
pub use holiday_search::FoundHolidays;
pub use holidays::Holidays;
pub use layout::Layout;
pub use load::{LoadConfig, Loaded, load, read};
pub use numbers::NumberFormat;
pub use observations::Duplicates;
pub use panel::{Observation, Panel, PanelConfig};
pub use quality::{Checks, Code, Finding, Findings, Notice, UnknownCode};
pub use quarantine::Quarantine;
pub use report::{Reason, Rejection, Report, without_nul};
pub use resample::Resample;
pub use source::{Content, Format, Input, Limits, RESERVED_PREFIX};
pub use stamp::TimeFormat;
