//! Files that are right in every accepted way, and wrong in every way that we know.

use std::{fs, path::PathBuf};

use chrono::{DateTime, Utc};
use chrono_tz::Europe;
use polars::prelude::*;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Code, Findings, Notice, Reason, Reason::*, Row};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }
}

fn load_text(content: &str, config: &LoadConfig) -> Result<Loaded, Error> {
    load(&Folder::new().file("a.csv", content), config)
}

fn hourly() -> LoadConfig {
    LoadConfig { frequency: Some(Frequency::HOUR), ..LoadConfig::default() }
}

fn in_madrid() -> LoadConfig {
    LoadConfig { time_zone: Europe::Madrid, ..hourly() }
}

/// `series time value` of every observation.
fn observations(loaded: &Loaded) -> Vec<String> {
    let series = loaded.frame.series();
    let show = |row: Row| format!("{} {} {}", series[row.series], row.valid_time.format("%dT%H"), row.value);
    loaded.frame.rows().map(show).collect()
}

/// `reason line column value` of every rejection.
fn rejections(loaded: &Loaded) -> Vec<String> {
    let rejected = loaded.report.rejected.iter();
    rejected.map(|r| format!("{} {} {} {}", r.reason, r.line, r.column, r.value)).collect()
}

fn check_error(content: &str, config: &LoadConfig, expected: &str) {
    let error = load_text(content, config).expect_err("a refusal").to_string();
    let (_, message) = error.split_once("a.csv").expect("the path comes first");
    assert_eq!(message, expected);
}

const WIDE: &str = "time,b,a\n2024-01-01T00:00Z,1,2\n2024-01-01T01:00Z,3,\n2024-01-01T02:00Z,5,6\n";
const LONG: &str = "series,valid_time,value\n\
    b,2024-01-01T00:00Z,1\na,2024-01-01T00:00Z,2\nb,2024-01-01T01:00Z,3\na,2024-01-01T01:00Z,\n\
    b,2024-01-01T02:00Z,5\na,2024-01-01T02:00Z,6\n";

#[test]
fn wide_and_long_give_the_same_observations() {
    let wide = load_text(WIDE, &LoadConfig::default()).expect("a frame");
    assert_eq!(observations(&wide), ["b 01T00 1", "b 01T01 3", "b 01T02 5", "a 01T00 2", "a 01T02 6"]);
    let long = load_text(LONG, &LoadConfig::default()).expect("a frame");
    assert_eq!(observations(&long), ["a 01T00 2", "a 01T02 6", "b 01T00 1", "b 01T01 3", "b 01T02 5"]);
    for loaded in [wide, long] {
        let report = &loaded.report;
        assert_eq!((report.accepted, report.n_gaps, report.n_lost(), report.n_unordered), (5, 1, 0, 0));
        assert!(loaded.frequency_inferred && report.frequency_inferred);
        assert_eq!((loaded.frequency, report.frequency.as_str()), (Frequency::HOUR, "1h"));
        assert_eq!((report.time_zone.as_str(), report.time_format), ("UTC", TimeFormat::Offset));
    }
}

#[test]
fn a_column_without_a_name_is_passed_over_while_it_is_empty() {
    let expected = observations(&load_text(WIDE, &hourly()).expect("a frame"));
    for end in [",", ",,,", ",\r"] {
        let content = WIDE.replace('\n', &format!("{end}\n"));
        assert_eq!(observations(&load_text(&content, &hourly()).expect("a frame")), expected, "{end}");
    }
    // In the header alone; and the time may be without a name.
    let content = WIDE.replacen('\n', ",\n", 1).replacen("time", "", 1);
    assert_eq!(observations(&load_text(&content, &hourly()).expect("a frame")), expected);
}

#[test]
fn a_column_without_a_name_is_nobodys_where_series_are_declared() {
    let values = vec!["a".to_owned()];
    let config = LoadConfig { layout: Some(Layout::Wide { values }), ..hourly() };
    let loaded = load_text(",time,a\n0,2024-01-01T00:00Z,1\n1,2024-01-01T01:00Z,2\n", &config).expect("a frame");
    assert_eq!(observations(&loaded), ["a 01T00 1", "a 01T01 2"]);
}

#[test]
fn nul_is_in_no_name_and_in_nothing_that_is_quoted() {
    let csv = LoadConfig { format: Some(Format::Csv), ..hourly() };
    let wide = "time,a\n2024-01-01T00:00Z,x\0y\n2024-01-01T01:00Z,1\n";
    let loaded = load_text(wide, &csv).expect("a frame");
    assert_eq!(rejections(&loaded), ["unparsable_value 2 a x\u{fffd}y"]);
    check_error(&wide.replace(",a", ",a\0"), &csv, " has NUL in the name of column 2");

    let long = "series,valid_time,value,site\na\0,2024-01-01T00:00Z,1,south\na,2024-01-01T00:00Z,2,no\0rth\n";
    let loaded = load_text(long, &LoadConfig { attributes: vec!["site".to_owned()], ..csv }).expect("a frame");
    assert_eq!(observations(&loaded), ["a 01T00 2"]);
    assert_eq!(rejections(&loaded), ["missing_series 2 series a\u{fffd}"]);
    assert_eq!(loaded.attributes[0]["site"], "no\u{fffd}rth");
}

