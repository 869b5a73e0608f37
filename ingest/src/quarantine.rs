//! Rows that were not taken, kept so that they can be corrected and loaded again.

use std::{collections::BTreeMap, fs, path::Path};

use polars::prelude::*;

use crate::{Error, Reason, load::Part, source::RESERVED_PREFIX, whole};

/// The rows of a source that hold something that was not taken: their columns as they were, and `plumecast_file`,
/// `plumecast_line`, `plumecast_reason` and, for what is no row at all, `plumecast_text`. Columns with these names are
/// passed over when such a file is loaded.
#[derive(Clone, Debug)]
pub struct Quarantine {
    data: DataFrame,
}

impl Quarantine {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.data.height()
    }

    /// Writes a Parquet file, under another name first. Its folder is created.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Table`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let file_error = |source| Error::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(file_error)?;
        }
        // In memory first: of a full disk, a writer of Parquet only tells that something is wrong.
        let mut bytes = Vec::new();
        let written = ParquetWriter::new(&mut bytes).finish(&mut self.data.clone());
        written.map_err(|source| Error::Table { path: path.to_owned(), source })?;
        whole::write(path, &bytes)
    }
}

/// Gathers rows, given by their number over all parts, in order.
pub(crate) fn gather(parts: &[Part], lost: &[(usize, Reason)]) -> Result<Quarantine, Error> {
    let mut reasons: BTreeMap<usize, String> = BTreeMap::new();
    for (row, reason) in lost {
        let codes = reasons.entry(*row).or_default();
        if !codes.is_empty() {
            codes.push(' ');
        }
        codes.push_str(reason.code());
    }
    let (mut files, mut lines, mut codes, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut columns: Vec<Column> = Vec::new();
    let mut n_rows = 0;
    for part in parts {
        let rows = part.first_row..part.first_row + part.table.data.height();
        let taken: Vec<(usize, &String)> =
            reasons.range(rows).map(|(row, codes)| (row - part.first_row, codes)).collect();
        if taken.is_empty() {
            continue;
        }
        for (row, reason) in &taken {
            files.push(part.name.as_str());
            lines.push(part.line(*row));
            codes.push(reason.as_str());
            let malformed = part.table.malformed.binary_search_by_key(row, |(row, _)| *row);
            texts.push(malformed.ok().map(|index| part.table.malformed[index].1.as_str()));
        }
        let index = IdxCa::from_vec(PlSmallStr::EMPTY, taken.iter().map(|(row, _)| *row as IdxSize).collect());
        append(&mut columns, n_rows, &part.table.data.take(&index)?)?;
        n_rows += taken.len();
    }
    let own = |name: &str| PlSmallStr::from(format!("{RESERVED_PREFIX}{name}"));
    columns.push(Column::new(own("file"), files));
    columns.push(Column::new(own("line"), lines));
    columns.push(Column::new(own("reason"), codes));
    columns.push(Column::new(own("text"), texts));
    Ok(Quarantine { data: DataFrame::new(n_rows, columns)? })
}

/// Puts rows below `columns`, which have `n_rows` rows; where types differ they become text.
fn append(columns: &mut Vec<Column>, n_rows: usize, rows: &DataFrame) -> PolarsResult<()> {
    for column in columns.iter_mut() {
        let found = rows.column(column.name()).ok().cloned();
        let mut added =
            found.unwrap_or_else(|| Column::full_null(column.name().clone(), rows.height(), column.dtype()));
        if added.dtype() != column.dtype() {
            *column = column.cast(&DataType::String)?;
            added = added.cast(&DataType::String)?;
        }
        column.append(&added)?;
    }
    for column in rows.columns() {
        if !columns.iter().any(|known| known.name() == column.name()) {
            let mut padded = Column::full_null(column.name().clone(), n_rows, column.dtype());
            padded.append(column)?;
            columns.push(padded);
        }
    }
    Ok(())
}
