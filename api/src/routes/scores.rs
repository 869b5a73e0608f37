//! How stored forecasts did once the truth arrived.

use actix_web::web;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    cursor,
    extract::{FromQuery, Parameters, Query, required},
    panels,
};
use crate::{
    Error,
    db::{
        self, DEFAULT_TENANT,
        score::{Group, Selection},
        words::GroupBy,
    },
    server::State,
};

/// Groups of a page, unless the request says otherwise.
const PAGE_ROWS_DEFAULT: usize = 200;

/// Which scores, and how they are put together.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct ScoresParameters {
    /// Name of the panel.
    panel: String,
    /// What the values of a group have in common: `lead` (default), `series`, `model`, `day` (of the panel's zone) or `hour` (of
    /// its clock, with the quarter of the horizon).
    by: Option<String>,
    /// Only values from this time on.
    start: Option<DateTime<Utc>>,
    /// Only values before this time.
    end: Option<DateTime<Utc>>,
    /// Only forecasts by this version of the panel's models.
    version: Option<i32>,
    /// Scores as they stood then: of the values that were known and scored by then, before later corrections.
    as_of: Option<DateTime<Utc>>,
    /// Most groups of the page.
    #[param(minimum = 1, default = 200)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters, read.
pub struct ScoresQuery {
    panel: String,
    by: GroupBy,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    version: Option<i32>,
    as_of: Option<DateTime<Utc>>,
    limit: usize,
    cursor: Option<i64>,
}

impl FromQuery for ScoresQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let by =
            parameters.take_parsed("by", "`lead`, `series`, `model`, `day` or `hour`", |text| text.parse().ok())?;
        Ok(Self {
            panel: required("panel", parameters.take("panel")?)?,
            by: by.unwrap_or(GroupBy::Lead),
            start: parameters.take_time("start")?,
            end: parameters.take_time("end")?,
            version: parameters.take_parsed("version", "the version of a model", |text| text.parse().ok())?,
            as_of: parameters.take_time("as_of")?,
            limit: parameters.take_limit(PAGE_ROWS_DEFAULT)?,
            cursor: cursor::take(parameters)?,
        })
    }
}

/// Scores of the values that have something in common.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScoreGroup {
    /// The step, by `lead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
    /// The series, by `series`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// Version of the model, by `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The day, by `day`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<NaiveDate>,
    /// The hour at which intervals begin, by `hour`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour: Option<i64>,
    /// How far ahead the forecasts were made, by quarter of the horizon of each, from 1; by `hour`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarter: Option<i64>,
    /// Number of values.
    pub n_values: i64,
    /// CRPS as in a backtest: sum over the values, divided by the sum of their magnitudes; null where all are 0.
    pub crps: Option<f64>,
    /// Share inside the central 50 % intervals.
    pub coverage_50: f64,
    /// Share inside the central 80 % intervals.
    pub coverage_80: f64,
    /// Share inside the central 90 % intervals.
    pub coverage_90: f64,
    /// Mean of the probability integral transform; 0.5 is unbiased.
    pub pit: f64,
    /// How many values fell into each tenth of what was forecast, from the lowest on.
    pub pit_counts: Vec<i64>,
    /// 1 - error of the medians over that of the values one season earlier; null where these are not known.
    pub skill: Option<f64>,
}

/// A page of scores, in the order of what the groups have in common.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScorePage {
    /// The groups.
    pub scores: Vec<ScoreGroup>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// List scores of stored forecasts
///
/// Values are scored as they become known. Groups of several series of different size or unit are led by the larger ones.
#[utoipa::path(
    get,
    path = "/v1/scores", operation_id = "listScores",
    tag = "scores",
    params(ScoresParameters),
    responses(
        (status = 200, description = "A page of scores", body = ScorePage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list(state: web::Data<State>, query: Query<ScoresQuery>) -> Result<web::Json<ScorePage>, Error> {
    let ScoresQuery { panel, by, start, end, version, as_of, limit, cursor } = query.0;
    let panel = panels::find(&state.pool, &panel).await?;
    let limit = limit.min(state.limits.page_rows_max);
    let selection = Selection { panel_id: panel.panel_id, time_zone: &panel.time_zone, by, start, end, version, as_of };
    let groups =
        db::score::groups(&state.pool, DEFAULT_TENANT, &selection, cursor, cursor::limit_plus_one(limit)).await?;
    let (groups, next) = cursor::page(groups, limit, |group| group.key)?;
    let ids: Vec<i32> = groups.iter().filter_map(|group| i32::try_from(group.key).ok()).collect();
    let names = match by {
        GroupBy::Series => db::series::names(&state.pool, DEFAULT_TENANT, panel.panel_id, &ids).await?,
        GroupBy::Lead | GroupBy::Model | GroupBy::Day | GroupBy::Hour => Vec::new(),
    };
    let name = |key: i64| names.iter().find(|(id, _)| i64::from(*id) == key).map(|(_, name)| name.clone());
    let scores = groups
        .into_iter()
        .map(|group| {
            let name = name(group.key);
            body(by, group, name)
        })
        .collect();
    Ok(web::Json(ScorePage { scores, next }))
}

fn body(by: GroupBy, group: Group, series: Option<String>) -> ScoreGroup {
    let only = |wanted: GroupBy| (by == wanted).then_some(group.key);
    let day = only(GroupBy::Day).and_then(|day| NaiveDate::default().checked_add_signed(TimeDelta::days(day)));
    ScoreGroup {
        step: only(GroupBy::Lead),
        series,
        version: only(GroupBy::Model),
        day,
        hour: only(GroupBy::Hour).map(|key| key / 4),
        quarter: only(GroupBy::Hour).map(|key| key % 4 + 1),
        n_values: group.n_values,
        crps: group.crps,
        coverage_50: group.coverage_50,
        coverage_80: group.coverage_80,
        coverage_90: group.coverage_90,
        pit: group.pit,
        pit_counts: group.pit_counts,
        skill: group.skill,
    }
}
