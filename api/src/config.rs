//! Configuration: flags, environment variables and an optional TOML file, parsed once.
//!
//! Each value is a flag `--some-name`, an environment variable `PLUMECAST_SOME_NAME` and a key
//! `some-name` of the file given with `--config`; the first of these that is set wins, then the
//! default. `--help` is the reference. Nothing else in the program reads the environment, but for
//! `DATABASE_URL`, which is read here too, because every tool around Postgres sets it, for the
//! addresses of databases that pipelines name, and for `AWS_…`, which says where buckets are.

pub(crate) mod bucket;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use forecast::DeviceName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::artefacts::{Artefacts, UnusableStore};
use crate::jobs::scheduler::Declaration;
use crate::reader::Reader;
use crate::{database, postgres};

/// Everything that the service can be told.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// TOML file with values for any of the flags.
    #[arg(long, env = "PLUMECAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address of REST, page and metrics; port 0 lets the system choose one.
    #[arg(long, env = "PLUMECAST_LISTEN", value_name = "ADDRESS", default_value_t = Config::default().listen)]
    pub listen: SocketAddr,

    /// How log lines are written to standard error.
    #[arg(long, env = "PLUMECAST_LOG_FORMAT", value_enum, default_value_t = Config::default().log_format)]
    pub log_format: LogFormat,

    /// Where the data are.
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// Where models compute.
    #[command(flatten)]
    pub device: DeviceConfig,

    /// Where pipelines and their sources are.
    #[command(flatten)]
    pub pipelines: PipelineConfig,

    /// What a client may ask for.
    #[command(flatten)]
    pub limits: Limits,

    /// Whether this process does jobs, too. Give `false` where `plumecast work` does them.
    #[arg(long, env = "PLUMECAST_WITH_WORKER", value_name = "BOOL", action = clap::ArgAction::Set,
          default_value_t = Config::default().with_worker)]
    pub with_worker: bool,

    /// How it does them.
    #[command(flatten)]
    pub worker: WorkerConfig,
}

impl Config {
    /// The folders of ingest.
    #[must_use]
    pub fn folders(&self) -> Folders {
        self.pipelines.folders(&self.database)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            config: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            log_format: LogFormat::Text,
            database: DatabaseConfig::default(),
            device: DeviceConfig::default(),
            pipelines: PipelineConfig::default(),
            limits: Limits::default(),
            with_worker: true,
            worker: WorkerConfig::default(),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per event, for log collectors.
    Json,
}

/// Where the data are, and how the database is reached.
#[derive(Args, Clone, Debug)]
pub struct DatabaseConfig {
    /// Folder of the private Postgres, of the models and of the snapshots.
    #[arg(long, env = "PLUMECAST_DATA_DIR", value_name = "DIR", default_value_os_t = DatabaseConfig::default().data_dir)]
    pub data_dir: PathBuf,

    /// Bucket for the files of models and snapshots, as `s3://BUCKET/PREFIX`, in place of the data folder. `AWS_ENDPOINT_URL`,
    /// `AWS_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` in the environment say where it is and who asks.
    #[arg(long, env = "PLUMECAST_ARTEFACTS", value_name = "URL")]
    pub artefacts: Option<String>,

    /// Postgres to use instead of a private one, as `postgres://user:password@host/database`.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<DatabaseUrl>,

    /// Connections to Postgres, at least 2: storing a model holds one and notes its files by another. Too few: requests wait for
    /// one another. Too many: Postgres runs out of connections for other processes.
    #[arg(long, env = "PLUMECAST_POOL_SIZE", value_name = "N", default_value_t = DatabaseConfig::default().pool_size,
        value_parser = clap::value_parser!(u32).range(2..))]
    pub pool_size: u32,

    /// Seconds that a request waits for a free connection before it is answered with 503.
    #[arg(long, env = "PLUMECAST_POOL_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = seconds,
          default_value = "5")]
    pub pool_timeout: Duration,

    /// Seconds after which Postgres gives up a statement. Too low: large reads fail. Too high: a
    /// slow statement holds its connection.
    #[arg(long, env = "PLUMECAST_STATEMENT_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = seconds,
          default_value = "60")]
    pub statement_timeout: Duration,

    /// What dashboards read with.
    #[command(flatten)]
    pub reader: Reader,

    /// Address at which the private Postgres also listens, for the reader role alone, with its password.
    #[arg(long, env = "PLUMECAST_POSTGRES_LISTEN", value_name = "ADDRESS", value_parser = postgres::listen_address)]
    pub postgres_listen: Option<SocketAddr>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            data_dir: postgres::default_data_dir(),
            artefacts: None,
            database_url: None,
            pool_size: 10,
            pool_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
            reader: Reader::default(),
            postgres_listen: None,
        }
    }
}

