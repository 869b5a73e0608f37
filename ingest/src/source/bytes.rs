//! The bytes of an input: what they are, how many there are once unpacked, how long their lines are.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    ops::Deref,
};

use polars::io::utils::compression::{ByteSourceReader, SupportedCompression};

use super::{Content, Format, Input};
use crate::Error;

/// Bytes unpacked at a time.
const PIECE: usize = 1 << 18;

/// Opens an input for reading, still packed.
fn open(content: &Content) -> io::Result<Box<dyn BufRead + Send + '_>> {
    Ok(match content {
        Content::File(path) | Content::Nameless(path) => Box::new(BufReader::with_capacity(PIECE, File::open(path)?)),
        Content::Bytes(bytes) => Box::new(Cursor::new(&bytes[..])),
    })
}

/// Bytes as they are stored.
pub(super) fn stored_length(content: &Content) -> Result<u64, Error> {
    match content {
        Content::File(path) | Content::Nameless(path) => {
            let metadata = path.metadata().map_err(|source| Error::File { path: path.clone(), source })?;
            Ok(metadata.len())
        }
        Content::Bytes(bytes) => Ok(bytes.len() as u64),
    }
}

/// The first bytes of an input.
pub(super) struct Head {
    /// As stored.
    stored: Vec<u8>,
    /// Unpacked; the same when nothing is packed.
    unpacked: Vec<u8>,
}

impl Head {
    const LENGTH: u64 = 4_096;

    pub(super) fn read(input: &Input) -> Result<Self, Error> {
        let path = input.path();
        let file_error = |source| Error::File { path: path.clone(), source };
        let mut stored = Vec::new();
        open(&input.content).map_err(file_error)?.take(Self::LENGTH).read_to_end(&mut stored).map_err(file_error)?;
        if stored.is_empty() {
            return Err(Error::Empty { path });
        }
        let unpacked = match compression(&stored) {
            Some(_) => {
                // What is damaged is told when all of it is read.
                let mut pieces = Pieces::open(input)?;
                pieces.next().ok().flatten().map_or_else(Vec::new, |piece| piece.to_vec())
            }
            None => stored.clone(),
        };
        Ok(Self { stored, unpacked })
    }

    /// What the first bytes say, whatever the input is called.
    pub(super) fn format(&self) -> Option<Format> {
        /// An Arrow stream begins with a marker that continues it.
        const ARROW_STREAM: &[u8] = &[0xff, 0xff, 0xff, 0xff];
        if self.stored.starts_with(b"PAR1") {
            return Some(Format::Parquet);
        }
        if self.stored.starts_with(b"ARROW1") || self.stored.starts_with(ARROW_STREAM) {
            return Some(Format::Arrow);
        }
        let text = self.unpacked.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.unpacked);
        if text.trim_ascii_start().starts_with(b"{") {
            return Some(Format::Ndjson);
        }
        let is_text = !text.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
        is_text.then_some(Format::Csv)
    }
}

impl Head {
    /// Whether it is packed.
    pub(super) fn is_packed(&self) -> bool {
        compression(&self.stored).is_some()
    }
}

/// Packing by gzip or zstd, from the first bytes.
fn compression(head: &[u8]) -> Option<SupportedCompression> {
    // zlib has no magic number worth the name: `x` begins many a CSV header.
    SupportedCompression::check(head).filter(|found| *found != SupportedCompression::ZLIB)
}

/// The bytes of an input, unpacked, piece by piece.
pub(super) struct Pieces<'a> {
    reader: ByteSourceReader<Box<dyn BufRead + Send + 'a>>,
}

impl<'a> Pieces<'a> {
    pub(super) fn open(input: &'a Input) -> Result<Self, Error> {
        let path = input.path();
        let file_error = |source| Error::File { path: path.clone(), source };
        let mut reader = open(&input.content).map_err(file_error)?;
        let packed = compression(reader.fill_buf().map_err(file_error)?);
        let reader =
            ByteSourceReader::try_new(reader, packed).map_err(|source| Error::Table { path: path.clone(), source })?;
        Ok(Self { reader })
    }

