//! A source as a table: its format, its columns, its limits. Knows nothing of times and series.

mod arrow;
mod bytes;
mod csv;
mod json;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use polars::prelude::*;

use crate::Error;
use bytes::Head;
pub(crate) use bytes::survey;

/// What a source is. Compression by gzip or zstd is recognised from the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Separated text with a header, UTF-8, plain or compressed.
    Csv,
    /// One JSON object per line, plain or compressed.
    Ndjson,
    /// A JSON object with a list of objects, `observations`.
    Json,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, as a file or as a stream.
    Arrow,
}

/// What one source may hold at most. What memory that takes is in the crate's README.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, after decompression. Default 4 GiB.
    pub n_bytes_max: u64,
    /// Bytes of one line of CSV or NDJSON. Default 4 MiB.
    pub line_bytes_max: usize,
    /// Columns. Default 10 000.
    pub n_columns_max: usize,
    /// Rows. Default 20 000 000.
    pub n_rows_max: usize,
    /// Rows times columns. Default 50 000 000.
    pub n_cells_max: usize,
    /// Files of one source. Default 10 000.
    pub n_files_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            n_bytes_max: 4 << 30,
            line_bytes_max: 4 << 20,
            n_columns_max: 10_000,
            n_rows_max: 20_000_000,
            n_cells_max: 50_000_000,
            n_files_max: 10_000,
        }
    }
}

/// Where the bytes of an input are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a file.
    File(PathBuf),
    /// In a file that nobody else can find: errors call it by the name of the input.
    Nameless(PathBuf),
    /// In memory.
    Bytes(Arc<[u8]>),
}

/// One file or body to read.
#[derive(Clone, Debug)]
pub struct Input {
    /// What reports call it.
    pub name: String,
    /// Its bytes.
    pub content: Content,
    /// Columns that the file itself does not have, by its place in a partitioned folder: `site=north/…`.
    pub labels: Vec<(String, String)>,
    /// Lines of a growing file that were read before: they stand between the header and the first row given here.
    pub n_lines_before: u64,
}

impl Input {
    /// A file, called by its own name.
    pub fn file(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { name, content: Content::File(path.to_owned()), labels: Vec::new(), n_lines_before: 0 }
    }

    /// Bytes in memory.
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), content: Content::Bytes(bytes.into()), labels: Vec::new(), n_lines_before: 0 }
    }

    /// What errors call it.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.content {
            Content::File(path) => path.clone(),
            Content::Nameless(_) | Content::Bytes(_) => PathBuf::from(&self.name),
        }
    }
}

/// Columns that say where a row of a quarantine file comes from. They are never read as data.
pub const RESERVED_PREFIX: &str = "plumecast_";

/// An input as rows of text or of typed values. Rows keep their order; a blank line is a row of nulls.
pub(crate) struct Table {
    pub data: DataFrame,
    /// Rows that are no JSON object, with what stands there. They are rows of nulls.
    pub malformed: Vec<(usize, String)>,
    /// Line of the first row: 2 below the header of a CSV file, else 1.
    pub first_line: u64,
    /// Prefix of the JSON pointers of its cells.
    pub pointer: Option<&'static str>,
}

/// Reads an input completely. Cells of CSV and JSON are text, so that one that is no number can be reported.
pub(crate) fn read(
    input: &Input,
    format: Option<Format>,
    separator: u8,
    may_be_empty: bool,
    limits: &Limits,
) -> Result<Table, Error> {
    let path = input.path();
    let head = Head::read(input)?;
    let format = match format {
        Some(format) => format,
        None => head.format().ok_or_else(|| Error::UnsupportedFormat { path: path.clone() })?,
    };
    let before = stamp(&input.content)?;
    let n_bytes = match format {
        Format::Csv | Format::Ndjson | Format::Json => {
            let found = survey(input, limits.n_bytes_max)?;
            // A JSON body is one value, whatever its lines are.
            if format != Format::Json && found.longest_line > limits.line_bytes_max {
                let (line, limit) = (found.longest_line_number, limits.line_bytes_max);
                return Err(Error::LineTooLong { path, line, limit });
            }
            found.n_bytes
        }
        Format::Parquet | Format::Arrow => bytes::stored_length(&input.content)?,
    };
    if n_bytes == 0 {
        return Err(Error::Empty { path });
    }
    if n_bytes > limits.n_bytes_max {
        return Err(Error::TooManyBytes { path, limit: limits.n_bytes_max });
    }

    let mut table = match format {
        Format::Csv => csv::read(input, separator, limits)?,
        Format::Ndjson => json::read_lines(input, limits)?,
        Format::Json => json::read_body(input, limits)?,
        Format::Parquet => parquet(input, limits)?,
        Format::Arrow => arrow::read(input, limits)?,
    };
    if stamp(&input.content)? != before {
        return Err(Error::ChangedWhileRead { path });
    }
    drop_reserved(&mut table)?;
    table.first_line += input.n_lines_before;
    let n_rows = table.data.height();
    for (name, label) in &input.labels {
        let label = Scalar::new(DataType::String, AnyValue::StringOwned(label.as_str().into()));
        table.data.with_column(Column::new_scalar(name.as_str().into(), label, n_rows))?;
    }
    if n_rows == 0 && !may_be_empty {
        return Err(Error::NoRows { path });
    }
    check_size(&path, &table.data, limits)?;
    Ok(table)
}

