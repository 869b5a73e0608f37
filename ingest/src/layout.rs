//! Which columns of a table hold times, series names and values.

use std::collections::BTreeMap;
use std::path::Path;

use polars::prelude::*;

use crate::{AVAILABLE_AT, Error, SD, load::text, source::is_nameless, times::looks_like_time};

/// How a file is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A time column, and one column per series.
    Wide {
        /// The columns that are series; all that have a name but the time when there are none.
        values: Vec<String>,
    },
    /// One row per observation.
    Long {
        /// Column with the name of the series.
        series: String,
        /// Column with the time; found when not given.
        time: Option<String>,
        /// Column with the value.
        value: String,
        /// Column that says when the value became known. By default `available_at`, when there is one.
        available_at: Option<String>,
        /// Column with the standard deviation of the measurement. By default `sd`, when there is one.
        sd: Option<String>,
    },
}

/// Usual names of a time column, in order of preference.
const TIME_NAMES: [&str; 7] = ["valid_time", "time", "timestamp", "datetime", "date", "ds", "month"];
/// Usual names of the series and value columns of a long file: ours, Nixtla's, AutoGluon's.
const LONG_NAMES: [(&str, &str); 3] = [("series", "value"), ("unique_id", "y"), ("item_id", "target")];
/// Rows in which a time column must show a time.
const N_ROWS_PROBED: usize = 100;

/// The roles of a table's columns, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roles {
    Wide {
        time: usize,
        values: Vec<usize>,
    },
    Long {
        series: usize,
        time: usize,
        value: usize,
        available_at: Option<usize>,
        sd: Option<usize>,
        attributes: Vec<usize>,
    },
}

impl Roles {
    pub(crate) fn time(&self) -> usize {
        match *self {
            Roles::Wide { time, .. } | Roles::Long { time, .. } => time,
        }
    }
}

/// What is declared of columns that are neither times nor values.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    /// Those that say what the series are.
    pub attributes: &'a [String],
    /// Those that say which rows are read, and what they hold there.
    pub rows: &'a BTreeMap<String, String>,
}

/// Finds the roles: as declared, else by their usual names, else wide with the time first.
pub(crate) fn roles(
    path: &Path,
    table: &DataFrame,
    layout: Option<&Layout>,
    time_column: Option<&str>,
    told: Told<'_>,
    line: impl Fn(usize) -> u64,
) -> Result<Roles, Error> {
    let find = |name: &str| table.get_column_index(name);
    let require =
        |name: &str| find(name).ok_or_else(|| Error::UnknownColumn { path: path.to_owned(), column: name.to_owned() });
    let long = match layout {
        Some(Layout::Long { series, time, value, .. }) => {
            Some((require(series)?, time.as_deref().map(require).transpose()?, require(value)?))
        }
        Some(Layout::Wide { .. }) => None,
        None => LONG_NAMES.iter().find_map(|(series, value)| Some((find(series)?, None, find(value)?))),
    };

    let (available_at, sd) = match layout {
        Some(Layout::Long { available_at, sd, .. }) => (available_at.as_deref(), sd.as_deref()),
        _ => (None, None),
    };
    let attributes = told.attributes.iter().map(|name| require(name)).collect::<Result<Vec<_>, _>>()?;
    let selecting = told.rows.keys().map(|name| require(name)).collect::<Result<Vec<_>, _>>()?;
    // When a value became known is a time, too, and may stand first.
    let is_other = |index| {
        [available_at.unwrap_or(AVAILABLE_AT), sd.unwrap_or(SD)].into_iter().any(|name| find(name) == Some(index))
    };
    let taken = |index: usize| {
        long.is_some_and(|(series, _, value)| index == series || index == value || is_other(index))
            || attributes.contains(&index)
            || selecting.contains(&index)
    };
    let time = match (long, time_column) {
        (Some((_, Some(time), _)), _) => Some(time),
        (_, Some(name)) => Some(require(name)?),
        _ => first_time_column(table, taken)?,
    };
    let time = time.ok_or_else(|| no_time_column(path, table, line))?;

    Ok(match long {
        Some((series, _, value)) => {
            let optional =
                |declared: Option<&str>, usual| declared.map_or(Ok(find(usual)), |name| require(name).map(Some));
            Roles::Long {
                series,
                time,
                value,
                available_at: optional(available_at, AVAILABLE_AT)?,
                sd: optional(sd, SD)?,
                attributes,
            }
        }
        None if !attributes.is_empty() => return Err(Error::AttributesOfWide { path: path.to_owned() }),
        None => {
            let declared = match layout {
                Some(Layout::Wide { values }) if !values.is_empty() => {
                    Some(values.iter().map(|name| require(name)).collect::<Result<Vec<_>, _>>()?)
                }
                _ => None,
            };
            let is_value = |index: &usize| {
                *index != time && !selecting.contains(index) && !is_nameless(table.columns()[*index].name())
            };
            let values = declared.unwrap_or_else(|| (0..table.width()).filter(is_value).collect());
            Roles::Wide { time, values }
        }
    })
}

/// The first column, when it shows a time; else one with a usual name that does.
fn first_time_column(table: &DataFrame, taken: impl Fn(usize) -> bool) -> Result<Option<usize>, Error> {
    let first = (0..table.width()).find(|&index| !taken(index));
    let named = TIME_NAMES.iter().flat_map(|name| {
        let columns = table.columns().iter().enumerate();
        columns.filter(|(_, column)| column.name().eq_ignore_ascii_case(name)).map(|(index, _)| index)
    });
    for index in first.into_iter().chain(named).filter(|&index| !taken(index)) {
        if looks_like_time(&table.columns()[index].head(Some(N_ROWS_PROBED)))? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn no_time_column(path: &Path, table: &DataFrame, line: impl Fn(usize) -> u64) -> Error {
    let column = &table.columns()[0];
    let row = column.is_not_null().iter().position(|is_set| is_set == Some(true)).unwrap_or(0);
    Error::NoTimeColumn {
        path: path.to_owned(),
        line: line(row),
        column: column.name().to_string(),
        value: text(column, row),
    }
}
