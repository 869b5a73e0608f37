//! What makes a whole file, a grid or a panel unusable. A single bad row is a [`Rejection`](crate::Rejection) instead.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::{Frequency, Rejection, TimeFormat};

/// Everything that the crate refuses, named after the situation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Polars cannot read or write the file.
    #[error("{}: {source}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What Polars said.
        source: polars::error::PolarsError,
    },
    /// Polars cannot build a table from our columns.
    #[error("cannot build a table: {0}")]
    Columns(#[from] polars::error::PolarsError),
    /// The file holds no bytes.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file has a header but no rows.
    #[error("{} has a header but no rows", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// The file is in none of the formats that are read.
    #[error("{} is neither CSV, NDJSON, Parquet nor Arrow", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
    },
    /// Arrow data are damaged, or of a type that is not read.
    #[error("{}: {source}", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// What Arrow said.
        source: arrow::error::ArrowError,
    },
    /// A body is no JSON object with a list `observations`.
    #[error("{} is not an object with a list of `observations`: {reason}", path.display())]
    MalformedJson {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// The file was written to while it was read; what was read may be neither the old nor the new.
    #[error("{} was changed while it was read", path.display())]
    ChangedWhileRead {
        /// The file.
        path: PathBuf,
    },
    /// More than [`Limits::line_bytes_max`](crate::Limits::line_bytes_max).
    #[error("{}, line {line} has more than {limit} bytes", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::n_files_max`](crate::Limits::n_files_max).
    #[error("`{source_name}` names more than {limit} files")]
    TooManyFiles {
        /// What names them.
        source_name: String,
        /// The limit.
        limit: usize,
    },
    /// A Parquet or Arrow input is damaged in a way that its reader does not expect.
    #[error("{} is damaged: its reader has given up", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Attributes are to be read from a table with a column per series.
    #[error("{}: attributes are columns of a table with a row per observation; this one has a column per series", path.display())]
    AttributesOfWide {
        /// The file.
        path: PathBuf,
    },
    /// The source names no file.
    #[error("`{source_name}` names no file")]
    NoFiles {
        /// What names them.
        source_name: String,
    },
    /// The pattern of a source is not one.
    #[error("`{source_name}` is no pattern: {reason}")]
    Pattern {
        /// What was given.
        source_name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file lies outside the folder that the source must stay in, perhaps by a link.
    #[error("{} lies outside of the folder of sources", path.display())]
    OutsideFolder {
        /// The file.
        path: PathBuf,
    },
    /// Irregular times can only be brought on a declared grid.
    #[error("`resample` needs a declared frequency")]
    ResampleNeedsFrequency,
    /// A combined value is too large for a number.
    #[error("the values of the interval from {valid_time} have no sum of at most 1e30 in magnitude")]
    ResampleOverflow {
        /// Start of the interval.
        valid_time: DateTime<Utc>,
    },
    /// There is nothing beside the first column. Fields are separated by commas, unless declared otherwise.
    #[error("{} has only one column, `{column}`; fields must be separated by commas, or their separator declared", path.display())]
    OneColumn {
        /// The file.
        path: PathBuf,
        /// Its only column.
        column: String,
    },
    /// Two columns have the same name.
    #[error("{} has two columns named `{column}`", path.display())]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The repeated name.
        column: String,
    },
    /// A column of a table with a column per series holds values, and has no name.
    #[error("{} has values in column {column}, which has no name", path.display())]
    NamelessColumn {
        /// The file.
        path: PathBuf,
        /// Number of the column, from 1.
        column: usize,
    },
    /// The name of a column holds NUL, which no name of a series or attribute can hold.
    #[error("{} has NUL in the name of column {column}", path.display())]
    NulInName {
        /// The file.
        path: PathBuf,
        /// Number of the column, from 1.
        column: usize,
    },
    /// A column that the caller named is not there.
    #[error("{} has no column `{column}`", path.display())]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        column: String,
    },
    /// No column has a usual name of a time column, and the first one does not begin with a time.
    #[error("{} has no time column: line {line}, column `{column}` is `{value}`", path.display())]
    NoTimeColumn {
        /// The file.
        path: PathBuf,
        /// The first line with a value in that column.
        line: u64,
        /// The first column.
        column: String,
        /// Its first value.
        value: String,
    },
    /// The time column mixes formats.
    #[error(
        "{}, column `{column}` mixes time formats: line {first_line} has {first_format} (`{first_value}`), \
         line {line} has {format} (`{value}`)", path.display()
    )]
    MixedTimeFormats {
        /// The file.
        path: PathBuf,
        /// The time column.
        column: String,
        /// The first line.
        first_line: u64,
        /// Its format.
        first_format: TimeFormat,
        /// Its value.
        first_value: String,
        /// The first line that differs.
        line: u64,
        /// Its format.
        format: TimeFormat,
        /// Its value.
        value: String,
    },
    /// Times are written in a way that could mean several instants.
    #[error("{}, line {line}, column `{column}`: `{value}` is {format}; times must be ISO 8601", path.display())]
    UnsupportedTimeFormat {
        /// The file.
        path: PathBuf,
        /// The time column.
        column: String,
        /// The first line.
        line: u64,
        /// Its value.
        value: String,
        /// What it looks like.
        format: TimeFormat,
    },
    /// A column of a Parquet file has a type that cannot be what it should be.
    #[error("{}, column `{column}` has type {dtype}, expected {expected}", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        dtype: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A line has more fields than the header.
    #[error("{}, line {line} has {n_fields} fields, the header has {n_columns}", path.display())]
    LongLine {
        /// The file.
        path: PathBuf,
        /// The first such line.
        line: u64,
        /// Its fields.
        n_fields: usize,
        /// The header's fields.
        n_columns: usize,
    },
    /// More than [`Limits::n_columns_max`](crate::Limits::n_columns_max).
    #[error("{} has {n_columns} columns, the limit is {limit}", path.display())]
    TooManyColumns {
        /// The file.
        path: PathBuf,
        /// Its columns.
        n_columns: usize,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::n_rows_max`](crate::Limits::n_rows_max).
    #[error("{} has more than {limit} rows", path.display())]
    TooManyRows {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::n_cells_max`](crate::Limits::n_cells_max).
    #[error("{} has more than {limit} cells", path.display())]
    TooManyCells {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::n_bytes_max`](crate::Limits::n_bytes_max), counted after decompression.
    #[error("{} has more than {limit} bytes", path.display())]
    TooManyBytes {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Most stamps are off the declared grid.
    #[error(
        "{}: {n_off_grid} of {n_rows} times are off the {frequency} grid in {time_zone}, \
         the first is `{value}` in line {line}; declare how to `resample` them if they are irregular", path.display()
    )]
    OffGrid {
        /// The file.
        path: PathBuf,
        /// The declared grid.
        frequency: Frequency,
        /// The zone whose calendar it follows.
        time_zone: chrono_tz::Tz,
        /// Rows off the grid.
        n_off_grid: usize,
        /// Rows with a valid time.
        n_rows: usize,
        /// The first line off the grid.
        line: u64,
        /// Its time.
        value: DateTime<Utc>,
    },
    /// Nothing could be taken from the file.
    #[error("{} has no valid value in {n_rows} rows{}", path.display(), describe(rejected))]
    NoValidRows {
        /// The file.
        path: PathBuf,
        /// Rows read.
        n_rows: u64,
        /// What was rejected, as in a report; nothing when all cells are empty.
        rejected: Vec<Rejection>,
    },
    /// No public holidays are known of a country.
    #[error(
        "`{code}` is no country whose holidays are known; an ISO 3166 code of two letters is, such as ES, or `none`"
    )]
    UnknownCountry {
        /// What was given.
        code: String,
    },
    /// The name of a frequency is not known, or its length does not divide a day.
    #[error("`{text}` is not a frequency; examples are 15min, 1h, 1d, 1b, 1w, 1mo, 1q, 1y")]
    FrequencyName {
        /// What was given.
        text: String,
    },
    /// The frequency does not follow from the stamps and must be declared.
    #[error("the frequency is not clear from {n_stamps} distinct times{}; declare it", list(candidates))]
    FrequencyNotClear {
        /// Distinct stamps.
        n_stamps: usize,
        /// What it could be, coarsest first.
        candidates: Vec<Frequency>,
    },
    /// A panel needs at least one series and one observation.
    #[error("panel `{panel}` has no observations")]
    NoObservations {
        /// The panel.
        panel: String,
    },
    /// An observation names a series that the panel does not have.
    #[error("panel `{panel}` has {n_series} series, an observation is of series {series}")]
    UnknownSeries {
        /// The panel.
        panel: String,
        /// The index given.
        series: usize,
        /// Series in the panel.
        n_series: usize,
    },
    /// There is not one declared range per series.
    #[error("panel `{panel}` has {n_series} series but {n_bounds} bounds")]
    BoundsCount {
        /// The panel.
        panel: String,
        /// Series in the panel.
        n_series: usize,
        /// Bounds given.
        n_bounds: usize,
    },
    /// An observation does not begin an interval of the panel's grid.
    #[error("panel `{panel}`: {valid_time} does not begin an interval of the {frequency} grid")]
    ObservationOffGrid {
        /// The panel.
        panel: String,
        /// The observation's time.
        valid_time: DateTime<Utc>,
        /// The panel's grid.
        frequency: Frequency,
    },
    /// An observation is NaN, infinite, or above [`VALUE_MAX`](forecast::VALUE_MAX) in magnitude.
    #[error("panel `{panel}`: series {series} at {valid_time} is no number of at most 1e30 in magnitude")]
    ObservationNotFinite {
        /// The panel.
        panel: String,
        /// The index of the series.
        series: usize,
        /// The observation's time.
        valid_time: DateTime<Utc>,
    },
    /// The regular grid between the first and the last observation is too large.
    #[error("panel `{panel}` would have {n_steps} steps of {n_series} series, the limit is {limit} cells")]
    PanelTooLarge {
        /// The panel.
        panel: String,
        /// Steps between the first and the last observation.
        n_steps: u64,
        /// Series in the panel.
        n_series: usize,
        /// The limit.
        limit: usize,
    },
    /// The issue time is not after the panel's first interval starts.
    #[error("panel `{panel}` starts at {start}, nothing is known at {issue_time}")]
    IssueTimeTooEarly {
        /// The panel.
        panel: String,
        /// Start of the panel's first interval.
        start: DateTime<Utc>,
        /// The issue time asked for.
        issue_time: DateTime<Utc>,
    },
    /// There is not one name per series.
    #[error("{n_names} names for trajectories of {n_series} series")]
    NamesCount {
        /// Names given.
        n_names: usize,
        /// Series in the trajectories.
        n_series: usize,
    },
    /// The forecast library refused what was built.
    #[error(transparent)]
    Forecast(#[from] forecast::Error),
}

fn describe(rejected: &[Rejection]) -> String {
    rejected.first().map_or_else(String::new, |rejection| format!("; the first problem is {rejection}"))
}

fn list(candidates: &[Frequency]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let names: Vec<_> = candidates.iter().map(Frequency::to_string).collect();
    format!(" (it could be {})", names.join(" or "))
}
