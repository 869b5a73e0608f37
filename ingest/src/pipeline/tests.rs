//! Declarations, the files that they name, and what a run reads of them.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use polars::prelude::{Column, DataFrame, ParquetWriter};
use tempfile::TempDir;

use super::*;
use crate::{Content, Error, Finding, Input, Loaded, Notice, read};

const MINIMAL: &str = "panel = \"p\"\nsource = \"a.csv\"\nfrequency = \"1h\"\n";

fn pipeline(text: &str) -> Pipeline {
    Pipeline::from_toml(text, "test").expect("a declaration")
}

#[test]
fn a_declaration_is_the_same_in_toml_and_in_json() {
    let text = r#"
        name = "meters"
        panel = "city"
        source = "in/*.csv"
        format = "csv"
        shape = "long"
        separator = ";"
        decimal_comma = true
        thousands_separator = "."
        missing = ["-999", "n/a"]
        time_zone = "Europe/Madrid"
        frequency = "1h"
        holidays = "ES"
        duplicates = "keep_last"
        resample = "mean"
        out_of_bounds = "reject"
        publication_delay_seconds = 60
        fail_on = ["gap", "unparsable_value"]
        rows = { region = "west" }

        [columns]
        time = "when"
        series = "meter"
        value = "kwh"
        available_at = "published"
        attributes = ["site"]

        [checks]
        gap_steps = 3

        [series."*"]
        unit = "kWh"
        lower_bound = 0.0
        attributes = { tariff = "night", kw = 3.5, is_main = true }
    "#;
    let declared = pipeline(text);
    let json = serde_json::to_value(&declared).expect("json");
    assert_eq!(serde_json::from_value::<Pipeline>(json).expect("a declaration"), declared);
    let config = declared.load_config().expect("a configuration");
    assert_eq!((config.separator, config.time_zone), (Some(b';'), chrono_tz::Europe::Madrid));
    assert_eq!(config.bounds["*"].lower, Some(0.0));
    assert_eq!(config.attributes, ["site"]);
    assert_eq!(config.rows["region"], "west");
    assert_eq!(declared.series("a").expect("declared").attributes["kw"], serde_json::json!(3.5));
    let nested = text.replace("3.5", "[3.5]");
    let refused = Pipeline::from_toml(&nested, "test").expect_err("a refusal").to_string();
    assert!(refused.contains("an attribute that is no text, number or truth value"), "{refused}");
    assert_eq!(config.checks.gap_steps, 3);
    let layout = Layout::Long {
        series: "meter".into(),
        time: Some("when".into()),
        value: "kwh".into(),
        available_at: Some("published".into()),
        sd: None,
    };
    assert_eq!(config.layout, Some(layout));
    let minimal = pipeline(MINIMAL);
    assert_eq!((minimal.name.as_str(), minimal.load_config().expect("a configuration").layout), ("test", None));
}

#[test]
fn what_is_wrong_in_a_declaration_is_named() {
    let check = |more: &str, expected: &str| {
        let error = Pipeline::from_toml(&format!("{MINIMAL}{more}"), "test").expect_err("a refusal").to_string();
        assert!(error.contains(expected), "{more}: {error}");
    };
    check("colour = 1", "colour");
    check("time_zone = \"Madrid\"", "`time_zone` must be an IANA name");
    check("fail_on = [\"gaps\"]", "`fail_on` `gaps` is none of the codes");
    check("separator = \"é\"", "`separator` must be one ASCII character");
    check("decimal_comma = true", "`separator` must differ from the decimal mark");
    check("thousands_separator = \".\"", "`thousands_separator`");
    check("name = \"../x\"", "`name`");
    check("part_bytes = 0", "`part_bytes` must be at least 1");
    check("shape = \"wide\"\n[columns]\nvalue = \"v\"", "`columns` of a wide table");
    check("shape = \"long\"\n[columns]\nvalues = [\"v\"]", "`columns` of a long table");
    check("[series.a]\nlower_bound = 2\nupper_bound = 1", "`series` has a lower bound");
    check("[series.a]\nupper_bound = inf", "`series` has a bound that is not a finite number");
    check("[series.a]\nlower_bound = nan", "`series` has a bound that is not a finite number");
    assert!(Pipeline::from_toml("panel = \"p\"", "test").is_err(), "a source is missing");
}

