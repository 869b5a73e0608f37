//! JSON: a list of objects, or an object per line. Every column is text, as it is written.

use std::{collections::HashMap, fmt, path::Path};

use polars::prelude::*;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Input, Limits, Table, bytes};
use crate::Error;

/// Prefix of the pointers into a body.
pub(super) const POINTER: &str = "/observations";

/// Reads an object per line. A line that is none is a malformed row.
pub(super) fn read_lines(input: &Input, limits: &Limits) -> Result<Table, Error> {
    let path = input.path();
    let mut pieces = bytes::Pieces::open(input)?;
    let mut rows = Rows::new(limits);
    let mut rest: Vec<u8> = Vec::new();
    let mut is_first = true;
    while let Some(piece) = pieces.next().map_err(|source| Error::File { path: path.clone(), source })? {
        rest.extend_from_slice(&piece);
        let Some(end) = memchr::memrchr(b'\n', &rest) else { continue };
        let begun = rest.split_off(end + 1);
        for line in rest[..end].split(|byte| *byte == b'\n') {
            rows.push_line(&path, line, &mut is_first)?;
        }
        rest = begun;
    }
    if !rest.is_empty() {
        rows.push_line(&path, &rest, &mut is_first)?;
    }
    rows.finish(&path)
}

/// Reads a body with a list of objects, `observations`.
pub(super) fn read_body(input: &Input, limits: &Limits) -> Result<Table, Error> {
    let path = input.path();
    let text = bytes::unpacked(input, limits.n_bytes_max)?;
    let mut rows = Rows::new(limits);
    let body: Body<'_> = serde_json::from_slice(&text)
        .map_err(|error| Error::MalformedJson { path: path.clone(), reason: error.to_string() })?;
    for row in body.observations {
        match serde_json::from_str::<Object<'_>>(row.get()) {
            Ok(object) => rows.push(&path, object)?,
            Err(_) => rows.push_malformed(&path, row.get())?,
        }
    }
    rows.finish(&path)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    observations: Vec<&'a RawValue>,
}

/// The members of an object in their order, values as they are written.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.iter().any(|(known, _)| *known == key) {
                        return Err(A::Error::custom("a member is given twice"));
                    }
                    members.push((key, value));
                }
                Ok(Object(members))
            }

            // A list would otherwise be told as a map without keys.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Err(A::Error::custom("a list is no object"))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Rows of text that are collected one by one; columns appear as their names do.
struct Rows<'l> {
    limits: &'l Limits,
    index: HashMap<String, usize>,
    columns: Vec<(String, Vec<Option<String>>)>,
    n_rows: usize,
    malformed: Vec<(usize, String)>,
}

impl<'l> Rows<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self { limits, index: HashMap::new(), columns: Vec::new(), n_rows: 0, malformed: Vec::new() }
    }

    fn push_line(&mut self, path: &Path, line: &[u8], is_first: &mut bool) -> Result<(), Error> {
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(line) if *is_first => line,
            _ => line,
        };
        *is_first = false;
        if line.trim_ascii().is_empty() {
            return self.add_row(path);
        }
        match serde_json::from_slice::<Object<'_>>(line) {
            Ok(object) => self.push(path, object),
            Err(_) => self.push_malformed(path, &String::from_utf8_lossy(line)),
        }
    }

    fn push(&mut self, path: &Path, object: Object<'_>) -> Result<(), Error> {
        for (name, value) in object.0 {
            let index = match self.index.get(&name) {
                Some(index) => *index,
                None => self.add_column(path, name)?,
            };
            let cells = &mut self.columns[index].1;
            cells.resize(self.n_rows, None);
            cells.push(text(value));
        }
        self.add_row(path)
    }

    fn push_malformed(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        /// Enough to recognise it.
        const LENGTH_MAX: usize = 10_000;
        self.malformed.push((self.n_rows, text.chars().take(LENGTH_MAX).collect()));
        self.add_row(path)
    }

    fn add_column(&mut self, path: &Path, name: String) -> Result<usize, Error> {
        let (index, limit) = (self.columns.len(), self.limits.n_columns_max);
        if index == limit {
            return Err(Error::TooManyColumns { path: path.to_owned(), n_columns: index + 1, limit });
        }
        self.index.insert(name.clone(), index);
        self.columns.push((name, Vec::new()));
        Ok(index)
    }

    fn add_row(&mut self, path: &Path) -> Result<(), Error> {
        self.n_rows += 1;
        let Limits { n_rows_max, n_cells_max, .. } = *self.limits;
        if self.n_rows > n_rows_max {
            return Err(Error::TooManyRows { path: path.to_owned(), limit: n_rows_max });
        }
        if self.n_rows * self.columns.len() > n_cells_max {
            return Err(Error::TooManyCells { path: path.to_owned(), limit: n_cells_max });
        }
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<Table, Error> {
        let Self { mut columns, n_rows, malformed, .. } = self;
        if let ([(column, _)], true) = (&columns[..], malformed.is_empty()) {
            return Err(Error::OneColumn { path: path.to_owned(), column: column.clone() });
        }
        for (_, cells) in &mut columns {
            cells.resize(n_rows, None);
        }
        let columns = columns.into_iter().map(|(name, cells)| Column::new(name.as_str().into(), cells)).collect();
        let data = DataFrame::new(n_rows, columns)?;
        Ok(Table { data, malformed })
    }
}

