//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use api::commands::{
    anomalies, backfill, backtest, bench, demo, dev_db, forecast, impute, load, migrate, models, openapi, retain,
    retrain, run_job, score, serve, train, work,
};
use api::config::{self, Config, DatabaseConfig};
use api::telemetry;
use clap::{CommandFactory, FromArgMatches, Parser};

/// Joint probabilistic forecasts of groups of time series, stored as trajectories.
#[derive(Debug, Parser)]
#[command(name = "plumecast", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Demo(Box<demo::Args>),
    /// Serve REST, page and metrics.
    Serve(Box<Config>),
    Work(Box<work::Args>),
    /// Do the one job that a worker names on standard input.
    #[command(hide = true)]
    RunJob,
    /// Bring the schema of the database up to date.
    Migrate(DatabaseConfig),
    Load(Box<load::Args>),
    Train(Box<train::Args>),
    Retrain(Box<retrain::Args>),
    Models(Box<models::Args>),
    Score(Box<score::Args>),
    Retain(Box<retain::Args>),
    Forecast(Box<forecast::Args>),
    Backfill(Box<backfill::Args>),
    Impute(Box<impute::Args>),
    Backtest(Box<backtest::Args>),
    Bench(bench::Args),
    Anomalies(Box<anomalies::Args>),
    /// Print the OpenAPI document of the REST API.
    Openapi,
    DevDb(dev_db::Args),
}

// The function is polled on the main thread, which the private Postgres needs.
#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            telemetry::note(format_args!("Error: {error}"));
            error.chain().skip(1).for_each(|cause| telemetry::note(format_args!("  because {cause}")));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    match parse()?.command {
        Command::Demo(args) => demo::run(&args).await?,
        Command::Serve(config) => serve::run(&config).await?,
        Command::Work(args) => work::run(&args).await?,
        Command::RunJob => run_job::run().await?,
        Command::Migrate(database) => migrate::run(&database).await?,
        Command::Load(args) => load::run(&args).await?,
        Command::Train(args) => train::run(&args).await?,
        Command::Retrain(args) => retrain::run(&args).await?,
        Command::Models(args) => models::run(&args).await?,
        Command::Score(args) => score::run(&args).await?,
        Command::Retain(args) => retain::run(&args).await?,
        Command::Forecast(args) => forecast::run(&args).await?,
        Command::Backfill(args) => backfill::run(&args).await?,
        Command::Impute(args) => impute::run(&args).await?,
        Command::Backtest(args) => backtest::run(*args).await?,
        Command::Bench(args) => bench::run(args).await?,
        Command::Anomalies(args) => anomalies::run(*args).await?,
        Command::Openapi => openapi::run()?,
        Command::DevDb(args) => return dev_db::run(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads flags and environment, on top of the file that `--config` names.
fn parse() -> anyhow::Result<Cli> {
    let command = Cli::command();
    let first_look = command.clone().ignore_errors(true).get_matches();
    let file = first_look
        .subcommand()
        .and_then(|(_, matches)| matches.try_get_one::<PathBuf>("config").ok().flatten().cloned());
    let command = match file {
        Some(file) => config::with_file_defaults(command, &file)?,
        None => command,
    };
    Ok(Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
