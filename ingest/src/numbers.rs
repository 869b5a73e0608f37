//! Value columns: numbers, gaps, or reasons why a cell is neither.

use std::path::Path;

use forecast::is_value;
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

/// How numbers are written, and which of them stand for a gap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NumberFormat {
    /// Whether a comma stands before the decimals.
    pub decimal_comma: bool,
    /// What stands between groups of three digits: `1.234.567`.
    pub thousands_separator: Option<char>,
    /// Values or words that stand for a gap: `-999`, `n/a`.
    pub missing: Vec<String>,
}

impl NumberFormat {
    fn is_missing(&self, text: &str, value: Option<f64>) -> bool {
        self.missing.iter().any(|word| word == text || (value.is_some() && word.parse().ok() == value))
    }

    /// Turns a declared gap into one.
    fn checked(&self, number: Number) -> Number {
        match number {
            Number::Value(value) if !self.missing.is_empty() && self.is_missing("", Some(value)) => Number::Gap,
            number => number,
        }
    }
}

/// The numbers of a column, row by row.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// NaN where there is none.
    pub values: Vec<f64>,
    /// Rows that hold something else than a number or nothing, in order.
    pub bad: Vec<(usize, Reason)>,
    /// Rows that hold nothing.
    pub n_gaps: usize,
}

impl Numbers {
    /// Whether there is one in every row.
    pub(crate) fn is_whole(&self) -> bool {
        self.bad.is_empty() && self.n_gaps == 0
    }

    fn collect(cells: impl ExactSizeIterator<Item = Number>) -> Self {
        let mut numbers = Self { values: Vec::with_capacity(cells.len()), ..Self::default() };
        for (row, number) in cells.enumerate() {
            let value = match number {
                Number::Value(value) => value,
                Number::Gap => {
                    numbers.n_gaps += 1;
                    f64::NAN
                }
                Number::Bad(reason) => {
                    numbers.bad.push((row, reason));
                    f64::NAN
                }
            };
            numbers.values.push(value);
        }
        numbers
    }
}

/// Reads a column of numbers, of text or of truth values, which are 0 and 1.
///
/// # Errors
/// [`Error::ColumnType`] when a typed column has another type.
pub(crate) fn read(path: &Path, column: &Column, format: &NumberFormat) -> Result<Numbers, Error> {
    let is_plain = format.missing.is_empty();
    let checked = |number| if is_plain { number } else { format.checked(number) };
    let column = &column.rechunk();
    Ok(match column.dtype() {
        DataType::String if *format == NumberFormat::default() => {
            Numbers::collect(column.str()?.iter().map(|text| text.map_or(Number::Gap, parse)))
        }
        DataType::String => {
            Numbers::collect(column.str()?.iter().map(|text| text.map_or(Number::Gap, |text| parse_as(text, format))))
        }
        DataType::Null => Numbers { values: vec![f64::NAN; column.len()], bad: Vec::new(), n_gaps: column.len() },
        DataType::Boolean => {
            let number = |value: bool| checked(Number::Value(f64::from(u8::from(value))));
            Numbers::collect(column.bool()?.iter().map(|value| value.map_or(Number::Gap, number)))
        }
        DataType::UInt64 => Numbers::collect(
            column.u64()?.iter().map(|value| value.map_or(Number::Gap, |value| checked(unsigned(value)))),
        ),
        dtype if dtype.is_integer() => {
            let column = column.cast(&DataType::Int64)?;
            Numbers::collect(
                column.i64()?.iter().map(|value| value.map_or(Number::Gap, |value| checked(signed(value)))),
            )
        }
        dtype if dtype.is_float() => {
            let column = column.cast(&DataType::Float64)?;
            let floats = column.f64()?;
            match floats.cont_slice() {
                // Nothing is to be done but to look.
                Ok(values) if is_plain && values.iter().fold(true, |all, value| all & is_value(*value)) => {
                    Numbers { values: values.to_vec(), ..Numbers::default() }
                }
                _ => Numbers::collect(
                    floats.iter().map(|value| value.map_or(Number::Gap, |value| checked(float(value)))),
                ),
            }
        }
        dtype => {
            return Err(Error::ColumnType {
                path: path.to_owned(),
                column: column.name().to_string(),
                dtype: dtype.to_string(),
                expected: "numbers or text",
            });
        }
    })
}