/// What stands in a cell: the content of a text, the digits of a number, nothing for null.
fn text(value: &RawValue) -> Option<String> {
    let written = value.get();
    match written.as_bytes().first() {
        Some(b'"') => serde_json::from_str(written).ok(),
        Some(b'n') => None,
        _ => Some(written.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(table: &Table, column: &str) -> Vec<Option<String>> {
        let column = table.data.column(column).expect("a column").str().expect("text");
        column.iter().map(|cell| cell.map(str::to_owned)).collect()
    }

    fn owned(cells: &[Option<&str>]) -> Vec<Option<String>> {
        cells.iter().map(|cell| cell.map(str::to_owned)).collect()
    }

    #[test]
    fn numbers_keep_their_digits_and_rows_their_lines() {
        let text = "{\"a\":9007199254740993,\"b\":\"x\\ny\"}\n\nnonsense\n[1,2]\n{\"b\":null,\"c\":true,\"a\":1.50}";
        let table = read_lines(&Input::bytes("a", text.as_bytes()), &Limits::default()).expect("rows");
        assert_eq!(table.data.height(), 5);
        assert_eq!(cells(&table, "a"), owned(&[Some("9007199254740993"), None, None, None, Some("1.50")]));
        assert_eq!(cells(&table, "b"), owned(&[Some("x\ny"), None, None, None, None]));
        assert_eq!(cells(&table, "c"), owned(&[None, None, None, None, Some("true")]));
        let malformed: Vec<_> = table.malformed.iter().map(|(row, text)| (*row, text.as_str())).collect();
        assert_eq!(malformed, [(2, "nonsense"), (3, "[1,2]")]);
    }

    #[test]
    fn a_body_is_a_list_of_objects() {
        let read = |text: &str| read_body(&Input::bytes("body", text.as_bytes()), &Limits::default());
        let table = read(r#"{"observations":[{"a":1,"b":2},7,{"a":1,"a":2}]}"#).expect("rows");
        assert_eq!(cells(&table, "b"), owned(&[Some("2"), None, None]));
        assert_eq!(table.malformed.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
        for wrong in ["", "[]", r#"{"observations":{}}"#, r#"{"observations":[],"panel":"p"}"#, r#"{"observations":[}"#]
        {
            assert!(matches!(read(wrong), Err(Error::MalformedJson { .. })), "{wrong}");
        }
    }

    #[test]
    fn limits_are_kept() {
        let limits = Limits { n_columns_max: 2, n_rows_max: 2, n_cells_max: 3, ..Limits::default() };
        let read = |text: &str| read_lines(&Input::bytes("a", text.as_bytes()), &limits);
        assert!(matches!(read("{\"a\":1,\"b\":1,\"c\":1}"), Err(Error::TooManyColumns { limit: 2, .. })));
        assert!(matches!(read("\n\n\n"), Err(Error::TooManyRows { limit: 2, .. })));
        assert!(matches!(read("{\"a\":1,\"b\":1}\n{}"), Err(Error::TooManyCells { limit: 3, .. })));
    }
}
