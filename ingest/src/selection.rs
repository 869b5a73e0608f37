//! The rows of a table that are wanted: those of one panel, where a file has several.

use std::collections::BTreeMap;
use std::path::Path;

use polars::prelude::*;

use crate::Error;

/// Makes blank rows of those that do not have the wanted text in each of the named columns, so that lines stay counted.
///
/// # Errors
/// [`Error::UnknownColumn`] when the table has no such column.
pub(crate) fn blank_others(
    path: &Path,
    table: DataFrame,
    wanted: &BTreeMap<String, String>,
) -> Result<DataFrame, Error> {
    let mut is_wanted: Option<BooleanChunked> = None;
    for (column, text) in wanted {
        let unknown = |_| Error::UnknownColumn { path: path.to_owned(), column: column.clone() };
        let texts = table.column(column).map_err(unknown)?.cast(&DataType::String)?;
        // An empty cell names nothing that could be wanted.
        let of_column = texts.str()?.equal_missing(text.as_str());
        is_wanted = Some(match is_wanted {
            Some(others) => &others & &of_column,
            None => of_column,
        });
    }
    let Some(is_wanted) = is_wanted.filter(|is_wanted| !is_wanted.all()) else { return Ok(table) };
    let columns = table.columns().iter().map(|column| {
        let blank = Column::full_null(column.name().clone(), column.len(), column.dtype());
        column.zip_with(&is_wanted, &blank)
    });
    Ok(DataFrame::new(table.height(), columns.collect::<PolarsResult<Vec<_>>>()?)?)
}
