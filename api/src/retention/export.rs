//! From rows that are about to go to a file of them.

use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use ingest::export::{Cells, Columns, Export};
use sqlx::PgConnection;

use crate::db::DEFAULT_TENANT;
use crate::db::copy::take_time;
use crate::db::partition::Partitioned;
use crate::db::retention::Rules;
use crate::db::retention::export::{self as rows, ObservationRow, Rows, ScoreRow, Selection, TrajectoryRow, ValueRow};
use crate::{Error, blocking};

/// Values that are written together, or those of one row where it has more. Each takes some 300 bytes meanwhile.
const N_VALUES_TOGETHER: usize = 1 << 18;

/// Which rows.
pub(super) enum Source<'a> {
    /// Those of a period.
    Selected(&'a Selection),
    /// The next observations that are old.
    OldObservations {
        /// By these rules.
        rules: &'a Rules,
        /// At most so many.
        limit: i64,
    },
}

/// Writes rows of a table to a file of a folder; `None` where there are none.
///
/// # Errors
/// [`Error::Database`]; [`Error::Internal`] when the file cannot be written.
pub(super) async fn export(
    connection: &mut PgConnection,
    folder: &Path,
    table: Partitioned,
    source: &Source<'_>,
) -> Result<Option<PathBuf>, Error> {
    take_time(connection).await?;
    let selection = match source {
        Source::OldObservations { rules, limit } => {
            let found = rows::old_observations(connection, DEFAULT_TENANT, rules, *limit);
            return write(found, folder, "some".to_owned(), |_| 1, observations).await;
        }
        Source::Selected(selection) => selection,
    };
    let stem = selection.start().format("%Y-%m-%d").to_string();
    match table {
        Partitioned::Trajectory => {
            let found = rows::trajectories(connection, selection);
            write(found, folder, stem, |row| row.value.values().len(), trajectories).await
        }
        Partitioned::ForecastValue => {
            write(rows::values(connection, selection), folder, stem, |row| row.quantiles.len(), values).await
        }
        Partitioned::Score => write(rows::scores(connection, selection), folder, stem, |_| 1, scores).await,
        Partitioned::Observation => {
            let found = rows::observations(connection, selection);
            write(found, folder, stem, |_| 1, observations).await
        }
    }
}

async fn write<R: Send + 'static>(
    mut found: Rows<'_, R>,
    folder: &Path,
    stem: String,
    n_values: fn(&R) -> usize,
    columns: fn(&[R]) -> Columns,
) -> Result<Option<PathBuf>, Error> {
    const ATTEMPT: &str = "exporting rows";
    let internal = |error: ingest::Error| Error::internal(ATTEMPT, error);
    let mut file = Export::create(folder).map_err(internal)?;
    loop {
        let (mut some, mut n_together) = (vec![], 0);
        while n_together < N_VALUES_TOGETHER {
            let Some(row) = found.try_next().await? else { break };
            n_together += n_values(&row);
            some.push(row);
        }
        if some.is_empty() {
            break;
        }
        file = blocking::run(ATTEMPT, move || file.write(columns(&some)).map(|()| file)).await?.map_err(internal)?;
    }
    blocking::run(ATTEMPT, move || file.finish(&stem)).await?.map_err(internal)
}

/// The cells of a column, one from each row.
fn texts<R>(rows: &[R], cell: impl Fn(&R) -> String) -> Cells {
    Cells::Text(rows.iter().map(cell).collect())
}

