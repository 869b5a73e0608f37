//! `plumecast bench ingest`: how fast sources become frames, frames rows and snapshots batches, and what memory that takes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use chrono::Utc;
use forecast::Device;
use futures_util::TryStreamExt;
use ingest::bench::Files;
use ingest::pipeline::Watermark;
use ingest::{Frequency, LoadConfig};
use sqlx::PgPool;

use super::bench::Line;
use super::dev_db::TemporaryFolder;
use crate::config::DatabaseConfig;
use crate::database::Database;
use crate::db::copy::take_time;
use crate::db::series::NewSeries;
use crate::loading::{self, Target};
use crate::pipelines;
use crate::postgres::{Config, PrivatePostgres};

const SUITE: &str = "ingest";
/// Share of Polars' own speed that reading and checking should keep.
const GOAL_READ: f64 = 0.8;
/// Share of the speed of `COPY` that storing should keep.
const GOAL_STORE: f64 = 0.7;
/// By how much more batches should be made than training uses up.
const GOAL_BATCHES: f64 = 5.0;
/// Batches over which the time counts that reading a snapshot and making it ready take: as many as a long training uses.
const N_BATCHES: f64 = 2_000.0;
/// Bytes that go to the server at a time.
const PIECE: usize = 1 << 20;
/// Name of the panel.
const PANEL: &str = "bench";

/// Prints a line of the table.
type Print<'a> = dyn Fn(Line<'_>) -> anyhow::Result<()> + 'a;

/// Generates files, reads them, and stores one in a throwaway Postgres.
///
/// Await it on the main thread: see [`PrivatePostgres::start_or_attach`].
///
/// # Errors
/// When files cannot be written or read, or there is no Postgres.
pub async fn run(n_rows: usize, json: bool, device: &Device) -> anyhow::Result<()> {
    let folder = TemporaryFolder::make().context("cannot make a temporary folder")?;
    let print = |line: Line<'_>| -> anyhow::Result<()> {
        let text = if json { serde_json::to_string(&line)? } else { table_row(&line) };
        Ok(super::say(&text)?)
    };
    if !json {
        super::say(&format!("{:28} {:>12} {:16} {:>12} {:>7}", "", "ours", "", "reference", "ratio"))?;
    }
    let files = Files::generate(&folder.path, n_rows)?;
    forget_peak();
    for measured in files.measure()? {
        let name = format!("{} to frame", measured.name);
        print(Line {
            suite: SUITE,
            name: &name,
            value: measured.value,
            unit: "observations/s",
            reference: "Polars alone",
            reference_value: measured.reference_value,
            ratio: measured.value / measured.reference_value,
            goal: Some(GOAL_READ),
        })?;
    }
    forget_peak();
    drop(files.load_csv()?);
    print_peak(&print, "peak memory, CSV to frame", files.csv())?;

    let (history, read_seconds) = Files::read_snapshot(&folder.path)?;
    let batches = forecast::bench::batches(&history, device)?;
    let seconds = read_seconds + batches.prepare_seconds + N_BATCHES / batches.made_per_second;
    for (name, value) in
        [("windows to batches", batches.made_per_second), ("snapshot to 2000 batches", N_BATCHES / seconds)]
    {
        print(Line {
            suite: SUITE,
            name,
            value,
            unit: "batches/s",
            reference: "training steps",
            reference_value: batches.used_per_second,
            ratio: value / batches.used_per_second,
            goal: Some(GOAL_BATCHES),
        })?;
    }

    let data_dir = folder.path.join("data");
    let postgres = PrivatePostgres::start_or_attach(&Config { is_throwaway: true, ..Config::new(&data_dir) }).await?;
    let database = Database::open(Some(&postgres.url()), &data_dir, None, &DatabaseConfig::default().limits()).await?;
    database.migrate().await?;
    let stored = store_both(database.pool(), &files, &data_dir, &print).await;
    database.close().await;
    postgres.shutdown();
    stored
}

/// Stores the rows of the CSV file by us, and copies them into a table like ours.
async fn store_both(pool: &PgPool, files: &Files, data_dir: &Path, print: &Print<'_>) -> anyhow::Result<()> {
    forget_peak();
    let start = Instant::now();
    store(pool, files, data_dir).await?;
    let ours = start.elapsed().as_secs_f64();
    print_peak(print, "peak memory, CSV to Postgres", files.csv())?;
    let theirs = copy(pool, files.n_rows(), &data_dir.join("copied.csv")).await?;
    print(Line {
        suite: SUITE,
        name: "CSV to Postgres",
        value: files.n_rows() as f64 / ours,
        unit: "observations/s",
        reference: "COPY of the same rows",
        reference_value: files.n_rows() as f64 / theirs,
        ratio: theirs / ours,
        goal: Some(GOAL_STORE),
    })
}

