//! What must hold of every body that somebody pushes and of every time that is written: no panic, no endless loop, and a
//! report that accounts for all rows.

use chrono_tz::Tz;
use ingest::{Format, Frequency, Input, Limits, LoadConfig, Loaded};

/// Formats, by the first byte of the data.
pub const FORMATS: [Option<Format>; 6] =
    [None, Some(Format::Csv), Some(Format::Ndjson), Some(Format::Json), Some(Format::Parquet), Some(Format::Arrow)];

/// A body as the route of pushes reads it. The first byte says of which format it is, the second one in which zone.
///
/// # Panics
/// When what must hold does not.
pub fn push(data: &[u8]) {
    let [format, zone, body @ ..] = data else { return };
    let format = FORMATS[*format as usize % FORMATS.len()];
    read_twice(body, &config(format, *zone));
}

/// A text as the times of a CSV file.
///
/// # Panics
/// When what must hold does not.
pub fn times(data: &[u8]) {
    let [zone, text @ ..] = data else { return };
    let mut body = b"time,a\n2024-03-31T00:00:00Z,1\n".to_vec();
    for line in text.split(|byte| *byte == b'\n') {
        body.extend_from_slice(line);
        body.extend_from_slice(b",2\n");
    }
    let config = config(Some(Format::Csv), *zone);
    read_twice(&body, &config);
    // In a format of its own, too.
    read_twice(&[b"time,a\n", text, b",2\n"].concat(), &config);
}

fn config(format: Option<Format>, zone: u8) -> LoadConfig {
    let zones = [Tz::UTC, Tz::Europe__Madrid, Tz::America__Sao_Paulo, Tz::Pacific__Apia];
    let frequencies = ["1h", "1d", "1b", "1w", "1mo"].map(|name| name.parse::<Frequency>().expect("a frequency"));
    LoadConfig {
        format,
        time_zone: zones[zone as usize % zones.len()],
        frequency: frequencies.get(zone as usize / 4 % 8).copied(),
        may_be_empty: zone & 0x80 != 0,
        limits: Limits {
            n_bytes_max: 1 << 20,
            line_bytes_max: 1 << 12,
            n_columns_max: 50,
            n_rows_max: 10_000,
            n_cells_max: 50_000,
            ..Limits::default()
        },
        ..LoadConfig::default()
    }
}

/// Reads a body twice: the same comes out, sorted, once, finite, and no row is unaccounted for.
fn read_twice(body: &[u8], config: &LoadConfig) {
    let read = || ingest::read(&[Input::bytes("body", body)], config);
    let (Ok(first), Ok(second)) = (read(), read()) else { return };
    assert_eq!(first.frame, second.frame);
    assert_eq!(first.report, second.report);
    check(&first);
}

fn check(loaded: &Loaded) {
    let rows: Vec<_> = loaded.frame.rows().collect();
    let key = |row: &ingest::Row| (row.series, row.valid_time, row.available_at);
    assert!(rows.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])), "sorted, each once");
    assert!(rows.iter().all(|row| row.value.is_finite() && row.series < loaded.frame.series().len()));
    assert_eq!(rows.len() as u64, loaded.report.accepted);
    let (frequency, zone) = (loaded.frequency, loaded.time_zone);
    assert!(rows.iter().all(|row| frequency.floor(row.valid_time, zone) == row.valid_time), "on the grid");
    let n_listed = loaded.report.rejected.len() as u64;
    let n_counted: u64 = loaded.report.n_rejected.values().sum();
    assert!(n_listed <= n_counted, "{n_listed} of {n_counted}");
    assert_eq!(loaded.quarantine.n_rows() == 0, loaded.report.n_lost() == 0);
}
