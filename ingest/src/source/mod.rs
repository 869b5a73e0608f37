//! A source as a table: its format, its columns, its limits. Knows nothing of times and series.

mod arrow;
mod bytes;
mod csv;
mod json;
mod parquet;

use std::{
    io::Read,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use polars::prelude::*;

use crate::Error;
use bytes::Head;
use bytes::survey;

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
    /// Bytes of files that a run of a pipeline reads; what is beyond is left for the next one. Default 256 MiB.
    pub part_bytes_max: u64,
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
            part_bytes_max: 256 << 20,
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
    /// Lines of a file that were read before, or rows: they stand between the header and the first row given here.
    pub n_lines_before: u64,
    /// The groups of rows that are read of a Parquet file; all by default.
    pub groups: Option<Range<usize>>,
}

impl Input {
    /// A file, called by its own name.
    pub fn file(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { name, content: Content::File(path.to_owned()), labels: Vec::new(), n_lines_before: 0, groups: None }
    }

    /// Bytes in memory.
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            name: name.into(),
            content: Content::Bytes(bytes.into()),
            labels: Vec::new(),
            n_lines_before: 0,
            groups: None,
        }
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

/// Rows of text or of typed values, in their order; a blank line is a row of nulls.
pub(crate) struct Table {
    pub data: DataFrame,
    /// Rows that are no JSON object, with what stands there. They are rows of nulls.
    pub malformed: Vec<(usize, String)>,
}

/// An input that is read in order, some rows at a time. Cells of CSV and JSON are text, so that one that is no number can
/// be reported.
pub(crate) struct Reader<'a> {
    stream: Stream<'a>,
    input: &'a Input,
    before: Stamp,
}

enum Stream<'a> {
    Lines(Box<csv::Lines<'a>>),
    Groups(parquet::Groups<'a>),
    Table(Table),
}

/// What makes tables of the pieces of a [`Reader`], on any thread.
pub(crate) struct Decoder<'a> {
    input: &'a Input,
    csv: Option<csv::Decoder>,
    /// Line of the first row: 2 below the header of a CSV file, else 1.
    pub first_line: u64,
    /// Prefix of the JSON pointers of its cells.
    pub pointer: Option<&'static str>,
}

/// Some rows, perhaps still to be decoded.
pub(crate) enum Piece {
    Text(csv::Text),
    Table(Table),
}

/// Length and time of the last change of a file: when they are the same before and after, nobody wrote in between.
pub(crate) type Stamp = Option<(u64, std::time::SystemTime)>;

/// Cells of a piece: so many that pieces do not matter, and few beside the memory that there is.
const PIECE_CELLS: usize = 1 << 19;
/// Pieces that are read at a time, and decoded at the same time.
const GROUP_PIECES: usize = 8;

/// Opens an input.
///
/// # Errors
/// When its format, its columns or its size are none that can be read: see the variants of [`Error`] that carry a path.
pub(crate) fn open<'a>(
    input: &'a Input,
    format: Option<Format>,
    separator: u8,
    limits: &'a Limits,
) -> Result<(Reader<'a>, Decoder<'a>), Error> {
    let path = input.path();
    let before = stamp(&input.content)?;
    let format = match format {
        Some(format) => format,
        None => Head::read(input)?.format().ok_or_else(|| Error::UnsupportedFormat { path: path.clone() })?,
    };
    match format {
        // The lengths of their lines are looked at as they are read.
        Format::Csv => {}
        Format::Ndjson | Format::Json => {
            let found = survey(input, limits.n_bytes_max)?;
            // A JSON body is one value, whatever its lines are.
            if format != Format::Json && found.longest_line > limits.line_bytes_max {
                let (line, limit) = (found.longest_line_number, limits.line_bytes_max);
                return Err(Error::LineTooLong { path, line, limit });
            }
            check_bytes(&path, found.n_bytes, limits)?;
        }
        Format::Parquet | Format::Arrow => check_bytes(&path, bytes::stored_length(&input.content)?, limits)?,
    }
    let mut decoder = Decoder { input, csv: None, first_line: 1, pointer: None };
    let stream = match format {
        Format::Csv => {
            let mut lines = csv::Lines::open(input, limits)?;
            let (csv, first_line) = lines.header(separator)?;
            decoder.csv = Some(csv);
            decoder.first_line = first_line;
            Stream::Lines(Box::new(lines))
        }
        Format::Parquet => Stream::Groups(guarded(&path, || parquet::Groups::open(input, limits))?),
        Format::Ndjson => Stream::Table(json::read_lines(input, limits)?),
        Format::Json => {
            decoder.pointer = Some(json::POINTER);
            Stream::Table(json::read_body(input, limits)?)
        }
        Format::Arrow => Stream::Table(guarded(&path, || arrow::read(input, limits))?),
    };
    decoder.first_line += input.n_lines_before;
    Ok((Reader { stream, input, before }, decoder))
}