#[test]
fn names_of_other_libraries_are_known() {
    for header in ["unique_id,ds,y", "item_id,timestamp,target"] {
        let content = LONG.replace("series,valid_time,value", header);
        assert_eq!(load_text(&content, &hourly()).expect("a frame").frame.n_rows(), 5);
    }
    let layout =
        Layout::Long { series: "id".into(), time: Some("t".into()), value: "kw".into(), available_at: None, sd: None };
    let config = LoadConfig { layout: Some(layout), ..hourly() };
    assert_eq!(
        load_text(&LONG.replace("series,valid_time,value", "id,t,kw"), &config).expect("a frame").frame.n_rows(),
        5
    );
}

#[test]
fn a_declared_time_column_may_stand_anywhere() {
    let content = "a,when\n1,2024-01-01T00:00Z\n2,2024-01-01T01:00Z\n";
    let config = LoadConfig { time_column: Some("when".into()), ..hourly() };
    assert_eq!(observations(&load_text(content, &config).expect("a frame")), ["a 01T00 1", "a 01T01 2"]);
    let content = content.replace("when", "Timestamp");
    assert_eq!(observations(&load_text(&content, &hourly()).expect("a frame")), ["a 01T00 1", "a 01T01 2"]);
}

#[test]
fn parquet_is_read_with_typed_and_with_text_times() {
    let folder = Folder::new();
    let micros = Int64Chunked::from_vec("time".into(), (0..3).map(|hour| hour * 3_600_000_000).collect());
    let utc = micros.clone().into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_column();
    let naive = micros.into_datetime(TimeUnit::Microseconds, None).into_column();
    let text = Column::new("time".into(), ["1970-01-01 00:00", "1970-01-01 01:00", "1970-01-01 02:00"]);
    for (time, format) in [(utc, TimeFormat::Offset), (naive, TimeFormat::Local), (text, TimeFormat::Local)] {
        let values = Column::new("a".into(), [Some(1.0), None, Some(f64::NAN)]);
        let counts = Column::new("b".into(), [1_i64, (1 << 53) + 1, 3]);
        let mut table = DataFrame::new(3, vec![time, values, counts]).expect("a table");
        let path = folder.file("a.parquet", "");
        ParquetWriter::new(fs::File::create(&path).expect("a file")).finish(&mut table).expect("a file");
        let loaded = load(&path, &LoadConfig::default()).expect("a frame");
        assert_eq!(observations(&loaded), ["a 01T00 1", "b 01T00 1", "b 01T02 3"]);
        assert_eq!(rejections(&loaded), ["integer_too_large 2 b 9007199254740993", "not_finite 3 a NaN"]);
        assert_eq!(loaded.report.time_format, format);
    }
}

#[test]
fn a_gzipped_file_is_read_whatever_its_name() {
    let folder = Folder::new();
    let path = folder.file("tourism.bin", crate::demo::TOURISM.bytes);
    let loaded = load(&path, &LoadConfig::default()).expect("a frame");
    assert_eq!((loaded.frequency, loaded.frame.n_rows()), (Frequency::Month, 228 * 28));
    let limits = Limits { n_bytes_max: 90_000, ..Limits::default() };
    let limited = load(&path, &LoadConfig { limits, ..LoadConfig::default() });
    assert!(matches!(limited, Err(Error::TooManyBytes { limit: 90_000, .. })), "it has 97 kB when unpacked");
}

#[test]
fn line_numbers_survive_blank_lines_byte_order_marks_and_carriage_returns() {
    let content = "\u{feff}time,a\r\n2024-01-01T00:00Z,1\r\n\r\n2024-01-01T01:00Z,x\r\n\r\n";
    let loaded = load_text(content, &hourly()).expect("a frame");
    assert_eq!(rejections(&loaded), ["unparsable_value 4 a x"]);
    assert_eq!((loaded.report.rows_read, loaded.report.n_gaps), (2, 0));
}

#[test]
fn line_numbers_are_right_far_into_a_large_file() {
    let mut content = String::from("time,a,b\n");
    let start: DateTime<Utc> = "2000-01-01T00:00:00Z".parse().expect("an instant");
    for row in 0..100_000 {
        let value = if row == 98_765 { "x" } else { "1.25" };
        let time = Frequency::HOUR.advance(start, row, Tz::UTC).format("%FT%TZ");
        content.push_str(&format!("{time},{value},2\n"));
    }
    let loaded = load_text(&content, &hourly()).expect("a frame");
    assert_eq!(rejections(&loaded), ["unparsable_value 98767 a x"]);
    assert_eq!(loaded.report.accepted, 199_999);
}

#[test]
fn bad_cells_are_rejected_and_the_rest_is_taken() {
    let content = "time,a,b\n\
        2024-01-01T00:00Z,n/a,1\n2024-01-01T01:00Z,NaN,2\n2024-01-01T02:00Z,inf,3\n\
        2024-01-01T03:00Z,9007199254740993,4\n2024-01-01T04:00Z,9007199254740992,\n";
    let loaded = load_text(content, &hourly()).expect("a frame");
    assert_eq!(
        rejections(&loaded),
        [
            "unparsable_value 2 a n/a",
            "not_finite 3 a NaN",
            "not_finite 4 a inf",
            "integer_too_large 5 a 9007199254740993"
        ]
    );
    assert_eq!((loaded.report.accepted, loaded.report.n_gaps, loaded.report.n_lost()), (5, 1, 4));
    assert_eq!(loaded.report.rejected[0].series.as_deref(), Some("a"));
    assert_eq!(loaded.report.rejected[0].file, "a.csv");
}

