//! From sources to a validated frame, with a report of what was not taken.

mod grid;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use chrono_tz::Tz;
use forecast::Bounds;
use polars::prelude::Column;
use rayon::prelude::*;

use crate::{
    Checks, Error, Format, Frame, Frequency, Input, Layout, Limits, NumberFormat, Quarantine, Report, Resample,
    TimeFormat,
    block::{self, Block, Formats},
    calendar::Label,
    layout::{self, Roles, Told},
    observations::{Duplicates, Finished, Observations, Order, ValueColumns},
    quarantine::{self, Gathered},
    report::{Cell, Place, Rejections},
    selection,
    source::{self, Decoder, Piece, Reader, Stamp},
    times::Written,
};
use grid::TimeGrid;

/// How to read a source. The default finds out what it can and reports it.
#[derive(Clone, Debug, Default)]
pub struct LoadConfig {
    /// What the source is; recognised from its first bytes by default.
    pub format: Option<Format>,
    /// What stands between the fields of separated text; a comma by default.
    pub separator: Option<u8>,
    /// How it is laid out; found from the names of its columns by default.
    pub layout: Option<Layout>,
    /// The time column; by default the first one, or one with a usual name.
    pub time_column: Option<String>,
    /// Columns of a long table that say what its series are: attributes, which are the same in all rows of a series.
    pub attributes: Vec<String>,
    /// What columns must hold in the rows that are read, by name; other rows are passed over as if they were blank. All rows
    /// are read by default.
    pub rows: BTreeMap<String, String>,
    /// Zone in which wall times are read and whose calendar the grid follows. Default UTC.
    pub time_zone: Tz,
    /// The grid; inferred by default. Weeks from Monday stand for weeks from the day that the file has.
    pub frequency: Option<Frequency>,
    /// How numbers are written.
    pub numbers: NumberFormat,
    /// What to do when a series has several values for one time.
    pub duplicates: Duplicates,
    /// How irregular times are brought on the grid; off it, they are rejected by default.
    pub resample: Option<Resample>,
    /// Declared ranges of series by name; `*` is for those not named. A value outside is taken, and noticed.
    pub bounds: BTreeMap<String, Bounds>,
    /// Whether a value outside the declared range is rejected.
    pub reject_out_of_bounds: bool,
    /// When something is noticed that may be wrong.
    pub checks: Checks,
    /// Whether a source of a declared frequency may be without any valid value.
    pub may_be_empty: bool,
    /// What each input may hold at most.
    pub limits: Limits,
}

impl LoadConfig {
    /// The separator of fields.
    const SEPARATOR: u8 = b',';

    pub(crate) fn bounds(&self, series: &str) -> Option<Bounds> {
        self.bounds.get(series).or_else(|| self.bounds.get("*")).copied()
    }
}

/// What came out of a source.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The observations.
    pub frame: Frame,
    /// Their grid.
    pub frequency: Frequency,
    /// Whether the frequency was inferred rather than declared.
    pub frequency_inferred: bool,
    /// The zone whose calendar the grid follows.
    pub time_zone: Tz,
    /// What was taken and what was not.
    pub report: Report,
    /// The rows that hold something that was not taken.
    pub quarantine: Quarantine,
    /// Names and types of the columns of each input, in their order.
    pub schemas: Vec<Vec<(String, String)>>,
    /// Attributes of each series of the frame, by name.
    pub attributes: Vec<BTreeMap<String, String>>,
}

/// An input that has been read, without its rows.
pub(crate) struct Part<'a> {
    pub name: String,
    pub path: PathBuf,
    /// Names and types of its columns.
    pub columns: Vec<(String, String)>,
    /// Number of its first row among those of all parts.
    pub first_row: usize,
    /// Rows of each of its pieces.
    pub piece_rows: Vec<usize>,
    /// Length and time of its last change.
    pub stamp: Stamp,
    input: &'a Input,
    first_line: u64,
    pointer: Option<&'static str>,
    time_column: usize,
    time_format: Option<TimeFormat>,
}

