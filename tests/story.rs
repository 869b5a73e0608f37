//! From a file to a forecast by the program's own commands, as a user types them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::support::{complaint, database_url, output, plumecast, program, said};

/// A user: a database, a data folder, and files.
pub struct User {
    database_url: String,
    folder: TempDir,
}

impl User {
    pub fn new(pool: &PgPool) -> Self {
        Self { database_url: database_url(pool), folder: tempfile::tempdir().unwrap() }
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.database_url, &self.folder.path().join("data"), arguments);
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs a command to its end.
    async fn run(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments)).await
    }

    /// What a command that succeeds prints.
    pub async fn say(&self, arguments: &[&str]) -> String {
        said(self.run(arguments).await)
    }

    /// What a command that fails complains of.
    async fn fail(&self, arguments: &[&str]) -> String {
        complaint(self.run(arguments).await)
    }
}

/// 240 hours of two series with a daily season; one gap and one cell that is no number.
pub fn hourly_file() -> String {
    let mut text = String::from("time,heat,wind\n");
    for hour in 0..240 {
        let season = (f64::from(hour % 24) * std::f64::consts::TAU / 24.0).sin();
        let wobble = f64::from(hour * 7919 % 13) / 13.0;
        let heat = match hour {
            17 => String::new(),
            29 => "n/a".to_owned(),
            _ => format!("{:.3}", 50.0 + 10.0 * season + wobble),
        };
        text += &format!("2025-03-{:02}T{:02}:00:00Z,{heat},{:.3}\n", 1 + hour / 24, hour % 24, 5.0 - season + wobble);
    }
    text
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The points of the training curves in a folder.
fn curves(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("training.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn step(point: &Value) -> u64 {
    point["step"].as_u64().unwrap()
}

/// A service as its own process.
struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(user: &User) -> Self {
        let mut command = user.command(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut messages = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let found =
            messages.find_map(|line| line["message"].as_str()?.strip_prefix("listening on ").map(str::to_owned));
        let address = found.expect("the service says where it listens");
        // Whatever else it logs is read away, so that it never waits for us.
        std::thread::spawn(move || messages.for_each(drop));
        Self { process, address }
    }

    fn get(&self, path: &str) -> Value {
        ureq::get(format!("{}{path}", self.address)).call().unwrap().body_mut().read_json().unwrap()
    }

    /// Stops the service as a service manager would.
    fn stop(mut self) -> bool {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        self.process.wait().unwrap().success()
    }
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_file_becomes_a_served_forecast(pool: PgPool) {
    let user = User::new(&pool);
    let file = user.file("plant.csv", &hourly_file());
    let load = ["load", path(&file), "--panel", "plant", "--unit", "MW", "--lower-bound", "0"];

    let checked = user.say(&[&load[..], &["--check"]].concat()).await;
    assert!(checked.contains("frequency 1h (inferred), time zone UTC"), "{checked}");
    assert!(checked.contains("unparsable_value in plant.csv, line 31, column `heat`: `n/a`"), "{checked}");
    let panels: i64 = sqlx::query_scalar("select count(*) from panel").fetch_one(&pool).await.unwrap();
    assert_eq!(panels, 0, "a check stores nothing");

    let loaded = user.say(&load).await;
    assert!(loaded.contains("478 observations new, 0 corrected, 0 known already"), "{loaded}");
    let again = user.say(&load).await;
    assert!(again.contains("0 observations new, 0 corrected, 478 known already"), "{again}");

    let trained =
        user.say(&["train", "--panel", "plant", "--horizon", "6", "--train-steps", "4", "--test-windows", "2"]).await;
    assert!(trained.contains("(version 1) is champion"), "{trained}");
    for row in ["plumecast", "base_only", "shuffled", "seasonal_naive", "random_walk"] {
        assert!(trained.lines().any(|line| line.starts_with(row)), "{row}: {trained}");
    }

    let forecast = user
        .say(&["forecast", "--panel", "plant", "--horizon", "9", "--num-samples", "20", "--quantiles", "0.9,0.1"])
        .await;
    let forecast_id = forecast.split_whitespace().nth(1).unwrap().to_owned();
    assert!(forecast.contains("issue time 2025-03-11T00:00:00+00:00, model version 1"), "{forecast}");
    assert!(forecast.contains("beyond-trained-horizon"), "{forecast}");

    let served = Served::start(&user);
    let (stored, total, is_clean) = spawn_blocking(move || {
        let stored = served.get(&format!("/v1/forecasts/{forecast_id}/trajectories"));
        let total = served.get(&format!("/v1/forecasts/{forecast_id}/aggregate?fn=sum&over=horizon"));
        (stored, total, served.stop())
    })
    .await
    .unwrap();
    assert!(is_clean, "a service that is told to stop exits with 0");
    let samples = stored["series"][0]["samples"].as_array().unwrap();
    assert_eq!((samples.len(), samples[0].as_array().unwrap().len()), (20, 9));
    let mean_total: f64 =
        samples.iter().flat_map(|path| path.as_array().unwrap()).map(|value| value.as_f64().unwrap()).sum();
    assert!((total["distributions"][0]["mean"].as_f64().unwrap() - mean_total / 20.0).abs() < 0.01, "{total}");

    let kept: (i32, i32, i64) = sqlx::query_as(
        "select f.num_samples, array_length(t.value, 2), (select count(*) from trajectory)
         from forecast f join trajectory t using (tenant_id, forecast_id) limit 1",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(kept, (20, 9, 2));
    let snapshots = fs::read_dir(user.folder.path().join("data/snapshots")).unwrap().count();
    assert_eq!(snapshots, 1, "the model can be traced to its data");

    let supposed = "[[pins]]\nseries = 'wind'\nvalid_time = 2025-03-11T02:00:00Z\nvalue = 4.5\n\n\
                    [[conditions]]\nfn = 'mean'\nseries = ['heat']\nend = '2025-03-11T04:00:00Z'\nat_least = 10.0\n";
    let scenario = user.file("scenario.toml", supposed);
    let forecast = ["forecast", "--panel", "plant", "--horizon", "6", "--num-samples", "20", "--scenario"];
    let made = user.say(&[forecast.as_slice(), &[path(&scenario)]].concat()).await;
    assert!(made.contains("condition 0: met by 100.0 % of the trajectories"), "{made}");
    let pinned = made.lines().find(|line| line.starts_with("wind") && line.contains("2025-03-11T02:00:00")).unwrap();
    assert!(pinned.split_whitespace().skip(2).all(|quantile| quantile == "4.500"), "{pinned}");
    let filled = user
        .say(&["impute", "--panel", "plant", "--start", "2025-03-01T12:00:00Z", "--end", "2025-03-03T00:00:00Z"])
        .await;
    let lines: Vec<&str> = filled.lines().collect();
    assert_eq!(lines[0], "time,series,mean,q0.05,q0.25,q0.5,q0.75,q0.95");
    let gaps: Vec<&str> = lines[1..].iter().map(|line| &line[..line.find("heat").unwrap()]).collect();
    assert_eq!(gaps, ["2025-03-01T17:00:00+00:00,", "2025-03-02T05:00:00+00:00,"], "{filled}");

    // What is drawn has the series that were named, and what they are measured in.
    let draw =
        ["forecast", "--panel", "plant", "--horizon", "6", "--num-samples", "20", "--plot-series", "wind", "--plot"];
    let in_terminal = user.say(&draw).await;
    assert!(in_terminal.contains("\nwind (MW)\n") && in_terminal.contains('⠁'), "{in_terminal}");
    for (name, parts) in [
        ("fan.svg", ["<svg", ">\nwind\n<", ">\nMW\n<", "Time (UTC)", "90 % interval"]),
        ("fan.html", ["<!DOCTYPE html>", "wind (MW)", "Time (UTC)", "90 % interval", "issue time"]),
    ] {
        let file = user.folder.path().join(name);
        let said = user.say(&[draw.as_slice(), &[path(&file)]].concat()).await;
        assert!(said.contains(&format!("drawn: {}", file.display())), "{said}");
        let drawn = fs::read_to_string(&file).unwrap();
        for part in parts {
            assert!(drawn.contains(part), "{part} in {name}");
        }
        assert!(!drawn.contains("heat (MW)") && !drawn.contains("\nheat\n"), "{name} has the named series alone");
    }
    let file = user.folder.path().join("fan.png");
    user.say(&[draw.as_slice(), &[path(&file)]].concat()).await;
    let picture = fs::read(&file).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x07\x80"), "1920 pixels wide");
    assert!(picture.len() > 20_000, "{} bytes", picture.len());
    let complaint = user.fail(&[draw.as_slice(), &["fan.pdf"]].concat()).await;
    assert!(complaint.contains("a file that ends in .svg, .png or .html"), "{complaint}");
    let unknown = ["forecast", "--panel", "plant", "--horizon", "6", "--plot", "--plot-series", "sun"];
    let complaint = user.fail(&unknown).await;
    assert!(complaint.contains("no series `sun`"), "{complaint}");

    let wrong = user.file("scenario.json", r#"{"conditions": [{"fn": "mean", "at_least": 2, "at_most": 1}]}"#);
    let complaint = user.fail(&[forecast.as_slice(), &[path(&wrong)]].concat()).await;
    assert!(complaint.contains("/scenario/conditions/0/at_most: must not be below `at_least`"), "{complaint}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn what_comes_later_does_not_change_a_forecast_of_the_past(pool: PgPool) {
    let user = User::new(&pool);
    let whole = hourly_file();
    let early: String = whole.lines().take(1 + 220).map(|line| format!("{line}\n")).collect();
    let load = |file: PathBuf| ["load".to_owned(), path(&file).to_owned(), "--panel".to_owned(), "plant".to_owned()];
    let strings = |list: &[String; 4]| list.clone();
    let early = strings(&load(user.file("early.csv", &early)));
    user.say(&early.each_ref().map(String::as_str)).await;
    user.say(&["train", "--panel", "plant", "--horizon", "6", "--train-steps", "2"]).await;
    let forecast = [
        "forecast",
        "--panel",
        "plant",
        "--horizon",
        "6",
        "--num-samples",
        "5",
        "--issue-time",
        "2025-03-10T04:00:00Z",
    ];
    let table = |text: String| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let before = table(user.say(&forecast).await);
    let later = load(user.file("later.csv", &whole));
    user.say(&later.each_ref().map(String::as_str)).await;
    assert_eq!(before, table(user.say(&forecast).await));
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_file_that_is_wrong_is_refused_with_its_reason_and_nothing_is_stored(pool: PgPool) {
    let user = User::new(&pool);
    let wide: String =
        std::iter::once("time".to_owned()).chain((0..100_000).map(|index| format!(",c{index}"))).collect();
    let cases = [
        ("empty.csv", String::new(), "empty"),
        ("one_column.csv", "time\n2025-01-01\n2025-01-02\n".to_owned(), "column"),
        (
            "text.csv",
            "time,a\n2025-01-01T00:00:00Z,x\n2025-01-01T01:00:00Z,y\n2025-01-01T02:00:00Z,z\n".to_owned(),
            "line 2",
        ),
        ("mixed.csv", "time,a\n2025-01-01,1\n02.01.2025,2\n2025-01-03,3\n".to_owned(), "line 3"),
        ("too_wide.csv", format!("{wide}\n"), "100001 columns"),
        ("no_file.csv.gz", "not gzip at all".to_owned(), "no_file.csv.gz"),
    ];
    for (name, text, reason) in cases {
        let file = user.file(name, &text);
        let complaint = user.fail(&["load", path(&file), "--panel", "p"]).await;
        assert!(complaint.contains(reason), "{name}: {complaint}");
    }
    let complaint = user.fail(&["load", "/nowhere/at/all.csv", "--panel", "p"]).await;
    assert!(complaint.contains("/nowhere/at/all.csv"), "{complaint}");
    let panels: i64 = sqlx::query_scalar("select count(*) from panel").fetch_one(&pool).await.unwrap();
    assert_eq!(panels, 0);
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn constant_and_silent_series_are_carried_along(pool: PgPool) {
    let user = User::new(&pool);
    let mut text = String::from("time,level,constant,silent\n");
    for day in 0..150 {
        let date = chrono::NaiveDate::from_ymd_opt(2025, 1, 1).unwrap() + chrono::Days::new(day);
        text += &format!("{date},{},4.5,\n", (day * 31 % 17) as f64 / 17.0 + (day % 7) as f64);
    }
    let file = user.file("days.csv", &text);
    user.say(&["load", path(&file), "--panel", "days"]).await;
    user.say(&["train", "--panel", "days", "--horizon", "7", "--train-steps", "2"]).await;
    let models: Vec<_> = fs::read_dir(user.folder.path().join("data/models")).unwrap().map(Result::unwrap).collect();
    assert!(models.len() == 1 && curves(&models[0].path()).iter().map(step).max() == Some(2), "{models:?}");
    let forecast = user.say(&["forecast", "--panel", "days", "--horizon", "7", "--num-samples", "10"]).await;
    let constant = forecast.lines().filter(|line| line.starts_with("constant"));
    assert!(constant.clone().count() == 7 && constant.clone().all(|line| line.ends_with("4.500")), "{forecast}");
    assert!(forecast.contains("silent-series"), "{forecast}");
}

#[sqlx::test(migrator = "api::MIGRATOR")]
async fn a_panel_that_is_missing_or_too_short_is_named(pool: PgPool) {
    let user = User::new(&pool);
    let complaint = user.fail(&["train", "--panel", "nothing", "--horizon", "6"]).await;
    assert!(complaint.contains("there is no panel `nothing`"), "{complaint}");
    let file =
        user.file("short.csv", "time,a\n2025-01-01T00:00:00Z,1\n2025-01-01T01:00:00Z,2\n2025-01-01T02:00:00Z,3\n");
    user.say(&["load", path(&file), "--panel", "short"]).await;
    let complaint = user.fail(&["train", "--panel", "short", "--horizon", "6"]).await;
    assert!(complaint.contains("3 steps are too few to learn a horizon of 6"), "{complaint}");
    let complaint = user.fail(&["forecast", "--panel", "short", "--horizon", "6"]).await;
    assert!(complaint.contains("short"), "{complaint}");
    let complaint = user.fail(&["forecast", "--panel", "short", "--horizon", "1000000"]).await;
    assert!(complaint.contains("--horizon must lie between 1 and 10000"), "{complaint}");
}

/// Times, series, values and p-values that `anomalies` writes for a text.
async fn anomalies(text: &str) -> Vec<[String; 4]> {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("plant.csv"), folder.path().join("odd.csv"));
    fs::write(&file, text).unwrap();
    let mut command = Command::new(plumecast());
    command.args(["anomalies", "--train-until", "2025-03-07T00:00:00Z", "--train-steps", "20"]);
    command.args([Path::new("--data"), &file, Path::new("--out"), &out]).env_remove("DATABASE_URL");
    said(output(command).await);
    let written = fs::read_to_string(&out).unwrap();
    let mut lines = written.lines();
    assert_eq!(lines.next(), Some("time,series,value,expected,score,p_value,log_likelihood,denoising_error"));
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        [fields[0], fields[1], fields[2], fields[5]].map(str::to_owned)
    };
    lines.map(row).collect()
}

#[tokio::test]
async fn a_broken_reading_stands_out_and_nothing_later_is_looked_at() {
    // The calibration sees the last two of six days, the other four days are scored.
    let broken = hourly_file().replace("2025-03-08T10:00:00Z,", "2025-03-08T10:00:00Z,9");
    assert_ne!(broken, hourly_file());
    let scored = anomalies(&broken).await;
    assert_eq!(scored.len(), 3 * 96, "two series and the joint score");
    let p_value = |row: &[String; 4]| row[3].parse::<f64>().unwrap();
    let oddest = scored.iter().min_by(|a, b| p_value(a).total_cmp(&p_value(b))).unwrap();
    assert!(oddest[0].starts_with("2025-03-08T10:00:00") && p_value(oddest) < 1e-3, "{oddest:?}");
    assert!(scored.iter().all(|row| (0.0..=1.0).contains(&p_value(row))));

    let until_noon = |scored: &[[String; 4]]| -> Vec<[String; 4]> {
        scored.iter().filter(|row| *row[0] < *"2025-03-08T12").cloned().collect()
    };
    let (head, tail) = broken.split_at(broken.find("2025-03-08T12").unwrap());
    let changed = anomalies(&(head.to_owned() + &tail.replace(",4", ",70").replace(",5", ",-3"))).await;
    assert_ne!(changed, scored);
    assert_eq!(until_noon(&changed), until_noon(&scored));
}

/// Runs `plumecast backtest` on a small file with further flags; the models of its rows, which all have finite scores.
/// Its curve has every step of the stage.
async fn backtest_rows(flags: &[&str], stage: &str, n_steps: u64) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plant.csv");
    fs::write(&file, hourly_file()).unwrap();
    let out = folder.path().join("out");
    let mut command = Command::new(plumecast());
    command.args(["backtest", "--freq", "1h", "--horizon", "6", "--windows", "2", "--samples", "10"]);
    command.args(["--train-steps", &n_steps.to_string()]).args(flags);
    command.args([Path::new("--data"), &file, Path::new("--out"), &out]).env_remove("DATABASE_URL");
    said(output(command).await);
    let metrics: Value = serde_json::from_slice(&fs::read(out.join("metrics.json")).unwrap()).unwrap();
    let rows = metrics["rows"].as_array().unwrap();
    for row in rows {
        for score in ["crps_sum", "crps", "nd", "mase", "energy_score", "coverage_50", "coverage_80", "coverage_90"] {
            assert!(row[score].as_f64().is_some_and(f64::is_finite), "{score} of {row}");
        }
    }
    assert!(fs::metadata(out.join("trajectories.parquet")).unwrap().len() > 1000);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    for part in ["2 windows of 6 steps", "<dt>Seed</dt><dd>1</dd>", "series-1", "id=\"pit\""] {
        assert!(report.contains(part), "{part}");
    }
    let steps: Vec<u64> = curves(&out).iter().filter(|point| point["stage"] == stage).map(step).collect();
    assert_eq!(steps, (1..=n_steps).collect::<Vec<u64>>());
    rows.iter().map(|row| row["model"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_backtest_needs_no_database() {
    let models = backtest_rows(&[], "select", 3).await;
    assert_eq!(models, ["plumecast", "base_only", "shuffled", "seasonal_naive", "random_walk"]);
}

#[tokio::test]
async fn a_backtest_of_the_network_of_the_paper_has_no_base() {
    let models = backtest_rows(&["--config", "paper"], "train", 1).await;
    assert_eq!(models, ["plumecast", "shuffled", "seasonal_naive", "random_walk"]);
}
