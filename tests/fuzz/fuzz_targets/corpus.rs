//! `corpus FOLDER`: writes bodies and times that are right, from which the targets begin: `FOLDER/push`, `FOLDER/times`.

use std::{fs, path::PathBuf, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    ipc::writer::{FileWriter, StreamWriter},
};
use chrono::{DateTime, TimeDelta};
use chrono_tz::Tz;
use ingest::{Frequency, Observation, Panel, PanelConfig};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "corpus".to_owned()));
    for (index, (target, seed)) in seeds().into_iter().enumerate() {
        fs::create_dir_all(folder.join(target))?;
        fs::write(folder.join(target).join(format!("seed-{index}")), seed)?;
    }
    Ok(())
}

/// Bodies that are right, by the target that reads them.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    const LONG: &str = "series,valid_time,value,sd,available_at\n\
        b,2024-01-01T00:00Z,1,0.1,2024-01-01T01:00Z\na,2024-01-01T00:00Z,2,,\nb,2024-01-01T01:00Z,x,0,2024-01-01T02:00Z\n\
        a,2024-01-01T01:00Z,,,\na,2024-01-01T01:30Z,3,,\n\"a\",2024-01-01T00:00Z,2.5,,\n";
    const WIDE: &str = "time,b,a\n2024-01-01 00:00,1,2\n2024-01-01 01:00,3,\n\n2024-01-01 02:00,NaN,6\n";
    const LINES: &str = "{\"series\":\"a\",\"valid_time\":\"2024-01-01\",\"value\":1.5}\nnonsense\n\
        {\"series\":\"a\",\"valid_time\":\"2024-01-02\",\"value\":null}\n{\"series\":\"b\",\"valid_time\":\"2024-01-03\",\"value\":true}\n";
    const BODY: &str = "{\"observations\":[{\"series\":\"a\",\"valid_time\":\"2024-01-01T00:00:00Z\",\"value\":1.5},7,\
        {\"series\":\"a\",\"valid_time\":\"2024-01-01T01:00:00Z\",\"value\":\"2\",\"sd\":-1}]}";
    const TIMES: [&str; 6] = [
        "2024-03-31 02:30\n2024-03-31 03:00",
        "2024-05-01T10:00:00.123456789Z\n2024-05-01T12:00+02:00",
        "2024-05\n2024-06",
        "2024-05-01\n2024-05-02",
        "01/05/2024",
        "1714557600",
    ];
    let mut seeds: Vec<(&'static str, Vec<u8>)> = Vec::new();
    let parquet = parquet();
    let [stream, file] = arrow();
    let bodies: [(usize, &[u8]); 8] = [
        (1, LONG.as_bytes()),
        (1, WIDE.as_bytes()),
        (2, LINES.as_bytes()),
        (3, BODY.as_bytes()),
        (4, &parquet),
        (5, &stream),
        (5, &file),
        (0, LONG.as_bytes()),
    ];
    for (format, body) in bodies {
        for zone in [0, 1, 17, 0x80] {
            seeds.push(("push", [&[format as u8, zone], body].concat()));
        }
    }
    for text in TIMES {
        for zone in [0, 1, 6, 11, 16, 0x81] {
            seeds.push(("times", [&[zone], text.as_bytes()].concat()));
        }
    }
    seeds
}

fn parquet() -> Vec<u8> {
    let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
    let observations = (0..50).map(|step| Observation {
        series: step % 2,
        valid_time: DateTime::UNIX_EPOCH + TimeDelta::hours(step as i64),
        available_at: None,
        value: step as f64,
        sd: None,
    });
    let panel = Panel::from_observations(config, vec!["a".into(), "b".into()], observations).expect("a panel");
    ingest::snapshot::of(&panel).expect("a file").bytes
}

fn arrow() -> [Vec<u8>; 2] {
    let times = TimestampMicrosecondArray::from(vec![0, 3_600_000_000, 7_200_000_000]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("valid_time", Arc::new(times)),
        ("series", Arc::new(StringArray::from(vec!["a", "b", "a"]))),
        ("value", Arc::new(Float64Array::from(vec![Some(1.0), None, Some(2.0)]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a stream");
    stream.write(&batch).expect("written");
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).expect("a file");
    file.write(&batch).expect("written");
    [stream.into_inner().expect("bytes"), file.into_inner().expect("bytes")]
}