const QUERY: &str = "panel = \"p\"\n[source]\nurl_variable = \"METERS_URL\"\nquery = \"select 1\"\n";

#[test]
fn a_query_is_declared_in_place_of_files() {
    let declared = pipeline(&format!("{QUERY}watermark = \"changed_at\"\noverlap_seconds = 60\n"));
    let Source::Query(query) = &declared.source else { panic!("a query") };
    assert_eq!((query.watermark.as_deref(), query.timeout_seconds), (Some("changed_at"), 600));
    assert_eq!(declared.source.to_string(), "query of $METERS_URL");
    let json = serde_json::to_value(&declared).expect("json");
    assert_eq!(serde_json::from_value::<Pipeline>(json).expect("a declaration"), declared);

    let check = |text: &str, expected: &str| {
        let error = Pipeline::from_toml(text, "test").expect_err("a refusal").to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check(&format!("{QUERY}colour = 1"), "colour");
    check("panel = \"p\"\n[source]\nquery = \"select 1\"", "url_variable");
    check("panel = \"p\"\nsource = 1", "the name of files or objects, or a table with `objects` or a `query`");
    check(&QUERY.replace("METERS_URL", "postgres://me:secret@host/db"), "must name an environment variable");
    check(&QUERY.replace("select 1", " "), "must have a `select`");
    check(&format!("{QUERY}watermark = \"\""), "must name a column");
    check(&format!("{QUERY}overlap_seconds = 1"), "goes with a `watermark`");
    check(&format!("{QUERY}timeout_seconds = 0"), "`timeout_seconds` from 1 to 86400");
    check(&format!("separator = \";\"\n{QUERY}"), "`separator` is for files");
    check(&format!("part_bytes = 1\n{QUERY}"), "`part_bytes` is for files");
    check(&format!("resample = \"sum\"\n{QUERY}watermark = \"t\""), "`resample` needs all rows");
}

#[test]
fn the_same_answer_is_not_read_again() {
    let declared = pipeline(QUERY);
    let config = LoadConfig { frequency: Some("1h".parse().expect("hours")), ..declared.load_config().expect("one") };
    let answer = |digest: &str, largest: Option<&str>, has_rows| Answer {
        largest: largest.map(str::to_owned),
        digest: digest.to_owned(),
        has_rows,
    };
    let run = |before: &Watermark, answer: Answer| {
        let plan = before.plan_answer(Input::bytes("query", DAY.as_bytes()), answer);
        let loaded = (!plan.inputs.is_empty()).then(|| read(&plan.inputs, &config).expect("a frame"));
        let (next, findings) = plan.finish(loaded.as_ref()).expect("nobody writes");
        (loaded.is_some(), next, findings.len())
    };
    let (is_read, first, _) = run(&Watermark::default(), answer("1", Some("7"), true));
    assert!(is_read && first.end() == Some("7"));
    assert_eq!(run(&first, answer("1", Some("7"), true)), (false, first.clone(), 0));
    assert_eq!(run(&first, answer("0", None, false)), (false, first.clone(), 0), "no rows");
    let (is_read, second, _) = run(&first, answer("2", None, true));
    assert!(is_read && second.end() == Some("7"), "rows without a value of the watermark");
    let json = serde_json::to_value(&second).expect("json");
    assert_eq!(serde_json::from_value::<Watermark>(json).expect("a watermark"), second);
}

/// Later than any file was changed.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 200 * YEAR
}

