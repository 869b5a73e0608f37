//! The parts in which long files are read: whole lines of a text, packed or not, or groups of rows of a Parquet file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::watermark::PIECE;
use crate::{
    Content, Error, Format, Input,
    source::{self, Shape},
};

/// By how many bytes of a part a cell of a Parquet file counts: about as many as it has as text.
const CELL_BYTES: u64 = 16;

/// Where the rest of a file begins that is packed or has groups of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rest {
    /// Bytes before it, unpacked; or groups of rows.
    pub start: u64,
    /// Lines before it, that of the header included; or rows.
    pub n_lines: u64,
}

/// A part of such a file.
pub(super) struct Part {
    /// What is to be read.
    pub input: Input,
    /// By how many bytes it counts.
    pub n_bytes: u64,
    /// What is left; `None` at the end.
    pub rest: Option<Rest>,
}

/// The part of a packed text or of a Parquet file that begins with `rest`: what counts as `n_bytes`, but at least one row. What
/// cannot be divided is one part.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn part(whole: Input, format: Option<Format>, rest: Option<Rest>, n_bytes: u64) -> Result<Part, Error> {
    let begin = rest.unwrap_or_default();
    match source::shape(&whole, format)? {
        Shape::PackedText { is_ndjson } => packed_part(whole, !is_ndjson, begin, n_bytes),
        Shape::Groups { n_rows, n_columns } => Ok(groups_part(whole, &n_rows, n_columns, begin, n_bytes)),
        Shape::Other { n_bytes } => Ok(Part { input: whole, n_bytes, rest: None }),
    }
}

fn packed_part(whole: Input, has_header: bool, begin: Rest, n_bytes: u64) -> Result<Part, Error> {
    let path = whole.path();
    let file_error = |source| Error::File { path: path.clone(), source };
    let mut reader = BufReader::with_capacity(PIECE, source::unpack(&whole)?);
    skip(&mut reader, begin.start).map_err(file_error)?;
    let found = line_end(&mut reader, n_bytes, has_header && begin.start == 0).map_err(file_error)?;
    drop(reader);
    if begin.start == 0 && found.is_all {
        return Ok(Part { input: whole, n_bytes: found.n_bytes, rest: None });
    }
    let mut bytes = Vec::new();
    let mut reader = BufReader::with_capacity(PIECE, source::unpack(&whole)?);
    let mut n_header_bytes = 0;
    if has_header && begin.start > 0 {
        n_header_bytes = reader.read_until(b'\n', &mut bytes).map_err(file_error)? as u64;
    }
    skip(&mut reader, begin.start - n_header_bytes).map_err(file_error)?;
    reader.take(found.n_bytes).read_to_end(&mut bytes).map_err(file_error)?;
    let n_lines_before = begin.n_lines.saturating_sub(u64::from(has_header));
    let rest = Rest { start: begin.start + found.n_bytes, n_lines: begin.n_lines + found.n_lines };
    Ok(Part {
        input: Input { content: Content::Bytes(bytes.into()), n_lines_before, ..whole },
        n_bytes: found.n_bytes,
        rest: (!found.is_all).then_some(rest),
    })
}

fn groups_part(whole: Input, n_rows: &[usize], n_columns: usize, begin: Rest, n_bytes: u64) -> Part {
    let size = |n_rows: usize| n_rows as u64 * n_columns as u64 * CELL_BYTES;
    let first = usize::try_from(begin.start).unwrap_or(usize::MAX).min(n_rows.len());
    let mut taken = 0;
    let mut end = first;
    while end < n_rows.len() && (taken == 0 || size(taken + n_rows[end]) <= n_bytes) {
        taken += n_rows[end];
        end += 1;
    }
    let rest = Rest { start: end as u64, n_lines: begin.n_lines + taken as u64 };
    let is_all = first == 0 && end == n_rows.len();
    Part {
        input: Input { groups: (!is_all).then_some(first..end), n_lines_before: begin.n_lines, ..whole },
        n_bytes: size(taken),
        rest: (end < n_rows.len()).then_some(rest),
    }
}

/// Where the last line ends that is within `n_bytes` from `start` on, or the first one if that is longer; the header alone
/// is no part. `None` when that is the end of the file.
pub(super) fn part_end(path: &Path, start: u64, n_bytes: u64, begins_with_header: bool) -> io::Result<Option<u64>> {
    let mut reader = BufReader::with_capacity(PIECE, File::open(path)?);
    reader.seek(SeekFrom::Start(start))?;
    let found = line_end(&mut reader, n_bytes, begins_with_header)?;
    Ok((!found.is_all).then_some(start + found.n_bytes))
}

/// Bytes of a file, below its first line if `has_header`.
pub(super) fn read_tail(path: &Path, range: Range<u64>, has_header: bool) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = BufReader::new(File::open(path)?);
    if has_header {
        reader.read_until(b'\n', &mut bytes)?;
    }
    reader.seek(SeekFrom::Start(range.start))?;
    reader.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Some lines.
struct Lines {
    n_bytes: u64,
    n_lines: u64,
    /// Whether nothing follows. Then the last of them may have no end.
    is_all: bool,
}

/// The lines that are within `n_bytes`, or the first one if that is longer; the header alone is not enough.
fn line_end(reader: &mut impl BufRead, n_bytes: u64, begins_with_header: bool) -> io::Result<Lines> {
    let n_lines_min = if begins_with_header { 2 } else { 1 };
    let (mut n_read, mut found) = (0, Lines { n_bytes: 0, n_lines: 0, is_all: false });
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            // All that is left has an end, or none: both are read as the rest of a file is.
            return Ok(Lines { n_bytes: n_read, is_all: true, ..found });
        }
        for position in memchr::memchr_iter(b'\n', piece) {
            let line_end = n_read + position as u64 + 1;
            if line_end > n_bytes && found.n_lines >= n_lines_min {
                return Ok(found);
            }
            found.n_lines += 1;
            found.n_bytes = line_end;
        }
        n_read += piece.len() as u64;
        let length = piece.len();
        reader.consume(length);
    }
}

fn skip(reader: &mut impl BufRead, n_bytes: u64) -> io::Result<()> {
    let n_skipped = io::copy(&mut reader.by_ref().take(n_bytes), &mut io::sink())?;
    match n_skipped == n_bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
