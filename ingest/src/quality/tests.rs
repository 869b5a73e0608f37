//! Each finding in a series made to have it, and in none made without.

use chrono::TimeDelta;
use chrono_tz::Europe;

use super::*;

/// Codes and times, in hours, of what is noticed in hourly series; NaN is a gap.
fn noticed(series: &[&[f64]]) -> Vec<(Notice, i64)> {
    let bounds = Bounds { lower: Some(-1_000.0), upper: None };
    noticed_in(series, Tz::UTC, Some(bounds))
}

fn noticed_in(series: &[&[f64]], tz: Tz, bounds: Option<Bounds>) -> Vec<(Notice, i64)> {
    let names: Vec<String> = (0..series.len()).map(|index| index.to_string()).collect();
    let checks = Checks::default();
    let inspector = Inspector::new(Frequency::HOUR, tz, &checks);
    let mut findings = Findings::default();
    let mut ends = Vec::new();
    for (name, values) in names.iter().zip(series) {
        let known = values.iter().enumerate().filter(|(_, value)| !value.is_nan());
        let (times, known): (Vec<i64>, Vec<f64>) =
            known.map(|(hour, value)| (3_600_000_000 * hour as i64, *value)).unzip();
        let values = Values::new(&times, &known, Frequency::HOUR, tz);
        findings.append(inspector.look(name, &values, bounds));
        ends.push((name.as_str(), times[times.len() - 1], values.last_ordinal()));
    }
    inspector.note_stopped(&mut findings, ends.iter().copied());
    let Findings { n_findings, findings } = findings;
    assert_eq!(n_findings.values().sum::<u64>(), findings.len() as u64);
    let hour = |finding: &Finding| (finding.start.expect("a time") - DateTime::UNIX_EPOCH).num_hours();
    findings.iter().map(|finding| (finding.code, hour(finding))).collect()
}

/// Days of a rounded peak at noon, with a disturbance that repeats after a prime number of hours.
fn days(n_hours: usize, shift: impl Fn(usize) -> usize) -> Vec<f64> {
    let value = |hour: usize| {
        let phase = ((hour + shift(hour)) % 24) as f64 / 24.0 * std::f64::consts::TAU;
        50.0 - 20.0 * phase.cos() + 7.0 * (2.0 * phase).sin() + ((hour * 7919) % 101) as f64 / 20.0
    };
    (0..n_hours).map(value).collect()
}

#[test]
fn an_ordinary_series_is_left_alone() {
    assert_eq!(noticed(&[&days(2_000, |_| 0), &[5.0; 2_000], &days(1_995, |_| 3)]), []);
}

#[test]
fn missing_steps_are_a_gap() {
    let mut values = days(300, |_| 0);
    values[100..103].fill(f64::NAN);
    assert_eq!(noticed(&[&values]), [(Notice::Gap, 99)]);
}

#[test]
fn two_seasons_of_one_value_are_a_flat_line() {
    let mut values = days(300, |_| 0);
    values[100..147].fill(47.0);
    assert_eq!(noticed(&[&values]), []);
    values[100..148].fill(47.0);
    assert_eq!(noticed(&[&values]), [(Notice::FlatLine, 100)]);
}

#[test]
fn a_spike_is_one_jump_and_a_value_below_the_range_is_told() {
    let mut values = days(400, |_| 0);
    values[200] = 900.0;
    assert_eq!(noticed(&[&values]), [(Notice::Jump, 200)]);
    values[200] = -2_000.0;
    assert_eq!(noticed(&[&values]), [(Notice::OutOfBounds, 200), (Notice::Jump, 200)]);
}

#[test]
fn kilowatts_after_watts_are_a_change_of_unit() {
    let mut values = days(600, |_| 0);
    values[..300].iter_mut().for_each(|value| *value *= 1_000.0);
    let found = noticed(&[&values]);
    assert!(found.contains(&(Notice::UnitChange, 300)), "{found:?}");
    values[300..].iter_mut().for_each(|value| *value *= 1_000.0);
    assert!(!noticed(&[&values]).iter().any(|(code, _)| *code == Notice::UnitChange));
}

#[test]
fn a_pattern_that_comes_later_is_a_shifted_clock() {
    // Blocks of two weeks begin at the epoch.
    let shifted = days(24 * 56, |hour| if hour < 24 * 28 { 0 } else { 22 });
    assert_eq!(noticed(&[&shifted]), [(Notice::ClockShift, 24 * 28)]);
    assert_eq!(noticed(&[&days(24 * 56, |_| 5)]), []);
}

#[test]
fn the_change_to_summer_time_is_no_shift_for_a_pattern_of_local_time() {
    let tz = Europe::Madrid;
    let shift = |hour: usize| {
        let t = DateTime::UNIX_EPOCH + TimeDelta::hours(hour as i64);
        let wall_time = crate::calendar::local(t, tz);
        (wall_time - t.naive_utc()).num_hours() as usize
    };
    let year = days(24 * 364, shift);
    assert_eq!(noticed_in(&[&year], tz, None), []);
}

#[test]
fn a_series_that_ends_a_season_before_the_others_has_stopped() {
    assert_eq!(noticed(&[&days(300, |_| 0), &days(276, |_| 0)]), [(Notice::Stopped, 275)]);
    assert_eq!(noticed(&[&days(300, |_| 0), &days(277, |_| 0)]), []);
}

#[test]
fn of_many_findings_twenty_are_kept_and_all_are_counted() {
    let (times, rows): (Vec<i64>, Vec<f64>) = (0..100).map(|index| (7_200_000_000 * index, index as f64)).unzip();
    let checks = Checks::default();
    let inspector = Inspector::new(Frequency::HOUR, Tz::UTC, &checks);
    let values = Values::new(&times, &rows, Frequency::HOUR, Tz::UTC);
    let mut found = inspector.look("a", &values, None);
    let Findings { n_findings, findings } = found.clone();
    assert_eq!((n_findings[&Notice::Gap], findings.len()), (99, 20));
    assert_eq!(findings[0].to_string(), "gap in `a` at 1970-01-01T00:00Z: 1 steps are missing between these");
    // Another series adds to the counts, and to what is kept only what there is room for.
    found.append(inspector.look("b", &values, None));
    assert_eq!((found.n_findings[&Notice::Gap], found.findings), (198, findings));
}

#[test]
fn every_code_is_read_back_and_no_other_word() {
    for word in Code::all() {
        assert_eq!(word.parse::<Code>().map(Code::as_str), Ok(word));
    }
    assert!("gaps".parse::<Code>().is_err());
    for notice in Notice::ALL {
        assert_eq!(serde_json::to_value(notice).expect("json"), notice.code());
    }
}