#[test]
fn bad_times_are_rejected_as_rows() {
    let content = "time,a,b\n2024-01-01T00:00Z,1,2\nsoon,3,4\n,5,6\n2024-01-01T01:30Z,7,8\n2024-01-01T02:00Z,9,10\n";
    let loaded = load_text(content, &hourly()).expect("a frame");
    assert_eq!(
        rejections(&loaded),
        ["unparsable_time 3 time soon", "unparsable_time 4 time ", "off_grid 5 time 2024-01-01T01:30Z"]
    );
    assert_eq!(loaded.report.rejected[0].series, None);
    assert_eq!(loaded.report.accepted, 4);
}

#[test]
fn wall_times_that_occur_twice_or_never_are_rejected() {
    let content = "time,a\n2023-03-26 01:00,1\n2023-03-26 02:00,2\n2023-03-26 03:00,3\n\
        2023-10-29 01:00,4\n2023-10-29 02:00,5\n2023-10-29 03:00,6\n";
    let loaded = load_text(content, &in_madrid()).expect("a frame");
    assert_eq!(
        rejections(&loaded),
        ["nonexistent_local_time 3 time 2023-03-26 02:00", "ambiguous_local_time 6 time 2023-10-29 02:00"]
    );
    assert_eq!(observations(&loaded), ["a 26T00 1", "a 26T01 3", "a 28T23 4", "a 29T02 6"]);
    assert_eq!(loaded.report.time_zone, "Europe/Madrid");
}

const REPEATED: &str = "time,a,b\n2024-01-01T00:00Z,1,1\n2024-01-01T00:00Z,1,2\n2024-01-01T01:00Z,3,3\n";

#[test]
fn different_values_for_one_time_are_both_rejected() {
    let loaded = load_text(REPEATED, &hourly()).expect("a frame");
    assert_eq!(observations(&loaded), ["a 01T00 1", "a 01T01 3", "b 01T01 3"]);
    assert_eq!(rejections(&loaded), ["duplicate_conflict 2 b 1", "duplicate_equal 3 a 1", "duplicate_conflict 3 b 2"]);
    assert_eq!(loaded.report.n_lost(), 2);
}

#[test]
fn the_first_or_the_last_duplicate_is_kept_on_request() {
    for (duplicates, kept) in [(Duplicates::KeepFirst, "b 01T00 1"), (Duplicates::KeepLast, "b 01T00 2")] {
        let loaded = load_text(REPEATED, &LoadConfig { duplicates, ..hourly() }).expect("a frame");
        assert_eq!(observations(&loaded), ["a 01T00 1", "a 01T01 3", kept, "b 01T01 3"]);
        assert_eq!(loaded.report.count(DuplicateConflict), 1);
    }
}

#[test]
fn revisions_are_no_duplicates() {
    let content = "series,valid_time,value,available_at,sd\n\
        a,2024-01-01T00:00Z,1,2024-01-01T01:00Z,0.5\na,2024-01-01T00:00Z,2,2024-01-02T01:00Z,\n\
        a,2024-01-01T01:00Z,3,,-1\na,2024-01-01T02:00Z,4,later,\na,2024-01-01T03:00Z,5,,\n,2024-01-01T03:00Z,6,,\n";
    let loaded = load_text(content, &hourly()).expect("a frame");
    let rows: Vec<_> = loaded.frame.rows().map(|row| (row.value, row.available_at.is_some(), row.sd)).collect();
    assert_eq!(rows, [(1.0, true, Some(0.5)), (2.0, true, None), (5.0, false, None)]);
    assert_eq!(
        rejections(&loaded),
        ["invalid_sd 4 sd -1", "unparsable_time 5 available_at later", "missing_series 7 series "]
    );
}

#[test]
fn columns_of_a_long_table_may_stand_in_any_order() {
    let content = "available_at,sd,series,time,value\n2024-01-02T00:00Z,0.5,a,2024-01-01T00:00Z,1\n";
    let loaded = load_text(content, &hourly()).expect("a frame");
    assert_eq!(observations(&loaded), ["a 01T00 1"]);
    assert!(loaded.frame.rows().all(|row| row.available_at.is_some() && row.sd == Some(0.5)));
}

#[test]
fn month_ends_move_to_the_start_of_their_month() {
    let content = "date,a\n2024-01-31,1\n2024-02-29,2\n2024-03-31,3\n2024-04-30,4\n";
    for frequency in [None, Some(Frequency::Month)] {
        let loaded = load_text(content, &LoadConfig { frequency, ..LoadConfig::default() }).expect("a frame");
        assert_eq!(loaded.report.frequency, "1mo");
        assert!(loaded.report.last_days_moved);
        let starts: Vec<_> = loaded.frame.rows().map(|row| row.valid_time.format("%m-%d").to_string()).collect();
        assert_eq!(starts, ["01-01", "02-01", "03-01", "04-01"]);
    }
    let config = LoadConfig { frequency: Some(Frequency::Month), ..LoadConfig::default() };
    let loaded = load_text(&format!("{content}2024-05-30,5\n"), &config).expect("a frame");
    assert_eq!(rejections(&loaded), ["off_grid 6 date 2024-05-30"]);
}

