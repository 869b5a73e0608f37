//! Schedules: one job for each occasion, whatever schedulers and clocks do.

use api::config::Limits;
use api::db::job::{Filter, Job};
use api::db::{self, DEFAULT_TENANT as TENANT};
use api::jobs::scheduler::{Declaration, declare, look};
use chrono::{DateTime, TimeDelta, Timelike, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use ureq::http::Request;

use crate::support::{Service, load_panel};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn noon() -> DateTime<Utc> {
    at("2025-06-30T12:00:00Z")
}

/// An hourly forecast, changed by `more`.
fn hourly(more: Value) -> Value {
    let mut body = json!({
        "name": "hourly", "cron": "0 * * * *", "kind": "forecast", "arguments": {"panel": "site", "horizon": 24},
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn declare_at(pool: &PgPool, now: DateTime<Utc>, body: Value) {
    let declaration: Declaration = serde_json::from_value(body).unwrap();
    declare(&mut pool.acquire().await.unwrap(), &declaration, &Limits::default(), now).await.unwrap();
}

async fn look_at(pool: &PgPool, now: DateTime<Utc>) -> usize {
    look(pool, &Limits::default(), now).await.unwrap()
}

/// All jobs, the oldest occasion first.
async fn jobs(pool: &PgPool) -> Vec<Job> {
    let mut jobs = db::job::list(pool, TENANT, &Filter::default(), None, 1000).await.unwrap();
    jobs.sort_by_key(|job| job.run_after);
    jobs
}

async fn occasions(pool: &PgPool) -> Vec<DateTime<Utc>> {
    jobs(pool).await.iter().map(|job| job.run_after).collect()
}

/// As if somebody had done all jobs that wait.
async fn do_all(pool: &PgPool) {
    let all = "update job set state = 'succeeded', finished_at = now() where state = 'waiting'";
    sqlx::query(all).execute(pool).await.unwrap();
}

fn hours(range: std::ops::Range<i64>) -> Vec<DateTime<Utc>> {
    range.map(|hour| noon() + TimeDelta::hours(hour)).collect()
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn each_occasion_has_one_job(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    declare_at(&pool, noon(), hourly(json!({}))).await;
    assert_eq!(look_at(&pool, noon() + TimeDelta::minutes(59)).await, 0);
    assert_eq!(look_at(&pool, noon() + TimeDelta::minutes(60)).await, 1);
    assert_eq!(look_at(&pool, noon() + TimeDelta::minutes(61)).await, 0);
    let schedule = db::schedule::get(&pool, TENANT, "hourly").await.unwrap().unwrap();
    let made = jobs(&pool).await;
    assert_eq!((made[0].kind.as_str(), made[0].asked_by.as_str()), ("forecast", "schedule hourly"));
    assert_eq!(made[0].panel.as_deref(), Some("site"));
    assert_eq!(schedule.last_job_id, Some(made[0].job_id));
    assert_eq!((schedule.last_run, schedule.next_run), (Some(hours(1..2)[0]), Some(hours(2..3)[0])));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn schedulers_that_look_at_once_make_one_job(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    for number in 0..10 {
        declare_at(&pool, noon(), hourly(json!({"name": format!("hourly-{number}")}))).await;
    }
    let now = noon() + TimeDelta::hours(1);
    let (a, b, c, d) = tokio::join!(look_at(&pool, now), look_at(&pool, now), look_at(&pool, now), look_at(&pool, now));
    assert_eq!((a + b + c + d, jobs(&pool).await.len()), (10, 10));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn missed_occasions_are_made_up_for_as_the_schedule_says(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    let late = noon() + TimeDelta::minutes(5 * 60 + 30);
    for (catch_up, expected) in [("skip", vec![]), ("once", hours(5..6)), ("all", hours(1..6))] {
        declare_at(&pool, noon(), hourly(json!({"name": catch_up, "catch_up": catch_up}))).await;
        assert_eq!(look_at(&pool, late).await, expected.len(), "{catch_up}");
        assert_eq!(occasions(&pool).await, expected, "{catch_up}");
        let schedule = db::schedule::get(&pool, TENANT, catch_up).await.unwrap().unwrap();
        assert_eq!(schedule.next_run, Some(noon() + TimeDelta::hours(6)), "{catch_up}");
        // What was missed is done as of its occasion, the newest by what is known when it is done.
        let issue_times: Vec<Value> = jobs(&pool).await.iter().map(|job| job.arguments["issue_time"].clone()).collect();
        if catch_up == "all" {
            assert_eq!(issue_times[0], "2025-06-30T13:00:00Z");
            assert_eq!(issue_times[4], Value::Null);
        }
        sqlx::query("delete from job").execute(&pool).await.unwrap();
        sqlx::query("delete from schedule").execute(&pool).await.unwrap();
    }

    // However long nobody was there, there is a limit.
    declare_at(&pool, noon() - TimeDelta::days(300), hourly(json!({"catch_up": "all"}))).await;
    assert_eq!(look_at(&pool, noon()).await, 100);
    assert_eq!(occasions(&pool).await[99], noon());
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn jobs_that_nobody_does_do_not_pile_up(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    declare_at(&pool, noon(), hourly(json!({}))).await;
    for hour in 1..6 {
        look_at(&pool, noon() + TimeDelta::hours(hour)).await;
    }
    assert_eq!(occasions(&pool).await, hours(1..2));
    do_all(&pool).await;
    assert_eq!(look_at(&pool, noon() + TimeDelta::hours(6)).await, 1);
    assert_eq!(occasions(&pool).await[1], hours(6..7)[0]);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn occasions_wait_for_room_in_the_queue(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    declare_at(&pool, noon(), hourly(json!({"catch_up": "all"}))).await;
    declare_at(&pool, noon(), hourly(json!({"name": "other"}))).await;
    let limits = Limits { jobs_waiting_max: 3, ..Limits::default() };
    let late = noon() + TimeDelta::minutes(5 * 60 + 30);
    let schedule = async |name: &str| db::schedule::get(&pool, TENANT, name).await.unwrap().unwrap();
    assert_eq!(look(&pool, &limits, late).await.unwrap(), 3);
    let first = schedule("hourly").await;
    assert_eq!((first.last_run, first.last_job_id), (Some(hours(3..4)[0]), Some(jobs(&pool).await[2].job_id)));
    assert_eq!(first.next_run, Some(hours(4..5)[0]));

    // Nobody has done a job: both schedules stay due.
    for _ in 0..2 {
        assert_eq!(look(&pool, &limits, late).await.unwrap(), 0);
    }
    assert_eq!(schedule("hourly").await, first);
    assert_eq!(schedule("other").await.next_run, Some(hours(5..6)[0]));

    do_all(&pool).await;
    assert_eq!(look(&pool, &limits, late).await.unwrap(), 3);
    assert_eq!(occasions(&pool).await, [hours(1..6), hours(5..6)].concat());
    for name in ["hourly", "other"] {
        assert_eq!(schedule(name).await.next_run, Some(hours(6..7)[0]), "{name}");
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_clock_that_jumps_makes_no_occasion_happen_twice_or_never(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    declare_at(&pool, noon(), hourly(json!({}))).await;
    let look_at = async |minutes: i64| {
        let n = look_at(&pool, noon() + TimeDelta::minutes(minutes)).await;
        do_all(&pool).await;
        n
    };
    assert_eq!(look_at(60).await, 1);
    // An hour forward: what is due by that clock is made; then back: not again.
    assert_eq!(look_at(121).await, 1);
    assert_eq!(look_at(62).await, 0);
    assert_eq!(look_at(119).await, 0);
    assert_eq!(look_at(120).await, 0, "made while the clock was wrong");
    assert_eq!(look_at(180).await, 1);
    assert_eq!(occasions(&pool).await, hours(1..4));

    // A year forward, and back: it goes on as if nothing had been.
    assert_eq!(look_at(365 * 24 * 60).await, 1);
    assert_eq!(look_at(181).await, 0);
    assert_eq!(look_at(240).await, 1);
    assert_eq!(look_at(300).await, 1);

    // An hour back, at once: what was done is not done again.
    assert_eq!(look_at(241).await, 0);
    assert_eq!(look_at(300).await, 0);
    assert_eq!(look_at(360).await, 1);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn the_day_of_the_change_of_clocks_has_one_job_each_day(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    let body = hourly(json!({"cron": "30 2 * * *", "time_zone": "Europe/Madrid"}));
    for (first, change) in
        [("2025-03-28T12:00:00Z", "2025-03-30T01:00:00Z"), ("2025-10-24T12:00:00Z", "2025-10-26T00:30:00Z")]
    {
        declare_at(&pool, at(first), body.clone()).await;
        for quarter in 0..4 * 24 * 4 {
            look_at(&pool, at(first) + TimeDelta::minutes(15 * quarter)).await;
            do_all(&pool).await;
        }
        let made = occasions(&pool).await;
        assert_eq!(made.len(), 4, "{made:?}");
        assert!(made.contains(&at(change)), "{made:?}");
        sqlx::query("delete from job").execute(&pool).await.unwrap();
        sqlx::query("delete from schedule").execute(&pool).await.unwrap();
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn jitter_delays_within_its_range_and_is_the_same_each_time(pool: PgPool) {
    load_panel(&pool, "site", 48).await;
    declare_at(&pool, noon(), hourly(json!({"jitter_seconds": 600, "catch_up": "all"}))).await;
    look_at(&pool, noon() + TimeDelta::hours(50)).await;
    let delays: Vec<i64> =
        (1..).zip(occasions(&pool).await).map(|(n, t)| (t - noon()).num_seconds() - n * 3600).collect();
    assert_eq!(delays.len(), 50);
    assert!(delays.iter().all(|delay| (0..600).contains(delay)), "{delays:?}");
    let spread = delays.iter().max().unwrap() - delays.iter().min().unwrap();
    assert!(spread > 300, "{delays:?}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_schedule_is_declared_read_paused_and_removed_by_rest(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 48).await;
    let answer = service.post("/v1/schedules", &hourly(json!({}))).await;
    let made = answer.expect(201);
    assert_eq!(answer.header("location"), Some("/v1/schedules/hourly"));
    assert_eq!(
        (&made["panel"], &made["time_zone"], &made["catch_up"]),
        (&json!("site"), &json!("UTC"), &json!("once"))
    );
    assert_eq!(made["arguments"]["num_samples"], 100, "defaults are filled in: {made}");
    let next: DateTime<Utc> = made["next_run"].as_str().unwrap().parse().unwrap();
    assert!(next > Utc::now() && next <= Utc::now() + TimeDelta::hours(1), "{made}");
    service.post("/v1/schedules", &hourly(json!({"cron": "5 * * * *"}))).await.problem(409, "schedule-exists");
    assert_eq!(service.get("/v1/schedules/hourly").await.expect(200), made);

    let put = async |body: Value| {
        let request = Request::put("/v1/schedules/hourly").header("content-type", "application/json");
        service.send(request.body(body.to_string().into_bytes()).unwrap()).await
    };
    assert_eq!(put(hourly(json!({"paused": true}))).await.expect(200)["next_run"], Value::Null);
    assert_eq!(put(hourly(json!({}))).await.expect(200)["next_run"], made["next_run"]);
    let problem = put(hourly(json!({"name": "other"}))).await.problem(422, "invalid-body");
    assert_eq!(problem.errors[0].pointer.as_deref(), Some("/name"));

    let listed = service.get("/v1/schedules?panel=site").await.expect(200);
    assert_eq!(listed["schedules"].as_array().unwrap().len(), 1);
    let remove = async || service.send(Request::delete("/v1/schedules/hourly").body(vec![]).unwrap()).await;
    assert_eq!(remove().await.status, 204);
    remove().await.problem(404, "unknown-schedule");
    service.get("/v1/schedules/hourly").await.problem(404, "unknown-schedule");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn everything_wrong_with_a_schedule_is_told_at_once(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 48).await;
    let wrong = json!({
        "name": "a b", "cron": "0 25 * * *", "catch_up": "never", "jitter_seconds": -1,
        "arguments": {"panel": "site", "horizon": 0},
    });
    let problem = service.post("/v1/schedules", &hourly(wrong)).await.problem(422, "invalid-body");
    let pointers: Vec<&str> = problem.errors.iter().filter_map(|error| error.pointer.as_deref()).collect();
    assert_eq!(pointers, ["/name", "/cron", "/catch_up", "/jitter_seconds", "/arguments/horizon"]);
    for (more, status, code) in [
        (json!({"time_zone": "Mars/Olympus"}), 422, "invalid-body"),
        (json!({"cron": "0 0 31 2 *"}), 422, "invalid-body"),
        (json!({"arguments": {"panel": "nowhere", "horizon": 1}}), 404, "unknown-panel"),
    ] {
        service.post("/v1/schedules", &hourly(more)).await.problem(status, code);
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_scheduler_that_died_is_seen(pool: PgPool) {
    let service = Service::start(&pool).await;
    load_panel(&pool, "site", 48).await;
    assert_eq!(service.get("/readyz").await.expect(200), json!({"status": "ok", "reasons": []}));

    // Due for two hours, and nobody looks. The newest occasion is half an hour old, so that its job has waited for long.
    let half_an_hour_ago = Utc::now() - TimeDelta::minutes(30);
    let body = hourly(json!({"cron": format!("{} * * * *", half_an_hour_ago.minute())}));
    declare_at(&pool, Utc::now() - TimeDelta::hours(3), body).await;
    let degraded = service.get("/readyz").await.expect(200);
    assert_eq!(degraded["status"], "degraded");
    assert_eq!(degraded["reasons"][0]["code"], "scheduler");
    let message = degraded["reasons"][0]["message"].as_str().unwrap();
    assert!(message.contains("`hourly`"), "{message}");

    // Nobody is no worker that has just been seen.
    let metrics = service.get("/metrics").await.text();
    assert!(
        !metrics.contains("plumecast_scheduler_age") && !metrics.contains("plumecast_worker_heartbeat"),
        "{metrics}"
    );
    db::worker::seen(&pool, TENANT, "w", Utc::now() - TimeDelta::minutes(10)).await.unwrap();
    db::worker::scheduled(&pool, TENANT, "w", Utc::now() - TimeDelta::minutes(10)).await.unwrap();
    let metrics = service.get("/metrics").await.text();
    let age = metrics.lines().find_map(|line| line.strip_prefix("plumecast_scheduler_age_seconds ")).unwrap();
    assert!((599.0..700.0).contains(&age.parse::<f64>().unwrap()), "{age}");

    // Its job has waited, too, and no worker is there; then there is one.
    look_at(&pool, Utc::now()).await;
    let degraded = service.get("/readyz").await.expect(200);
    assert_eq!(degraded["reasons"][0]["code"], "worker", "{degraded}");
    assert_eq!(degraded["reasons"].as_array().unwrap().len(), 1, "{degraded}");
    db::worker::seen(&pool, TENANT, "w", Utc::now()).await.unwrap();
    assert_eq!(service.get("/readyz").await.expect(200)["status"], "ok");
}
