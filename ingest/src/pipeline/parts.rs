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
    Content, Error, Input, LoadConfig,
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
/// When the file cannot be read; [`Error::LineTooLong`].
pub(super) fn part(whole: Input, config: &LoadConfig, rest: Option<Rest>, n_bytes: u64) -> Result<Part, Error> {
    let begin = rest.unwrap_or_default();
    match source::shape(&whole, config.format)? {
        Shape::PackedText { is_ndjson } => packed_part(whole, !is_ndjson, begin, n_bytes, config.limits.line_bytes_max),
        Shape::Groups { n_rows, n_columns } => Ok(groups_part(whole, &n_rows, n_columns, begin, n_bytes)),
        Shape::Other { n_bytes } => Ok(Part { input: whole, n_bytes, rest: None }),
    }
}

fn packed_part(
    whole: Input,
    has_header: bool,
    begin: Rest,
    n_bytes: u64,
    line_bytes_max: usize,
) -> Result<Part, Error> {
    let path = whole.path();
    let file_error = |source| Error::File { path: path.clone(), source };
    let too_long = |line| Error::LineTooLong { path: path.clone(), line, limit: line_bytes_max };
    let mut bytes = Vec::new();
    let mut reader = BufReader::with_capacity(PIECE, source::unpack(&whole)?);
    let mut n_header_bytes = 0;
    if has_header && begin.start > 0 {
        n_header_bytes = read_line(&mut reader, line_bytes_max, &mut bytes).map_err(file_error)?;
        if !bytes.ends_with(b"\n") {
            return Err(too_long(1));
        }
    }
    skip(&mut reader, begin.start - n_header_bytes).map_err(file_error)?;
    let n_lines_min = if has_header && begin.start == 0 { 2 } else { 1 };
    let (mut part_bytes, mut n_lines, mut is_all) = (0, 0, false);
    loop {
        let n_before = bytes.len();
        let length = read_line(&mut reader, line_bytes_max, &mut bytes).map_err(file_error)?;
        if length == 0 {
            is_all = true;
            break;
        }
        if n_lines >= n_lines_min && part_bytes + length > n_bytes {
            bytes.truncate(n_before);
            break;
        }
        let ends = bytes.ends_with(b"\n");
        if !ends && length > line_bytes_max as u64 {
            return Err(too_long(begin.n_lines + n_lines + 1));
        }
        part_bytes += length;
        n_lines += u64::from(ends);
    }
    drop(reader);
    if begin.start == 0 && is_all {
        return Ok(Part { input: whole, n_bytes: part_bytes, rest: None });
    }
    let n_lines_before = begin.n_lines.saturating_sub(u64::from(has_header));
    let rest = Rest { start: begin.start + part_bytes, n_lines: begin.n_lines + n_lines };
    Ok(Part {
        input: Input { content: Content::Bytes(bytes.into()), n_lines_before, ..whole },
        n_bytes: part_bytes,
        rest: (!is_all).then_some(rest),
    })
}

/// Adds a line with its end, or what there is, but no more than a byte beyond `line_bytes_max`; gives its length.
fn read_line(reader: &mut impl BufRead, line_bytes_max: usize, bytes: &mut Vec<u8>) -> io::Result<u64> {
    // Its end does not count.
    let n_read = reader.by_ref().take(line_bytes_max as u64 + 1).read_until(b'\n', bytes)?;
    Ok(n_read as u64)
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
    let n_lines_min = if begins_with_header { 2 } else { 1 };
    let mut reader = BufReader::with_capacity(PIECE, File::open(path)?);
    reader.seek(SeekFrom::Start(start))?;
    let (mut n_read, mut n_lines, mut end) = (0, 0, 0);
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            // All that is left has an end, or none: both are read as the rest of a file is.
            return Ok(None);
        }
        for position in memchr::memchr_iter(b'\n', piece) {
            let line_end = n_read + position as u64 + 1;
            if line_end > n_bytes && n_lines >= n_lines_min {
                return Ok(Some(start + end));
            }
            n_lines += 1;
            end = line_end;
        }
        n_read += piece.len() as u64;
        let length = piece.len();
        reader.consume(length);
    }
}

/// Bytes of a file, below its first line if `has_header`, with the length of that.
pub(super) fn read_tail(path: &Path, range: Range<u64>, has_header: bool) -> io::Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    let mut reader = BufReader::new(File::open(path)?);
    if has_header {
        reader.read_until(b'\n', &mut bytes)?;
    }
    let n_header_bytes = bytes.len();
    reader.seek(SeekFrom::Start(range.start))?;
    reader.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok((bytes, n_header_bytes))
}

fn skip(reader: &mut impl BufRead, n_bytes: u64) -> io::Result<()> {
    let n_skipped = io::copy(&mut reader.by_ref().take(n_bytes), &mut io::sink())?;
    match n_skipped == n_bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