#[test]
fn weeks_take_the_day_that_the_file_has() {
    let content = "date,a\n2002-01-01,1\n2002-01-08,2\n2002-01-15,3\n";
    for frequency in [None, Some(Frequency::WEEK)] {
        let loaded = load_text(content, &LoadConfig { frequency, ..LoadConfig::default() }).expect("a frame");
        assert_eq!(loaded.report.frequency, "1w-tue");
    }
}

#[test]
fn a_constant_series_and_one_without_values_survive() {
    let content = "time,constant,empty\n2024-01-01T00:00Z,1,\n2024-01-01T01:00Z,1,\n2024-01-01T02:00Z,1,\n";
    let loaded = load_text(content, &LoadConfig::default()).expect("a frame");
    assert_eq!(loaded.frame.series(), ["constant", "empty"]);
    assert_eq!((loaded.report.accepted, loaded.report.n_gaps), (3, 3));
    let content = "series,time,value\na,2024-01-01T00:00Z,1\nb,2024-01-01T00:00Z,\n";
    assert_eq!(load_text(content, &hourly()).expect("a frame").frame.series(), ["a", "b"]);
}

#[test]
fn whole_files_that_cannot_be_used_are_refused() {
    let any = LoadConfig::default();
    check_error("", &any, " is empty");
    check_error("time,a\n", &any, " has a header but no rows");
    check_error(
        "time\n2024-01-01\n",
        &any,
        " has only one column, `time`; fields must be separated by commas, or their separator declared",
    );
    check_error(
        "time;a\n1;2\n",
        &any,
        " has only one column, `time;a`; fields must be separated by commas, or their separator declared",
    );
    check_error("time,a,a\n2024-01-01,1,2\n", &any, " has two columns named `a`");
    check_error("time,a,\n2024-01-01,1,\n2024-01-02,1,2\n", &any, " has values in column 3, which has no name");
    check_error(",time,a\n0,2024-01-01,1\n1,2024-01-02,2\n", &any, " has values in column 1, which has no name");
    check_error("x,a\n1,2\n3,4\n", &any, " has no time column: line 2, column `x` is `1`");
    check_error("time,a\nPK\u{3}\u{4}\0,1\n", &any, " is neither CSV, NDJSON, Parquet nor Arrow");
    check_error("time,a\n2024-01-01T00:00Z,1,2\n", &any, ", line 2 has 3 fields, the header has 2");
    check_error(
        "time,a\n2024-01-01,1\n2024-01-02,1\n2024-01-03 00:00,2\n01/04/2024,3\n",
        &any,
        ", column `time` mixes time formats: line 2 has a date (`2024-01-01`), line 4 has a local time (`2024-01-03 00:00`)",
    );
    check_error(
        "time,a\n01/02/2024,1\n02/02/2024,2\n",
        &any,
        ", line 2, column `time`: `01/02/2024` is a date in an order that is not certain; times must be ISO 8601",
    );
    let config = LoadConfig { time_column: Some("when".into()), ..LoadConfig::default() };
    check_error(WIDE, &config, " has no column `when`");
    check_error("time,a\n2024-01-01,\n2024-01-02,\n", &hourly(), " has no valid value in 2 rows");
    check_error(
        "time,a\n2024-01-01,x\n2024-01-02,\n",
        &hourly(),
        " has no valid value in 2 rows; the first problem is unparsable_value in a.csv, line 2, column `a`: `x`",
    );
    check_error(
        "time,a\n2024-01-01 00:10,1\n2024-01-01 01:10,2\n2024-01-01 02:00,3\n",
        &hourly(),
        ": 2 of 3 times are off the 1h grid in UTC, the first is `2024-01-01 00:10:00 UTC` in line 2; \
         declare how to `resample` them if they are irregular",
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Path::new("nowhere/a.csv"), &LoadConfig::default()).expect_err("a refusal");
    assert!(matches!(error, Error::File { ref path, .. } if path.ends_with("a.csv")), "{error}");
}

#[test]
fn a_frequency_that_is_not_clear_is_not_guessed() {
    let content = "time,a\n2024-03-04,1\n2024-03-05,2\n2024-03-06,3\n";
    let error = load_text(content, &LoadConfig::default()).expect_err("a refusal").to_string();
    assert_eq!(error, "the frequency is not clear from 3 distinct times (it could be 1b or 1d); declare it");
}

#[test]
fn limits_are_kept() {
    let check = |limits: Limits, is_expected: fn(&Error) -> bool| {
        let error = load_text(WIDE, &LoadConfig { limits, ..hourly() }).expect_err("a refusal");
        assert!(is_expected(&error), "{error}");
    };
    check(Limits { n_columns_max: 2, ..Limits::default() }, |e| {
        matches!(e, Error::TooManyColumns { n_columns: 3, .. })
    });
    check(Limits { n_rows_max: 2, ..Limits::default() }, |e| matches!(e, Error::TooManyRows { limit: 2, .. }));
    check(Limits { n_cells_max: 8, ..Limits::default() }, |e| matches!(e, Error::TooManyCells { limit: 8, .. }));
    check(Limits { line_bytes_max: 20, ..Limits::default() }, |e| {
        matches!(e, Error::LineTooLong { line: 2, limit: 20, .. })
    });
    check(Limits { n_bytes_max: 20, ..Limits::default() }, |e| matches!(e, Error::TooManyBytes { limit: 20, .. }));
    let n_bytes_max = WIDE.len() as u64;
    let exact = Limits {
        n_columns_max: 3,
        n_rows_max: 3,
        n_cells_max: 9,
        n_bytes_max,
        line_bytes_max: 21,
        ..Limits::default()
    };
    assert!(load_text(WIDE, &LoadConfig { limits: exact, ..hourly() }).is_ok());
}