impl<'a> Part<'a> {
    /// Opens the input once more.
    pub(crate) fn open(&self, config: &'a LoadConfig) -> Result<(Reader<'a>, Decoder<'a>), Error> {
        let separator = config.separator.unwrap_or(LoadConfig::SEPARATOR);
        source::open(self.input, config.format, separator, &config.limits)
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.piece_rows.iter().sum()
    }

    /// The line of a row, which is counted over all parts.
    pub(crate) fn line(&self, row: usize) -> u64 {
        self.first_line + (row - self.first_row) as u64
    }

    fn place(&self, cell: Cell) -> Place<'_> {
        Place {
            file: &self.name,
            line: self.line(cell.row),
            element: self.pointer.map(|prefix| (prefix, cell.row - self.first_row)),
            column: cell.column.and_then(|column| self.columns.get(column)).map_or("", |(name, _)| name),
        }
    }
}

/// Reads inputs one after the other.
struct Inputs<'a> {
    config: &'a LoadConfig,
    parts: Vec<Part<'a>>,
    value_columns: Vec<ValueColumns>,
    observations: Observations,
    n_rows: usize,
    n_cells: usize,
    n_blank: usize,
}

impl<'a> Inputs<'a> {
    fn read(&mut self, input: &'a Input) -> Result<(), Error> {
        let config = self.config;
        let path = input.path();
        let separator = config.separator.unwrap_or(LoadConfig::SEPARATOR);
        let (mut reader, decoder) = source::open(input, config.format, separator, &config.limits)?;
        let mut group = reader.next_group()?;
        let head = match group.first() {
            Some(piece) => decoder.head(piece)?,
            None if config.may_be_empty => decoder.empty()?,
            None => return Err(Error::NoRows { path }),
        };
        let columns = head.data.columns().iter();
        let columns: Vec<(String, String)> =
            columns.map(|column| (column.name().to_string(), column.dtype().to_string())).collect();
        if let Some(index) = columns.iter().position(|(name, _)| name.contains('\0')) {
            return Err(Error::NulInName { path, column: index + 1 });
        }
        let line = |row: usize| decoder.first_line + row as u64;
        // Where every line is malformed, or there is none, there is nothing to find columns by.
        let is_empty = head.data.height() == 0 || head.data.width() == 0;
        let roles = match is_empty {
            true => None,
            false => {
                let (layout, time_column) = (config.layout.as_ref(), config.time_column.as_deref());
                let told = Told { attributes: &config.attributes, rows: &config.rows };
                Some(layout::roles(&path, &head.data, layout, time_column, told, line)?)
            }
        };
        let mut part = Part {
            name: input.name.clone(),
            path: path.clone(),
            columns,
            first_row: self.n_rows,
            piece_rows: Vec::new(),
            stamp: reader.stamp(),
            input,
            first_line: decoder.first_line,
            pointer: decoder.pointer,
            time_column: roles.as_ref().map_or(0, Roles::time),
            time_format: None,
        };
        let value_columns = self.value_columns(&part, roles.as_ref());
        let grid = match (config.frequency, config.resample) {
            (Some(frequency), None) => frequency.fixed(config.time_zone),
            _ => None,
        };
        let decode = |piece: Piece| {
            let mut table = decoder.table(piece)?;
            table.data = selection::blank_others(&path, table.data, &config.rows)?;
            block::read(&path, &table, roles.as_ref(), grid, config)
        };
        let mut seen = Seen::default();
        while !group.is_empty() {
            let (next, blocks) = rayon::join(
                || reader.next_group(),
                || group.into_par_iter().map(&decode).collect::<Vec<Result<Block, Error>>>(),
            );
            for block in blocks {
                let block = block?;
                let first_row = self.n_rows;
                self.n_rows += block.n_rows;
                self.n_cells += block.n_rows * part.columns.len();
                self.n_blank += block.n_blank;
                source::check_size(&path, self.n_rows, self.n_cells, &config.limits)?;
                part.piece_rows.push(block.n_rows);
                seen.note(&part, roles.as_ref(), &block, first_row)?;
                let part = self.parts.len();
                self.observations.add(block, part, first_row, &value_columns, &config.attributes, &mut seen.order);
            }
            group = next?;
        }
        part.time_format = seen.time.format;
        seen.check(&part, roles.as_ref())?;
        self.parts.push(part);
        self.value_columns.push(value_columns);
        Ok(())
    }