const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// A folder with files.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: &(impl AsRef<[u8]> + ?Sized)) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn names(&self, source: &str) -> Result<Vec<String>, Error> {
        let files = Files::find(source, self.0.path(), true, 3)?;
        Ok(files.iter().map(|file| file.name.clone()).collect())
    }

    fn plan_at(&self, watermark: &Watermark, pipeline: &Pipeline, settle: Duration) -> Plan {
        let Source::Files(source) = &pipeline.source else { panic!("no files") };
        let files = Files::find(source, self.0.path(), true, 100).expect("files");
        let config = pipeline.load_config().expect("a configuration");
        watermark.plan(&files, &config, now(), settle).expect("a plan")
    }

    fn plan(&self, watermark: &Watermark, pipeline: &Pipeline) -> Plan {
        self.plan_at(watermark, pipeline, Duration::ZERO)
    }

    /// Runs a pipeline: what was read, what is remembered and what was noticed.
    fn run(&self, watermark: &Watermark, pipeline: &Pipeline) -> (Option<Loaded>, Watermark, Vec<Finding>) {
        let plan = self.plan(watermark, pipeline);
        let config = pipeline.load_config().expect("a configuration");
        let loaded = (!plan.inputs.is_empty()).then(|| read(&plan.inputs, &config).expect("a frame"));
        let (next, findings) = plan.finish(loaded.as_ref()).expect("nobody writes");
        (loaded, next, findings)
    }
}

#[test]
fn objects_are_declared_by_their_address_or_with_variables() {
    let named = pipeline("panel = \"p\"\nsource = \"s3://b/in/*.csv\"");
    assert_eq!(named.source, Source::Objects(Objects::new("s3://b/in/*.csv")));
    let text = "panel = \"p\"\nsource = { objects = \"s3://b/in/\", endpoint_variable = \"STORE\" }";
    let declared = pipeline(text);
    for pipeline in [&named, &declared] {
        let json = serde_json::to_value(pipeline).expect("json");
        assert_eq!(&serde_json::from_value::<Pipeline>(json).expect("a declaration"), pipeline);
    }
    assert_eq!(declared.source.to_string(), "s3://b/in/");
    let refusal =
        |from: &str, to: &str| Pipeline::from_toml(&text.replace(from, to), "test").expect_err("a refusal").to_string();
    assert!(refusal("STORE", "http://host").contains("must name environment variables"));
    assert!(refusal("s3://b", "s3://").contains("must name a bucket"));
    assert!(refusal("endpoint_variable", "secret").contains("unknown field `secret`"));
}

#[test]
fn a_source_is_a_file_a_folder_or_a_pattern_and_stays_inside() {
    let folder =
        Folder::new(&[("a/1.csv", ""), ("a/b/2.csv", ""), ("a/.hidden", ""), ("a/_tmp.csv", ""), ("c.csv", "")]);
    assert_eq!(folder.names("c.csv").expect("files"), ["c.csv"]);
    assert_eq!(folder.names("a").expect("files"), ["a/1.csv", "a/b/2.csv"]);
    assert_eq!(folder.names("a/*.csv").expect("files"), ["a/1.csv"]);
    assert_eq!(folder.names("**/*.csv").expect("files"), ["a/1.csv", "a/b/2.csv", "c.csv"]);
    assert!(matches!(folder.names("d/*.csv"), Err(Error::NoFiles { .. })));
    assert!(matches!(folder.names("d.csv"), Err(Error::File { .. })));
    assert!(matches!(folder.names("[a"), Err(Error::Pattern { .. })));
    for outside in ["../c.csv", "/etc/passwd", "a/../../c.csv"] {
        assert!(matches!(folder.names(outside), Err(Error::OutsideFolder { .. })), "{outside}");
    }
    std::os::unix::fs::symlink("/etc/hostname", folder.0.path().join("link.csv")).expect("a link");
    assert!(matches!(folder.names("link.csv"), Err(Error::OutsideFolder { .. })));
    assert!(matches!(folder.names("*.csv"), Err(Error::OutsideFolder { .. })));
    folder.write("a/3.csv", "");
    folder.write("a/4.csv", "");
    assert!(matches!(folder.names("a"), Err(Error::TooManyFiles { limit: 3, .. })));
}

