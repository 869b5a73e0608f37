//! What the database keeps, and how: knowledge in time, corrections, round trips, and the rules it enforces.

use api::db::forecast::{Idempotency, NewForecast, NewValues};
use api::db::load::{Load, Loaded, Value, load};
use api::db::observation::{self, Counts};
use api::db::panel::NewPanel;
use api::db::partition::{self, Partitioned};
use api::db::series::NewSeries;
use api::db::words::{Kind, Quality, Role, Stage, Status};
use api::db::{self, DEFAULT_TENANT as TENANT, Error};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

fn at(year: i32, month: u32, day: u32, hour: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(year, month, day, hour, 0, 0).unwrap()
}

/// Midnight of a day on which all values below lie.
fn midnight() -> DateTime<Utc> {
    at(2025, 3, 1, 0)
}

fn hour(hour: i64) -> DateTime<Utc> {
    midnight() + TimeDelta::hours(hour)
}

/// An hourly value whose source does not say when it became known.
fn value(series: usize, valid_time: DateTime<Utc>, value: f64) -> Value {
    Value { series, valid_time, interval_end: valid_time + TimeDelta::hours(1), available_at: None, value, sd: None }
}

fn panel() -> NewPanel<'static> {
    NewPanel { name: "air", frequency: "1h", time_zone: "Europe/Madrid", publication_delay: None, holidays: None }
}

fn named(names: &[&str]) -> Vec<NewSeries> {
    names.iter().map(|name| NewSeries { name: (*name).to_owned(), ..NewSeries::default() }).collect()
}

async fn load_at(pool: &PgPool, load_time: DateTime<Utc>, values: &[Value]) -> Result<Loaded, Error> {
    load(pool, TENANT, &Load { panel: panel(), series: &named(&["no2", "o3"]), values, load_time }).await
}

fn counts(inserted: u64, corrected: u64, unchanged: u64) -> Counts {
    Counts { inserted, corrected, unchanged }
}