    fn value_columns(&mut self, part: &Part<'_>, roles: Option<&Roles>) -> ValueColumns {
        match roles {
            Some(&Roles::Long { value, .. }) => ValueColumns::Long { column: value },
            Some(Roles::Wide { values, .. }) => {
                let names = values.iter().map(|column| part.columns[*column].0.as_str());
                let series: Vec<usize> = names.map(|name| self.observations.index_of(name)).collect();
                let column_of = series.iter().copied().zip(values.iter().copied()).collect();
                ValueColumns::Wide { series: series.into(), column_of }
            }
            None => ValueColumns::Wide { series: [].into(), column_of: HashMap::new() },
        }
    }
}

/// What the blocks of one part have in common.
#[derive(Default)]
struct Seen {
    time: SeenFormats,
    available_at: SeenFormats,
    order: Order,
}

#[derive(Default)]
struct SeenFormats {
    format: Option<TimeFormat>,
    /// The first time that is text.
    first: Option<Written>,
}

impl Seen {
    fn note(&mut self, part: &Part<'_>, roles: Option<&Roles>, block: &Block, first_row: usize) -> Result<(), Error> {
        self.time.note(part, part.time_column, &block.time_formats, first_row)?;
        if let Some(&Roles::Long { available_at: Some(column), .. }) = roles {
            self.available_at.note(part, column, &block.available_at_formats, first_row)?;
        }
        Ok(())
    }

    fn check(&self, part: &Part<'_>, roles: Option<&Roles>) -> Result<(), Error> {
        self.time.check(part, part.time_column)?;
        match roles {
            Some(&Roles::Long { available_at: Some(column), .. }) => self.available_at.check(part, column),
            _ => Ok(()),
        }
    }
}

impl SeenFormats {
    /// A column has one format.
    fn note(&mut self, part: &Part<'_>, column: usize, formats: &Formats, first_row: usize) -> Result<(), Error> {
        self.format = self.format.or(formats.format);
        for written in [&formats.first, &formats.other].into_iter().flatten() {
            let row = first_row + written.row;
            let first = self.first.get_or_insert_with(|| Written { row, ..written.clone() });
            if first.format != written.format {
                return Err(Error::MixedTimeFormats {
                    path: part.path.clone(),
                    column: part.columns[column].0.clone(),
                    first_line: part.line(first.row),
                    first_format: first.format,
                    first_value: first.text.clone(),
                    line: part.line(row),
                    format: written.format,
                    value: written.text.clone(),
                });
            }
        }
        Ok(())
    }

    /// It is none that could mean several instants.
    fn check(&self, part: &Part<'_>, column: usize) -> Result<(), Error> {
        match &self.first {
            Some(Written { row, format: format @ (TimeFormat::Slashed | TimeFormat::Number), text }) => {
                Err(Error::UnsupportedTimeFormat {
                    path: part.path.clone(),
                    column: part.columns[column].0.clone(),
                    line: part.line(*row),
                    value: text.clone(),
                    format: *format,
                })
            }
            _ => Ok(()),
        }
    }
}

/// Loads a file. Rows that are wrong one by one are rejected and reported with their line; gaps,
/// which are empty cells, are neither rows nor errors; rows may come in any order.
///
/// A quoted field must not hold a line break: lines are counted by rows.
///
/// # Errors
/// Those of [`read`].
pub fn load(path: &Path, config: &LoadConfig) -> Result<Loaded, Error> {
    read(&[Input::file(path)], config)
}

