//! Which partitions a query reads, and that there is an index for it, whatever the amount of data.

use api::db::partition::{Partitioned, ensure};
use chrono::{DateTime, TimeZone, Utc};
use forecast::Trajectories;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::support::{load_panel, register, store_forecast};

fn month(year: i32, month: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(year, month, 1, 0, 0, 0).unwrap()
}

/// Partitions of the three large tables that a statement has scanned, and whether it did so by an index alone.
async fn scanned(pool: &PgPool, statement: &str) -> (Vec<String>, bool) {
    // A connection of its own: counts of earlier transactions would be among its own.
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    // Tables this small are read whole otherwise.
    sqlx::query("set local enable_seqscan = off").execute(&mut *transaction).await.unwrap();
    let rows = sqlx::query(AssertSqlSafe(statement.to_owned())).fetch_all(&mut *transaction).await;
    assert!(!rows.unwrap_or_else(|error| panic!("{error}\n{statement}")).is_empty(), "{statement}");
    let scans: Vec<(String, i64, i64)> = sqlx::query_as(
        "select relname::text, coalesce(seq_scan, 0), coalesce(idx_scan, 0) from pg_stat_xact_user_tables
         where relname ~ '^(observation|forecast_value|trajectory)_' and coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0
         order by relname",
    )
    .fetch_all(&mut *transaction)
    .await
    .unwrap();
    let by_index = scans.iter().all(|(_, whole, _)| *whole == 0);
    (scans.into_iter().map(|(name, ..)| name).collect(), by_index)
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn queries_read_the_partitions_of_their_time_by_index(pool: PgPool) {
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    let trajectories = Trajectories::new(2, 1, 2, 2, vec![1.0; 8]).unwrap();
    let id = store_forecast(&pool, &loaded, &model, &trajectories).await;
    // All data are of March 2025; these are the partitions beside theirs.
    ensure(&pool, Partitioned::Observation, [month(2023, 1), month(2024, 1), month(2026, 1)]).await.unwrap();
    for table in [Partitioned::ForecastValue, Partitioned::Trajectory] {
        ensure(&pool, table, [month(2024, 3), month(2025, 2), month(2025, 4), month(2026, 3)]).await.unwrap();
    }
    let [heat, wind] = [loaded.series_ids[0], loaded.series_ids[1]];
    let panel = loaded.panel.panel_id;
    let of_one = format!("'1', '{id}', '{heat}'");
    let of_both = format!("'1', '{id}', array['{heat}', '{wind}']");
    let days = "'2025-03-01 00:00Z', '2025-03-04 00:00Z'";

    let (values, trajectory, observed) =
        (["forecast_value_y2025m03"].as_slice(), ["trajectory_y2025m03"], ["observation_y2025"].as_slice());
    let sampled = ["forecast_value_y2025m03", trajectory[0]];
    for (statement, expected) in [
        (
            format!(
                "select value from dashboard_observation where tenant_id = 1 and series_id = {heat}
                 and valid_time between '2025-03-01 00:00Z' and '2025-03-04 00:00Z'"
            ),
            observed,
        ),
        (format!("select median from dashboard_fan({of_one}, array['80'])"), values),
        (format!("select median from dashboard_fan_at_lead('1', '{heat}', '1', {days}, array['80'])"), values),
        (format!("select value from dashboard_path({of_one}, 2)"), &sampled),
        (format!("select median from dashboard_total_fan({of_both}, 'sum', array['80'])"), &sampled),
        (format!("select total from dashboard_total({of_both}, 'sum')"), &sampled),
        (format!("select joint_lower from dashboard_total_interval({of_both}, 'sum')"), &sampled),
        (format!("select total from dashboard_total({of_both}, 'sum', {days})"), &sampled),
        (format!("select joint_lower from dashboard_total_interval({of_both}, 'sum', {days})"), &sampled),
        (format!("select median from dashboard_peak({of_both}, 'sum')"), &sampled),
        (format!("select probability from dashboard_exceedance({of_both}, 'sum', '1')"), &sampled),
        (format!("select by_then from dashboard_passage({of_both}, 'sum', '1')"), &sampled),
        (format!("select threshold from dashboard_threshold({of_both}, 'sum')"), &sampled),
        (format!("select actual from dashboard_total_actual('1', array['{heat}'], 'sum', {days})"), observed),
        (format!("select n_values from dashboard_correction('1', '{panel}', {days})"), observed),
    ] {
        assert_eq!(
            scanned(&pool, &statement).await,
            (expected.iter().map(ToString::to_string).collect(), true),
            "{statement}"
        );
    }

    // Newest values are looked for at the end of every partition's index.
    for view in ["dashboard_panel", "dashboard_series"] {
        let (_, by_index) = scanned(&pool, &format!("select newest_valid_time from {view}")).await;
        assert!(by_index, "{view}");
    }
    for call in
        [format!("dashboard_missing('1', '{panel}', {days})"), format!("dashboard_newest_forecast('1', '{panel}', 9)")]
    {
        let (_, by_index) = scanned(&pool, &format!("select * from {call}")).await;
        assert!(by_index, "{call}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn scores_are_read_one_by_one_only_where_a_time_range_cuts_a_day(pool: PgPool) {
    let loaded = load_panel(&pool, "city", 48).await;
    let model = register(&pool, &loaded, "none", &"a".repeat(64)).await;
    let trajectories = Trajectories::new(2, 1, 2, 2, vec![1.0; 8]).unwrap();
    let id = store_forecast(&pool, &loaded, &model, &trajectories).await;
    ensure(&pool, Partitioned::Score, [month(2025, 2), month(2025, 3), month(2025, 4)]).await.unwrap();
    let (heat, panel) = (loaded.series_ids[0], loaded.panel.panel_id);
    let times = "generate_series('2025-02-27 00:00Z'::timestamptz, '2025-04-02 23:00Z', interval '1 hour') as time";
    let score = format!(
        "insert into score (tenant_id, panel_id, series_id, step, valid_time, forecast_id, model_id, issue_time, value, crps,
             pinball, absolute_error, inside_50, inside_80, inside_90, pit, scored_at)
         select 1, {panel}, {heat}, 1, time, '{id}', {}, time, 1, 1, '{{}}', 1, true, true, true, 0.5, time from {times}",
        model.model_id
    );
    sqlx::query(AssertSqlSafe(score)).execute(&pool).await.unwrap();
    // Whole days of UTC; 19 hours of the first day and 13 of the last; 19 of the first.
    for (since, until, expected) in [
        ("2025-03-02 00:00Z", "2025-03-08 23:59:59.999999Z", 0),
        ("2025-03-02 05:00Z", "2025-03-08 12:00Z", 19 + 13),
        ("2025-02-28 05:00Z", "2025-03-08 23:59:59.999999Z", 19),
    ] {
        let call = format!("dashboard_accuracy_by_step('1', '{panel}', array['{heat}'], '{since}', '{until}')");
        let mut connection = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        sqlx::query("set local enable_seqscan = off").execute(&mut *transaction).await.unwrap();
        let read = format!("select n_values from {call}");
        sqlx::query(AssertSqlSafe(read)).fetch_one(&mut *transaction).await.unwrap();
        let n_read: i64 = sqlx::query_scalar(
            "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables
             where relname ~ '^score_(y|default)'",
        )
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
        assert_eq!(n_read, expected, "{call}");
    }
}