    /// The next piece; `None` at the end. A packed input that is cut off is an error.
    pub(super) fn next(&mut self) -> io::Result<Option<impl Deref<Target = [u8]> + use<'a>>> {
        let (piece, n_read) = self.reader.read_next_slice(&Default::default(), PIECE, Some(PIECE))?;
        Ok((n_read > 0).then_some(piece))
    }
}

/// The same as a stream.
pub(super) struct Unpacked<'a> {
    pieces: Pieces<'a>,
    piece: Cursor<Vec<u8>>,
}

impl<'a> Unpacked<'a> {
    pub(super) fn new(pieces: Pieces<'a>) -> Self {
        Self { pieces, piece: Cursor::default() }
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n_read = self.piece.read(buffer)?;
            if n_read > 0 || buffer.is_empty() {
                return Ok(n_read);
            }
            match self.pieces.next()? {
                Some(piece) => self.piece = Cursor::new(piece.to_vec()),
                None => return Ok(0),
            }
        }
    }
}

/// All bytes, unpacked, at most `limit` of them.
pub(super) fn unpacked(input: &Input, limit: u64) -> Result<Vec<u8>, Error> {
    let path = input.path();
    let mut pieces = Pieces::open(input)?;
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().map_err(|source| Error::File { path: path.clone(), source })? {
        all.extend_from_slice(&piece);
        if all.len() as u64 > limit {
            return Err(Error::TooManyBytes { path, limit });
        }
    }
    Ok(all)
}

/// What one pass over a text finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Bytes, unpacked; counted no further than just beyond the limit.
    pub n_bytes: u64,
    /// Bytes of the longest line, without its end.
    pub longest_line: usize,
    /// Its number, from 1.
    pub longest_line_number: u64,
}

/// Passes over a text once.
///
/// # Errors
/// [`Error::File`] when it cannot be read or its packing is damaged.
pub(super) fn survey(input: &Input, limit: u64) -> Result<Survey, Error> {
    let path = input.path();
    let mut pieces = Pieces::open(input)?;
    let mut found = Survey::default();
    let (mut line, mut length) = (1_u64, 0_usize);
    while let Some(piece) = pieces.next().map_err(|source| Error::File { path: path.clone(), source })? {
        found.n_bytes += piece.len() as u64;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &piece) {
            length += end - start;
            if length > found.longest_line {
                (found.longest_line, found.longest_line_number) = (length, line);
            }
            (start, length) = (end + 1, 0);
            line += 1;
        }
        length += piece.len() - start;
        if found.n_bytes > limit {
            break;
        }
    }
    if length > found.longest_line {
        (found.longest_line, found.longest_line_number) = (length, line);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_line_is_found_across_pieces() {
        let mut text = "short\n".repeat(3);
        text.push_str(&"x".repeat(PIECE * 2));
        text.push_str("\nend");
        let found = survey(&Input::bytes("a", text.as_bytes()), u64::MAX).expect("readable");
        assert_eq!((found.longest_line, found.longest_line_number), (2 * PIECE, 4));
        assert_eq!(found.n_bytes, text.len() as u64);
        assert_eq!(survey(&Input::bytes("a", &b"ab"[..]), 9).expect("readable").longest_line, 2);
    }

    #[test]
    fn first_bytes_tell_the_format() {
        let format = |bytes: &[u8]| Head::read(&Input::bytes("a", bytes)).expect("bytes").format();
        assert_eq!(format(b"PAR1...."), Some(Format::Parquet));
        assert_eq!(format(b"ARROW1\0\0"), Some(Format::Arrow));
        assert_eq!(format(&[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]), Some(Format::Arrow));
        assert_eq!(format(b"\xef\xbb\xbf {\"a\":1}"), Some(Format::Ndjson));
        assert_eq!(format(b"x\x01,y"), None);
        assert_eq!(format(b"time,a\n"), Some(Format::Csv));
    }
}