impl DatabaseConfig {
    /// Limits on connections.
    #[must_use]
    pub fn limits(&self) -> database::Limits {
        database::Limits {
            max_connections: self.pool_size,
            acquire_timeout: self.pool_timeout,
            statement_timeout: self.statement_timeout,
        }
    }

    /// The files of models.
    ///
    /// # Errors
    /// When there can be no such place.
    pub fn artefacts(&self) -> Result<Artefacts, UnusableStore> {
        artefacts(self.artefacts.as_deref(), &self.data_dir)
    }
}

/// The files of models in a bucket, or in the data folder.
///
/// # Errors
/// When there can be no such place.
pub fn artefacts(bucket: Option<&str>, data_dir: &Path) -> Result<Artefacts, UnusableStore> {
    match bucket {
        Some(url) => bucket::of_artefacts(url),
        None => Artefacts::local(data_dir),
    }
}

/// Where pipelines are declared, and where those that are declared by REST may read.
#[derive(Args, Clone, Debug, Default)]
pub struct PipelineConfig {
    /// Folder of pipeline files, `*.toml`; `pipelines` in the data folder by default.
    #[arg(long, env = "PLUMECAST_PIPELINES", value_name = "DIR")]
    pub pipelines: Option<PathBuf>,

    /// Folder that pipelines declared by REST read from, and from nowhere else; `sources` in the data folder by default.
    #[arg(long, env = "PLUMECAST_SOURCES", value_name = "DIR")]
    pub sources: Option<PathBuf>,
}

impl PipelineConfig {
    /// The folders, with their defaults.
    #[must_use]
    pub fn folders(&self, database: &DatabaseConfig) -> Folders {
        let or_default =
            |folder: &Option<PathBuf>, name| folder.clone().unwrap_or_else(|| database.data_dir.join(name));
        Folders {
            data: database.data_dir.clone(),
            pipelines: or_default(&self.pipelines, "pipelines"),
            sources: or_default(&self.sources, "sources"),
        }
    }
}

/// Folders that ingest and models read and write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folders {
    /// Below it are models, snapshots and rejected rows.
    pub data: PathBuf,
    /// Pipeline files.
    pub pipelines: PathBuf,
    /// Sources of pipelines that are declared by REST.
    pub sources: PathBuf,
}

/// Where models compute.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct DeviceConfig {
    /// `cpu`, or `cuda:N` for the GPU with index N in a build with the feature `cuda`.
    #[arg(long, env = "PLUMECAST_DEVICE", value_name = "DEVICE", default_value_t = DeviceName::default())]
    pub device: DeviceName,
}

impl DeviceConfig {
    /// The device itself.
    ///
    /// # Errors
    /// When this build or this machine does not have it.
    pub fn open(self) -> Result<forecast::Device, forecast::Error> {
        self.device.open()
    }
}

/// A connection string; its password never appears in logs.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole string, password included.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The address of a database that a pipeline reads from, in the environment variable that its file names.
#[must_use]
pub fn database_url(variable: &str) -> Option<DatabaseUrl> {
    std::env::var(variable).ok().map(DatabaseUrl)
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl(..)")
    }
}

