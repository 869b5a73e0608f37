//! Irregular times brought on a grid by a declared rule.

use chrono_tz::Tz;
use forecast::is_value;

use crate::{Error, Frequency, frame::Row};

/// How the observations of one interval become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// The last one.
    Last,
    /// Their mean. Standard deviations count as independent.
    Mean,
    /// Their sum. Standard deviations count as independent.
    Sum,
}

/// Combines rows that are sorted by series and time; of several versions of one time the one that became known last
/// counts. What comes out is known when the last of its parts is.
///
/// # Errors
/// [`Error::ResampleOverflow`] when a sum is too large for a number.
pub(crate) fn resample(rows: &[Row], rule: Resample, frequency: Frequency, tz: Tz) -> Result<Vec<Row>, Error> {
    let mut latest: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        match latest.last_mut().filter(|last| (last.series, last.valid_time) == (row.series, row.valid_time)) {
            Some(last) => *last = *row,
            None => latest.push(*row),
        }
    }
    let interval = |row: &Row| (row.series, frequency.ordinal(row.valid_time, tz));
    latest.chunk_by(|a, b| interval(a) == interval(b)).map(|group| combine(group, rule, frequency, tz)).collect()
}

fn combine(group: &[Row], rule: Resample, frequency: Frequency, tz: Tz) -> Result<Row, Error> {
    let last = group[group.len() - 1];
    let n = group.len() as f64;
    let valid_time = frequency.floor(last.valid_time, tz);
    let sum: f64 = group.iter().map(|row| row.value).sum();
    let variance: Option<f64> = group.iter().map(|row| row.sd.map(|sd| sd * sd)).sum();
    let (value, sd) = match rule {
        Resample::Last => (last.value, last.sd),
        Resample::Mean => (sum / n, variance.map(|variance| variance.sqrt() / n)),
        Resample::Sum => (sum, variance.map(f64::sqrt)),
    };
    if !is_value(value) {
        return Err(Error::ResampleOverflow { valid_time });
    }
    // Where one of them does not say when it became known, nothing is known of the whole.
    let known: Option<Vec<_>> = group.iter().map(|row| row.available_at).collect();
    let available_at = known.and_then(|known| known.into_iter().max());
    Ok(Row { series: last.series, valid_time, available_at, value, sd })
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn row(minute: i64, known: Option<i64>, value: f64) -> Row {
        let at = |minute| DateTime::UNIX_EPOCH + TimeDelta::minutes(minute);
        Row { series: 0, valid_time: at(minute), available_at: known.map(at), value, sd: Some(3.0) }
    }

    #[test]
    fn the_rule_decides_what_an_interval_is() {
        let rows = [row(1, Some(5), 1.0), row(17, Some(90), 2.0), row(17, Some(95), 4.0), row(119, None, 7.0)];
        for (rule, value, sd) in [
            (Resample::Last, 4.0, 3.0),
            (Resample::Mean, 2.5, 18_f64.sqrt() / 2.0),
            (Resample::Sum, 5.0, 18_f64.sqrt()),
        ] {
            let hours = resample(&rows, rule, Frequency::HOUR, Tz::UTC).expect("finite");
            assert_eq!(hours, [Row { sd: Some(sd), ..row(0, Some(95), value) }, row(60, None, 7.0)]);
        }
    }

    #[test]
    fn a_sum_that_is_no_number_is_refused() {
        let rows = [row(0, None, f64::MAX), row(1, None, f64::MAX)];
        let sum = resample(&rows, Resample::Sum, Frequency::HOUR, Tz::UTC);
        assert!(matches!(sum, Err(Error::ResampleOverflow { .. })));
    }
}