#[test]
fn a_hundred_thousand_columns_are_refused_from_the_header() {
    let header: Vec<String> = (0..100_000).map(|column| format!("c{column}")).collect();
    let content = format!("time,{}\n2024-01-01\n", header.join(","));
    let error = load_text(&content, &LoadConfig::default()).expect_err("a refusal");
    assert!(matches!(error, Error::TooManyColumns { n_columns: 100_001, limit: 10_000, .. }), "{error}");
}

#[test]
fn a_damaged_parquet_file_is_refused() {
    let path = Folder::new();
    let error = load(&path.file("a.parquet", "PAR1 and nothing else"), &hourly()).expect_err("a refusal");
    assert!(matches!(error, Error::Table { .. }), "{error}");
}

#[test]
fn the_report_has_stable_codes_in_json() {
    let report = load_text(REPEATED, &hourly()).expect("a frame").report;
    let json = serde_json::to_value(&report).expect("json");
    assert_eq!(json["n_rejected"], serde_json::json!({"duplicate_conflict": 2, "duplicate_equal": 1}));
    assert_eq!(json["rejected"][0]["reason"], "duplicate_conflict");
    assert_eq!((&json["frequency"], &json["time_format"]), (&"1h".into(), &"offset".into()));
    for reason in Reason::ALL {
        assert_eq!(serde_json::to_value(reason).expect("json"), reason.code());
    }
}

const NDJSON: &str = concat!(
    "{\"series\":\"b\",\"valid_time\":\"2024-01-01T00:00Z\",\"value\":1}\n",
    "{\"series\":\"a\",\"valid_time\":\"2024-01-01T00:00Z\",\"value\":2}\n",
    "{\"series\":\"b\",\"valid_time\":\"2024-01-01T01:00Z\",\"value\":\"3\"}\n",
    "{\"series\":\"a\",\"valid_time\":\"2024-01-01T01:00Z\",\"value\":null}\n",
    "{\"series\":\"b\",\"valid_time\":\"2024-01-01T02:00Z\",\"value\":5.0}\n",
    "{\"series\":\"a\",\"valid_time\":\"2024-01-01T02:00Z\",\"value\":6}\n",
);

#[test]
fn every_format_gives_the_same_observations() {
    let expected = observations(&load_text(LONG, &LoadConfig::default()).expect("a frame"));
    let body = format!("{{\"observations\":[{}]}}", NDJSON.trim_end().replace('\n', ","));
    let json = LoadConfig { format: Some(Format::Json), ..LoadConfig::default() };
    let packed = zstd(LONG.as_bytes());
    for (bytes, config) in [
        (NDJSON.as_bytes(), &LoadConfig::default()),
        (body.as_bytes(), &json),
        (&packed[..], &LoadConfig::default()),
        (&zstd(NDJSON.as_bytes())[..], &LoadConfig::default()),
    ] {
        let loaded = read(&[Input::bytes("body", bytes)], config).expect("a frame");
        assert_eq!(observations(&loaded), expected);
        let file = load(&Folder::new().file("a", bytes), config).expect("a frame");
        assert_eq!(observations(&file), expected);
    }
}

/// A frame of zstd that holds the bytes as they are (RFC 8878, sections 3.1.1.1 and 3.1.1.2).
fn zstd(bytes: &[u8]) -> Vec<u8> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    /// One segment, whose length follows in four bytes.
    const DESCRIPTOR: u8 = 0b1010_0000;
    const LAST_RAW_BLOCK: u32 = 1;
    let length = u32::try_from(bytes.len()).expect("short");
    let block = (LAST_RAW_BLOCK | (length << 3)).to_le_bytes();
    [&MAGIC[..], &[DESCRIPTOR], &length.to_le_bytes(), &block[..3], bytes].concat()
}

#[test]
fn a_packed_file_that_is_cut_off_is_refused() {
    let bytes = crate::demo::TOURISM.bytes;
    let path = Folder::new();
    for cut in [bytes.len() / 2, bytes.len() - 4] {
        let error = load(&path.file("cut.csv.gz", &bytes[..cut]), &LoadConfig::default()).expect_err("a refusal");
        assert!(matches!(error, Error::File { .. }), "{error}");
    }
}

#[test]
fn several_files_are_one_source_in_any_order() {
    let (header, rows) = LONG.split_once('\n').expect("a header");
    let lines: Vec<&str> = rows.lines().collect();
    let inputs: Vec<Input> = lines
        .chunks(2)
        .enumerate()
        .map(|(number, lines)| {
            Input::bytes(format!("{number}.csv"), format!("{header}\n{}\n", lines.join("\n")).into_bytes())
        })
        .collect();
    let whole = load_text(LONG, &hourly()).expect("a frame");
    for order in [[0, 1, 2], [2, 0, 1]] {
        let inputs = order.map(|index| inputs[index].clone());
        let loaded = read(&inputs, &hourly()).expect("a frame");
        assert_eq!(loaded.frame, whole.frame);
        assert_eq!((loaded.report.n_files, loaded.report.rows_read), (3, 6));
    }
}