/// What one client may ask for, so that no request can take the service from the others.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest request body in bytes, after decompression.
    #[arg(long, env = "PLUMECAST_BODY_BYTES_MAX", value_name = "BYTES", default_value_t = Limits::default().body_bytes_max)]
    pub body_bytes_max: usize,

    /// Largest body of `POST /v1/observations` in bytes, after decompression.
    #[arg(long, env = "PLUMECAST_PUSH_BYTES_MAX", value_name = "BYTES", default_value_t = Limits::default().push_bytes_max)]
    pub push_bytes_max: usize,

    /// Most steps of one forecast, without nowcast steps.
    #[arg(long, env = "PLUMECAST_HORIZON_MAX", value_name = "STEPS", default_value_t = Limits::default().horizon_max)]
    pub horizon_max: usize,

    /// Most trajectories of one forecast.
    #[arg(long, env = "PLUMECAST_SAMPLES_MAX", value_name = "N", default_value_t = Limits::default().samples_max)]
    pub samples_max: usize,

    /// Most values (trajectories * steps * series) that one request computes while its client waits.
    #[arg(long, env = "PLUMECAST_COST_MAX", value_name = "VALUES", default_value_t = Limits::default().cost_max)]
    pub cost_max: u64,

    /// Most rows of one page of a list.
    #[arg(long, env = "PLUMECAST_PAGE_ROWS_MAX", value_name = "ROWS", default_value_t = Limits::default().page_rows_max)]
    pub page_rows_max: usize,

    /// Most requests that wait for the model; the next one is answered with 503 and `Retry-After`.
    #[arg(long, env = "PLUMECAST_QUEUE_LENGTH_MAX", value_name = "N", default_value_t = Limits::default().queue_length_max)]
    pub queue_length_max: usize,

    /// Models kept in memory; the one not used for longest makes room.
    #[arg(long, env = "PLUMECAST_MODELS_LOADED_MAX", value_name = "N", default_value_t = Limits::default().models_loaded_max)]
    pub models_loaded_max: usize,

    /// Most values (trajectories * steps * series) of one forecast as a job.
    #[arg(long, env = "PLUMECAST_JOB_COST_MAX", value_name = "VALUES", default_value_t = Limits::default().job_cost_max)]
    pub job_cost_max: u64,

    /// Attempts at a job before it counts as failed.
    #[arg(long, env = "PLUMECAST_JOB_ATTEMPTS_MAX", value_name = "N", default_value_t = Limits::default().job_attempts_max,
          value_parser = clap::value_parser!(i32).range(1..=100))]
    pub job_attempts_max: i32,

    /// Most jobs that wait for a worker; the next one is refused with 503.
    #[arg(long, env = "PLUMECAST_JOBS_WAITING_MAX", value_name = "N", default_value_t = Limits::default().jobs_waiting_max)]
    pub jobs_waiting_max: i64,

    /// Seconds after which a request is answered with 504. Too low: long forecasts never arrive.
    /// Too high: clients give up first.
    #[arg(long, env = "PLUMECAST_REQUEST_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = seconds,
          default_value = "120")]
    pub request_timeout: Duration,

    /// Seconds that a stopping service gives its running requests.
    #[arg(long, env = "PLUMECAST_SHUTDOWN_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = seconds,
          default_value = "10")]
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1_048_576,
            push_bytes_max: 33_554_432,
            horizon_max: 10_000,
            samples_max: 1_000,
            cost_max: 2_000_000,
            page_rows_max: 1_000,
            queue_length_max: 16,
            models_loaded_max: 8,
            job_cost_max: 20_000_000,
            job_attempts_max: 3,
            jobs_waiting_max: 10_000,
            request_timeout: Duration::from_secs(120),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// How jobs are done.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct WorkerConfig {
    /// Jobs that this process does at a time, at most one of them a long one (training). Each is a process of its own.
    #[arg(long, env = "PLUMECAST_JOBS_AT_ONCE", value_name = "N", default_value_t = WorkerConfig::default().jobs_at_once)]
    pub jobs_at_once: usize,

    /// How much a job yields the processors to the service and to others: 0 (not at all) to 19 (to everybody).
    #[arg(long, env = "PLUMECAST_JOB_NICENESS", value_name = "N", default_value_t = WorkerConfig::default().job_niceness,
          value_parser = clap::value_parser!(i32).range(0..=19))]
    pub job_niceness: i32,

    /// Processors that a job may use; all when not given.
    #[arg(long, env = "PLUMECAST_JOB_THREADS", value_name = "N")]
    pub job_threads: Option<usize>,

    /// Seconds between two looks for jobs to do and for jobs that were cancelled. Too high: jobs begin and end late.
    #[arg(long, env = "PLUMECAST_JOB_POLL_SECONDS", value_name = "SECONDS", value_parser = seconds, default_value = "0.5")]
    pub job_poll: Duration,

    /// Seconds after which a worker that does not answer counts as dead, and its jobs are taken over. Too low: a worker
    /// that is cut off for a moment loses its work.
    #[arg(long, env = "PLUMECAST_JOB_LEASE_SECONDS", value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub job_lease: Duration,

    /// Seconds from a failed attempt to the next; doubled after each further one.
    #[arg(long, env = "PLUMECAST_JOB_RETRY_SECONDS", value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub job_retry: Duration,

    /// Seconds that one attempt may take.
    #[arg(long, env = "PLUMECAST_JOB_TIMEOUT_SECONDS", value_name = "SECONDS", value_parser = seconds,
          default_value = "86400")]
    pub job_timeout: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            jobs_at_once: 2,
            job_niceness: 10,
            job_threads: None,
            job_poll: Duration::from_millis(500),
            job_lease: Duration::from_secs(30),
            job_retry: Duration::from_secs(10),
            job_timeout: Duration::from_secs(86_400),
        }
    }
}

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML, or not what is expected in it")]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A key is not a flag of any command.
    #[error("{path}: no flag is called `{key}`")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value is a table, a list or a date.
    #[error("{path}: `{key}` must be a text, a number or a boolean")]
    UnsupportedValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

