//! Separated text, some lines at a time. Every column is text.

use std::{io::Cursor, path::Path};

use polars::prelude::{_csv_read_internal as internal, *};

use super::{Input, Limits, bytes::Pieces, check_columns, names};
use crate::Error;

/// Bytes of a piece of text: enough that its columns do not matter, and few beside what they become.
pub(super) const TEXT_BYTES: usize = 4 << 20;
/// Lines that the first piece has at least, if the text has them: the columns are found by them.
const FIRST_LINES_MIN: usize = 101;

/// A quote that nothing closes does not make one line of the rest of the text.
const QUOTED_BYTES_MAX: usize = 16 * TEXT_BYTES;

/// The lines of a text, whole ones, some at a time.
pub(super) struct Lines<'a> {
    input: &'a Input,
    limits: &'a Limits,
    pieces: Pieces<'a>,
    /// What was read and not yet given.
    rest: Vec<u8>,
    is_at_end: bool,
    n_bytes: u64,
    /// Lines that were given.
    n_lines: u64,
    is_first: bool,
}

/// Some lines.
pub(crate) struct Text {
    bytes: Vec<u8>,
    /// Lines that stand before.
    n_lines_before: u64,
}

/// What is needed to make columns of lines.
pub(super) struct Decoder {
    schema: Schema,
    options: CsvParseOptions,
    line_bytes_max: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn open(input: &'a Input, limits: &'a Limits) -> Result<Self, Error> {
        let pieces = Pieces::open(input)?;
        let (rest, is_at_end) = (Vec::new(), false);
        Ok(Self { input, limits, pieces, rest, is_at_end, n_bytes: 0, n_lines: 0, is_first: true })
    }

    /// Reads the header, and gives the line of the first row.
    pub(super) fn header(&mut self, separator: u8) -> Result<(Decoder, u64), Error> {
        let path = self.input.path();
        let mut has_begun = false;
        let line = loop {
            let line = self.take_line()?;
            if !has_begun {
                has_begun = true;
                if self.n_bytes == 0 {
                    return Err(Error::Empty { path });
                }
            }
            let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
            // Blank lines before the header are passed over.
            if line.is_empty() || !text.trim_ascii_end().is_empty() {
                check_line_lengths(&path, &line, 0, self.limits.line_bytes_max)?;
                break text.to_vec();
            }
        };
        let options = CsvReadOptions::default().with_infer_schema_length(Some(0));
        let options = options.map_parse_options(|parse| parse.with_separator(separator));
        let header = options.clone().with_n_rows(Some(0)).into_reader_with_file_handle(Cursor::new(line)).finish();
        let header = header.map_err(|source| Error::Table { path: path.clone(), source })?;
        let columns = names(header.get_column_names().into_iter());
        check_columns(&path, &columns, self.limits)?;
        let schema = columns.iter().map(|name| Field::new(name.as_str().into(), DataType::String)).collect();
        let options = (*options.parse_options).clone();
        Ok((Decoder { schema, options, line_bytes_max: self.limits.line_bytes_max }, self.n_lines + 1))
    }

    /// The next lines; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Text>, Error> {
        let n_lines_before = self.n_lines;
        let n_lines_min = if std::mem::take(&mut self.is_first) { FIRST_LINES_MIN } else { 1 };
        let bytes = self.take(TEXT_BYTES, n_lines_min)?;
        Ok((!bytes.is_empty()).then_some(Text { bytes, n_lines_before }))
    }

    /// Takes whole lines: as many as `n_bytes` hold and at least `n_lines_min`, or what there is. Where they end follows
    /// from the text alone, so that another reader takes the same.
    fn take(&mut self, n_bytes: usize, n_lines_min: usize) -> Result<Vec<u8>, Error> {
        let mut window = n_bytes;
        loop {
            self.fill(window)?;
            let within = &self.rest[..window.min(self.rest.len())];
            let is_all = self.is_at_end && within.len() == self.rest.len();
            let end = if is_all { within.len() } else { memchr::memrchr(b'\n', within).map_or(0, |end| end + 1) };
            let taken = &within[..end];
            let is_closed = window > QUOTED_BYTES_MAX || memchr::memchr_iter(b'"', taken).count().is_multiple_of(2);
            let n_lines = memchr::memchr_iter(b'\n', taken).count();
            if is_all || (n_lines >= n_lines_min && is_closed) {
                self.n_lines += n_lines as u64;
                return Ok(self.give(end));
            }
            self.check_begun_line(end)?;
            window *= 2;
        }
    }

    /// Takes one line with its end, or what there is.
    fn take_line(&mut self) -> Result<Vec<u8>, Error> {
        const BYTES: usize = 1 << 12;
        let mut window = BYTES;
        loop {
            self.fill(window)?;
            let within = &self.rest[..window.min(self.rest.len())];
            let mut ends = memchr::memchr_iter(b'\n', within).map(|end| end + 1);
            let is_closed = |end: &usize| {
                window > QUOTED_BYTES_MAX || memchr::memchr_iter(b'"', &within[..*end]).count().is_multiple_of(2)
            };
            let is_all = self.is_at_end && within.len() == self.rest.len();
            if let Some(end) = ends.find(is_closed).or(is_all.then_some(within.len())) {
                let line = self.give(end);
                self.n_lines += memchr::memchr_iter(b'\n', &line).count() as u64;
                return Ok(line);
            }
            self.check_begun_line(0)?;
            window *= 2;
        }
    }

    /// Has at least so many bytes ready, or all that there are.
    fn fill(&mut self, n_bytes: usize) -> Result<(), Error> {
        while self.rest.len() < n_bytes && !self.is_at_end {
            self.read_more()?;
        }
        Ok(())
    }

    fn give(&mut self, n_bytes: usize) -> Vec<u8> {
        let begun = self.rest.split_off(n_bytes);
        std::mem::replace(&mut self.rest, begun)
    }

    /// Refuses a line that is too long before all of it is read.
    fn check_begun_line(&self, start: usize) -> Result<(), Error> {
        let limit = self.limits.line_bytes_max;
        if start > 0 || self.rest.len() <= limit || self.rest[..limit].contains(&b'\n') {
            return Ok(());
        }
        let line = 1 + self.n_lines + self.input.n_lines_before;
        Err(Error::LineTooLong { path: self.input.path(), line, limit })
    }

    fn read_more(&mut self) -> Result<(), Error> {
        let path = || self.input.path();
        match self.pieces.next().map_err(|source| Error::File { path: path(), source })? {
            Some(piece) => {
                self.n_bytes += piece.len() as u64;
                self.rest.extend_from_slice(&piece);
            }
            None => self.is_at_end = true,
        }
        if self.n_bytes > self.limits.n_bytes_max {
            return Err(Error::TooManyBytes { path: path(), limit: self.limits.n_bytes_max });
        }
        Ok(())
    }
}