#[test]
fn what_is_special_in_a_pattern_is_not_in_the_name_of_the_folder() {
    let folder = Folder::new(&[("data[1]*/a.csv", ""), ("data1/b.csv", ""), ("data[1]*/c]/d.csv", "")]);
    let names = |source: &str| -> Vec<String> {
        let files = Files::find(source, &folder.0.path().join("data[1]*"), true, 3).expect("files");
        files.iter().map(|file| file.name.clone()).collect()
    };
    assert_eq!(names("*.csv"), ["a.csv"]);
    assert_eq!(names("[a-c][]]/*.csv"), ["c]/d.csv"]);
    let absolute = folder.0.path().join("data1/*.csv");
    let files = Files::find(&absolute.to_string_lossy(), folder.0.path(), false, 3).expect("files");
    assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["data1/b.csv"]);
}

#[test]
fn folders_named_key_is_value_are_columns() {
    let row = "time,value\n2024-01-01T00:00Z,1\n";
    let folder = Folder::new(&[("d/series=north/x.csv", row), ("d/series=south/x.csv", row)]);
    let (loaded, ..) = folder.run(&Watermark::default(), &pipeline(&MINIMAL.replace("a.csv", "d")));
    assert_eq!(loaded.expect("rows").frame.series(), ["north", "south"]);
}

const DAY: &str = "time,a\n2024-01-01T00:00Z,1\n2024-01-01T01:00Z,2\n";

#[test]
fn a_run_reads_what_is_new_and_nothing_twice() {
    let folder = Folder::new(&[("a.csv", DAY)]);
    let declared = pipeline(MINIMAL);
    let (loaded, first, _) = folder.run(&Watermark::default(), &declared);
    assert_eq!(loaded.expect("rows").frame.n_rows(), 2);

    let (loaded, second, findings) = folder.run(&first, &declared);
    assert!(loaded.is_none() && second == first && findings.is_empty());

    folder.write("a.csv", &format!("{DAY}2024-01-01T02:00Z,3\n2024-01-01T03:00Z,x\n"));
    let (loaded, third, findings) = folder.run(&first, &declared);
    let loaded = loaded.expect("rows");
    assert_eq!((loaded.report.rows_read, loaded.frame.n_rows()), (2, 1));
    assert_eq!(loaded.report.rejected[0].line, 5, "lines are those of the file");
    assert!(findings.is_empty());
    // What is remembered can be written down.
    let json = serde_json::to_value(&third).expect("json");
    assert_eq!(serde_json::from_value::<Watermark>(json).expect("a watermark"), third);
    assert!(folder.run(&third, &declared).0.is_none());
}

#[test]
fn a_file_that_was_rewritten_is_read_as_a_whole() {
    let folder = Folder::new(&[("a.csv", DAY)]);
    let declared = pipeline(MINIMAL);
    let (_, first, _) = folder.run(&Watermark::default(), &declared);
    folder.write("a.csv", &format!("{}2024-01-01T02:00Z,3\n", DAY.replace(",2", ",7")));
    let (loaded, _, findings) = folder.run(&first, &declared);
    assert_eq!(loaded.expect("rows").frame.n_rows(), 3);
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Notice::Rewritten]);
}

#[test]
fn combined_intervals_are_never_made_of_a_part() {
    let folder = Folder::new(&[("a.csv", DAY)]);
    let declared = pipeline(&format!("{MINIMAL}resample = \"sum\"\n").replace("1h", "1d"));
    let (_, first, _) = folder.run(&Watermark::default(), &declared);
    folder.write("a.csv", &format!("{DAY}2024-01-01T02:00Z,3\n"));
    let (loaded, ..) = folder.run(&first, &declared);
    assert_eq!(loaded.expect("rows").frame.rows().map(|row| row.value).collect::<Vec<_>>(), [6.0]);
}

