//! Rows that were not taken, kept so that they can be corrected and loaded again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use polars::prelude::*;

use crate::{
    Error, LoadConfig, Reason,
    load::{Part, text},
    report::Cell,
    source::{RESERVED_PREFIX, Table},
    whole,
};

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

/// What is looked up of rows that hold something that was not taken.
pub(crate) struct Gathered {
    pub quarantine: Quarantine,
    /// What stands in the cells that were asked for.
    pub texts: BTreeMap<Cell, String>,
}

/// Reads the rows again that hold something lost, given by their number over all parts, in order.
///
/// # Errors
/// When an input cannot be read any more, or has changed.
pub(crate) fn gather(
    parts: &[Part<'_>],
    config: &LoadConfig,
    lost: &[(usize, Reason)],
    cells: &BTreeSet<Cell>,
) -> Result<Gathered, Error> {
    let mut reasons: BTreeMap<usize, String> = BTreeMap::new();
    for (row, reason) in lost {
        let codes = reasons.entry(*row).or_default();
        if !codes.is_empty() {
            codes.push(' ');
        }
        codes.push_str(reason.code());
    }
    let mut found = Found {
        files: Vec::new(),
        lines: Vec::new(),
        codes: Vec::new(),
        texts: Vec::new(),
        columns: Vec::new(),
        cells: BTreeMap::new(),
    };
    for part in parts {
        let lost = reasons.range(part.first_row..part.first_row + part.n_rows());
        if lost.clone().next().is_none() {
            continue;
        }
        let (mut reader, decoder) = part.open(config)?;
        let mut piece_rows = part.piece_rows.iter();
        let mut first_row = part.first_row;
        let last = lost.clone().next_back().map_or(0, |(row, _)| *row);
        'part: loop {
            let group = reader.next_group()?;
            if group.is_empty() {
                break;
            }
            for piece in group {
                let Some(n_rows) = piece_rows.next() else { break 'part };
                let rows = first_row..first_row + n_rows;
                first_row = rows.end;
                if reasons.range(rows.clone()).next().is_some() {
                    found.add(part, &decoder.table(piece)?, rows.start, reasons.range(rows), cells)?;
                }
                if first_row > last {
                    break 'part;
                }
            }
        }
        reader.check_unchanged(&part.stamp)?;
    }
    let own = |name: &str| PlSmallStr::from(format!("{RESERVED_PREFIX}{name}"));
    let Found { files, lines, codes, texts, mut columns, cells } = found;
    let n_rows = files.len();
    columns.push(Column::new(own("file"), files));
    columns.push(Column::new(own("line"), lines));
    columns.push(Column::new(own("reason"), codes));
    columns.push(Column::new(own("text"), texts));
    Ok(Gathered { quarantine: Quarantine { data: DataFrame::new(n_rows, columns)? }, texts: cells })
}

/// The rows that were found so far.
struct Found {
    files: Vec<String>,
    lines: Vec<u64>,
    codes: Vec<String>,
    texts: Vec<Option<String>>,
    columns: Vec<Column>,
    cells: BTreeMap<Cell, String>,
}

impl Found {
    /// Takes rows of a table, whose first row has the number `first_row`.
    fn add<'a>(
        &mut self,
        part: &Part<'_>,
        table: &Table,
        first_row: usize,
        lost: impl Iterator<Item = (&'a usize, &'a String)>,
        cells: &BTreeSet<Cell>,
    ) -> Result<(), Error> {
        let n_before = self.files.len();
        let mut index = Vec::new();
        for (row, reason) in lost {
            let in_table = row - first_row;
            let malformed = table.malformed.binary_search_by_key(&in_table, |(row, _)| *row);
            let malformed = malformed.ok().map(|index| table.malformed[index].1.clone());
            let of_row = Cell { row: *row, column: None }..Cell { row: row + 1, column: None };
            for cell in cells.range(of_row) {
                let text = match cell.column {
                    Some(column) => text(&table.data.columns()[column], in_table),
                    None => malformed.clone().unwrap_or_default(),
                };
                self.cells.insert(*cell, text);
            }
            self.files.push(part.name.clone());
            self.lines.push(part.line(*row));
            self.codes.push(reason.clone());
            self.texts.push(malformed);
            index.push(in_table as IdxSize);
        }
        let rows = table.data.take(&IdxCa::from_vec(PlSmallStr::EMPTY, index))?;
        append(&mut self.columns, n_before, &rows)?;
        Ok(())
    }
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