impl Decoder {
    /// Names of the columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = &PlSmallStr> {
        self.schema.iter_names()
    }

    /// The columns of some lines.
    pub(super) fn table(&self, input: &Input, text: &Text) -> Result<DataFrame, Error> {
        let Text { bytes, n_lines_before } = text;
        let path = input.path();
        let n_lines_before = n_lines_before + input.n_lines_before;
        check_line_lengths(&path, bytes, n_lines_before, self.line_bytes_max)?;
        if !internal::validate_utf8(bytes) {
            let source = polars_err!(ComputeError: "invalid utf-8 sequence");
            return Err(Error::Table { path, source });
        }
        let n_columns = self.schema.len();
        let projection: Vec<usize> = (0..n_columns).collect();
        let n_rows = memchr::memchr_iter(b'\n', bytes).count() + 1;
        let table = internal::read_chunk(
            bytes,
            &self.options,
            &self.schema,
            false,
            &projection,
            0,
            n_rows,
            None,
            usize::MAX,
            bytes.len(),
            Some(0),
        );
        table.map_err(|source| self.explain(path, bytes, n_lines_before, source))
    }

    /// The first lines of a text.
    pub(super) fn head(&self, text: &Text) -> Text {
        let end = memchr::memchr_iter(b'\n', &text.bytes).nth(FIRST_LINES_MIN - 1);
        let bytes = text.bytes[..end.map_or(text.bytes.len(), |end| end + 1)].to_vec();
        Text { bytes, n_lines_before: text.n_lines_before }
    }

    /// Names the line when Polars only says that some line is too long.
    fn explain(&self, path: std::path::PathBuf, bytes: &[u8], n_lines_before: u64, source: PolarsError) -> Error {
        let n_columns = self.schema.len();
        let n_fields = bytes.split(|byte| *byte == b'\n').map(|line| count_fields(line, self.options.separator));
        match n_fields.zip(1 + n_lines_before..).find(|(n, _)| *n > n_columns) {
            Some((n_fields, line)) => Error::LongLine { path, line, n_fields, n_columns },
            None => Error::Table { path, source },
        }
    }
}

/// Refuses a line that is longer than allowed; the longest of these is named.
fn check_line_lengths(path: &Path, bytes: &[u8], n_lines_before: u64, limit: usize) -> Result<(), Error> {
    if bytes.len() <= limit {
        return Ok(());
    }
    let longest = bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::len)
        .zip(1 + n_lines_before..)
        .max_by_key(|(n, line)| (*n, u64::MAX - line));
    match longest.filter(|(length, _)| *length > limit) {
        Some((_, line)) => Err(Error::LineTooLong { path: path.to_owned(), line, limit }),
        None => Ok(()),
    }
}

/// Fields of a line: separators outside double quotes, and one.
fn count_fields(line: &[u8], separator: u8) -> usize {
    let mut is_quoted = false;
    let mut n_fields = 1;
    for &byte in line {
        match byte {
            b'"' => is_quoted = !is_quoted,
            byte if byte == separator && !is_quoted => n_fields += 1,
            _ => {}
        }
    }
    n_fields
}