/// Reads a number that is written as `format` says.
fn parse_as(text: &str, format: &NumberFormat) -> Number {
    let text = text.trim();
    if format.is_missing(text, None) {
        return Number::Gap;
    }
    plain(text, format).map_or(Number::Bad(Reason::UnparsableValue), |text| format.checked(parse(&text)))
}

/// The number as Rust writes it; `None` when it is not written as declared.
fn plain(text: &str, format: &NumberFormat) -> Option<String> {
    let decimal = if format.decimal_comma { ',' } else { '.' };
    let (whole, fraction) = match text.split_once(decimal) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    // What is declared as separator must not stand in the decimals, nor the other decimal mark anywhere.
    let is_foreign = |c: char| Some(c) == format.thousands_separator || c == ',' || c == '.';
    if fraction.is_some_and(|fraction| fraction.contains(is_foreign)) {
        return None;
    }
    let whole = match format.thousands_separator.filter(|separator| whole.contains(*separator)) {
        Some(separator) => ungrouped(whole, separator)?,
        None => whole.to_owned(),
    };
    if whole.contains([',', '.']) {
        return None;
    }
    Some(fraction.map_or(whole.clone(), |fraction| format!("{whole}.{fraction}")))
}

/// The digits of a whole number whose groups have three of them, the first up to three.
fn ungrouped(text: &str, separator: char) -> Option<String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    let mut groups = digits.split(separator);
    let first = groups.next()?;
    let is_number = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    let is_grouped = (1..=3).contains(&first.len())
        && is_number(first)
        && groups.clone().all(|group| group.len() == 3 && is_number(group));
    is_grouped.then(|| format!("{sign}{first}{}", groups.collect::<String>()))
}

/// Reads a number as Rust writes it, or a truth value.
fn parse(text: &str) -> Number {
    if let Some(value) = short_decimal(text.as_bytes()) {
        return Number::Value(value);
    }
    let text = text.trim();
    if text.is_empty() {
        return Number::Gap;
    }
    if text.eq_ignore_ascii_case("true") {
        return Number::Value(1.0);
    }
    if text.eq_ignore_ascii_case("false") {
        return Number::Value(0.0);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty();
    if is_integer && digits.parse::<u64>().map_or(true, |magnitude| magnitude > INTEGER_MAX) {
        return Number::Bad(Reason::IntegerTooLarge);
    }
    text.parse().map_or(Number::Bad(Reason::UnparsableValue), float)
}

/// A number of at most 15 digits, perhaps with a sign and a point, without anything else. Its digits as an integer and
/// the power of ten are exact, and so their quotient is the nearest number (Clinger 1990, "How to read floating point
/// numbers accurately", section 3).
fn short_decimal(text: &[u8]) -> Option<f64> {
    const DIGITS_MAX: usize = 15;
    const POWERS: [f64; DIGITS_MAX + 1] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (is_negative, text) = match text {
        [b'-', text @ ..] => (true, text),
        text => (false, text),
    };
    // One byte more for the point.
    if text.is_empty() || text.len() > DIGITS_MAX + 1 {
        return None;
    }
    let mut digits = 0_u64;
    let mut point = None;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => digits = 10 * digits + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(index),
            _ => return None,
        }
    }
    let n_digits = text.len() - usize::from(point.is_some());
    if n_digits == 0 || n_digits > DIGITS_MAX {
        return None;
    }
    let value = digits as f64 / POWERS[point.map_or(0, |point| text.len() - 1 - point)];
    Some(if is_negative { -value } else { value })
}

fn signed(value: i64) -> Number {
    if value.unsigned_abs() > INTEGER_MAX { Number::Bad(Reason::IntegerTooLarge) } else { Number::Value(value as f64) }
}

fn unsigned(value: u64) -> Number {
    if value > INTEGER_MAX { Number::Bad(Reason::IntegerTooLarge) } else { Number::Value(value as f64) }
}