/// Reads the CSV file and stores it part by part, as `plumecast load FILE` does.
async fn store(pool: &PgPool, files: &Files, data_dir: &Path) -> anyhow::Result<()> {
    let reading = LoadConfig { frequency: Some(Frequency::HOUR), may_be_empty: true, ..LoadConfig::default() };
    let declare = |name: &str| NewSeries { name: name.to_owned(), ..NewSeries::default() };
    let (mut watermark, mut n_stored, mut has_more) = (Watermark::default(), 0, true);
    while has_more {
        let read = pipelines::read_part(files.csv(), watermark, &reading).await??;
        (watermark, has_more) = (read.next, read.has_more);
        let Some(loaded) = read.loaded else { continue };
        let target = Target::new(PANEL, SUITE, data_dir, Utc::now());
        n_stored += loading::store(pool, &target, &loaded, declare).await?.loaded.counts.inserted;
    }
    anyhow::ensure!(n_stored == files.n_rows() as u64, "not all was stored");
    Ok(())
}

/// Seconds that a `COPY` of what was stored takes, from a file into a table like ours.
async fn copy(pool: &PgPool, n_rows: usize, path: &Path) -> anyhow::Result<f64> {
    sqlx::raw_sql(
        "create table copied (like observation including all);
         alter table copied add foreign key (tenant_id, series_id) references series",
    )
    .execute(pool)
    .await?;
    write_csv(pool, path).await?;
    let start = Instant::now();
    let mut connection = pool.begin().await?;
    take_time(&mut connection).await?;
    let mut stream = connection
        .copy_in_raw(
            "copy copied (tenant_id, series_id, valid_time, available_at, value, sd, assumed)
             from stdin (format csv)",
        )
        .await?;
    let mut file = BufReader::with_capacity(PIECE, File::open(path)?);
    loop {
        let piece = file.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        stream.send(piece).await?;
        let n_bytes = piece.len();
        file.consume(n_bytes);
    }
    let n_copied = stream.finish().await?;
    connection.commit().await?;
    let seconds = start.elapsed().as_secs_f64();
    anyhow::ensure!(n_copied == n_rows as u64, "not all was copied");
    Ok(seconds)
}

/// Writes what was stored into a file.
async fn write_csv(pool: &PgPool, path: &Path) -> anyhow::Result<()> {
    let mut connection = pool.begin().await?;
    take_time(&mut connection).await?;
    let mut rows = connection
        .copy_out_raw(
            "copy (select tenant_id, series_id, valid_time, available_at, value, sd, assumed from observation)
             to stdout (format csv)",
        )
        .await?;
    let mut file = BufWriter::new(File::create(path)?);
    while let Some(piece) = rows.try_next().await? {
        file.write_all(&piece)?;
    }
    Ok(file.flush()?)
}

/// Prints the most memory that was taken since [`forget_peak`], beside the size of the file, where it is known.
fn print_peak(print: &Print<'_>, name: &str, file: &Path) -> anyhow::Result<()> {
    let Some(peak) = peak_bytes() else { return Ok(()) };
    let n_file_bytes = fs::metadata(file)?.len() as f64;
    let megabytes = |n_bytes: f64| n_bytes / 1e6;
    print(Line {
        suite: SUITE,
        name,
        value: megabytes(peak),
        unit: "MB",
        reference: "the file",
        reference_value: megabytes(n_file_bytes),
        ratio: n_file_bytes / peak,
        goal: None,
    })
}

/// The most memory that this process has had since [`forget_peak`].
fn peak_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// Begins to count anew. Where the kernel does not let us, the peak is that of the whole process.
fn forget_peak() {
    const PEAK: &str = "5";
    let _ = fs::write("/proc/self/clear_refs", PEAK);
}

fn table_row(line: &Line<'_>) -> String {
    let Line { name, value, unit, reference_value, ratio, .. } = line;
    format!("{name:28} {value:>12.0} {unit:16} {reference_value:>12.0} {ratio:>7.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_memory_is_known() {
        forget_peak();
        let before = peak_bytes().expect("this is Linux");
        let block = vec![1_u8; 64 << 20];
        let after = peak_bytes().expect("this is Linux");
        assert!(block.contains(&1) && after - before > 3e7, "{before} {after}");
    }
}