#[test]
fn a_rejection_names_its_file_and_the_label_of_a_folder_is_a_column() {
    let mut north = Input::bytes("north.csv", &b"time,value\n2024-01-01T00:00Z,1\n2024-01-01T01:00Z,x\n"[..]);
    north.labels = vec![("series".to_owned(), "north".to_owned())];
    let south = Input {
        name: "south.csv".to_owned(),
        labels: vec![("series".to_owned(), "south".to_owned())],
        n_lines_before: 10,
        ..north.clone()
    };
    let loaded = read(&[north, south], &hourly()).expect("a frame");
    assert_eq!(observations(&loaded), ["north 01T00 1", "south 01T00 1"]);
    let places = loaded.report.rejected.iter().map(|r| format!("{} {}", r.file, r.line));
    assert_eq!(places.collect::<Vec<_>>(), ["north.csv 3", "south.csv 13"]);
}

#[test]
fn objects_without_members_are_no_values() {
    for text in ["{}", "{}\n\n{}\n", "{}\nnonsense\n"] {
        let error = read(&[Input::bytes("a", text.as_bytes())], &hourly()).expect_err("a refusal");
        assert!(matches!(error, Error::NoValidRows { n_rows, .. } if n_rows <= 1), "{error}");
    }
}

#[test]
fn an_element_of_a_body_is_pointed_at() {
    let body = r#"{"observations":[{"series":"a","time":"2024-01-01T00:00Z","value":9007199254740993},7]}"#;
    let config = LoadConfig { format: Some(Format::Json), may_be_empty: true, ..hourly() };
    let loaded = read(&[Input::bytes("body", body.as_bytes())], &config).expect("a report");
    let pointers: Vec<_> = loaded.report.rejected.iter().map(|r| (r.reason, r.pointer.as_deref())).collect();
    assert_eq!(pointers, [(IntegerTooLarge, Some("/observations/0/value")), (MalformedLine, Some("/observations/1"))]);
    assert_eq!(loaded.frame.n_rows(), 0);
}

#[test]
fn semicolons_commas_points_and_words_are_read_as_declared() {
    let numbers =
        NumberFormat { decimal_comma: true, thousands_separator: Some('.'), missing: vec!["-999".to_owned()] };
    let config = LoadConfig { separator: Some(b';'), numbers, ..hourly() };
    let content = "time;a\n2024-01-01T00:00Z;1.234,5\n2024-01-01T01:00Z;-999\n2024-01-01T02:00Z;1.5\n";
    let loaded = load_text(content, &config).expect("a frame");
    assert_eq!(observations(&loaded), ["a 01T00 1234.5"]);
    assert_eq!((loaded.report.n_gaps, rejections(&loaded)), (1, vec!["unparsable_value 4 a 1.5".to_owned()]));
}

#[test]
fn irregular_times_are_combined_as_declared() {
    let content = "time,a\n2024-01-01T00:10Z,1\n2024-01-01T00:50Z,5\n2024-01-01T01:07Z,2\n";
    for (rule, first) in [(Resample::Last, 5.0), (Resample::Mean, 3.0), (Resample::Sum, 6.0)] {
        let loaded = load_text(content, &LoadConfig { resample: Some(rule), ..hourly() }).expect("a frame");
        assert_eq!(observations(&loaded), [format!("a 01T00 {first}"), "a 01T01 2".to_owned()]);
        assert_eq!(loaded.report.n_combined, 1);
    }
    let config = LoadConfig { resample: Some(Resample::Mean), ..LoadConfig::default() };
    assert!(matches!(load_text(content, &config), Err(Error::ResampleNeedsFrequency)));
}

#[test]
fn values_outside_the_declared_range_are_noticed_or_rejected() {
    let bounds = forecast::Bounds { lower: Some(0.0), upper: Some(4.0) };
    let config = LoadConfig { bounds: [("a".to_owned(), bounds)].into(), ..hourly() };
    let loaded = load_text(WIDE, &config).expect("a frame");
    assert_eq!((loaded.frame.n_rows(), loaded.report.noticed.n_findings[&Notice::OutOfBounds]), (5, 1));
    let code: Code = "out_of_bounds".parse().expect("a code");
    assert_eq!(loaded.report.failures(&[code, "gap".parse().expect("a code")]).len(), 2);
    let loaded = load_text(WIDE, &LoadConfig { reject_out_of_bounds: true, ..config }).expect("a frame");
    assert_eq!((loaded.frame.n_rows(), rejections(&loaded)), (4, vec!["out_of_bounds 4 a 6".to_owned()]));
    assert_eq!(loaded.report.failures(&[code]), [code]);
}

