//! Many rows at once, by `COPY` in Postgres' binary format: see "Binary Format" of the manual's page on `COPY`.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use super::matrix::Matrix;

/// Bytes that are gathered before they are sent: enough that round trips do not matter, little beside what they hold.
const PIECE: usize = 1 << 20;

/// OID of `double precision`, which the format repeats inside an array.
const DOUBLE_OID: u32 = 701;

/// Rows on their way into a table.
pub(super) struct Copy {
    bytes: Vec<u8>,
}

impl Copy {
    /// No rows yet.
    pub(super) fn new() -> Self {
        const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
        let mut bytes = SIGNATURE.to_vec();
        // No flags, no extension.
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    /// Begins a row, whose cells follow.
    pub(super) fn row(&mut self, n_columns: i16) -> &mut Self {
        self.bytes.extend_from_slice(&n_columns.to_be_bytes());
        self
    }

    /// An `integer`.
    pub(super) fn integer(&mut self, value: i32) -> &mut Self {
        self.cell(&value.to_be_bytes())
    }

    /// A `bigint`.
    pub(super) fn long(&mut self, value: i64) -> &mut Self {
        self.cell(&value.to_be_bytes())
    }

    /// A `double precision`.
    pub(super) fn double(&mut self, value: f64) -> &mut Self {
        self.cell(&value.to_be_bytes())
    }

    /// A `double precision` or null.
    pub(super) fn optional(&mut self, value: Option<f64>) -> &mut Self {
        const NULL: i32 = -1;
        match value {
            Some(value) => return self.double(value),
            None => self.bytes.extend_from_slice(&NULL.to_be_bytes()),
        }
        self
    }

    /// A `boolean`.
    pub(super) fn flag(&mut self, value: bool) -> &mut Self {
        self.cell(&[u8::from(value)])
    }

    /// A `timestamptz`.
    pub(super) fn time(&mut self, value: DateTime<Utc>) -> &mut Self {
        const EPOCH: i64 =
            NaiveDate::from_ymd_opt(2000, 1, 1).expect("a date").and_time(NaiveTime::MIN).and_utc().timestamp_micros();
        self.long(value.timestamp_micros().saturating_sub(EPOCH))
    }

    /// A `uuid`.
    pub(super) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.cell(value.as_bytes())
    }

    /// A `double precision[]`.
    pub(super) fn doubles(&mut self, values: &[f64]) -> &mut Self {
        // Number of dimensions (none for an empty array), whether there are nulls, type; length and lower bound; elements.
        let mut array = Vec::with_capacity(20 + 12 * values.len());
        array.extend_from_slice(&i32::from(!values.is_empty()).to_be_bytes());
        array.extend_from_slice(&0_i32.to_be_bytes());
        array.extend_from_slice(&DOUBLE_OID.to_be_bytes());
        if !values.is_empty() {
            array.extend_from_slice(&length(values.len()));
            array.extend_from_slice(&1_i32.to_be_bytes());
        }
        for value in values {
            array.extend_from_slice(&8_i32.to_be_bytes());
            array.extend_from_slice(&value.to_be_bytes());
        }
        self.cell(&array)
    }

    /// A `real[][]`.
    pub(super) fn matrix(&mut self, value: &Matrix) -> &mut Self {
        self.cell(&value.to_binary())
    }

    fn cell(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&length(value.len()));
        self.bytes.extend_from_slice(value);
        self
    }

    /// Ends the rows.
    fn end(mut self) -> Vec<u8> {
        const END: i16 = -1;
        self.bytes.extend_from_slice(&END.to_be_bytes());
        self.bytes
    }
}

/// A length as the format has it. Postgres takes no value of more than a gigabyte.
fn length(n: usize) -> [u8; 4] {
    i32::try_from(n).expect("limits on forecasts keep values far below two gigabytes").to_be_bytes()
}

/// Lets the statements of a transaction take as long as they need, for rows may be many; for a lock none waits longer than a
/// statement may take otherwise.
///
/// # Errors
/// When the database fails.
pub async fn take_time(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query(
        "select set_config('lock_timeout', current_setting('statement_timeout'), true),
             set_config('statement_timeout', '0', true)
         where current_setting('statement_timeout') <> '0'",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores rows that do not exist yet; `statement` is a `copy … from stdin (format binary)`, `encode` writes a row.
///
/// # Errors
/// When the database refuses one.
pub(super) async fn copy<R>(
    conn: &mut PgConnection,
    statement: &'static str,
    rows: impl IntoIterator<Item = R>,
    mut encode: impl FnMut(&mut Copy, R),
) -> Result<(), Error> {
    let mut stream = conn.copy_in_raw(statement).await?;
    let mut copy = Copy::new();
    for row in rows {
        encode(&mut copy, row);
        if copy.bytes.len() >= PIECE {
            stream.send(copy.bytes.as_slice()).await?;
            copy.bytes.clear();
        }
    }
    stream.send(copy.end()).await?;
    stream.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_as_the_manual_says() {
        let mut copy = Copy::new();
        let time = "2000-01-01T00:00:01Z".parse().expect("a time");
        copy.row(7).integer(1).long(-2).double(1.0).optional(None).flag(true).time(time).uuid(Uuid::from_u128(7));
        let body = [
            &b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x07"[..],
            b"\0\0\0\x04\0\0\0\x01",
            b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xfe",
            b"\0\0\0\x08\x3f\xf0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x01\x01",
            b"\0\0\0\x08\0\0\0\0\0\x0f\x42\x40",
            b"\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07",
            b"\xff\xff",
        ];
        assert_eq!(copy.end(), body.concat());
    }

    #[test]
    fn an_array_has_a_header_with_its_length() {
        let mut copy = Copy { bytes: vec![] };
        copy.doubles(&[1.0]).doubles(&[]);
        let bytes = [
            &b"\0\0\0\x20\0\0\0\x01\0\0\0\0\0\0\x02\xbd\0\0\0\x01\0\0\0\x01\0\0\0\x08\x3f\xf0\0\0\0\0\0\0"[..],
            b"\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\x02\xbd",
        ];
        assert_eq!(copy.bytes, bytes.concat());
    }
}
