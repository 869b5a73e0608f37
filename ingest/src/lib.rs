//! From files of measured series to what a model sees: file, [`Frame`], [`Panel`], [`forecast::Window`].
//!
//! - [`load`] reads CSV, gzipped CSV and Parquet through Polars and reports, by line, what it rejected;
//! - [`Frequency`] knows the regular grids and their calendars;
//! - [`Panel`] lays observations on a grid and answers what was known at an issue time;
//! - [`trajectories`] writes sampled futures to Parquet;
//! - [`demo`] holds two real data sets.
//!
//! Knows no route, no table of a database and no clock. It is the only crate that knows Polars.

pub mod demo;
pub mod snapshot;
pub mod trajectories;

mod calendar;
mod error;
mod frame;
mod frequency;
mod layout;
mod load;
mod numbers;
mod observations;
mod panel;
mod report;
mod source;
mod stamp;
mod times;

pub use error::Error;
pub use frame::{AVAILABLE_AT, Frame, Row, SD, SERIES, VALID_TIME, VALUE};
pub use frequency::Frequency;
pub use layout::Layout;
pub use load::{LoadConfig, Loaded, load};
pub use observations::Duplicates;
pub use panel::{Observation, Panel, PanelConfig};
pub use report::{Reason, Rejection, Report};
pub use source::{Format, Limits};
pub use stamp::TimeFormat;