/// Reads several inputs as one source. Their order makes no difference, unless a declared policy says so.
///
/// # Errors
/// When an input as a whole cannot be used: see the variants of [`Error`] that carry a path, and
/// [`Error::FrequencyNotClear`].
pub fn read(inputs: &[Input], config: &LoadConfig) -> Result<Loaded, Error> {
    let tz = config.time_zone;
    let mut read = Inputs {
        config,
        parts: Vec::with_capacity(inputs.len()),
        value_columns: Vec::with_capacity(inputs.len()),
        observations: Observations::default(),
        n_rows: 0,
        n_cells: 0,
        n_blank: 0,
    };
    inputs.iter().try_for_each(|input| read.read(input))?;
    let Inputs { parts, value_columns, mut observations, n_rows, n_blank, .. } = read;
    let rows_read = (n_rows - n_blank) as u64;

    let mut rejections = Rejections::default();
    let grid = match config.resample {
        Some(_) => {
            let frequency = config.frequency.ok_or(Error::ResampleNeedsFrequency)?;
            Some(TimeGrid { frequency, label: Label::Start })
        }
        None => grid::snap(&mut observations, &parts, config, &mut rejections)?,
    };
    observations.reject(&mut rejections);
    let (n_gaps, n_unordered) = (observations.n_gaps() as u64, observations.n_unordered() as u64);
    let numbers = observations.series().to_vec();
    // Without a grid there is no time, so there are no values to look at.
    let frequency = grid.as_ref().map_or(Frequency::HOUR, |grid| grid.frequency);
    let Finished { series, rows, findings, n_combined, attributes } =
        observations.finish(config, frequency, &value_columns, &mut rejections)?;

    let lost = rejections.lost_rows();
    let Gathered { quarantine, texts } = quarantine::gather(&parts, config, &lost, &rejections.cells())?;
    let part_of = |row: usize| &parts[parts.partition_point(|part| part.first_row <= row) - 1];
    let (n_rejected, rejected) = rejections.finish(&numbers, &texts, |cell| part_of(cell.row).place(cell));
    let Some(grid) = grid.filter(|_| rows.n_rows() > 0 || (config.may_be_empty && config.frequency.is_some())) else {
        let path = parts.first().map_or_else(PathBuf::new, |part| part.path.clone());
        return Err(Error::NoValidRows { path, n_rows: rows_read, rejected });
    };

    let frequency = grid.frequency;
    let report = Report {
        file: parts.first().map_or_else(String::new, |part| part.name.clone()),
        n_files: parts.len(),
        time_format: parts.first().and_then(|part| part.time_format).unwrap_or(TimeFormat::Local),
        time_zone: tz.name().to_owned(),
        frequency: frequency.to_string(),
        frequency_inferred: config.frequency.is_none(),
        last_days_moved: grid.label == Label::LastDay,
        n_series: series.len(),
        rows_read,
        accepted: rows.n_rows() as u64,
        n_gaps,
        n_unordered,
        n_combined: n_combined as u64,
        n_rejected,
        rejected,
        noticed: findings,
    };
    let frequency_inferred = config.frequency.is_none();
    let schemas = parts.into_iter().map(|part| part.columns).collect();
    let frame = Frame::new(series, rows);
    let named = |of_series: BTreeMap<usize, String>| {
        of_series.into_iter().map(|(attribute, text)| (config.attributes[attribute].clone(), text)).collect()
    };
    let attributes = attributes.into_iter().map(named).collect();
    Ok(Loaded { frame, frequency, frequency_inferred, time_zone: tz, report, quarantine, schemas, attributes })
}

/// What stands in a cell; nothing when it is empty.
pub(crate) fn text(column: &Column, row: usize) -> String {
    let value = column.get(row).ok().filter(|value| !value.is_null());
    value.map(|value| value.str_value().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
