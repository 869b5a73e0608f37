//! A file as a lazy Polars scan: its format, its columns, its limits. Knows nothing of times and series.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use polars::{
    io::utils::compression::{ByteSourceReader, SupportedCompression},
    prelude::*,
};

use crate::Error;

/// What a file is. Compression by gzip is recognised from the file's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated text with a header, UTF-8, plain or gzipped.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// What a file may hold at most. The defaults fit a machine with 8 GiB of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, after decompression. Default 4 GiB.
    pub n_bytes_max: u64,
    /// Columns. Default 10 000.
    pub n_columns_max: usize,
    /// Rows. Default 20 000 000.
    pub n_rows_max: usize,
    /// Rows times columns. Default 50 000 000.
    pub n_cells_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { n_bytes_max: 4 << 30, n_columns_max: 10_000, n_rows_max: 20_000_000, n_cells_max: 50_000_000 }
    }
}

/// A file whose header has been read and whose limits have been checked.
pub(crate) struct Source {
    path: PathBuf,
    format: Format,
    columns: Vec<String>,
    scan: LazyFrame,
    limits: Limits,
}

impl Source {
    /// Reads the header. Every column of a CSV file is text, so that a cell that is no number can be reported.
    pub(crate) fn open(path: &Path, format: Option<Format>, limits: &Limits) -> Result<Self, Error> {
        let head = Head::read(path)?;
        let format = match format {
            Some(format) => format,
            None => head.format().ok_or_else(|| Error::UnsupportedFormat { path: path.to_owned() })?,
        };
        check_length(path, &head, limits.n_bytes_max)?;

        let table_error = |source| Error::Table { path: path.to_owned(), source };
        let mut scan = scan(path, format).map_err(table_error)?;
        let schema = scan.collect_schema().map_err(table_error)?;
        let columns: Vec<String> = schema.iter_names().map(|name| name.to_string()).collect();
        check_columns(path, &columns, limits)?;
        let n_rows_max = limits.n_rows_max.min(limits.n_cells_max / columns.len());
        let scan = scan.limit(IdxSize::try_from(n_rows_max).unwrap_or(IdxSize::MAX).saturating_add(1));
        Ok(Self { path: path.to_owned(), format, columns, scan, limits: limits.clone() })
    }

    /// The line of a row: the header is line 1 of a CSV file; a Parquet file has only rows, from 1.
    pub(crate) fn line(&self, row: usize) -> u64 {
        row as u64 + if self.format == Format::Csv { 2 } else { 1 }
    }

    /// Runs the scan. Rows keep the order of the file; a blank line is a row of nulls.
    pub(crate) fn collect(&self) -> Result<DataFrame, Error> {
        let table = self.scan.clone().collect().map_err(|source| self.explain(source))?;
        if table.height() == 0 {
            return Err(Error::NoRows { path: self.path.clone() });
        }
        let Limits { n_rows_max, n_cells_max, .. } = self.limits;
        if table.height() > n_rows_max {
            return Err(Error::TooManyRows { path: self.path.clone(), limit: n_rows_max });
        }
        if table.height() * table.width() > n_cells_max {
            return Err(Error::TooManyCells { path: self.path.clone(), limit: n_cells_max });
        }
        Ok(table)
    }

    /// Names the line when Polars only says that some line is too long.
    fn explain(&self, source: PolarsError) -> Error {
        if self.format == Format::Csv
            && let Ok(Some((line, n_fields))) = first_long_line(&self.path, self.columns.len())
        {
            return Error::LongLine { path: self.path.clone(), line, n_fields, n_columns: self.columns.len() };
        }
        Error::Table { path: self.path.clone(), source }
    }
}

/// The first bytes of a file.
struct Head {
    bytes: Vec<u8>,
}

impl Head {
    const LENGTH: u64 = 4_096;

    fn read(path: &Path) -> Result<Self, Error> {
        let file_error = |source| Error::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(file_error)?;
        let mut bytes = Vec::new();
        file.take(Self::LENGTH).read_to_end(&mut bytes).map_err(file_error)?;
        if bytes.is_empty() {
            return Err(Error::Empty { path: path.to_owned() });
        }
        Ok(Self { bytes })
    }

    fn is_gzipped(&self) -> bool {
        self.bytes.starts_with(&[0x1f, 0x8b])
    }

    /// What the first bytes say, whatever the file is called.
    fn format(&self) -> Option<Format> {
        if self.bytes.starts_with(b"PAR1") {
            return Some(Format::Parquet);
        }
        let is_text = !self.bytes.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
        (self.is_gzipped() || is_text).then_some(Format::Csv)
    }
}

fn scan(path: &Path, format: Format) -> PolarsResult<LazyFrame> {
    let path = PlRefPath::try_from_path(path)?;
    match format {
        Format::Csv => LazyCsvReader::new(path).with_infer_schema_length(Some(0)).with_glob(false).finish(),
        Format::Parquet => LazyFrame::scan_parquet(path, ScanArgsParquet { glob: false, ..Default::default() }),
    }
}

fn check_length(path: &Path, head: &Head, limit: u64) -> Result<(), Error> {
    let file_error = |source| Error::File { path: path.to_owned(), source };
    let mut n_bytes = path.metadata().map_err(file_error)?.len();
    if head.is_gzipped() && n_bytes <= limit {
        n_bytes = decompressed_length(path, limit)?;
    }
    if n_bytes == 0 {
        return Err(Error::Empty { path: path.to_owned() });
    }
    if n_bytes > limit { Err(Error::TooManyBytes { path: path.to_owned(), limit }) } else { Ok(()) }
}

/// Length of a gzipped file's content, counted no further than just beyond `limit`.
fn decompressed_length(path: &Path, limit: u64) -> Result<u64, Error> {
    const PIECE: usize = 1 << 18;
    let file_error = |source| Error::File { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(file_error)?);
    let mut reader = ByteSourceReader::try_new(file, Some(SupportedCompression::GZIP))?;
    let mut n_bytes = 0;
    loop {
        let (_, n_read) = reader.read_next_slice(&Default::default(), PIECE, None).map_err(file_error)?;
        n_bytes += n_read as u64;
        if n_read == 0 || n_bytes > limit {
            return Ok(n_bytes);
        }
    }
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

/// The first line with more fields than the header, and how many it has.
fn first_long_line(path: &Path, n_columns: usize) -> PolarsResult<Option<(u64, usize)>> {
    /// A separator that no text file contains makes every line one field.
    const NO_SEPARATOR: u8 = 0;
    let lines = LazyCsvReader::new(PlRefPath::try_from_path(path)?)
        .with_separator(NO_SEPARATOR)
        .with_quote_char(None)
        .with_has_header(false)
        .with_infer_schema_length(Some(0))
        .with_glob(false)
        .finish()?
        .collect()?;
    let lines = lines.columns()[0].str()?;
    let n_fields = lines.iter().map(|line| line.map_or(0, count_fields));
    Ok(n_fields.zip(1..).find(|(n, _)| *n > n_columns).map(|(n, line)| (line, n)))
}

/// Fields of a line: commas outside double quotes, and one.
fn count_fields(line: &str) -> usize {
    let mut is_quoted = false;
    let mut n_fields = 1;
    for byte in line.bytes() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => n_fields += 1,
            _ => {}
        }
    }
    n_fields
}
