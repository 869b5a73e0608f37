//! Many observations at once, by `COPY` in Postgres' binary format.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use sqlx::PgConnection;

use crate::db::Error;

/// Rows per statement: large enough that statements do not matter, small enough to stay far from time limits.
const ROWS_PER_STATEMENT: usize = 100_000;
/// Bytes that a row takes at most: a count, and seven lengths with their values.
const ROW_BYTES: usize = 2 + 7 * 4 + 4 + 4 + 4 * 8 + 1;

/// One row of `observation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub series_id: i32,
    pub valid_time: DateTime<Utc>,
    pub available_at: DateTime<Utc>,
    pub value: f64,
    pub sd: Option<f64>,
    pub assumed: bool,
}

/// Stores rows that do not exist yet, and counts them.
///
/// # Errors
/// When the database refuses one.
pub(super) async fn copy(
    conn: &mut PgConnection,
    tenant_id: i32,
    mut rows: impl Iterator<Item = Row> + Send,
) -> Result<u64, Error> {
    let mut n_rows = 0;
    loop {
        let piece: Vec<Row> = rows.by_ref().take(ROWS_PER_STATEMENT).collect();
        if piece.is_empty() {
            return Ok(n_rows);
        }
        let mut stream = conn
            .copy_in_raw(
                "copy observation (tenant_id, series_id, valid_time, available_at, value, sd, assumed)
                 from stdin (format binary)",
            )
            .await?;
        stream.send(encode(tenant_id, &piece)).await?;
        n_rows += stream.finish().await?;
    }
}

/// See "Binary Format" of the manual's page on `COPY`.
fn encode(tenant_id: i32, rows: &[Row]) -> Vec<u8> {
    const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
    const N_COLUMNS: i16 = 7;
    const NULL: i32 = -1;
    const END: i16 = -1;
    let mut bytes = Vec::with_capacity(SIGNATURE.len() + 8 + rows.len() * ROW_BYTES + 2);
    bytes.extend_from_slice(SIGNATURE);
    // No flags, no extension.
    bytes.extend_from_slice(&[0; 8]);
    for row in rows {
        bytes.extend_from_slice(&N_COLUMNS.to_be_bytes());
        put(&mut bytes, &tenant_id.to_be_bytes());
        put(&mut bytes, &row.series_id.to_be_bytes());
        put(&mut bytes, &micros(row.valid_time).to_be_bytes());
        put(&mut bytes, &micros(row.available_at).to_be_bytes());
        put(&mut bytes, &row.value.to_be_bytes());
        match row.sd {
            Some(sd) => put(&mut bytes, &sd.to_be_bytes()),
            None => bytes.extend_from_slice(&NULL.to_be_bytes()),
        }
        put(&mut bytes, &[u8::from(row.assumed)]);
    }
    bytes.extend_from_slice(&END.to_be_bytes());
    bytes
}

/// A field: its length, and its bytes.
fn put(bytes: &mut Vec<u8>, value: &[u8]) {
    // No value is longer than eight bytes.
    bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
    bytes.extend_from_slice(value);
}

/// Microseconds since Postgres' epoch.
fn micros(t: DateTime<Utc>) -> i64 {
    const EPOCH: i64 =
        NaiveDate::from_ymd_opt(2000, 1, 1).expect("a date").and_time(NaiveTime::MIN).and_utc().timestamp_micros();
    t.timestamp_micros().saturating_sub(EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_the_manual_says() {
        let t = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let row = Row {
            series_id: 7,
            valid_time: t("2000-01-01T00:00:01Z"),
            available_at: t("1999-12-31T23:59:59Z"),
            value: 1.0,
            sd: None,
            assumed: true,
        };
        let bytes = encode(1, &[row]);
        let body = [
            &b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x07"[..],
            b"\0\0\0\x04\0\0\0\x01",
            b"\0\0\0\x04\0\0\0\x07",
            b"\0\0\0\x08\0\0\0\0\0\x0f\x42\x40",
            b"\0\0\0\x08\xff\xff\xff\xff\xff\xf0\xbd\xc0",
            b"\0\0\0\x08\x3f\xf0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x01\x01",
            b"\xff\xff",
        ];
        assert_eq!(bytes, body.concat());
    }
}
