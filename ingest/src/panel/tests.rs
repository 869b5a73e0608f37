//! What a panel knows, and when.

use chrono_tz::Europe;
use proptest::prelude::*;

use super::*;
use crate::Frequency;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

/// An hourly panel of two series from midnight; `None` is a gap.
fn hourly(values: &[[Option<f64>; 2]]) -> Panel {
    let start = utc("2024-01-01T00:00:00Z");
    let observations = values.iter().enumerate().flat_map(|(hour, row)| {
        row.iter().enumerate().filter_map(move |(series, value)| {
            let valid_time = start + TimeDelta::hours(hour as i64);
            Some(Observation { series, valid_time, available_at: None, value: (*value)?, sd: None })
        })
    });
    let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
    Panel::from_observations(config, names(2), observations).expect("a panel")
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|index| format!("s{index}")).collect()
}

/// Gaps as -1, so that values can be compared.
fn shown(grid: &Grid) -> Vec<f64> {
    grid.values().iter().map(|value| if value.is_nan() { -1.0 } else { *value }).collect()
}

#[test]
fn a_gap_stays_a_gap() {
    let panel = hourly(&[[Some(1.0), Some(2.0)], [None, None], [Some(3.0), None]]);
    assert_eq!(shown(panel.values()), [1.0, 2.0, -1.0, -1.0, 3.0, -1.0]);
    assert_eq!(
        (panel.n_steps(), panel.start(), panel.end()),
        (3, utc("2024-01-01T00:00:00Z"), utc("2024-01-01T03:00:00Z"))
    );
}

#[test]
fn a_series_without_values_is_a_column_of_gaps() {
    let panel = hourly(&[[Some(1.0), None], [Some(1.0), None]]);
    assert_eq!(shown(panel.values()), [1.0, -1.0, 1.0, -1.0]);
    assert_eq!(panel.history().expect("a history").values.n_series(), 2);
}

