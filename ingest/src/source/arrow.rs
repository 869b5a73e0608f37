//! Arrow IPC, file or stream: the one place where Arrow becomes Polars.

use std::io::Cursor;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{
        DataType as ArrowType, Float64Type, Int64Type, TimeUnit as ArrowUnit, TimestampMicrosecondType, UInt64Type,
    },
    error::ArrowError,
    ipc::reader::{FileReader, StreamReader},
};
use polars::prelude::*;

use super::{Input, Limits, Table, bytes, check_columns};
use crate::Error;

pub(super) fn read(input: &Input, limits: &Limits) -> Result<Table, Error> {
    let path = input.path();
    let arrow_error = |source| Error::Arrow { path: path.clone(), source };
    let stored = bytes::unpacked(input, limits.n_bytes_max)?;
    let batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>> = if stored.starts_with(b"ARROW1") {
        Box::new(FileReader::try_new(Cursor::new(&stored), None).map_err(arrow_error)?)
    } else {
        Box::new(StreamReader::try_new(Cursor::new(&stored), None).map_err(arrow_error)?)
    };
    let mut data: Option<DataFrame> = None;
    for batch in batches {
        let batch = batch.map_err(arrow_error)?;
        if data.is_none() {
            let columns: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            check_columns(&path, &columns, limits)?;
        }
        let rows = frame(&batch).map_err(arrow_error)??;
        match &mut data {
            Some(data) => {
                data.vstack_mut(&rows)?;
            }
            None => data = Some(rows),
        }
        let (n_rows, n_columns) = data.as_ref().map_or((0, 0), DataFrame::shape);
        super::check_size(&path, n_rows, n_rows * n_columns, limits)?;
    }
    let data = data.ok_or_else(|| Error::NoRows { path: path.clone() })?;
    Ok(Table { data, malformed: Vec::new() })
}

/// A record batch as a Polars table; types that are none of ours become text where that is possible.
fn frame(batch: &RecordBatch) -> Result<PolarsResult<DataFrame>, ArrowError> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, array)| {
        let name: PlSmallStr = field.name().as_str().into();
        column(name, array.as_ref())
    });
    let columns: Vec<Column> = columns.collect::<Result<_, _>>()?;
    Ok(DataFrame::new(batch.num_rows(), columns))
}

fn column(name: PlSmallStr, array: &dyn Array) -> Result<Column, ArrowError> {
    Ok(match array.data_type() {
        ArrowType::Float16 | ArrowType::Float32 | ArrowType::Float64 | ArrowType::Decimal128(..) => {
            let values = cast(array, &ArrowType::Float64)?;
            Float64Chunked::from_iter_options(name, values.as_primitive::<Float64Type>().iter()).into_column()
        }
        ArrowType::UInt64 => {
            UInt64Chunked::from_iter_options(name, array.as_primitive::<UInt64Type>().iter()).into_column()
        }
        kind if kind.is_integer() => {
            let values = cast(array, &ArrowType::Int64)?;
            Int64Chunked::from_iter_options(name, values.as_primitive::<Int64Type>().iter()).into_column()
        }
        ArrowType::Boolean => BooleanChunked::from_iter_options(name, array.as_boolean().iter()).into_column(),
        ArrowType::Timestamp(_, zone) => {
            let has_zone = zone.is_some();
            let micros = cast(array, &ArrowType::Timestamp(ArrowUnit::Microsecond, zone.clone()))?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>().iter();
            let zone = has_zone.then_some(TimeZone::UTC);
            Int64Chunked::from_iter_options(name, micros).into_datetime(TimeUnit::Microseconds, zone).into_column()
        }
        // Dates, dictionaries and texts are read as text is.
        _ => {
            let texts = cast(array, &ArrowType::Utf8)?;
            StringChunked::from_iter_options(name, texts.as_string::<i32>().iter()).into_column()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, DictionaryArray, Float32Array, Int32Array, TimestampMillisecondArray, types::Int8Type},
        ipc::writer::{FileWriter, StreamWriter},
    };

    use super::*;

    fn batch() -> RecordBatch {
        let times = TimestampMillisecondArray::from(vec![0, 3_600_000]).with_timezone("Europe/Madrid");
        let series: DictionaryArray<Int8Type> = ["a", "b"].into_iter().collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("time", Arc::new(times)),
            ("series", Arc::new(series)),
            ("value", Arc::new(Float32Array::from(vec![Some(1.5), None]))),
            ("count", Arc::new(Int32Array::from(vec![1, 2]))),
        ];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }

    #[test]
    fn a_file_and_a_stream_give_the_same_table() {
        let batch = batch();
        let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a stream");
        let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).expect("a file");
        for _ in 0..2 {
            stream.write(&batch).expect("written");
            file.write(&batch).expect("written");
        }
        let read = |bytes: Vec<u8>| read(&Input::bytes("a", bytes), &Limits::default()).expect("a table").data;
        let table = read(stream.into_inner().expect("bytes"));
        assert!(table.equals_missing(&read(file.into_inner().expect("bytes"))));
        assert_eq!((table.height(), table.width()), (4, 4));
        assert_eq!(
            table.column("time").expect("times").dtype(),
            &DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC))
        );
        assert_eq!(table.column("series").expect("names").str().expect("text").get(1), Some("b"));
        assert_eq!(table.column("value").expect("values").f64().expect("numbers").get(2), Some(1.5));
    }

    #[test]
    fn a_file_that_is_damaged_is_read_or_refused() {
        let batch = batch();
        let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).expect("a file");
        file.write(&batch).expect("written");
        let bytes = file.into_inner().expect("bytes");
        let mut n_damaged = 0;
        // Of many of these the reader panics, which takes a while.
        for position in (0..bytes.len()).step_by(9) {
            let mut bytes = bytes.clone();
            bytes[position] = 0x7f;
            let limits = Limits { n_bytes_max: 1 << 20, ..Limits::default() };
            let input = Input::bytes("a", bytes);
            let opened = crate::source::open(&input, Some(crate::Format::Arrow), b',', &limits);
            n_damaged += usize::from(matches!(opened.err(), Some(Error::Damaged { .. })));
        }
        assert!(n_damaged > 0, "the reader panics of some, which is what is tested here");
    }

    #[test]
    fn a_stream_that_is_cut_off_is_refused() {
        let batch = batch();
        let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a stream");
        stream.write(&batch).expect("written");
        let bytes = stream.into_inner().expect("bytes");
        let cut = bytes[..bytes.len() / 2].to_vec();
        let error = read(&Input::bytes("a.arrows", cut), &Limits::default()).err().expect("a refusal");
        assert!(matches!(error, Error::Arrow { .. }), "{error}");
    }
}