fn float(value: f64) -> Number {
    if is_value(value) { Number::Value(value) } else { Number::Bad(Reason::NotFinite) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            ("1e30", Number::Value(1e30)),
            ("1e400", Number::Bad(Reason::NotFinite)),
            ("-1e31", Number::Bad(Reason::NotFinite)),
            ("NaN", Number::Bad(Reason::NotFinite)),
            ("-inf", Number::Bad(Reason::NotFinite)),
            ("n/a", Number::Bad(Reason::UnparsableValue)),
            ("1,5", Number::Bad(Reason::UnparsableValue)),
            ("12 kW", Number::Bad(Reason::UnparsableValue)),
            ("-", Number::Bad(Reason::UnparsableValue)),
            ("true", Number::Value(1.0)),
            ("False", Number::Value(0.0)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn other_ways_to_write_a_number_are_read_as_declared_and_no_other() {
        let european = NumberFormat {
            decimal_comma: true,
            thousands_separator: Some('.'),
            missing: vec!["-999".to_owned(), "k. A.".to_owned()],
        };
        let english = NumberFormat { thousands_separator: Some(','), ..NumberFormat::default() };
        let bad = Number::Bad(Reason::UnparsableValue);
        for (format, text, expected) in [
            (&european, "1.234.567,5", Number::Value(1_234_567.5)),
            (&european, "-1.234", Number::Value(-1_234.0)),
            (&european, "0,5", Number::Value(0.5)),
            (&european, "1.5", bad),
            (&european, "1,234.5", bad),
            (&european, "1234.567", bad),
            (&european, "12.34.567", bad),
            (&european, "-999", Number::Gap),
            (&european, "-999,0", Number::Gap),
            (&european, "k. A.", Number::Gap),
            (&european, "n/a", bad),
            (&european, "9.007.199.254.740.993", Number::Bad(Reason::IntegerTooLarge)),
            (&english, "1,234.5", Number::Value(1_234.5)),
            (&english, "1234.5", Number::Value(1_234.5)),
            (&english, "1.234,5", bad),
            (&english, "1.2.3", bad),
            (&english, "1e3", Number::Value(1_000.0)),
            (&english, "", Number::Gap),
        ] {
            assert_eq!(parse_as(text, format), expected, "{text}");
        }
    }

    #[test]
    fn typed_columns_are_checked_too() {
        let plain = NumberFormat::default();
        let check = |column: Column, format: &NumberFormat, expected: &[Number]| {
            let Numbers { values, bad, n_gaps } = read(Path::new("a.parquet"), &column, format).expect("numbers");
            let expected = Numbers::collect(expected.iter().copied());
            assert_eq!((bad, n_gaps), (expected.bad, expected.n_gaps));
            let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(values), bits(expected.values));
        };
        check(
            Column::new("x".into(), [Some(1_i64), None, Some((1 << 53) + 1)]),
            &plain,
            &[Number::Value(1.0), Number::Gap, Number::Bad(Reason::IntegerTooLarge)],
        );
        let large = Column::new("x".into(), [u64::MAX, 2]);
        check(large, &plain, &[Number::Bad(Reason::IntegerTooLarge), Number::Value(2.0)]);
        let floats = Column::new("x".into(), [1.5_f32, f32::NAN]);
        check(floats, &plain, &[Number::Value(1.5), Number::Bad(Reason::NotFinite)]);
        let floats = Column::new("x".into(), [Some(1.5), None]);
        check(floats, &plain, &[Number::Value(1.5), Number::Gap]);
        check(Column::new("x".into(), [true, false]), &plain, &[Number::Value(1.0), Number::Value(0.0)]);
        check(Column::full_null("x".into(), 1, &DataType::Null), &plain, &[Number::Gap]);
        let missing = NumberFormat { missing: vec!["-999".to_owned()], ..NumberFormat::default() };
        check(Column::new("x".into(), [-999.0, 1.0]), &missing, &[Number::Gap, Number::Value(1.0)]);

        let dates = Column::new("x".into(), [1_i32]).cast(&DataType::Date).expect("dates");
        let refused = read(Path::new("a.parquet"), &dates, &plain);
        assert!(matches!(refused, Err(Error::ColumnType { column, .. }) if column == "x"));
    }

    proptest! {
        #[test]
        fn the_short_way_gives_the_same_number(text in "-?[0-9]{0,17}[.]?[0-9]{0,17}") {
            if let Some(value) = short_decimal(text.as_bytes()) {
                prop_assert_eq!(Ok(value.to_bits()), text.parse().map(f64::to_bits));
            }
        }
    }
}