/// A row for each sample and step.
fn trajectories(rows: &[TrajectoryRow]) -> Columns {
    let cells: Vec<(&TrajectoryRow, i32, i32, f32)> = rows
        .iter()
        .flat_map(|row| {
            let n_steps = row.value.n_columns();
            row.value.values().iter().enumerate().map(move |(place, &value)| {
                (row, 1 + (place / n_steps) as i32, row.first_step + (place % n_steps) as i32, value)
            })
        })
        .collect();
    vec![
        ("panel", texts(&cells, |(row, ..)| row.panel.clone())),
        ("series", texts(&cells, |(row, ..)| row.series.clone())),
        ("forecast_id", texts(&cells, |(row, ..)| row.forecast_id.to_string())),
        ("issue_time", Cells::Time(cells.iter().map(|(row, ..)| row.issue_time).collect())),
        ("sample", Cells::Integer(cells.iter().map(|cell| cell.1).collect())),
        ("step", Cells::Integer(cells.iter().map(|cell| cell.2).collect())),
        ("value", Cells::Single(cells.iter().map(|cell| cell.3).collect())),
    ]
}

/// A row for each quantile; the mean is repeated.
fn values(rows: &[ValueRow]) -> Columns {
    let cells: Vec<(&ValueRow, f64, f64)> = rows
        .iter()
        .flat_map(|row| row.quantile_levels.iter().zip(&row.quantiles).map(move |(&level, &value)| (row, level, value)))
        .collect();
    vec![
        ("panel", texts(&cells, |(row, ..)| row.panel.clone())),
        ("series", texts(&cells, |(row, ..)| row.series.clone())),
        ("forecast_id", texts(&cells, |(row, ..)| row.forecast_id.to_string())),
        ("issue_time", Cells::Time(cells.iter().map(|(row, ..)| row.issue_time).collect())),
        ("valid_time", Cells::Time(cells.iter().map(|(row, ..)| row.valid_time).collect())),
        ("step", Cells::Integer(cells.iter().map(|(row, ..)| row.step).collect())),
        ("mean", Cells::Real(cells.iter().map(|(row, ..)| Some(row.mean)).collect())),
        ("quantile_level", Cells::Real(cells.iter().map(|cell| Some(cell.1)).collect())),
        ("value", Cells::Real(cells.iter().map(|cell| Some(cell.2)).collect())),
    ]
}

fn scores(rows: &[ScoreRow]) -> Columns {
    let real = |cell: fn(&ScoreRow) -> Option<f64>| Cells::Real(rows.iter().map(cell).collect());
    let flag = |cell: fn(&ScoreRow) -> bool| Cells::Flag(rows.iter().map(cell).collect());
    vec![
        ("panel", texts(rows, |row| row.panel.clone())),
        ("series", texts(rows, |row| row.series.clone())),
        ("forecast_id", texts(rows, |row| row.forecast_id.to_string())),
        ("version", Cells::Integer(rows.iter().map(|row| row.version).collect())),
        ("issue_time", Cells::Time(rows.iter().map(|row| row.issue_time).collect())),
        ("valid_time", Cells::Time(rows.iter().map(|row| row.valid_time).collect())),
        ("step", Cells::Integer(rows.iter().map(|row| row.step).collect())),
        ("value", real(|row| Some(row.value))),
        ("crps", real(|row| Some(row.crps))),
        ("absolute_error", real(|row| Some(row.absolute_error))),
        ("naive_absolute_error", real(|row| row.naive_absolute_error)),
        ("inside_50", flag(|row| row.inside_50)),
        ("inside_80", flag(|row| row.inside_80)),
        ("inside_90", flag(|row| row.inside_90)),
        ("pit", real(|row| Some(row.pit))),
    ]
}

fn observations(rows: &[ObservationRow]) -> Columns {
    vec![
        ("panel", texts(rows, |row| row.panel.clone())),
        ("series", texts(rows, |row| row.series.clone())),
        ("valid_time", Cells::Time(rows.iter().map(|row| row.valid_time).collect())),
        ("available_at", Cells::Time(rows.iter().map(|row| row.available_at).collect())),
        ("value", Cells::Real(rows.iter().map(|row| Some(row.value)).collect())),
        ("sd", Cells::Real(rows.iter().map(|row| row.sd).collect())),
        ("assumed", Cells::Flag(rows.iter().map(|row| row.assumed).collect())),
    ]
}