#[test]
fn a_line_that_may_still_be_being_written_waits() {
    let folder = Folder::new(&[("a.csv", &format!("{DAY}2024-01-01T02:00Z,1"))]);
    let declared = pipeline(MINIMAL);
    let config = declared.load_config().expect("a configuration");
    let plan = folder.plan_at(&Watermark::default(), &declared, 1_000 * YEAR);
    let loaded = read(&plan.inputs, &config).expect("a frame");
    assert_eq!(loaded.frame.n_rows(), 2);
    let (first, findings) = plan.finish(Some(&loaded)).expect("nobody writes");
    assert_eq!(findings[0].code, Notice::UnterminatedLine);

    // The same once more, and then it is whole.
    let plan = folder.plan_at(&first, &declared, 1_000 * YEAR);
    assert!(plan.inputs.is_empty() && plan.findings.len() == 1);
    folder.write("a.csv", &format!("{DAY}2024-01-01T02:00Z,17\n"));
    let (loaded, ..) = folder.run(&first, &declared);
    let loaded = loaded.expect("rows");
    assert_eq!(loaded.frame.rows().map(|row| row.value).collect::<Vec<_>>(), [17.0]);

    // A file that nobody has touched for long has a last line all the same.
    let folder = Folder::new(&[("a.csv", DAY.trim_end())]);
    assert_eq!(folder.run(&Watermark::default(), &declared).0.expect("rows").frame.n_rows(), 2);
}

#[test]
fn a_file_that_changes_during_the_run_ends_it() {
    let folder = Folder::new(&[("a.csv", DAY)]);
    let plan = folder.plan(&Watermark::default(), &pipeline(MINIMAL));
    folder.write("a.csv", &format!("{DAY}2024-01-01T02:00Z,3\n"));
    assert!(matches!(plan.finish(None), Err(Error::ChangedWhileRead { .. })));
}

#[test]
fn changed_columns_and_lost_files_are_noticed() {
    let folder = Folder::new(&[("d/1.csv", "time,a,b\n2024-01-01T00:00Z,1,2\n")]);
    let declared = pipeline(&MINIMAL.replace("a.csv", "d"));
    let noticed = |header: &str, before: &Watermark| {
        let n_values = header.matches(',').count();
        folder.write("d/1.csv", &format!("{header}\n2024-01-01T00:00Z{}\n", ",5".repeat(n_values)));
        let (_, next, findings) = folder.run(before, &declared);
        let codes = findings.iter().map(|finding| finding.code).filter(|code| *code != Notice::Rewritten);
        (codes.collect::<Vec<_>>(), next)
    };
    let (codes, first) = noticed("time,a,b", &Watermark::default());
    assert_eq!(codes, []);
    assert_eq!(noticed("time,a,b,c", &first).0, [Notice::ColumnAdded]);
    assert_eq!(noticed("time,a", &first).0, [Notice::ColumnRemoved]);
    assert_eq!(noticed("time,a,z", &first).0, [Notice::ColumnRenamed]);
    let json = "{\"time\":\"2024-01-01T00:00Z\",\"a\":1,\"b\":2}\n";
    folder.write("d/2.csv", json);
    fs::remove_file(folder.0.path().join("d/1.csv")).expect("removed");
    let (_, _, findings) = folder.run(&first, &declared);
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Notice::FileRemoved]);
    let typed = |dtype: &str| vec![("time".to_owned(), "str".to_owned()), ("a".to_owned(), dtype.to_owned())];
    let changed = watermark::changes(&typed("str"), &typed("f64"), "x", false);
    assert_eq!(changed.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Notice::ColumnTypeChanged]);
}

#[test]
fn the_end_of_a_file_is_read_with_its_header() {
    let folder = Folder::new(&[("a.csv", DAY)]);
    let declared = pipeline(MINIMAL);
    let (_, first, _) = folder.run(&Watermark::default(), &declared);
    folder.write("a.csv", &format!("{DAY}2024-01-01T02:00Z,3\n"));
    let plan = folder.plan(&first, &declared);
    let Content::Bytes(bytes) = &plan.inputs[0].content else { panic!("only the end") };
    assert_eq!(&bytes[..], b"time,a\n2024-01-01T02:00Z,3\n");
}

/// Runs until nothing is left: what was read at a time, and what is remembered.
fn run_all(folder: &Folder, pipeline: &Pipeline) -> (Vec<Loaded>, Watermark) {
    let (mut parts, mut watermark) = (Vec::new(), Watermark::default());
    loop {
        let has_more = folder.plan(&watermark, pipeline).has_more;
        let (loaded, next, _) = folder.run(&watermark, pipeline);
        parts.extend(loaded);
        watermark = next;
        if !has_more {
            return (parts, watermark);
        }
    }
}