/// Values that were known at `issue_time`, as (position, hour of the day, value).
async fn known(pool: &PgPool, loaded: &Loaded, issue_time: DateTime<Utc>) -> Vec<(i32, i64, f64)> {
    let version = loaded.panel_version.panel_version_id;
    let everything = at(1, 1, 1, 0)..at(9000, 1, 1, 0);
    let rows = observation::as_of(pool, TENANT, version, issue_time, everything).await.unwrap();
    assert!(rows.iter().all(|o| o.available_at <= issue_time));
    rows.iter().map(|o| (o.position, (o.valid_time - midnight()).num_hours(), o.value)).collect()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_value_is_known_from_the_end_of_its_interval(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[value(0, hour(0), 1.0), value(1, hour(1), 2.0)]).await.unwrap();
    assert_eq!(loaded.counts, counts(2, 0, 0));

    let just_before = hour(1) - TimeDelta::microseconds(1);
    assert_eq!(known(&pool, &loaded, just_before).await, []);
    assert_eq!(known(&pool, &loaded, hour(1)).await, [(1, 0, 1.0)]);
    assert_eq!(known(&pool, &loaded, hour(2)).await, [(1, 0, 1.0), (2, 1, 2.0)]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_publication_delay_shifts_what_is_assumed(pool: PgPool) {
    let delayed = NewPanel { publication_delay: Some(TimeDelta::hours(3)), ..panel() };
    let series = named(&["no2"]);
    let values = [value(0, hour(0), 1.0)];
    let request = Load { panel: delayed, series: &series, values: &values, load_time: hour(48) };
    let loaded = load(&pool, TENANT, &request).await.unwrap();

    assert_eq!(loaded.panel.publication_delay, TimeDelta::hours(3));
    assert_eq!(known(&pool, &loaded, hour(3)).await, []);
    assert_eq!(known(&pool, &loaded, hour(4)).await, [(1, 0, 1.0)]);

    // A later load that does not mention the delay keeps it.
    let again = load_at(&pool, hour(49), &[]).await.unwrap();
    assert_eq!(again.panel.publication_delay, TimeDelta::hours(3));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_value_that_was_loaded_early_was_known_when_it_was_loaded(pool: PgPool) {
    let loaded = load_at(&pool, hour(2), &[value(0, hour(10), 7.0)]).await.unwrap();

    assert_eq!(known(&pool, &loaded, hour(1)).await, []);
    assert_eq!(known(&pool, &loaded, hour(2)).await, [(1, 10, 7.0)]);
    let assumed: Vec<bool> = sqlx::query_scalar("select assumed from observation").fetch_all(&pool).await.unwrap();
    assert_eq!(assumed, [false]);

    // Its correction, still before the end of the interval, is not hidden behind an assumption.
    load_at(&pool, hour(5), &[value(0, hour(10), 8.0)]).await.unwrap();
    assert_eq!(known(&pool, &loaded, hour(4)).await, [(1, 10, 7.0)]);
    assert_eq!(known(&pool, &loaded, hour(5)).await, [(1, 10, 8.0)]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_correction_is_known_from_its_load_and_hides_nothing_from_the_past(pool: PgPool) {
    let first = load_at(&pool, hour(48), &[value(0, hour(0), 1.0), value(0, hour(1), 2.0)]).await.unwrap();
    let second = load_at(&pool, hour(72), &[value(0, hour(0), 1.5), value(0, hour(1), 2.0)]).await.unwrap();
    assert_eq!(second.counts, counts(0, 1, 1));
    assert_eq!(second.panel_version, first.panel_version);

    assert_eq!(known(&pool, &first, hour(71)).await, [(1, 0, 1.0), (1, 1, 2.0)]);
    assert_eq!(known(&pool, &first, hour(72)).await, [(1, 0, 1.5), (1, 1, 2.0)]);

    // The first value again is a correction of the correction.
    let third = load_at(&pool, hour(96), &[value(0, hour(0), 1.0)]).await.unwrap();
    assert_eq!(third.counts, counts(0, 1, 0));
    assert_eq!(known(&pool, &first, hour(80)).await[0], (1, 0, 1.5));
    assert_eq!(known(&pool, &first, hour(96)).await[0], (1, 0, 1.0));

    let assumed: Vec<bool> = sqlx::query_scalar("select assumed from observation order by valid_time, available_at")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(assumed, [true, false, false, true]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_second_load_of_the_same_changes_nothing(pool: PgPool) {
    let values: Vec<Value> = (0..20_000)
        .map(|i| Value { sd: (i % 3 == 0).then_some(0.1), ..value(i % 2, hour(i as i64 / 2), i as f64) })
        .collect();
    let first = load_at(&pool, hour(48), &values).await.unwrap();
    assert_eq!(first.counts, counts(20_000, 0, 0));
    let rows =
        async || -> i64 { sqlx::query_scalar("select count(*) from observation").fetch_one(&pool).await.unwrap() };
    assert_eq!(rows().await, 20_000);

    let second = load_at(&pool, hour(20_000), &values).await.unwrap();
    assert_eq!(second, Loaded { counts: counts(0, 0, 20_000), ..first });
    assert_eq!(rows().await, 20_000);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_change_of_sd_alone_is_a_correction(pool: PgPool) {
    load_at(&pool, hour(48), &[value(0, hour(0), 1.0)]).await.unwrap();
    let with_sd = Value { sd: Some(0.5), ..value(0, hour(0), 1.0) };
    assert_eq!(load_at(&pool, hour(49), &[with_sd]).await.unwrap().counts, counts(0, 1, 0));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn vintages_of_a_source_are_kept_as_it_states_them(pool: PgPool) {
    let vintage = |available_at, v| Value { available_at: Some(hour(available_at)), ..value(0, hour(0), v) };
    // The third says nothing new; the order in the file does not matter.
    let values = [vintage(30, 2.0), vintage(5, 1.0), vintage(40, 2.0), vintage(60, 3.0)];
    let loaded = load_at(&pool, hour(100), &values).await.unwrap();
    assert_eq!(loaded.counts, counts(1, 2, 1));

    assert_eq!(known(&pool, &loaded, hour(4)).await, []);
    for (issue_time, expected) in [(5, 1.0), (29, 1.0), (30, 2.0), (59, 2.0), (60, 3.0)] {
        assert_eq!(known(&pool, &loaded, hour(issue_time)).await, [(1, 0, expected)], "at {issue_time}");
    }
    assert_eq!(load_at(&pool, hour(101), &values).await.unwrap().counts, counts(0, 0, 4));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_source_that_restates_the_past_does_not_change_what_was_known(pool: PgPool) {
    let stated = |v| Value { available_at: Some(hour(5)), ..value(0, hour(0), v) };
    let loaded = load_at(&pool, hour(48), &[stated(1.0)]).await.unwrap();
    assert_eq!(load_at(&pool, hour(72), &[stated(9.0)]).await.unwrap().counts, counts(0, 1, 0));
    assert_eq!(load_at(&pool, hour(73), &[stated(9.0)]).await.unwrap().counts, counts(0, 0, 1));

    assert_eq!(known(&pool, &loaded, hour(71)).await, [(1, 0, 1.0)]);
    assert_eq!(known(&pool, &loaded, hour(72)).await, [(1, 0, 9.0)]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn of_two_unstated_values_of_one_time_the_later_line_counts(pool: PgPool) {
    let values = [value(0, hour(0), 1.0), value(0, hour(0), 2.0)];
    let loaded = load_at(&pool, hour(48), &values).await.unwrap();
    assert_eq!(loaded.counts, counts(1, 1, 0));
    assert_eq!(known(&pool, &loaded, hour(48)).await, [(1, 0, 2.0)]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn clocks_that_run_backwards_do_not_lose_a_correction(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[value(0, hour(0), 1.0)]).await.unwrap();
    load_at(&pool, hour(72), &[value(0, hour(0), 2.0)]).await.unwrap();
    load_at(&pool, hour(60), &[value(0, hour(0), 3.0)]).await.unwrap();
    assert_eq!(known(&pool, &loaded, hour(60)).await, [(1, 0, 1.0)]);
    assert_eq!(known(&pool, &loaded, hour(73)).await, [(1, 0, 3.0)]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_load_that_fails_leaves_nothing_behind(pool: PgPool) {
    let error = load_at(&pool, hour(48), &[value(0, hour(0), 1.0), value(1, hour(0), f64::NAN)]).await.unwrap_err();
    assert!(matches!(&error, Error::NotAllowed { constraint } if constraint == "observation_value_check"), "{error}");

    let negative = Value { sd: Some(-1.0), ..value(0, hour(0), 1.0) };
    let error = load_at(&pool, hour(48), &[negative]).await.unwrap_err();
    assert!(matches!(&error, Error::NotAllowed { constraint } if constraint == "observation_sd_check"), "{error}");

    for table in ["select count(*) from panel", "select count(*) from series", "select count(*) from observation"] {
        let rows: i64 = sqlx::query_scalar(table).fetch_one(&pool).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn concurrent_loads_of_the_same_values_store_them_once(pool: PgPool) {
    let values: Vec<Value> = (0..2_000).map(|i| value(i % 2, hour(i as i64 / 2), i as f64)).collect();
    let load_again = async || load_at(&pool, hour(5_000), &values).await.unwrap().counts;

    let all: [Counts; 4] = tokio::join!(load_again(), load_again(), load_again(), load_again()).into();
    let inserted: u64 = all.iter().map(|counts| counts.inserted).sum();
    let unchanged: u64 = all.iter().map(|counts| counts.unchanged).sum();
    assert_eq!((inserted, unchanged), (2_000, 6_000));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn concurrent_loads_of_different_values_keep_both(pool: PgPool) {
    let one = [value(0, hour(0), 1.0)];
    let other = [value(0, hour(0), 2.0)];
    let (a, b) = tokio::join!(load_at(&pool, hour(48), &one), load_at(&pool, hour(48), &other));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.counts.inserted + b.counts.inserted, 1);
    assert_eq!(a.counts.corrected + b.counts.corrected, 1);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_panel_keeps_its_grid(pool: PgPool) {
    load_at(&pool, hour(48), &[]).await.unwrap();
    let series = named(&["no2"]);
    let request = |panel| Load { panel, series: &series, values: &[], load_time: hour(49) };

    let error = load(&pool, TENANT, &request(NewPanel { frequency: "15min", ..panel() })).await.unwrap_err();
    assert_eq!(error.to_string(), "panel `air` has frequency `1h`, not `15min`");
    let error = load(&pool, TENANT, &request(NewPanel { time_zone: "UTC", ..panel() })).await.unwrap_err();
    assert_eq!(error.to_string(), "panel `air` has time_zone `Europe/Madrid`, not `UTC`");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_new_series_makes_a_new_panel_version_and_old_ones_stay(pool: PgPool) {
    let first = load_at(&pool, hour(48), &[]).await.unwrap();
    let more = named(&["pm10"]);
    let request = Load { panel: panel(), series: &more, values: &[], load_time: hour(49) };
    let second = load(&pool, TENANT, &request).await.unwrap();
    // A load of some of the series is no reason for another version.
    let third = load_at(&pool, hour(50), &[]).await.unwrap();

    assert_eq!((first.panel_version.version, second.panel_version.version), (1, 2));
    assert_eq!(third.panel_version, second.panel_version);
    let names = async |version: &db::panel_version::PanelVersion| -> Vec<String> {
        let series = db::panel_version::series(&pool, TENANT, version.panel_version_id).await.unwrap();
        series.into_iter().map(|series| series.name).collect()
    };
    assert_eq!(names(&first.panel_version).await, ["no2", "o3"]);
    assert_eq!(names(&second.panel_version).await, ["no2", "o3", "pm10"]);

    // Any order can be asked for; that of a version is its own.
    let mut connection = pool.acquire().await.unwrap();
    let reversed: Vec<i32> = first.series_ids.iter().rev().copied().collect();
    let panel_id = first.panel.panel_id;
    let fourth = db::panel_version::ensure(&mut connection, TENANT, panel_id, &reversed).await.unwrap();
    assert_eq!(fourth.version, 3);
    assert_eq!(names(&fourth).await, ["o3", "no2"]);
    let error = db::panel_version::ensure(&mut connection, TENANT, panel_id, &[]).await.unwrap_err();
    assert!(matches!(error, Error::NoSeries { .. }));
    let error = db::panel_version::ensure(&mut connection, TENANT, panel_id, &[999]).await.unwrap_err();
    assert!(matches!(error, Error::UnknownReference { .. }), "{error}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_a_load_declares_of_a_series_replaces_only_that(pool: PgPool) {
    let declared = [NewSeries {
        name: "trips".to_owned(),
        role: Some(Role::Known),
        kind: Some(Kind::Sum),
        unit: Some("1000".to_owned()),
        lower_bound: Some(0.0),
        upper_bound: None,
        is_integer: Some(true),
        attributes: [("site".to_owned(), json!("north")), ("kw".to_owned(), json!(3.5))].into_iter().collect(),
    }];
    let declare = async |series: &[NewSeries]| {
        load(&pool, TENANT, &Load { panel: panel(), series, values: &[], load_time: hour(0) }).await
    };
    let loaded = declare(&declared).await.unwrap();
    declare(&named(&["trips"])).await.unwrap();
    let partly = [NewSeries {
        name: "trips".to_owned(),
        upper_bound: Some(9.0),
        attributes: [("site".to_owned(), json!("south"))].into_iter().collect(),
        ..NewSeries::default()
    }];
    declare(&partly).await.unwrap();

    let stored = db::series::list(&pool, TENANT, loaded.panel.panel_id, None, 10).await.unwrap();
    assert_eq!(stored.len(), 1);
    let series = &stored[0];
    assert_eq!((series.role, series.kind, series.unit.as_deref()), (Role::Known, Kind::Sum, Some("1000")));
    assert_eq!((series.lower_bound, series.upper_bound, series.is_integer), (Some(0.0), Some(9.0), true));
    assert_eq!(serde_json::Value::from(series.attributes.clone()), json!({"site": "south", "kw": 3.5}));

    let bounded = |lower_bound, upper_bound| {
        [NewSeries { name: "trips".to_owned(), lower_bound, upper_bound, ..NewSeries::default() }]
    };
    for (lower_bound, upper_bound) in [(None, Some(f64::INFINITY)), (None, Some(f64::NAN))] {
        let error = declare(&bounded(lower_bound, upper_bound)).await.unwrap_err();
        assert!(matches!(error, Error::NotAllowed { .. }), "{error}");
    }
    for (lower_bound, upper_bound) in [(Some(10.0), None), (None, Some(-1.0)), (Some(4.0), Some(4.0))] {
        let error = declare(&bounded(lower_bound, upper_bound)).await.unwrap_err();
        let Error::ContradictoryBounds { series, lower_bound: lower, upper_bound: upper } = error else {
            panic!("{error}")
        };
        assert_eq!((series.as_str(), lower, upper), ("trips", lower_bound.unwrap_or(0.0), upper_bound.unwrap_or(9.0)));
    }
    let error = declare(&named(&[""])).await.unwrap_err();
    assert!(matches!(error, Error::NotAllowed { .. }), "{error}");
    let error = declare(&named(&["a", "a"])).await.unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn panels_and_series_are_listed_page_by_page(pool: PgPool) {
    let series = named(&["z", "a", "m"]);
    for name in ["beta", "alpha", "gamma"] {
        let panel = NewPanel { name, ..panel() };
        load(&pool, TENANT, &Load { panel, series: &series, values: &[], load_time: hour(0) }).await.unwrap();
    }
    let page = db::panel::list(&pool, TENANT, None, 2).await.unwrap();
    assert_eq!(page.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["alpha", "beta"]);
    let page = db::panel::list(&pool, TENANT, Some("beta"), 2).await.unwrap();
    assert_eq!(page.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["gamma"]);

    let panel = db::panel::get(&pool, TENANT, "gamma").await.unwrap().unwrap();
    assert_eq!(db::panel::get(&pool, TENANT, "delta").await.unwrap(), None);
    let first = db::series::list(&pool, TENANT, panel.panel_id, None, 2).await.unwrap();
    let rest = db::series::list(&pool, TENANT, panel.panel_id, Some(first[1].series_id), 2).await.unwrap();
    let names: Vec<&str> = first.iter().chain(&rest).map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn partitions_are_made_for_the_years_that_hold_data(pool: PgPool) {
    let years = [1700, 1998, 2010, 2010, 2199, 2300];
    let values: Vec<Value> = years.iter().enumerate().map(|(i, year)| value(i % 2, at(*year, 6, 1, 0), 1.0)).collect();
    let loaded = load_at(&pool, at(2400, 1, 1, 0), &values).await.unwrap();
    assert_eq!(loaded.counts.inserted, 6);

    let rows: Vec<(String, i64)> =
        sqlx::query_as("select tableoid::regclass::text, count(*) from observation group by 1 order by 1")
            .fetch_all(&pool)
            .await
            .unwrap();
    let expected =
        [("default", 2), ("y1998", 1), ("y2010", 2), ("y2199", 1)].map(|(name, n)| (format!("observation_{name}"), n));
    assert_eq!(rows, expected);

    let version = loaded.panel_version.panel_version_id;
    let span = observation::span(&pool, TENANT, version, at(2400, 1, 1, 0)).await.unwrap().unwrap();
    assert_eq!((span.first_valid_time, span.last_valid_time), (at(1700, 6, 1, 0), at(2300, 6, 1, 0)));
    assert_eq!(observation::span(&pool, TENANT, version, at(1600, 1, 1, 0)).await.unwrap(), None);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn rows_in_the_default_partition_move_when_their_year_gets_one(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[value(0, hour(0), 1.0)]).await.unwrap();
    // Somebody inserts by hand.
    sqlx::query(
        "insert into observation (tenant_id, series_id, valid_time, available_at, value)
         select 1, $1, t, t, 5 from generate_series('2019-12-31 12:00Z'::timestamptz, '2020-01-01 12:00Z', '1h') as t",
    )
    .bind(loaded.series_ids[1])
    .execute(&pool)
    .await
    .unwrap();
    let in_default = async || -> i64 {
        sqlx::query_scalar("select count(*) from observation_default").fetch_one(&pool).await.unwrap()
    };
    assert_eq!(in_default().await, 25);

    load_at(&pool, hour(49), &[value(0, at(2020, 7, 1, 0), 1.0)]).await.unwrap();
    assert_eq!(in_default().await, 12, "those of 2019");
    let total: i64 = sqlx::query_scalar("select count(*) from observation").fetch_one(&pool).await.unwrap();
    assert_eq!(total, 27);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn partitions_can_be_made_by_several_at_once(pool: PgPool) {
    let months = || (0..24).map(|month| at(2030 + month / 12, (month % 12 + 1) as u32, 1, 0));
    let make = async || partition::ensure(&pool, Partitioned::ForecastValue, months()).await.is_ok();
    let all: [bool; 4] = tokio::join!(make(), make(), make(), make()).into();
    assert_eq!(all, [true; 4]);

    let made: i64 = sqlx::query_scalar("select count(*) from pg_inherits where inhparent = 'forecast_value'::regclass")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(made, 24 + 1);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_new_partition_waits_for_a_load_without_stopping_readers(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[value(0, hour(0), 1.0)]).await.unwrap();
    let series_id = loaded.series_ids[0];
    let observation = observation::NewObservation {
        series_id,
        valid_time: hour(1),
        known_since: hour(2),
        available_at: None,
        value: 2.0,
        sd: None,
    };
    let mut slow_load = pool.begin().await.unwrap();
    db::panel::ensure(&mut slow_load, TENANT, &panel()).await.unwrap();
    db::series::ensure(&mut slow_load, TENANT, loaded.panel.panel_id, &named(&["no2"])).await.unwrap();
    observation::insert(&mut slow_load, TENANT, &loaded.panel, hour(48), &[series_id], [observation]).await.unwrap();

    let other = tokio::spawn({
        let pool = pool.clone();
        async move { partition::ensure(&pool, Partitioned::Observation, [at(1999, 1, 1, 0)]).await }
    });
    let mut reader = pool.acquire().await.unwrap();
    sqlx::query("set lock_timeout = '1s'").execute(&mut *reader).await.unwrap();
    let is_waiting = "select exists (
        select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%ensure_partitions(%'
    )";
    while !sqlx::query_scalar::<_, bool>(is_waiting).fetch_one(&mut *reader).await.unwrap() {
        assert!(!other.is_finished());
    }

    let rows: i64 = sqlx::query_scalar("select count(*) from observation").fetch_one(&mut *reader).await.unwrap();
    assert_eq!(rows, 1);
    slow_load.commit().await.unwrap();
    other.await.unwrap().unwrap();
}

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

async fn insert_model(pool: &PgPool, loaded: &Loaded) -> db::model::Model {
    let model = db::model::NewModel {
        panel_version_id: loaded.panel_version.panel_version_id,
        config: &json!({ "seed": 1 }),
        metrics: &json!({ "crps": 0.25 }),
        digest: DIGEST,
        snapshot_digest: DIGEST,
        artefact_path: "air/1",
        artefact_bytes: None,
        data_cutoff: hour(48),
    };
    db::model::insert(pool, TENANT, &model).await.unwrap()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_panel_has_one_champion(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[]).await.unwrap();
    let panel_id = loaded.panel.panel_id;
    let first = insert_model(&pool, &loaded).await;
    let second = insert_model(&pool, &loaded).await;
    assert_eq!((first.version, second.version), (1, 2));
    assert_eq!(first.stage, Stage::Candidate);
    assert_eq!(first.metrics, json!({ "crps": 0.25 }));
    assert_eq!(db::model::champion(&pool, TENANT, panel_id).await.unwrap(), None);

    for model in [&first, &second, &second] {
        db::model::promote(&pool, TENANT, model.model_id, "better").await.unwrap();
        let champion = db::model::champion(&pool, TENANT, panel_id).await.unwrap().unwrap();
        assert_eq!(champion.model_id, model.model_id);
    }
    let stages: Vec<Stage> =
        db::model::list(&pool, TENANT, panel_id, None, 9).await.unwrap().iter().map(|m| m.stage).collect();
    assert_eq!(stages, [Stage::Champion, Stage::Archived]);
    assert_eq!(db::model::list(&pool, TENANT, panel_id, Some(2), 9).await.unwrap().len(), 1);

    let error = db::model::promote(&pool, TENANT, 999, "better").await.unwrap_err();
    assert!(matches!(error, Error::UnknownModel { model_id: 999 }));
    assert_eq!(db::model::get(&pool, TENANT, 999).await.unwrap(), None);
    let two = sqlx::query("update model set stage = 'champion'").execute(&pool).await.unwrap_err();
    assert!(matches!(Error::from(two), Error::Exists { constraint } if constraint == "model_champion_key"));
}

const LEVELS: [f64; 3] = [0.1, 0.5, 0.9];
const N_SAMPLES: usize = 3;
/// Steps -1, 0, 1, 2, across the end of a month.
const FIRST_STEP: i32 = -1;
const N_STEPS: usize = 4;

/// A forecast of both series with numbers that all differ.
struct Numbers {
    series_ids: Vec<i32>,
    valid_times: Vec<DateTime<Utc>>,
    means: Vec<f64>,
    quantiles: Vec<f64>,
    trajectories: Vec<f32>,
}

impl Numbers {
    fn of(loaded: &Loaded) -> Self {
        let n_series = loaded.series_ids.len();
        let n = N_STEPS * n_series;
        Self {
            series_ids: loaded.series_ids.clone(),
            valid_times: (0..N_STEPS as i64).map(|i| issue_time() + TimeDelta::hours(i - 2)).collect(),
            means: (0..n).map(|i| i as f64 / 3.0).collect(),
            quantiles: (0..n * LEVELS.len()).map(|i| i as f64 / 7.0).collect(),
            trajectories: (0..N_SAMPLES * n).map(|i| (i as f32 / 11.0).sin() * 1e-30).collect(),
        }
    }

    fn values(&self) -> NewValues<'_> {
        NewValues {
            series_ids: &self.series_ids,
            valid_times: &self.valid_times,
            means: &self.means,
            quantiles: &self.quantiles,
            trajectories: &self.trajectories,
        }
    }
}

fn issue_time() -> DateTime<Utc> {
    at(2025, 3, 31, 23) + TimeDelta::hours(1)
}

fn new_forecast<'a>(model: &db::model::Model, params: &'a serde_json::Value) -> NewForecast<'a> {
    NewForecast {
        forecast_id: Uuid::now_v7(),
        panel_version_id: model.panel_version_id,
        model_id: Some(model.model_id),
        issue_time: issue_time(),
        data_cutoff: hour(48),
        first_step: FIRST_STEP,
        num_samples: N_SAMPLES,
        seed: i64::MAX,
        schedule: "autoregressive",
        passes: 8,
        quantile_levels: &LEVELS,
        params,
        quality: Quality::Ok,
        scenario: None,
        idempotency: None,
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_comes_back_as_it_went_in(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[]).await.unwrap();
    let model = insert_model(&pool, &loaded).await;
    let params = json!({ "horizon": 2 });
    let new = new_forecast(&model, &params);
    let numbers = Numbers::of(&loaded);
    db::forecast::insert(&pool, TENANT, &new, &numbers.values()).await.unwrap();

    let stored = db::forecast::get(&pool, TENANT, new.forecast_id).await.unwrap().unwrap();
    assert_eq!((stored.panel_id, stored.model_id), (loaded.panel.panel_id, Some(model.model_id)));
    assert_eq!((stored.first_step, stored.horizon), (-1, 2));
    assert_eq!((stored.first_valid_time, stored.last_valid_time), (at(2025, 3, 31, 22), at(2025, 4, 1, 1)));
    assert_eq!((stored.num_samples, stored.seed, stored.passes), (3, i64::MAX, 8));
    assert_eq!(stored.quantile_levels, LEVELS);
    assert_eq!(stored.params, params);
    assert_eq!((stored.status, stored.quality), (Status::Succeeded, Quality::Ok));

    let values = db::forecast::values(&pool, TENANT, &stored, None).await.unwrap();
    assert_eq!(values.len(), 2 * N_STEPS);
    for (row, value) in values.iter().enumerate() {
        let (series, step) = (row / N_STEPS, row % N_STEPS);
        let place = step * 2 + series;
        assert_eq!(value.series_id, numbers.series_ids[series]);
        assert_eq!(value.valid_time, numbers.valid_times[step]);
        assert_eq!(value.step, FIRST_STEP + step as i32);
        assert_eq!(value.lead_seconds, 3600 * (step as i64 - 2));
        assert_eq!(value.mean, numbers.means[place]);
        assert_eq!(value.quantiles, numbers.quantiles[place * 3..][..3]);
    }

    let trajectories = db::forecast::trajectories(&pool, TENANT, &stored, None).await.unwrap();
    assert_eq!(trajectories.len(), 2);
    for (series, of_series) in trajectories.iter().enumerate() {
        assert_eq!((of_series.value.n_rows(), of_series.value.n_columns()), (N_SAMPLES, N_STEPS));
        for sample in 0..N_SAMPLES {
            for step in 0..N_STEPS {
                let expected = numbers.trajectories[(sample * N_STEPS + step) * 2 + series];
                assert_eq!(of_series.value.row(sample)[step].to_bits(), expected.to_bits());
            }
        }
    }

    // One series alone.
    let second = [numbers.series_ids[1]];
    assert_eq!(db::forecast::values(&pool, TENANT, &stored, Some(&second)).await.unwrap(), values[N_STEPS..]);
    assert_eq!(db::forecast::trajectories(&pool, TENANT, &stored, Some(&second)).await.unwrap(), trajectories[1..]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn stored_forecasts_can_be_read_with_plain_sql(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[]).await.unwrap();
    let model = insert_model(&pool, &loaded).await;
    let params = json!({});
    let new = new_forecast(&model, &params);
    let numbers = Numbers::of(&loaded);
    db::forecast::insert(&pool, TENANT, &new, &numbers.values()).await.unwrap();

    let median: f64 = sqlx::query_scalar(
        "select value from forecast_quantile where series_id = $1 and step = 2 and quantile_level = 0.5",
    )
    .bind(numbers.series_ids[1])
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(median, numbers.quantiles[(3 * 2 + 1) * 3 + 1]);

    let one: f32 = sqlx::query_scalar("select value[3][4] from trajectory where series_id = $1")
        .bind(numbers.series_ids[0])
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(one, numbers.trajectories[(2 * N_STEPS + 3) * 2]);

    let periods: Vec<String> =
        sqlx::query_scalar("select distinct tableoid::regclass::text from forecast_value order by 1")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(periods, ["forecast_value_y2025m03", "forecast_value_y2025m04"]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn forecasts_are_listed_newest_first_page_by_page(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[]).await.unwrap();
    let model = insert_model(&pool, &loaded).await;
    let params = json!({});
    let numbers = Numbers::of(&loaded);
    let mut ids: Vec<Uuid> = Vec::new();
    for day in 0..3 {
        let new = NewForecast { issue_time: issue_time() - TimeDelta::days(day), ..new_forecast(&model, &params) };
        db::forecast::insert(&pool, TENANT, &new, &numbers.values()).await.unwrap();
        ids.push(new.forecast_id);
    }

    let list = async |panel_id, before| -> Vec<Uuid> {
        let page = db::forecast::list(&pool, TENANT, panel_id, Default::default(), before, 2).await.unwrap();
        page.iter().map(|forecast| forecast.forecast_id).collect()
    };
    assert_eq!(list(None, None).await, [ids[2], ids[1]]);
    assert_eq!(list(Some(loaded.panel.panel_id), Some(ids[1])).await, [ids[0]]);
    assert!(list(Some(999), None).await.is_empty());

    let latest = db::forecast::latest(&pool, TENANT, loaded.panel.panel_id).await.unwrap().unwrap();
    assert_eq!(latest.forecast_id, ids[0], "the latest issue time, not the latest insert");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn an_idempotency_key_is_used_once(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[]).await.unwrap();
    let model = insert_model(&pool, &loaded).await;
    let params = json!({});
    let numbers = Numbers::of(&loaded);
    let key = Some(Idempotency { key: "7c1e", request_digest: DIGEST });

    assert_eq!(db::forecast::find_by_key(&pool, TENANT, "7c1e").await.unwrap(), None);
    let first = NewForecast { idempotency: key, ..new_forecast(&model, &params) };
    db::forecast::insert(&pool, TENANT, &first, &numbers.values()).await.unwrap();
    let again = NewForecast { idempotency: key, ..new_forecast(&model, &params) };
    let error = db::forecast::insert(&pool, TENANT, &again, &numbers.values()).await.unwrap_err();
    assert!(matches!(error, Error::IdempotencyKeyInUse));

    let found = db::forecast::find_by_key(&pool, TENANT, "7c1e").await.unwrap();
    assert_eq!(found, Some((first.forecast_id, DIGEST.to_owned())));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_forecast_that_breaks_a_rule_leaves_nothing_behind(pool: PgPool) {
    let loaded = load_at(&pool, hour(48), &[]).await.unwrap();
    let model = insert_model(&pool, &loaded).await;
    let params = json!({});
    let numbers = Numbers::of(&loaded);
    let good = || new_forecast(&model, &params);

    for (constraint, forecast) in [
        ("forecast_quantile_levels_check", NewForecast { quantile_levels: &[0.1, 0.5, 1.5], ..good() }),
        ("forecast_data_cutoff_check", NewForecast { data_cutoff: at(2026, 1, 1, 0), ..good() }),
        ("forecast_seed_check", NewForecast { seed: -1, ..good() }),
        ("forecast_steps_check", NewForecast { first_step: 2, ..good() }),
    ] {
        match db::forecast::insert(&pool, TENANT, &forecast, &numbers.values()).await {
            Err(Error::NotAllowed { constraint: violated }) => assert_eq!(violated, constraint),
            other => panic!("{constraint}: {other:?}"),
        }
    }
    let error =
        db::forecast::insert(&pool, TENANT, &NewForecast { model_id: Some(999), ..good() }, &numbers.values()).await;
    assert!(matches!(error, Err(Error::UnknownReference { constraint }) if constraint == "forecast_model_fkey"));

    let infinite = Numbers { means: vec![f64::INFINITY; numbers.means.len()], ..Numbers::of(&loaded) };
    let error = db::forecast::insert(&pool, TENANT, &good(), &infinite.values()).await;
    assert!(matches!(error, Err(Error::NotAllowed { constraint }) if constraint == "forecast_value_mean_check"));
    let unknown = Numbers { series_ids: vec![998, 999], ..Numbers::of(&loaded) };
    let error = db::forecast::insert(&pool, TENANT, &good(), &unknown.values()).await;
    assert!(matches!(error, Err(Error::UnknownReference { .. })));

    let rows: i64 = sqlx::query_scalar("select count(*) from forecast").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_database_that_is_gone_is_told_apart_from_a_mistake(pool: PgPool) {
    pool.close().await;
    let error = db::panel::get(&pool, TENANT, "air").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)));
    assert!(error.is_transient());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_text_that_cannot_be_stored_is_told_apart_from_a_mistake(pool: PgPool) {
    let error = db::panel::get(&pool, TENANT, "a\0").await.unwrap_err();
    assert!(matches!(error, Error::UnstorableText(_)), "{error}");
    let report = json!({"value": "a\0"});
    let record = db::load::Record {
        load_id: Uuid::now_v7(),
        panel: "air",
        source: "push",
        pipeline_id: None,
        report: Some(&report),
        n_rejected: 0,
        quarantine: None,
        started_at: hour(0),
    };
    let error = db::load::insert_failed(&pool, TENANT, &record, "it is wrong").await.unwrap_err();
    assert!(matches!(error, Error::UnstorableText(_)), "{error}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_statement_that_takes_too_long_is_cancelled(pool: PgPool) {
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("set statement_timeout = '10ms'").execute(&mut *connection).await.unwrap();
    let slow = sqlx::query("select count(*) from generate_series(1, 1000000000)").execute(&mut *connection).await;
    assert!(matches!(Error::from(slow.unwrap_err()), Error::StatementTimeout(_)));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_load_takes_the_time_that_it_needs_and_waits_for_a_lock_no_longer_than_others(pool: PgPool) {
    const N_SERIES: usize = 1_000;
    let series: Vec<NewSeries> =
        (0..N_SERIES).map(|index| NewSeries { name: format!("s{index}"), ..NewSeries::default() }).collect();
    let load_hours = async |pool: &PgPool, n_hours: usize| {
        let cells = (0..N_SERIES).flat_map(|series| (0..n_hours).map(move |hour| (series, hour)));
        let values: Vec<Value> = cells.map(|(series, hour)| crate::support::observation(series, hour, 1.0)).collect();
        let panel =
            NewPanel { name: "air", frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
        let load_time = crate::support::hour(n_hours);
        load(pool, TENANT, &Load { panel, series: &series, values: &values, load_time }).await
    };
    // The partitions are there already.
    load_hours(&pool, 1).await.unwrap();
    let options = (*pool.connect_options()).clone().options([("statement_timeout", "300ms")]);
    let impatient = PgPoolOptions::new().connect_with(options).await.unwrap();
    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("lock table panel in access exclusive mode").execute(&mut *blocker).await.unwrap();
    let refused = load_hours(&impatient, 1).await.unwrap_err();
    assert!(refused.is_transient(), "{refused}");
    blocker.rollback().await.unwrap();
    assert_eq!(load_hours(&impatient, 600).await.unwrap().counts.inserted, 599 * N_SERIES as u64);
}

#[sqlx::test(migrations = false)]
async fn a_service_knows_whether_migrations_are_missing(pool: PgPool) {
    let all = api::MIGRATOR.iter().count();
    assert_eq!(api::database::n_pending_migrations(&pool).await.unwrap(), all);
    api::MIGRATOR.run(&pool).await.unwrap();
    assert_eq!(api::database::n_pending_migrations(&pool).await.unwrap(), 0);
    // Again is harmless.
    api::MIGRATOR.run(&pool).await.unwrap();
}