#[test]
fn what_was_not_taken_can_be_corrected_and_loaded_again() {
    let content = "time,a,b\n2024-01-01T00:00Z,1,2\n2024-01-01T01:00Z,x,4\n2024-01-01T02:00Z,5,6\nsoon,7,8\n";
    let loaded = load_text(content, &hourly()).expect("a frame");
    assert_eq!(loaded.quarantine.n_rows(), 2);
    let folder = Folder::new();
    let path = folder.0.path().join("kept/rows.parquet");
    loaded.quarantine.write(&path).expect("a file");

    let again = load(&path, &LoadConfig { may_be_empty: true, ..hourly() }).expect("a report");
    assert_eq!(observations(&again), ["b 01T01 4"]);
    assert_eq!(rejections(&again), ["unparsable_value 1 a x", "unparsable_time 2 time soon"]);

    // A person corrects it with whatever reads Parquet.
    let mut table = ParquetReader::new(fs::File::open(&path).expect("a file")).finish().expect("a table");
    let reasons: Vec<_> = table.column("plumecast_reason").expect("reasons").str().expect("text").iter().collect();
    assert_eq!(reasons, [Some("unparsable_value"), Some("unparsable_time")]);
    table.with_column(Column::new("a".into(), ["3", "7"])).expect("corrected");
    table.with_column(Column::new("time".into(), ["2024-01-01T01:00Z", "2024-01-01T03:00Z"])).expect("corrected");
    ParquetWriter::new(fs::File::create(&path).expect("a file")).finish(&mut table).expect("a file");
    let corrected = load(&path, &hourly()).expect("a frame");
    assert_eq!(observations(&corrected), ["a 01T01 3", "a 01T03 7", "b 01T01 4", "b 01T03 8"]);
    assert_eq!(corrected.quarantine.n_rows(), 0);
}

#[test]
fn only_rows_that_lost_something_are_kept_back() {
    let loaded = load_text(REPEATED, &hourly()).expect("a frame");
    assert_eq!(loaded.quarantine.n_rows(), 2, "both rows of the conflict");
    let kept = LoadConfig { duplicates: Duplicates::KeepLast, ..hourly() };
    assert_eq!(load_text(REPEATED, &kept).expect("a frame").quarantine.n_rows(), 0);
}

/// Lines of a file with gaps, repeated rows and bad cells.
fn any_lines() -> impl Strategy<Value = Vec<String>> {
    let cell = prop_oneof![
        6 => (-1_000..1_000_i32).prop_map(|value| value.to_string()),
        1 => Just(String::new()),
        1 => Just("x".to_owned()),
    ];
    let line = (0..48_u32, cell.clone(), cell)
        .prop_map(|(hour, a, b)| format!("2024-01-{:02}T{:02}:00Z,{a},{b}", hour / 24 + 1, hour % 24));
    prop::collection::vec(line, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn in_which_files_and_order_rows_come_makes_no_difference(
        lines in any_lines(), cuts in prop::collection::vec(0..60_usize, 0..4), order in any::<u64>(),
    ) {
        let part = |number: usize, lines: &[String]| {
            Input::bytes(format!("{number}.csv"), format!("time,a,b\n{}\n", lines.join("\n")).into_bytes())
        };
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(lines.len())).chain([0, lines.len()]).collect();
        ends.sort_unstable();
        let parts = ends.windows(2).filter(|ends| ends[0] < ends[1]).map(|ends| &lines[ends[0]..ends[1]]);
        let mut parts: Vec<Input> = parts.enumerate().map(|(number, lines)| part(number, lines)).collect();
        let n_parts = parts.len();
        parts.rotate_left(order as usize % n_parts);
        match (read(&[part(0, &lines)], &hourly()), read(&parts, &hourly())) {
            (Ok(one), Ok(several)) => {
                prop_assert_eq!(&one.frame, &several.frame);
                prop_assert_eq!(&one.report.n_rejected, &several.report.n_rejected);
                prop_assert_eq!(&one.report.noticed.n_findings, &several.report.noticed.n_findings);
                prop_assert_eq!(one.quarantine.n_rows(), several.quarantine.n_rows());
            }
            (Err(one), Err(several)) => {
                let refused = |error: &Error| matches!(error, Error::NoValidRows { .. });
                prop_assert!(refused(&one) && refused(&several));
            }
            (one, several) => prop_assert!(false, "{:?} {:?}", one.err(), several.err()),
        }
    }

    #[test]
    fn a_shuffled_file_loads_like_the_sorted_one(lines in any_lines(), seed in any::<u64>()) {
        let mut sorted = lines.clone();
        sorted.sort();
        let mut shuffled = lines;
        shuffled.sort_by_key(|line| {
            let hash = line.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            hash.rotate_left(17)
        });
        let load = |lines: &[String]| load_text(&format!("time,a,b\n{}\n", lines.join("\n")), &hourly());
        match (load(&sorted), load(&shuffled)) {
            (Ok(sorted), Ok(shuffled)) => {
                prop_assert_eq!(&sorted.frame, &shuffled.frame);
                prop_assert_eq!(&sorted.report.n_rejected, &shuffled.report.n_rejected);
                prop_assert_eq!(sorted.report.n_unordered, 0);
                let cells = 2 * sorted.report.rows_read;
                let lost: u64 = sorted.report.n_rejected.values().sum();
                prop_assert_eq!(sorted.report.accepted + sorted.report.n_gaps + lost, cells, "every cell is accounted for");
            }
            (Err(sorted), Err(shuffled)) => {
                let refused = |error: &Error| matches!(error, Error::NoValidRows { .. });
                prop_assert!(refused(&sorted) && refused(&shuffled));
            }
            (sorted, shuffled) => prop_assert!(false, "{:?} {:?}", sorted.err(), shuffled.err()),
        }
    }
}

