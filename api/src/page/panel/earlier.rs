//! What earlier forecasts said of a series.

use sqlx::PgPool;

use super::wall_time;
use crate::{
    Error,
    db::{
        self, DEFAULT_TENANT,
        forecast::{Forecast, Issued},
    },
    forecaster::Grid,
    page::chart::{Earlier, Path},
};

/// Forecasts that are looked through for each that is wanted: some share an issue time.
const LOOKED_THROUGH: i64 = 4;

/// The medians of at most so many forecasts that were made before one, the latest first.
///
/// # Errors
/// Those of the database.
pub async fn read(
    pool: &PgPool,
    grid: Grid,
    forecast: &Forecast,
    series_id: i32,
    n_forecasts: usize,
) -> Result<Vec<Earlier>, Error> {
    let (panel_id, before) = (Some(forecast.panel_id), Some(forecast.forecast_id));
    let limit = LOOKED_THROUGH * i64::try_from(n_forecasts).unwrap_or(0);
    let mut made = db::forecast::list(pool, DEFAULT_TENANT, panel_id, Issued::default(), before, limit).await?;
    made.retain(|one| one.scenario.is_none() && one.issue_time < forecast.issue_time);
    // Of those with the same issue time, the one that was made last.
    made.sort_by_key(|one| std::cmp::Reverse((one.issue_time, one.forecast_id)));
    made.dedup_by_key(|one| one.issue_time);
    let mut earlier = vec![];
    for one in made.iter().take(n_forecasts) {
        let mut path = Path::default();
        for value in db::forecast::values(pool, DEFAULT_TENANT, one, Some(&[series_id])).await? {
            path.valid_time.push(wall_time(grid, value.valid_time));
            path.value.push(median(&one.quantile_levels, &value.quantiles));
        }
        earlier.push(Earlier { forecast_id: one.forecast_id, issue_time: wall_time(grid, one.issue_time), path });
    }
    Ok(earlier)
}

/// The median, as stored or between the levels beside it.
fn median(levels: &[f64], quantiles: &[f64]) -> Option<f64> {
    let above = levels.iter().position(|&level| level >= 0.5)?;
    if levels[above] == 0.5 {
        return quantiles.get(above).copied();
    }
    let below = above.checked_sub(1)?;
    let share = (0.5 - levels[below]) / (levels[above] - levels[below]);
    Some(quantiles.get(below)? + share * (quantiles.get(above)? - quantiles.get(below)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_stored_or_lies_between_the_levels_beside_it() {
        for (levels, expected) in [
            (vec![0.1, 0.5, 0.9], Some(2.0)),
            (vec![0.1, 0.25, 0.75], Some(3.0)),
            (vec![0.6, 0.7, 0.8], None),
            (vec![0.1, 0.2, 0.3], None),
            (vec![], None),
        ] {
            assert_eq!(median(&levels, &[1.0, 2.0, 4.0]), expected, "{levels:?}");
        }
    }
}
