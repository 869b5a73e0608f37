//! Parquet, some groups of rows at a time.

use std::{io::Cursor, ops::Range, path::PathBuf, sync::Arc};

use polars::{io::mmap::MmapBytesReader, prelude::*};

use super::{Content, Input, Limits, check_columns, check_size, names};
use crate::Error;

/// Cells that are decoded at a time, unless a group of rows has more.
const CELLS: usize = 1 << 22;

/// The groups of rows of a file or body.
pub(super) struct Groups<'a> {
    path: PathBuf,
    source: Source<'a>,
    /// Rows of each group.
    n_rows: Vec<usize>,
    n_columns: usize,
    /// Groups, and their rows, that were given.
    n_groups_given: usize,
    n_rows_given: usize,
}

enum Source<'a> {
    File(PlRefPath),
    Bytes(&'a Arc<[u8]>),
}

impl<'a> Groups<'a> {
    pub(super) fn open(input: &'a Input, limits: &Limits) -> Result<Self, Error> {
        let path = input.path();
        let (mut n_rows, columns) = described(input)?;
        let source = match &input.content {
            Content::File(file) | Content::Nameless(file) => {
                let source = PlRefPath::try_from_path(file);
                Source::File(source.map_err(|source| Error::Table { path: path.clone(), source })?)
            }
            Content::Bytes(bytes) => Source::Bytes(bytes),
        };
        check_columns(&path, &columns, limits)?;
        let mut n_rows_given = 0;
        if let Some(Range { start, end }) = input.groups.clone() {
            n_rows.truncate(end);
            n_rows_given = n_rows.drain(..start.min(n_rows.len())).sum();
        }
        // The file itself says how many there are, before any is decoded.
        let n_rows_all = n_rows.iter().fold(0_usize, |all, n| all.saturating_add(*n));
        check_size(&path, n_rows_all, n_rows_all.saturating_mul(columns.len()), limits)?;
        Ok(Self { path, source, n_rows, n_columns: columns.len(), n_groups_given: 0, n_rows_given })
    }

    /// The next rows; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<DataFrame>, Error> {
        let (mut n_groups, mut n_rows) = (0, 0);
        for n in &self.n_rows[self.n_groups_given..] {
            if n_rows > 0 && (n_rows + n) * self.n_columns > CELLS {
                break;
            }
            n_groups += 1;
            n_rows += n;
        }
        let first = self.n_rows_given;
        self.n_groups_given += n_groups;
        self.n_rows_given += n_rows;
        if n_rows == 0 {
            return Ok(None);
        }
        let data = match &self.source {
            Source::File(file) => {
                let args = ScanArgsParquet { glob: false, ..Default::default() };
                let length = IdxSize::try_from(n_rows).unwrap_or(IdxSize::MAX);
                LazyFrame::scan_parquet(file.clone(), args).and_then(|scan| scan.slice(first as i64, length).collect())
            }
            Source::Bytes(bytes) => ParquetReader::new(Cursor::new(bytes)).with_slice(Some((first, n_rows))).finish(),
        };
        let data = data.map_err(|source| Error::Table { path: self.path.clone(), source })?;
        if data.height() != n_rows {
            let source = polars_err!(ComputeError: "{} rows where {} are announced", data.height(), n_rows);
            return Err(Error::Table { path: self.path.clone(), source });
        }
        Ok(Some(data))
    }
}

/// The rows of each group of an input, and its columns.
pub(super) fn groups(input: &Input) -> Result<(Vec<usize>, usize), Error> {
    let (n_rows, columns) = described(input)?;
    Ok((n_rows, columns.len()))
}

/// The rows of each group, and the names of the columns.
fn described(input: &Input) -> Result<(Vec<usize>, Vec<String>), Error> {
    let path = input.path();
    let described = match &input.content {
        Content::File(file) | Content::Nameless(file) => {
            let opened = std::fs::File::open(file);
            let opened = opened.map_err(|source| Error::File { path: path.clone(), source })?;
            describe(ParquetReader::new(opened))
        }
        Content::Bytes(bytes) => describe(ParquetReader::new(Cursor::new(bytes))),
    };
    described.map_err(|source| Error::Table { path, source })
}

fn describe<R: MmapBytesReader>(mut reader: ParquetReader<R>) -> PolarsResult<(Vec<usize>, Vec<String>)> {
    let n_rows = reader.get_metadata()?.row_groups.iter().map(|group| group.num_rows()).collect();
    Ok((n_rows, names(reader.schema()?.iter_names())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_body_nothing_is_decoded_when_it_announces_too_much() {
        let columns = ["time", "a", "b"].map(|name| Column::new(name.into(), (0..100_i64).collect::<Vec<_>>()));
        let mut table = DataFrame::new(100, columns.to_vec()).expect("a table");
        let mut bytes = Vec::new();
        let writer = ParquetWriter::new(&mut bytes).with_row_group_size(Some(10));
        writer.finish(&mut table).expect("written");
        // All groups of rows, before the footer, are damaged: who decodes them is told so.
        let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().expect("four bytes"));
        let end = bytes.len() - 8 - footer as usize;
        bytes[4..end].fill(0xff);
        let input = Input::bytes("a", bytes);
        let error = |limits: &Limits| {
            let groups = Groups::open(&input, limits);
            groups.and_then(|mut groups| groups.next()).expect_err("a refusal")
        };
        assert!(matches!(error(&Limits::default()), Error::Table { .. }));
        let two = Limits { n_columns_max: 2, ..Limits::default() };
        assert!(matches!(error(&two), Error::TooManyColumns { limit: 2, .. }));
        let few = Limits { n_rows_max: 99, ..Limits::default() };
        assert!(matches!(error(&few), Error::TooManyRows { limit: 99, .. }));
        let few = Limits { n_cells_max: 299, ..Limits::default() };
        assert!(matches!(error(&few), Error::TooManyCells { limit: 299, .. }));
    }

    #[test]
    fn groups_of_rows_come_in_order_and_whole() {
        let column = Column::new("x".into(), (0..100_i64).collect::<Vec<_>>());
        let mut table = DataFrame::new(100, vec![column.clone(), column.with_name("y".into())]).expect("a table");
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes).with_row_group_size(Some(7)).finish(&mut table).expect("written");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.parquet");
        std::fs::write(&path, &bytes).expect("written");
        for input in [Input::bytes("a", bytes), Input::file(&path)] {
            let mut groups = Groups::open(&input, &Limits::default()).expect("groups");
            // So that several are given.
            groups.n_columns = CELLS / 10;
            let mut n_rows = 0;
            while let Some(data) = groups.next().expect("rows") {
                assert!(table.slice(n_rows as i64, data.height()).equals(&data));
                n_rows += data.height();
            }
            assert_eq!(n_rows, 100);
        }
    }
}