#[test]
fn what_is_no_number_in_a_row_off_the_grid_is_no_gap() {
    let text = "time,b,a\n2024-01-01T00:00Z,1,2\n2024-01-01T00:30Z,NaN,6\n2024-01-01T01:00Z,3,4\n";
    let report = load_text(text, &hourly()).expect("a frame").report;
    assert_eq!((report.n_gaps, report.accepted), (0, 4));
    assert_eq!(report.n_rejected.iter().collect::<Vec<_>>(), [(&OffGrid, &1)]);
}

#[test]
fn of_several_panels_in_a_file_one_is_read() {
    let of_site = |site: &str| LoadConfig { rows: [("site".to_owned(), site.to_owned())].into(), ..hourly() };
    // Wide: the column is no series. What is wrong in rows of the others is not this panel's.
    let wide = "site,time,a,b\nnorth,2024-01-01T00:00Z,1,2\nsouth,x,5,y\n\nnorth,2024-01-01T01:00Z,3,z\nsouth,2024-01-01T00:00Z,7,8\n";
    let loaded = load_text(wide, &of_site("north")).expect("a frame");
    assert_eq!(loaded.frame.series(), ["a", "b"]);
    let report = &loaded.report;
    assert_eq!((report.rows_read, report.accepted), (2, 3));
    assert_eq!(report.n_rejected.iter().collect::<Vec<_>>(), [(&UnparsableValue, &1)]);
    assert_eq!((report.rejected[0].line, report.rejected[0].column.as_str()), (5, "b"));
    let south = load_text(wide, &of_site("south")).expect("a frame").report;
    assert_eq!((south.rows_read, south.accepted, south.n_rejected[&UnparsableTime]), (2, 2, 1));

    // Long, in runs and mixed: as a file would say it that has these rows alone.
    let header = "series,valid_time,value,site\n";
    let row = |series: &str, hour: usize, site: &str| format!("{series},2024-01-01T{hour:02}:00Z,{hour},{site}\n");
    let rows: Vec<String> = (0..3)
        .flat_map(|hour| ["north", "south"].map(|site| row("a", hour, site)))
        .chain((0..3).map(|hour| row("b", hour, "north")))
        .collect();
    let mixed = load_text(&format!("{header}{}", rows.concat()), &of_site("north")).expect("a frame");
    let alone: String = rows.iter().filter(|row| row.contains("north")).cloned().collect();
    let alone = load_text(&format!("{header}{alone}"), &hourly()).expect("a frame");
    assert_eq!(mixed.frame, alone.frame);
    assert_eq!(mixed.report.rows_read, alone.report.rows_read);

    check_error(WIDE, &of_site("north"), " has no column `site`");
    let nowhere = load_text(wide, &of_site("west")).expect_err("no rows");
    assert!(matches!(nowhere, Error::NoValidRows { n_rows: 0, .. }), "{nowhere}");
    let empty = load_text(wide, &LoadConfig { may_be_empty: true, ..of_site("west") }).expect("nothing new");
    assert_eq!((empty.report.rows_read, empty.report.accepted), (0, 0));
}

#[test]
fn attributes_are_those_of_the_series_and_what_changes_is_noticed() {
    let config = LoadConfig { attributes: vec!["site".to_owned(), "kw".to_owned()], ..hourly() };
    let of = |loaded: &Loaded| -> Vec<String> {
        let named = |(series, said): (&String, &BTreeMap<String, String>)| format!("{series} {said:?}");
        loaded.frame.series().iter().zip(&loaded.attributes).map(named).collect()
    };
    // In runs and mixed; a row that is rejected says what it says, an empty cell nothing.
    let header = "series,valid_time,value,site,kw\n";
    let rows = ["b,2024-01-01T00:00Z,1,south,7\n", "b,2024-01-01T01:00Z,x,,7\n", "a,2024-01-01T00:00Z,2,north,\n"];
    let expected = ["a {\"site\": \"north\"}", "b {\"kw\": \"7\", \"site\": \"south\"}"];
    for order in [[0, 1, 2], [0, 2, 1], [1, 2, 0]] {
        let text: String = order.map(|row| rows[row]).concat();
        let loaded = load_text(&format!("{header}{text}"), &config).expect("a frame");
        assert_eq!(of(&loaded), expected);
        assert!(loaded.report.noticed.n_findings.is_empty(), "{:?}", loaded.report.noticed);
    }
    let moved = format!("{header}{}b,2024-01-01T01:00Z,2,north,7\nb,2024-01-01T02:00Z,2,north,7\n", rows[0]);
    let loaded = load_text(&moved, &config).expect("a frame");
    assert_eq!(of(&loaded), ["b {\"kw\": \"7\", \"site\": \"north\"}"]);
    let Findings { n_findings, findings } = &loaded.report.noticed;
    assert_eq!(n_findings.iter().collect::<Vec<_>>(), [(&Notice::AttributeChanged, &1)]);
    let told = "attribute_changed in `b`: `site` is `south` and then `north`; the last one counts";
    assert_eq!(findings[0].to_string(), told);

    check_error(WIDE, &config, " has no column `site`");
    let wide = LoadConfig { attributes: vec!["a".to_owned()], ..hourly() };
    let told = ": attributes are columns of a table with a row per observation; this one has a column per series";
    check_error(WIDE, &wide, told);
}