/// Length and time of the last change of a file: when they are the same before and after, nobody wrote in between.
fn stamp(content: &Content) -> Result<Option<(u64, std::time::SystemTime)>, Error> {
    let (Content::File(path) | Content::Nameless(path)) = content else { return Ok(None) };
    let error = |source| Error::File { path: path.clone(), source };
    let metadata = path.metadata().map_err(error)?;
    Ok(Some((metadata.len(), metadata.modified().map_err(error)?)))
}

fn parquet(input: &Input, limits: &Limits) -> Result<Table, Error> {
    let path = input.path();
    let table_error = |source| Error::Table { path: path.clone(), source };
    let data = match &input.content {
        Content::File(file) | Content::Nameless(file) => {
            let scan_path = PlRefPath::try_from_path(file).map_err(table_error)?;
            let args = ScanArgsParquet { glob: false, ..Default::default() };
            let mut scan = LazyFrame::scan_parquet(scan_path, args).map_err(table_error)?;
            let columns = names(scan.collect_schema().map_err(table_error)?.iter_names());
            check_columns(&path, &columns, limits)?;
            scan.limit(rows_read_max(limits, columns.len())).collect().map_err(table_error)?
        }
        Content::Bytes(bytes) => {
            let mut reader = ParquetReader::new(std::io::Cursor::new(bytes));
            let columns = names(reader.schema().map_err(table_error)?.iter_names());
            check_columns(&path, &columns, limits)?;
            let n_rows = rows_read_max(limits, columns.len()) as usize;
            reader.with_slice(Some((0, n_rows))).finish().map_err(table_error)?
        }
    };
    Ok(Table { data, malformed: Vec::new(), first_line: 1, pointer: None })
}

fn names<'a>(names: impl Iterator<Item = &'a PlSmallStr>) -> Vec<String> {
    names.map(ToString::to_string).collect()
}

/// One row more than is allowed is enough to see that there are too many.
fn rows_read_max(limits: &Limits, n_columns: usize) -> IdxSize {
    let n_rows_max = limits.n_rows_max.min(limits.n_cells_max / n_columns.max(1));
    IdxSize::try_from(n_rows_max).unwrap_or(IdxSize::MAX).saturating_add(1)
}

fn check_size(path: &Path, table: &DataFrame, limits: &Limits) -> Result<(), Error> {
    let &Limits { n_rows_max, n_cells_max, .. } = limits;
    if table.height() > n_rows_max {
        return Err(Error::TooManyRows { path: path.to_owned(), limit: n_rows_max });
    }
    if table.height() * table.width() > n_cells_max {
        return Err(Error::TooManyCells { path: path.to_owned(), limit: n_cells_max });
    }
    Ok(())
}

fn check_columns(path: &Path, columns: &[String], limits: &Limits) -> Result<(), Error> {
    let path = || path.to_owned();
    if columns.len() > limits.n_columns_max {
        return Err(Error::TooManyColumns { path: path(), n_columns: columns.len(), limit: limits.n_columns_max });
    }
    if let [column] = columns {
        return Err(Error::OneColumn { path: path(), column: column.clone() });
    }
    // Polars renames the second `a` to `a_duplicated_0`.
    let repeated = columns.iter().find_map(|column| {
        let (name, _) = column.rsplit_once("_duplicated_")?;
        columns.iter().any(|other| other == name).then(|| name.to_owned())
    });
    match repeated {
        Some(column) => Err(Error::DuplicateColumn { path: path(), column }),
        None => Ok(()),
    }
}

fn drop_reserved(table: &mut Table) -> PolarsResult<()> {
    let reserved: Vec<PlSmallStr> =
        table.data.get_column_names().into_iter().filter(|name| name.starts_with(RESERVED_PREFIX)).cloned().collect();
    for name in reserved {
        table.data.drop_in_place(&name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_parquet_body_no_more_is_decoded_than_is_allowed() {
        let columns = ["time", "a", "b"].map(|name| Column::new(name.into(), (0..100_i64).collect::<Vec<_>>()));
        let mut table = DataFrame::new(100, columns.to_vec()).expect("a table");
        let mut bytes = Vec::new();
        let writer = ParquetWriter::new(&mut bytes).with_row_group_size(Some(10));
        writer.finish(&mut table).expect("written");
        // The later groups of rows, before the footer, are damaged: who decodes them is told so.
        let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes"));
        let end = bytes.len() - 8 - footer as usize;
        bytes[end / 2..end].fill(0xff);
        let error = |limits: &Limits| parquet(&Input::bytes("a", bytes.clone()), limits).err();
        assert!(matches!(error(&Limits::default()), Some(Error::Table { .. })));
        assert!(matches!(
            error(&Limits { n_columns_max: 2, ..Limits::default() }),
            Some(Error::TooManyColumns { limit: 2, .. })
        ));
        let limits = Limits { n_rows_max: 15, ..Limits::default() };
        let table = parquet(&Input::bytes("a", bytes.clone()), &limits).expect("rows").data;
        assert_eq!(table.height(), 16, "one more than is allowed");
    }
}