#[test]
fn the_grid_follows_the_calendar_of_the_zone() {
    let config = PanelConfig::new("p", Frequency::Day, Europe::Madrid);
    let days = ["2023-03-24T23:00:00Z", "2023-03-25T23:00:00Z", "2023-03-26T22:00:00Z", "2023-03-27T22:00:00Z"];
    let observation = |(day, &valid_time): (usize, &&str)| Observation {
        series: 0,
        valid_time: utc(valid_time),
        available_at: None,
        value: day as f64,
        sd: None,
    };
    let panel = Panel::from_observations(config, names(1), days.iter().enumerate().map(observation));
    let panel = panel.expect("a panel");
    assert_eq!(shown(panel.values()), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(panel.valid_time(2), utc("2023-03-26T22:00:00Z"));
}

#[test]
fn a_window_ends_with_the_last_interval_before_its_issue_time() {
    let panel = hourly(&[[Some(0.0); 2], [Some(1.0); 2], [Some(2.0); 2], [Some(3.0); 2]]);
    let window = panel.window(utc("2024-01-01T03:00:00Z"), 2, 5).expect("a window");
    assert_eq!(shown(&window.context), [1.0, 1.0, 2.0, 2.0]);
    assert_eq!(window.calendar.n_steps(), Some(2 + 5));
    assert_eq!((window.horizon, window.bounds.len()), (5, 2));
}

#[test]
fn an_interval_that_has_not_ended_is_not_known() {
    let panel = hourly(&[[Some(0.0); 2], [Some(1.0); 2], [Some(2.0); 2]]);
    let window = panel.window(utc("2024-01-01T01:30:00Z"), 2, 1).expect("a window");
    assert_eq!(shown(&window.context), [0.0, 0.0, -1.0, -1.0]);
}

#[test]
fn a_publication_delay_hides_the_latest_values() {
    let mut panel = hourly(&[[Some(0.0); 2], [Some(1.0); 2], [Some(2.0); 2]]);
    panel.config.publication_delay = TimeDelta::minutes(90);
    let window = panel.window(utc("2024-01-01T03:00:00Z"), 3, 1).expect("a window");
    assert_eq!(shown(&window.context), [0.0, 0.0, -1.0, -1.0, -1.0, -1.0]);
}

#[test]
fn an_issue_time_beyond_the_data_leaves_steps_to_nowcast() {
    let panel = hourly(&[[Some(0.0); 2], [Some(1.0); 2]]);
    let window = panel.window(utc("2024-01-01T04:00:00Z"), 3, 1).expect("a window");
    assert_eq!(shown(&window.context), [1.0, 1.0, -1.0, -1.0, -1.0, -1.0]);
}

#[test]
fn a_window_near_the_start_is_short() {
    let panel = hourly(&[[Some(0.0); 2], [Some(1.0); 2]]);
    let window = panel.window(utc("2024-01-01T01:00:00Z"), 100, 3).expect("a window");
    assert_eq!((window.context.n_steps(), window.calendar.n_steps()), (1, Some(4)));
    for issue_time in ["2024-01-01T00:00:00Z", "2020-01-01T00:00:00Z"] {
        let refused = panel.window(utc(issue_time), 100, 3);
        assert!(matches!(refused, Err(Error::IssueTimeTooEarly { .. })));
    }
}

#[test]
fn a_window_sees_the_version_known_at_its_issue_time() {
    let at = |available_at: Option<&str>, value| Observation {
        series: 0,
        valid_time: utc("2024-01-01T00:00:00Z"),
        available_at: available_at.map(utc),
        value,
        sd: None,
    };
    let next = Observation { valid_time: utc("2024-01-01T01:00:00Z"), ..at(Some("2024-01-01T05:00:00Z"), 9.0) };
    let observations =
        [at(Some("2024-01-02T00:00:00Z"), 3.0), at(None, 1.0), at(Some("2024-01-01T06:00:00Z"), 2.0), next];
    let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
    let panel = Panel::from_observations(config, names(1), observations).expect("a panel");
    assert_eq!(shown(panel.values()), [3.0, 9.0]);
    for (issue_time, known) in [
        ("2024-01-01T00:30:00Z", vec![-1.0]),
        ("2024-01-01T02:00:00Z", vec![1.0, -1.0]),
        ("2024-01-01T05:00:00Z", vec![1.0, 9.0]),
        ("2024-01-01T06:00:00Z", vec![2.0, 9.0]),
        ("2024-01-03T00:00:00Z", vec![3.0, 9.0]),
    ] {
        let window = panel.window(utc(issue_time), 100, 1).expect("a window");
        assert_eq!(shown(&window.context)[..known.len()], known, "{issue_time}");
    }
    let cut = panel.rows(1..2).window(utc("2024-01-01T04:00:00Z"), 100, 1).expect("a window");
    assert_eq!(shown(&cut.context), [-1.0, -1.0, -1.0]);
}

#[test]
fn a_cut_panel_keeps_its_times() {
    let panel = hourly(&[[Some(0.0); 2], [Some(1.0); 2], [Some(2.0); 2]]).rows(1..9);
    assert_eq!((panel.n_steps(), panel.start()), (2, utc("2024-01-01T01:00:00Z")));
    assert_eq!(shown(panel.values()), [1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn what_does_not_fit_the_panel_is_refused() {
    let good =
        Observation { series: 0, valid_time: utc("2024-01-01T00:00:00Z"), available_at: None, value: 1.0, sd: None };
    let refused = |observations: &[Observation], bounds| {
        let config = PanelConfig { bounds, ..PanelConfig::new("p", Frequency::HOUR, Tz::UTC) };
        Panel::from_observations(config, names(1), observations.iter().copied()).expect_err("a refusal").to_string()
    };
    assert_eq!(refused(&[], vec![]), "panel `p` has no observations");
    assert_eq!(
        refused(&[Observation { series: 1, ..good }], vec![]),
        "panel `p` has 1 series, an observation is of series 1"
    );
    assert_eq!(
        refused(&[Observation { value: f64::NAN, ..good }], vec![]),
        "panel `p`: series 0 at 2024-01-01 00:00:00 UTC is no number of at most 1e30 in magnitude"
    );
    assert_eq!(
        refused(&[Observation { valid_time: utc("2024-01-01T00:10:00Z"), ..good }], vec![]),
        "panel `p`: 2024-01-01 00:10:00 UTC does not begin an interval of the 1h grid"
    );
    assert_eq!(refused(&[good], vec![Bounds::default(); 2]), "panel `p` has 1 series but 2 bounds");
    assert_eq!(
        refused(&[good, Observation { valid_time: utc("+200000-01-01T00:00:00Z"), ..good }], vec![]),
        "panel `p` would have 1735421977 steps of 1 series, the limit is 200000000 cells"
    );
}

#[test]
fn yearly_panels_have_no_calendar_features() {
    let observation = |year: i32| Observation {
        series: 0,
        valid_time: utc(&format!("{year}-01-01T00:00:00Z")),
        available_at: None,
        value: 1.0,
        sd: None,
    };
    let config = PanelConfig::new("p", Frequency::Year, Tz::UTC);
    let panel = Panel::from_observations(config, names(1), (2000..2010).map(observation)).expect("a panel");
    assert_eq!(panel.history().expect("a history").calendar.n_features(), 0);
    assert_eq!(panel.window(utc("2008-01-01T00:00:00Z"), 5, 3).expect("a window").context.n_steps(), 5);
}

proptest! {
    #[test]
    fn a_window_does_not_change_when_more_becomes_known(
        cells in prop::collection::vec((0..48_i64, 0..2_usize, 0..200_i64), 2..80), issue_hour in 1..200_i64,
    ) {
        let start = utc("2024-01-01T00:00:00Z");
        let panel = |cells: &mut dyn Iterator<Item = &(i64, usize, i64)>| {
            // The grid is the same, whatever is known.
            const ENDS: [(i64, usize, i64); 2] = [(0, 0, 0), (48, 0, 0)];
            let observations = ENDS.iter().chain(cells).map(|&(hour, series, known_hour)| Observation {
                series,
                valid_time: start + TimeDelta::hours(hour),
                available_at: Some(start + TimeDelta::hours(known_hour)),
                value: (known_hour % 5) as f64,
                sd: None,
            });
            let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
            Panel::from_observations(config, names(2), observations.collect::<Vec<_>>()).expect("a panel")
        };
        let earlier = panel(&mut cells.iter().filter(|(_, _, known_hour)| *known_hour <= issue_hour));
        let all = panel(&mut cells.iter());
        let window = |panel: &Panel| {
            let window = panel.window(start + TimeDelta::hours(issue_hour), 1_000, 2).expect("a window");
            shown(&window.context)
        };
        prop_assert_eq!(window(&earlier), window(&all));
    }

    #[test]
    fn no_window_contains_later_knowledge(
        cells in prop::collection::vec((0..48_i64, 0..2_usize, prop::option::of(0..200_i64)), 1..80),
        issue_minutes in 1..6_000_i64,
    ) {
        let start = utc("2024-01-01T00:00:00Z");
        // The value tells when it became known.
        let observations = cells.iter().map(|&(hour, series, known_hour)| {
            let value = known_hour.unwrap_or(hour + 1) as f64;
            let available_at = known_hour.map(|hour| start + TimeDelta::hours(hour));
            Observation { series, valid_time: start + TimeDelta::hours(hour), available_at, value, sd: None }
        });
        let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
        let panel = Panel::from_observations(config, names(2), observations).expect("a panel");
        let issue_time = start + TimeDelta::minutes(issue_minutes);
        if let Ok(window) = panel.window(issue_time, 1_000, 2) {
            for value in window.context.values().iter().filter(|value| !value.is_nan()) {
                prop_assert!(start + TimeDelta::hours(*value as i64) <= issue_time);
            }
            prop_assert_eq!(window.calendar.n_steps(), Some(window.context.n_steps() + 2));
        }
    }
}

#[test]
fn a_window_has_the_measurement_error_of_the_version_that_it_sees() {
    let at = |hour: i64, available_hour: Option<i64>, value: f64, sd: Option<f64>| Observation {
        series: 0,
        valid_time: DateTime::UNIX_EPOCH + TimeDelta::hours(hour),
        available_at: available_hour.map(|hour| DateTime::UNIX_EPOCH + TimeDelta::hours(hour)),
        value,
        sd,
    };
    let observations = [
        at(0, None, 1.0, Some(0.5)),
        at(0, Some(4), 2.0, Some(0.1)),
        at(1, None, 3.0, Some(0.7)),
        at(2, Some(3), 4.0, None),
    ];
    let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
    let panel = Panel::from_observations(config, names(1), observations).expect("a panel");
    for (hour, expected) in [(3, [0.5, 0.7, 0.0]), (4, [0.1, 0.7, 0.0])] {
        let window = panel.window(DateTime::UNIX_EPOCH + TimeDelta::hours(hour), 100, 1).expect("a window");
        assert_eq!([0, 1, 2].map(|step| window.context.sd(step, 0)), expected, "at {hour}");
    }
    let cut = panel.rows(1..3).window(DateTime::UNIX_EPOCH + TimeDelta::hours(3), 100, 1).expect("a window");
    assert_eq!(cut.context.sd(0, 0), 0.7);

    let config = PanelConfig::new("p", Frequency::HOUR, Tz::UTC);
    let negative = Panel::from_observations(config, names(1), [at(0, None, 1.0, Some(-0.5))]);
    assert!(matches!(negative, Err(Error::Forecast(forecast::Error::MeasurementError { .. }))));
}

/// A panel with a target, of which the last two hours are not observed, and a known covariate.
fn with_plan(plan_is_dated: bool) -> Panel {
    let start = utc("2024-01-01T00:00:00Z");
    let observations = (0..6).flat_map(|hour| {
        let valid_time = start + TimeDelta::hours(hour);
        // What is planned for an hour is settled two hours before.
        let settled = plan_is_dated.then(|| valid_time - TimeDelta::hours(2));
        let target = Observation { series: 0, valid_time, available_at: None, value: hour as f64, sd: None };
        let plan = Observation { series: 1, available_at: settled, value: 10.0 + hour as f64, ..target };
        (hour < 4).then_some(target).into_iter().chain([plan])
    });
    let roles = vec![Role::Target, Role::Known];
    let config = PanelConfig { roles, ..PanelConfig::new("p", Frequency::HOUR, Tz::UTC) };
    Panel::from_observations(config, names(2), observations).expect("a panel")
}

#[test]
fn the_future_of_a_known_covariate_is_in_the_window_and_not_in_the_history() {
    let panel = with_plan(false);
    let window = panel.window(utc("2024-01-01T02:00:00Z"), 2, 3).expect("a window");
    assert_eq!(shown(&window.context), [0.0, 10.0, 1.0, 11.0]);
    assert_eq!(shown(&window.future.expect("a known covariate")), [-1.0, 12.0, -1.0, 13.0, -1.0, 14.0]);
    let window = panel.window(utc("2024-01-01T04:00:00Z"), 1, 3).expect("a window");
    assert_eq!(shown(&window.future.expect("a known covariate")), [-1.0, 14.0, -1.0, 15.0, -1.0, -1.0]);
    let history = panel.history().expect("a history");
    assert_eq!((panel.n_steps(), history.values.n_steps()), (6, 4), "what is only planned teaches nothing");
    assert_eq!(history.calendar.n_steps(), Some(4));
    assert_eq!(history.roles, [Role::Target, Role::Known]);
}

#[test]
fn a_plan_that_was_settled_later_is_not_known_yet() {
    let window = with_plan(true).window(utc("2024-01-01T02:00:00Z"), 2, 4).expect("a window");
    let future = window.future.expect("a known covariate");
    assert_eq!(shown(&future), [-1.0, 12.0, -1.0, 13.0, -1.0, 14.0, -1.0, -1.0]);
}

#[test]
fn a_role_for_each_series_or_none() {
    let config = PanelConfig { roles: vec![Role::Known], ..PanelConfig::new("p", Frequency::HOUR, Tz::UTC) };
    let valid_time = utc("2024-01-01T00:00:00Z");
    let one = Observation { series: 0, valid_time, available_at: None, value: 1.0, sd: None };
    let refused = Panel::from_observations(config, names(2), [one]).expect_err("one role for two series");
    assert!(matches!(refused, Error::Forecast(forecast::Error::SeriesCount { given: 1, expected: 2 })), "{refused}");
}

/// Days of 2018 to 2021, on the holidays of Spain a tenth of the usual.
fn shop(holidays: Option<Holidays>) -> Panel {
    let (start, spain) = (utc("2018-01-01T00:00:00Z"), "ES".parse::<Holidays>().expect("a country"));
    let value = |day: i64| {
        let usual = 100.0 + ((day * 7919) % 101) as f64 / 10.0;
        if spain.contains((start + TimeDelta::days(day)).date_naive()) { 10.0 } else { usual }
    };
    let observation = |day| Observation {
        series: 0,
        valid_time: start + TimeDelta::days(day),
        available_at: None,
        value: value(day),
        sd: None,
    };
    let config = PanelConfig { holidays, ..PanelConfig::new("shop", Frequency::Day, Tz::UTC) };
    Panel::from_observations(config, names(1), (0..1461).map(observation)).expect("a panel")
}

#[test]
fn holidays_are_found_where_none_are_declared_in_the_rows_that_are_looked_at() {
    let spain = "ES".parse().expect("a country");
    let mut panel = shop(None);
    assert_eq!(panel.find_holidays(1461).map(|found| found.holidays), Some(spain));
    let told = panel.calendar(0..1).expect("a calendar").n_features();
    assert_eq!(panel.config().holidays, Some(spain));
    assert_eq!(told, shop(Some(Holidays::NONE)).calendar(0..1).expect("a calendar").n_features() + 3);
    for declared in [spain, Holidays::NONE] {
        let mut panel = shop(Some(declared));
        assert_eq!((panel.find_holidays(1461), panel.config().holidays), (None, Some(declared)));
    }
    let mut panel = shop(None);
    assert_eq!(panel.find_holidays(panel.n_rows_before(43, 27)), None, "300 days are too few");
    assert_eq!(panel.config().holidays, Some(Holidays::NONE));
}
