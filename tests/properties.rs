//! What holds of loads whatever they bring and in whatever order: values with random vintages, from seeds that are fixed.

use api::db::DEFAULT_TENANT as TENANT;
use api::db::load::{Load, Loaded, Value, load};
use api::db::observation::{self, Counts};
use api::db::panel::NewPanel;
use api::db::series::NewSeries;
use sqlx::PgPool;

use crate::support::hour;

/// Hours that the values refer to, and in which they become known.
const N_HOURS: usize = 12;
const N_KNOWN: usize = 60;

/// Numbers that repeat (Knuth's multiplier, upper bits).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Values of two series, each time with up to four vintages, in the order in which they become known. They are `n_values`
/// numbers in turn from a random one on; with one or two of them some say nothing new.
fn vintages(random: &mut Random, n_values: usize) -> Vec<Value> {
    let mut values = Vec::new();
    for (series, step) in (0..2).flat_map(|series| (0..N_HOURS).map(move |step| (series, step))) {
        let mut known_at: Vec<usize> = (0..N_KNOWN).collect();
        random.shuffle(&mut known_at);
        let first = random.below(n_values);
        for (index, known_at) in known_at.into_iter().take(random.below(5)).enumerate() {
            let value = ((first + index) % n_values) as f64;
            let (valid_time, interval_end) = (hour(step), hour(step + 1));
            values.push(Value {
                series,
                valid_time,
                interval_end,
                available_at: Some(hour(known_at)),
                value,
                sd: None,
            });
        }
    }
    values.sort_by_key(|value| value.available_at);
    values
}

/// Loads values in several parts, one after the other.
async fn load_in_parts(pool: &PgPool, name: &str, values: &[Value], n_parts: usize) -> Loaded {
    let series = ["a", "b"].map(|name| NewSeries { name: name.to_owned(), ..NewSeries::default() });
    let mut last = None;
    for values in values.chunks(values.len().div_ceil(n_parts)) {
        let panel = NewPanel { name, frequency: "1h", time_zone: "UTC", publication_delay: None, holidays: None };
        let part = Load { panel, series: &series, values, load_time: hour(1_000) };
        last = Some(load(pool, TENANT, &part).await.unwrap());
    }
    last.unwrap()
}

/// Position, time and value of all that was known at an hour.
async fn known(pool: &PgPool, loaded: &Loaded, at: usize) -> Vec<(i32, i64, f64)> {
    let version = loaded.panel_version.panel_version_id;
    let rows = observation::as_of(pool, TENANT, version, hour(at), hour(0)..hour(N_HOURS)).await.unwrap();
    rows.into_iter().map(|row| (row.position, row.valid_time.timestamp(), row.value)).collect()
}

/// The same by hand: of each cell the value that became known last.
fn expected(values: &[Value], at: usize) -> Vec<(i32, i64, f64)> {
    let mut known = Vec::new();
    for (series, step) in (0..2).flat_map(|series| (0..N_HOURS).map(move |step| (series, step))) {
        let of_cell = values.iter().filter(|value| value.series == series && value.valid_time == hour(step));
        let latest =
            of_cell.filter(|value| value.available_at <= Some(hour(at))).max_by_key(|value| value.available_at);
        known.extend(
            latest.map(|value| (i32::try_from(series).unwrap() + 1, value.valid_time.timestamp(), value.value)),
        );
    }
    known
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_order_of_loads_makes_no_difference_and_a_second_one_neither(pool: PgPool) {
    for seed in 0..6 {
        let mut random = Random(seed);
        // No value comes back: a vintage that says nothing new makes no row, so it cannot be told from none when another
        // one comes later and lies before it.
        let values = vintages(&mut random, N_KNOWN);
        let mut shuffled = values.clone();
        random.shuffle(&mut shuffled);
        let one = load_in_parts(&pool, &format!("one {seed}"), &values, 1).await;
        let parts = load_in_parts(&pool, &format!("parts {seed}"), &shuffled, 4).await;
        for at in (0..N_KNOWN).step_by(3) {
            let expected = expected(&values, at);
            assert_eq!(known(&pool, &one, at).await, expected, "seed {seed}, at {at}");
            assert_eq!(known(&pool, &parts, at).await, expected, "seed {seed}, at {at}, in parts");
        }
        let again = load_in_parts(&pool, &format!("one {seed}"), &shuffled, 1).await;
        let unchanged = Counts { unchanged: values.len() as u64, ..Default::default() };
        assert_eq!(again.counts, unchanged, "seed {seed}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_was_known_does_not_change_when_more_becomes_known(pool: PgPool) {
    const NOW: usize = 30;
    for seed in 100..106 {
        let values = vintages(&mut Random(seed), 2);
        let (earlier, later): (Vec<Value>, Vec<Value>) =
            values.iter().cloned().partition(|value| value.available_at <= Some(hour(NOW)));
        let panel = format!("panel {seed}");
        let loaded = load_in_parts(&pool, &panel, &earlier, 2).await;
        let mut before = Vec::new();
        for at in 0..=NOW {
            before.push(known(&pool, &loaded, at).await);
        }
        load_in_parts(&pool, &panel, &later, 3).await;
        for (at, before) in before.into_iter().enumerate() {
            assert_eq!(known(&pool, &loaded, at).await, before, "seed {seed}, at {at}");
        }
        assert_eq!(known(&pool, &loaded, N_KNOWN).await, expected(&values, N_KNOWN), "seed {seed}");
    }
}