/// How an input can be divided.
pub(crate) enum Shape {
    /// Lines of a packed text.
    PackedText { is_ndjson: bool },
    /// Groups of so many rows of a Parquet file.
    Groups { n_rows: Vec<usize>, n_columns: usize },
    /// In a way that is not known here; so many bytes are stored.
    Other { n_bytes: u64 },
}

/// How an input can be divided.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn shape(input: &Input, format: Option<Format>) -> Result<Shape, Error> {
    let head = Head::read(input)?;
    Ok(match format.or_else(|| head.format()) {
        Some(Format::Csv) if head.is_packed() => Shape::PackedText { is_ndjson: false },
        Some(Format::Ndjson) if head.is_packed() => Shape::PackedText { is_ndjson: true },
        Some(Format::Parquet) => {
            let (n_rows, n_columns) = guarded(&input.path(), || parquet::groups(input))?;
            Shape::Groups { n_rows, n_columns }
        }
        _ => Shape::Other { n_bytes: bytes::stored_length(&input.content)? },
    })
}

/// What is in an input once it is unpacked.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn unpack(input: &Input) -> Result<impl Read, Error> {
    Ok(bytes::Unpacked::new(bytes::Pieces::open(input)?))
}

impl Reader<'_> {
    /// The next pieces, in order; none at the end.
    ///
    /// # Errors
    /// When the input cannot be read, or was written to since it was opened.
    pub(crate) fn next_group(&mut self) -> Result<Vec<Piece>, Error> {
        let mut pieces = Vec::new();
        match &mut self.stream {
            Stream::Lines(lines) => {
                while pieces.len() < GROUP_PIECES
                    && let Some(text) = lines.next()?
                {
                    pieces.push(Piece::Text(text));
                }
            }
            Stream::Groups(groups) => {
                if let Some(data) = guarded(&self.input.path(), || groups.next())? {
                    pieces = split(Table { data, malformed: Vec::new() });
                }
            }
            Stream::Table(table) => {
                let data = std::mem::take(&mut table.data);
                pieces = split(Table { data, malformed: std::mem::take(&mut table.malformed) });
            }
        }
        if pieces.is_empty() {
            self.check_unchanged(&self.before)?;
        }
        Ok(pieces)
    }

    /// Length and time of its last change when it was opened.
    pub(crate) fn stamp(&self) -> Stamp {
        self.before
    }

    /// # Errors
    /// [`Error::ChangedWhileRead`] when it is not as it was when it had `stamp`.
    pub(crate) fn check_unchanged(&self, before: &Stamp) -> Result<(), Error> {
        match stamp(&self.input.content)? == *before {
            true => Ok(()),
            false => Err(Error::ChangedWhileRead { path: self.input.path() }),
        }
    }
}