/// Packed as anybody would.
fn gzip(text: &str) -> Vec<u8> {
    let mut process =
        Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip");
    process.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    process.wait_with_output().expect("packed").stdout
}

/// The columns of a CSV text as a Parquet file with groups of seven rows.
fn parquet(text: &str) -> Vec<u8> {
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("a header");
    let rows: Vec<Vec<&str>> = lines.collect();
    let column = |(index, name): (usize, &&str)| {
        Column::new((*name).into(), rows.iter().map(|row| row[index]).collect::<Vec<&str>>())
    };
    let columns = names.iter().enumerate().map(column).collect();
    let (mut table, mut bytes) = (DataFrame::new(rows.len(), columns).expect("a table"), Vec::new());
    ParquetWriter::new(&mut bytes).with_row_group_size(Some(7)).finish(&mut table).expect("written");
    bytes
}

#[test]
fn a_large_file_is_read_part_by_part_and_no_line_twice() {
    let row = |hour: usize| format!("2025-03-{:02}T{:02}:00Z,{hour},x{hour}\n", 1 + hour / 24, hour % 24);
    let csv = format!("time,a,b\n{}", (0..100).map(row).collect::<String>());
    let json =
        |hour: usize| format!("{{\"time\":\"2025-03-{:02}T{:02}:00Z\",\"a\":{hour}}}\n", 1 + hour / 24, hour % 24);
    let ndjson: String = (0..100).map(json).collect();
    for (name, bytes, first_bad_line) in [
        ("a.csv", csv.as_bytes().to_vec(), Some(2)),
        ("a.ndjson", ndjson.as_bytes().to_vec(), None),
        ("a.csv.gz", gzip(&csv), Some(2)),
        ("a.ndjson.gz", gzip(&ndjson), None),
        ("a.parquet", parquet(&csv), Some(1)),
    ] {
        let folder = Folder::new(&[]);
        folder.write(name, &bytes);
        let declared = MINIMAL.replace("a.csv", name);
        let (whole, at_once) = run_all(&folder, &pipeline(&declared));
        for part_bytes in [1, 100, 1_000, 1_000_000] {
            let (parts, watermark) = run_all(&folder, &pipeline(&format!("{declared}part_bytes = {part_bytes}\n")));
            assert_eq!(watermark, at_once);
            assert_eq!(parts.len() == 1, part_bytes == 1_000_000, "{name} {part_bytes}");
            let values = |parts: &[Loaded]| -> Vec<f64> {
                parts.iter().flat_map(|part| part.frame.rows().map(|row| row.value)).collect()
            };
            assert_eq!(values(&parts), values(&whole));
            // Lines are those of the file.
            let rejected = parts.iter().flat_map(|part| &part.report.rejected).map(|rejected| rejected.line);
            let lines: Vec<u64> = rejected.take(20).collect();
            assert_eq!(lines, first_bad_line.into_iter().flat_map(|first| first..first + 20).collect::<Vec<u64>>());
            let n_lost: u64 = parts.iter().map(|part| part.report.n_lost()).sum();
            assert_eq!(n_lost, first_bad_line.map_or(0, |_| 100));
        }
    }
}

#[test]
fn a_packed_file_that_is_changed_between_its_parts_is_read_as_a_whole() {
    let rows = |values: std::ops::Range<usize>| -> String {
        values.map(|hour| format!("2025-03-01T{:02}:00Z,{hour}\n", hour % 24)).collect()
    };
    let folder = Folder::new(&[]);
    let declared = pipeline(&MINIMAL.replace("a.csv", "a.csv.gz").replace("frequency", "part_bytes = 50\nfrequency"));
    folder.write("a.csv.gz", &gzip(&format!("time,a\n{}", rows(0..10))));
    let (first, watermark, _) = folder.run(&Watermark::default(), &declared);
    assert_eq!(first.expect("a part").frame.n_rows(), 2);
    folder.write("a.csv.gz", &gzip(&format!("time,a\n{}", rows(24..34))));
    let (second, _, findings) = folder.run(&watermark, &declared);
    assert_eq!(second.expect("a part").frame.rows().map(|row| row.value).collect::<Vec<_>>(), [24.0, 25.0]);
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Notice::Rewritten]);
}

