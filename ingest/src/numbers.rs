//! Value columns: numbers, gaps, or reasons why a cell is neither.

use std::path::Path;

use polars::prelude::*;

use crate::{Error, Reason};

/// The largest magnitude up to which `double precision` holds every integer.
const INTEGER_MAX: u64 = 1 << 53;

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Nothing: a gap.
    Gap,
    /// A finite number.
    Value(f64),
    /// Not usable.
    Bad(Reason),
}

/// Reads a column of numbers or of text.
///
/// # Errors
/// [`Error::ColumnType`] when a column of a Parquet file has another type.
pub(crate) fn read(path: &Path, column: &Column) -> Result<Vec<Number>, Error> {
    match column.dtype() {
        DataType::String => Ok(column.str()?.iter().map(|text| text.map_or(Number::Gap, parse)).collect()),
        DataType::Null => Ok(vec![Number::Gap; column.len()]),
        DataType::UInt64 => Ok(column.u64()?.iter().map(|value| value.map_or(Number::Gap, unsigned)).collect()),
        dtype if dtype.is_integer() => {
            let column = column.cast(&DataType::Int64)?;
            Ok(column.i64()?.iter().map(|value| value.map_or(Number::Gap, signed)).collect())
        }
        dtype if dtype.is_float() => {
            let column = column.cast(&DataType::Float64)?;
            Ok(column.f64()?.iter().map(|value| value.map_or(Number::Gap, float)).collect())
        }
        dtype => Err(Error::ColumnType {
            path: path.to_owned(),
            column: column.name().to_string(),
            dtype: dtype.to_string(),
            expected: "numbers or text",
        }),
    }
}

fn parse(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        return Number::Gap;
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty();
    if is_integer && digits.parse::<u64>().map_or(true, |magnitude| magnitude > INTEGER_MAX) {
        return Number::Bad(Reason::IntegerTooLarge);
    }
    text.parse().map_or(Number::Bad(Reason::UnparsableValue), float)
}

fn signed(value: i64) -> Number {
    if value.unsigned_abs() > INTEGER_MAX { Number::Bad(Reason::IntegerTooLarge) } else { Number::Value(value as f64) }
}

fn unsigned(value: u64) -> Number {
    if value > INTEGER_MAX { Number::Bad(Reason::IntegerTooLarge) } else { Number::Value(value as f64) }
}

fn float(value: f64) -> Number {
    if value.is_finite() { Number::Value(value) } else { Number::Bad(Reason::NotFinite) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_number_a_gap_or_rejected() {
        for (text, expected) in [
            ("1.5", Number::Value(1.5)),
            (" -2e3 ", Number::Value(-2_000.0)),
            ("+7", Number::Value(7.0)),
            (".5", Number::Value(0.5)),
            ("", Number::Gap),
            ("  ", Number::Gap),
            ("9007199254740992", Number::Value(9_007_199_254_740_992.0)),
            ("9007199254740993", Number::Bad(Reason::IntegerTooLarge)),
            ("-9007199254740993", Number::Bad(Reason::IntegerTooLarge)),
            ("99999999999999999999999999", Number::Bad(Reason::IntegerTooLarge)),
            ("1e300", Number::Value(1e300)),
            ("1e400", Number::Bad(Reason::NotFinite)),
            ("NaN", Number::Bad(Reason::NotFinite)),
            ("-inf", Number::Bad(Reason::NotFinite)),
            ("n/a", Number::Bad(Reason::UnparsableValue)),
            ("1,5", Number::Bad(Reason::UnparsableValue)),
            ("12 kW", Number::Bad(Reason::UnparsableValue)),
            ("-", Number::Bad(Reason::UnparsableValue)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn typed_columns_are_checked_too() {
        let path = Path::new("a.parquet");
        let read = |column: Column| read(path, &column).expect("numbers");
        assert_eq!(
            read(Column::new("x".into(), [Some(1_i64), None, Some((1 << 53) + 1)])),
            [Number::Value(1.0), Number::Gap, Number::Bad(Reason::IntegerTooLarge)]
        );
        assert_eq!(
            read(Column::new("x".into(), [u64::MAX, 2])),
            [Number::Bad(Reason::IntegerTooLarge), Number::Value(2.0)]
        );
        assert_eq!(
            read(Column::new("x".into(), [1.5_f32, f32::NAN])),
            [Number::Value(1.5), Number::Bad(Reason::NotFinite)]
        );
        assert!(matches!(
            super::read(path, &Column::new("x".into(), [true])),
            Err(Error::ColumnType { column, .. }) if column == "x"
        ));
    }
}
