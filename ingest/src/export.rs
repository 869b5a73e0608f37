//! Rows of the database as Parquet files, written before they are removed there.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use polars::io::parquet::write::BatchedWriter;
use polars::prelude::*;
use sha2::{Digest, Sha256};

use crate::Error;

/// Digits of the digest in the name of a file.
const N_DIGITS: usize = 16;

/// The cells of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Texts.
    Text(Vec<String>),
    /// Whole numbers.
    Integer(Vec<i32>),
    /// Numbers, some of which may be missing.
    Real(Vec<Option<f64>>),
    /// Numbers in single precision.
    Single(Vec<f32>),
    /// Instants.
    Time(Vec<DateTime<Utc>>),
    /// Whether something holds.
    Flag(Vec<bool>),
}

/// Some rows, by column.
pub type Columns = Vec<(&'static str, Cells)>;

/// A file that is being written. Until [`Export::finish`] it has another name; where that is not reached, the next one of
/// the same folder replaces it.
pub struct Export {
    folder: PathBuf,
    unfinished: PathBuf,
    writer: Option<BatchedWriter<File>>,
}

impl Export {
    /// Begins a file in a folder, which is created. Only one is written in a folder at a time.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), unfinished: folder.join("export.unfinished"), writer: None })
    }

    /// Adds rows; the first ones say which columns there are.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Table`] when they cannot be written.
    pub fn write(&mut self, columns: Columns) -> Result<(), Error> {
        let table_error = |source| Error::Table { path: self.unfinished.clone(), source };
        let columns: Vec<Column> = columns.into_iter().map(|(name, cells)| column(name, cells)).collect();
        let n_rows = columns.first().map_or(0, Column::len);
        let table = DataFrame::new(n_rows, columns).map_err(table_error)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let file_error = |source| Error::File { path: self.unfinished.clone(), source };
                let file = File::create(&self.unfinished).map_err(file_error)?;
                none.insert(ParquetWriter::new(file).batched(table.schema()).map_err(table_error)?)
            }
        };
        writer.write_batch(&table).map_err(table_error)
    }

    /// Ends the file, sees to it that it is on disk, and gives it its name: `stem`, and a part of its digest, so that other
    /// rows make another file and the same rows the same. `None` where there were no rows.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Table`] when it cannot be written.
    pub fn finish(self, stem: &str) -> Result<Option<PathBuf>, Error> {
        let Self { folder, unfinished, writer } = self;
        let Some(writer) = writer else { return Ok(None) };
        writer.finish().map_err(|source| Error::Table { path: unfinished.clone(), source })?;
        drop(writer);
        let file_error = |source| Error::File { path: unfinished.clone(), source };
        let digest = digest(&unfinished).map_err(file_error)?;
        File::open(&unfinished).and_then(|file| file.sync_all()).map_err(file_error)?;
        let path = folder.join(format!("{stem}-{}.parquet", &digest[..N_DIGITS]));
        fs::rename(&unfinished, &path).map_err(file_error)?;
        // The name is on disk once the folder is.
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(file_error)?;
        Ok(Some(path))
    }
}

fn column(name: &str, cells: Cells) -> Column {
    let name: PlSmallStr = name.into();
    match cells {
        Cells::Text(cells) => Column::new(name, cells),
        Cells::Integer(cells) => Column::new(name, cells),
        Cells::Real(cells) => Column::new(name, cells),
        Cells::Single(cells) => Column::new(name, cells),
        Cells::Time(cells) => {
            let micros = cells.iter().map(DateTime::timestamp_micros).collect();
            Int64Chunked::from_vec(name, micros)
                .into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC))
                .into_column()
        }
        Cells::Flag(cells) => Column::new(name, cells),
    }
}

/// The rows of a file, each as one line of its cells, for tests and for a look at it.
///
/// # Errors
/// [`Error::File`] or [`Error::Table`] when it cannot be read.
pub fn read_lines(path: &Path) -> Result<Vec<String>, Error> {
    let file = File::open(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let table = ParquetReader::new(file).finish().map_err(|source| Error::Table { path: path.to_owned(), source })?;
    let line = |row: usize| {
        let cells = table
            .columns()
            .iter()
            .map(|column| column.get(row).map_or_else(|_| String::new(), |cell| cell.to_string()));
        cells.collect::<Vec<_>>().join(",")
    };
    Ok((0..table.height()).map(line).collect())
}

/// SHA-256 of a file, in hexadecimal.
fn digest(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(values: &[f64]) -> Columns {
        vec![
            ("series", Cells::Text(values.iter().map(|_| "a".to_owned()).collect())),
            ("valid_time", Cells::Time(values.iter().map(|_| DateTime::UNIX_EPOCH).collect())),
            ("value", Cells::Real(values.iter().map(|&value| (value >= 0.0).then_some(value)).collect())),
        ]
    }

    fn export(folder: &Path, values: &[f64]) -> PathBuf {
        let mut export = Export::create(folder).expect("a folder");
        values.chunks(2).for_each(|values| export.write(columns(values)).expect("rows"));
        export.finish("x").expect("a file").expect("rows")
    }

    #[test]
    fn the_same_rows_make_the_same_file_and_others_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = export(folder.path(), &[1.0, -1.0, 3.0]);
        assert_eq!(first, export(folder.path(), &[1.0, -1.0, 3.0]));
        assert_ne!(first, export(folder.path(), &[1.0, -1.0, 4.0]));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing unfinished is left");
        let table = ParquetReader::new(File::open(first).expect("the file")).finish().expect("a table");
        assert_eq!((table.height(), table.column("value").expect("a column").null_count()), (3, 1));
    }

    #[test]
    fn no_rows_make_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Export::create(folder.path()).expect("a folder").finish("x").expect("nothing to do"), None);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