/// Gives `command` and its subcommands the values of a TOML file as defaults.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has a key that is no flag.
pub fn with_file_defaults(command: clap::Command, path: &Path) -> Result<clap::Command, ConfigFileError> {
    let table: toml::Table = read_toml(path)?;
    let mut command = command;
    for (key, value) in table {
        if key == SCHEDULES {
            continue;
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(ConfigFileError::UnsupportedValue { path: path.to_owned(), key }),
        };
        let (changed, found) = set_default(command, &key, &text);
        command = changed;
        if !found {
            return Err(ConfigFileError::UnknownKey { path: path.to_owned(), key });
        }
    }
    Ok(command)
}

/// Key of the tables that declare schedules, in place of a flag.
const SCHEDULES: &str = "schedule";

/// The schedules that a TOML file declares, as `[[schedule]]`.
///
/// # Errors
/// When the file cannot be read, is not TOML, or a table is no schedule.
pub fn schedules(path: &Path) -> Result<Vec<Declaration>, ConfigFileError> {
    /// What else the file holds are flags, which are read elsewhere.
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        schedule: Vec<Declaration>,
    }
    Ok(read_toml::<File>(path)?.schedule)
}

fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigFileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigFileError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigFileError::NotToml { path: path.to_owned(), source })
}

/// Sets the default of the flag `--{name}` in `command` and below; tells whether there is one.
fn set_default(command: clap::Command, name: &str, value: &str) -> (clap::Command, bool) {
    let id = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(name))
        .map(|argument| argument.get_id().clone());
    let mut found = id.is_some();
    let mut command = match id {
        Some(id) => command.mut_arg(id, |argument| argument.default_value(value.to_owned())),
        None => command,
    };
    let subcommands: Vec<String> =
        command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect();
    for subcommand in subcommands {
        command = command.mut_subcommand(subcommand, |subcommand| {
            let (changed, found_below) = set_default(subcommand, name, value);
            found |= found_below;
            changed
        });
    }
    (command, found)
}

/// Parses a duration given in seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be a positive number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    fn with_file(text: &str, flags: &[&str]) -> Result<Config, ConfigFileError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("the file is written");
        let command = with_file_defaults(Cli::command(), file.path())?;
        let matches = command.get_matches_from([&["plumecast"], flags].concat());
        Ok(Cli::from_arg_matches(&matches).expect("the values parse").config)
    }

    #[test]
    fn the_flags_default_to_what_default_says() {
        Cli::command().debug_assert();
        let config = Cli::try_parse_from(["plumecast"]).expect("no flag is required").config;
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.worker, WorkerConfig::default());
        assert!(config.with_worker);
        assert_eq!(config.listen, Config::default().listen);
        assert_eq!(config.database.pool_timeout, DatabaseConfig::default().pool_timeout);
        assert_eq!(config.database.statement_timeout, DatabaseConfig::default().statement_timeout);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let config = with_file("horizon-max = 7\nsamples-max = 8", &["--samples-max", "9"]).expect("the file is valid");
        assert_eq!(config.limits.horizon_max, 7);
        assert_eq!(config.limits.samples_max, 9);
    }

    #[test]
    fn schedules_stand_beside_the_flags() {
        let text = r#"
            horizon-max = 7

            [[schedule]]
            name = "nightly"
            cron = "30 2 * * *"
            kind = "train"
            arguments = { panel = "air", horizon = 24 }
        "#;
        assert_eq!(with_file(text, &[]).expect("the file is valid").limits.horizon_max, 7);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("the file is written");
        let schedules = schedules(file.path()).expect("they are valid");
        assert_eq!((schedules.len(), schedules[0].name.as_str()), (1, "nightly"));
        assert_eq!(schedules[0].arguments, serde_json::json!({"panel": "air", "horizon": 24}));

        std::fs::write(file.path(), "[[schedule]]\nname = 'x'\ncolour = 1").expect("the file is written");
        assert!(super::schedules(file.path()).is_err());
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named() {
        let error = with_file("horizen-max = 7", &[]).expect_err("the key is misspelt");
        assert!(matches!(error, ConfigFileError::UnknownKey { key, .. } if key == "horizen-max"));
    }

    #[test]
    fn a_timeout_is_a_positive_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "soon", "NaN", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let url: DatabaseUrl = "postgres://ada:secret@host/db".into();
        assert!(!format!("{url:?}").contains("secret"));
    }
}
