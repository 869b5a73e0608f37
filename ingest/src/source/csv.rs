//! Separated text. Every column is text.

use std::io::Cursor;

use polars::prelude::*;

use super::{Content, Input, Limits, Table, bytes, check_columns, names, rows_read_max};
use crate::Error;

pub(super) fn read(input: &Input, separator: u8, limits: &Limits) -> Result<Table, Error> {
    let path = input.path();
    let table_error = |source| Error::Table { path: path.clone(), source };
    let data = match &input.content {
        Content::File(file) | Content::Nameless(file) => {
            let mut scan = scan(PlRefPath::try_from_path(file).map_err(table_error)?, separator)?;
            let columns = names(scan.collect_schema().map_err(table_error)?.iter_names());
            check_columns(&path, &columns, limits)?;
            let rows = scan.limit(rows_read_max(limits, columns.len())).collect();
            rows.map_err(|source| explain(input, separator, columns.len(), limits, source))?
        }
        Content::Bytes(stored) => {
            let unpacked;
            let text = if bytes::is_packed(input)? {
                unpacked = bytes::unpacked(input, limits.n_bytes_max)?;
                &unpacked[..]
            } else {
                &stored[..]
            };
            let read = |n_rows| {
                let options = CsvReadOptions::default().with_infer_schema_length(Some(0)).with_n_rows(n_rows);
                let options = options.map_parse_options(|parse| parse.with_separator(separator));
                options.into_reader_with_file_handle(Cursor::new(text)).finish()
            };
            let columns = names(read(Some(0)).map_err(table_error)?.get_column_names().into_iter());
            check_columns(&path, &columns, limits)?;
            read(Some(rows_read_max(limits, columns.len()) as usize))
                .map_err(|source| explain(input, separator, columns.len(), limits, source))?
        }
    };
    Ok(Table { data, malformed: Vec::new(), first_line: 2, pointer: None })
}

fn scan(path: PlRefPath, separator: u8) -> Result<LazyFrame, Error> {
    let reader = LazyCsvReader::new(path.clone()).with_infer_schema_length(Some(0)).with_glob(false);
    reader
        .with_separator(separator)
        .finish()
        .map_err(|source| Error::Table { path: path.as_std_path().to_owned(), source })
}

/// Names the line when Polars only says that some line is too long.
fn explain(input: &Input, separator: u8, n_columns: usize, limits: &Limits, source: PolarsError) -> Error {
    if let Ok(text) = bytes::unpacked(input, limits.n_bytes_max) {
        let n_fields = text.split(|byte| *byte == b'\n').map(|line| count_fields(line, separator));
        if let Some((n_fields, line)) = n_fields.zip(1 + input.n_lines_before..).find(|(n, _)| *n > n_columns) {
            return Error::LongLine { path: input.path(), line, n_fields, n_columns };
        }
    }
    Error::Table { path: input.path(), source }
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