impl Decoder<'_> {
    /// The rows of a piece.
    pub(crate) fn table(&self, piece: Piece) -> Result<Table, Error> {
        let mut table = match (piece, &self.csv) {
            (Piece::Text(text), Some(csv)) => Table { data: csv.table(self.input, &text)?, malformed: Vec::new() },
            (Piece::Text(_), None) => unreachable!("text comes from a reader of CSV alone"),
            (Piece::Table(table), _) => table,
        };
        drop_reserved(&mut table)?;
        let n_rows = table.data.height();
        for (name, label) in &self.input.labels {
            let label = Scalar::new(DataType::String, AnyValue::StringOwned(label.as_str().into()));
            table.data.with_column(Column::new_scalar(name.as_str().into(), label, n_rows))?;
        }
        Ok(table)
    }

    /// The first rows of a piece, enough to find the columns by.
    pub(crate) fn head(&self, piece: &Piece) -> Result<Table, Error> {
        const N_ROWS: usize = 1_000;
        self.table(match (piece, &self.csv) {
            (Piece::Text(text), Some(csv)) => Piece::Text(csv.head(text)),
            (Piece::Text(_), None) => unreachable!("text comes from a reader of CSV alone"),
            (Piece::Table(table), _) => {
                Piece::Table(Table { data: table.data.head(Some(N_ROWS)), malformed: Vec::new() })
            }
        })
    }

    /// A table without rows.
    pub(crate) fn empty(&self) -> Result<Table, Error> {
        let columns = self.csv.iter().flat_map(csv::Decoder::columns);
        let columns = columns.map(|name| Column::new_empty(name.clone(), &DataType::String)).collect();
        self.table(Piece::Table(Table { data: DataFrame::new(0, columns)?, malformed: Vec::new() }))
    }
}

/// Calls a reader that is not ours: of some damaged inputs it panics.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let read = catch_unwind(AssertUnwindSafe(read));
    read.unwrap_or_else(|_| Err(Error::Damaged { path: path.to_owned() }))
}

/// Splits rows into pieces.
fn split(table: Table) -> Vec<Piece> {
    let n_rows = table.data.height();
    let n_rows_max = (PIECE_CELLS / table.data.width().max(1)).max(1);
    let piece = |first: usize| {
        let last = (first + n_rows_max).min(n_rows);
        let range = |row: usize| table.malformed.partition_point(|(malformed, _)| *malformed < row);
        let malformed = table.malformed[range(first)..range(last)].iter();
        let malformed = malformed.map(|(row, text)| (row - first, text.clone())).collect();
        Piece::Table(Table { data: table.data.slice(first as i64, last - first), malformed })
    };
    (0..n_rows).step_by(n_rows_max).map(piece).collect()
}

fn stamp(content: &Content) -> Result<Stamp, Error> {
    let (Content::File(path) | Content::Nameless(path)) = content else { return Ok(None) };
    let error = |source| Error::File { path: path.clone(), source };
    let metadata = path.metadata().map_err(error)?;
    Ok(Some((metadata.len(), metadata.modified().map_err(error)?)))
}

fn check_bytes(path: &Path, n_bytes: u64, limits: &Limits) -> Result<(), Error> {
    if n_bytes == 0 {
        return Err(Error::Empty { path: path.to_owned() });
    }
    if n_bytes > limits.n_bytes_max {
        return Err(Error::TooManyBytes { path: path.to_owned(), limit: limits.n_bytes_max });
    }
    Ok(())
}

fn names<'a>(names: impl Iterator<Item = &'a PlSmallStr>) -> Vec<String> {
    names.map(ToString::to_string).collect()
}

/// Refuses more rows or cells than are allowed.
pub(crate) fn check_size(path: &Path, n_rows: usize, n_cells: usize, limits: &Limits) -> Result<(), Error> {
    let &Limits { n_rows_max, n_cells_max, .. } = limits;
    if n_rows > n_rows_max {
        return Err(Error::TooManyRows { path: path.to_owned(), limit: n_rows_max });
    }
    if n_cells > n_cells_max {
        return Err(Error::TooManyCells { path: path.to_owned(), limit: n_cells_max });
    }
    Ok(())
}

/// What Polars puts between a name that is there already and a number.
const DUPLICATED: &str = "_duplicated_";

/// Whether a column has no name.
pub(crate) fn is_nameless(column: &str) -> bool {
    column.is_empty() || column.strip_prefix(DUPLICATED).is_some_and(|number| number.parse::<usize>().is_ok())
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
        let (name, _) = column.rsplit_once(DUPLICATED)?;
        (!name.is_empty() && columns.iter().any(|other| other == name)).then(|| name.to_owned())
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