#[test]
fn of_a_plain_file_that_nobody_writes_to_no_part_is_read_again_before_the_last() {
    let text: String = (0..10).map(|hour| format!("2025-03-01T{hour:02}:00Z,{hour}\n")).collect();
    let text = format!("time,a\n{text}");
    let folder = Folder::new(&[("a.csv", &text)]);
    let path = folder.0.path().join("a.csv");
    let modified = fs::metadata(&path).and_then(|file| file.modified()).expect("a file");
    let declared = pipeline(&MINIMAL.replace("frequency", "part_bytes = 50\nfrequency"));
    let (_, first, _) = folder.run(&Watermark::default(), &declared);
    // As no program does: what was read is another, and the file says that it is the same.
    folder.write("a.csv", &text.replacen(",0\n", ",7\n", 1));
    let rewritten_at = |time: SystemTime| {
        let file = fs::File::options().append(true).open(&path);
        file.and_then(|file| file.set_modified(time)).expect("a time");
        let (mut watermark, mut values) = (first.clone(), vec![]);
        loop {
            let (loaded, next, findings) = folder.run(&watermark, &declared);
            if findings.iter().any(|finding| finding.code == Notice::Rewritten) {
                return values;
            }
            values.extend(loaded.expect("a part").frame.rows().map(|row| row.value));
            watermark = next;
        }
    };
    assert_eq!(rewritten_at(modified), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(rewritten_at(modified + Duration::from_secs(1)), [0.0; 0]);
}

#[test]
fn of_a_packed_file_no_line_is_unpacked_that_is_too_long() {
    let declared = pipeline(&MINIMAL.replace("a.csv", "a.csv.gz").replace("frequency", "part_bytes = 50\nfrequency"));
    let mut config = declared.load_config().expect("a configuration");
    config.limits.line_bytes_max = 30;
    let plan = |text: &str, before: &Watermark| {
        let folder = Folder::new(&[]);
        folder.write("a.csv.gz", &gzip(text));
        let files = Files::find("a.csv.gz", folder.0.path(), true, 100).expect("files");
        before.plan(&files, &config, now(), Duration::ZERO).map(|plan| plan.finish(None).expect("nobody writes").0)
    };
    let rows: String = (0..4).map(|hour| format!("2025-03-01T{hour:02}:00Z,{hour}\n")).collect();
    let long = format!("{},1\n", "x".repeat(30));
    let line = |planned: Result<Watermark, Error>| match planned {
        Err(Error::LineTooLong { line, limit: 30, .. }) => line,
        other => panic!("{other:?}"),
    };
    assert_eq!(line(plan(&format!("{long}{rows}"), &Watermark::default())), 1);
    assert_eq!(line(plan(&format!("time,a\n{long}{rows}"), &Watermark::default())), 2);
    // A part ends before the long line, which is the first of the next.
    let text = format!("time,a\n{rows}{long}");
    let first = plan(&text, &Watermark::default()).expect("a part");
    let second = plan(&text, &first).expect("another");
    assert_eq!(line(plan(&text, &second)), 6);
    assert!(plan(&format!("time,a\n{rows}{}\n", "x".repeat(30)), &second).is_ok());
}

#[test]
fn many_files_are_read_some_at_a_time_and_each_once() {
    let file = |day: usize| (format!("{day}.csv"), format!("time,a\n2025-03-{day:02}T00:00Z,{day}\n"));
    let files: Vec<(String, String)> = (10..20).map(file).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let folder = Folder::new(&files);
    let declared = pipeline("panel = \"p\"\nsource = \"*.csv\"\nfrequency = \"1h\"\npart_bytes = 60\n");
    let (parts, watermark) = run_all(&folder, &declared);
    assert_eq!(parts.iter().map(|part| part.report.n_files).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert_eq!(parts.iter().map(|part| part.frame.n_rows()).sum::<usize>(), 10);
    assert!(folder.plan(&watermark, &declared).inputs.is_empty());
}
