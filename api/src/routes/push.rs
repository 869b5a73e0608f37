//! `POST /v1/observations`: values that a client sends, in the formats that files may have.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::Utc;
use chrono_tz::Tz;
use ingest::{Duplicates, Format, Frequency, Holidays, Input, Limits, LoadConfig, pipeline::N_ATTRIBUTES_MAX};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    extract::{FromQuery, Parameters, Query, Upload, required},
    loads::LoadBody,
    respond,
};
use crate::{
    Error, blocking,
    db::series::NewSeries,
    loading::{self, Target},
    problem::Violation,
    server::State,
};

/// What the record and the report say of the source.
const SOURCE: &str = "push";
/// What a body may be.
const EXPECTED: &str = "`application/json`, `application/x-ndjson`, `text/csv`, `application/vnd.apache.parquet`, \
    `application/vnd.apache.arrow.stream` or `application/vnd.apache.arrow.file`";

/// Where the values go, and how they are read.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct PushParameters {
    /// Name of the panel; it is made if it does not exist.
    panel: String,
    /// Length of a step. Default: that of the panel; of a new one it is inferred where it is clear.
    frequency: Option<String>,
    /// IANA name of the zone of local times. Default: that of the panel, else UTC.
    time_zone: Option<String>,
    /// Country whose public holidays models are told of, an ISO 3166 code of two letters, or `none`; what is stored when not given.
    #[param(example = "ES")]
    holidays: Option<String>,
    /// What to do with different values for one time: `reject` (default), `keep_first` or `keep_last`.
    duplicates: Option<String>,
    /// Columns that say what the series are, separated by commas; of rows with `series`, `valid_time`, `value`.
    attributes: Option<String>,
    /// Read and report, but store nothing.
    #[param(default = false)]
    dry_run: Option<bool>,
}

/// The parameters, read.
pub struct PushQuery {
    panel: String,
    frequency: Option<Frequency>,
    time_zone: Option<Tz>,
    holidays: Option<Holidays>,
    duplicates: Duplicates,
    attributes: Vec<String>,
    dry_run: bool,
}

impl FromQuery for PushQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let panel = parameters.take("panel")?.filter(|panel| !panel.is_empty());
        let duplicates = |word: &str| match word {
            "reject" => Some(Duplicates::Reject),
            "keep_first" => Some(Duplicates::KeepFirst),
            "keep_last" => Some(Duplicates::KeepLast),
            _ => None,
        };
        let read_names = |text: &str| {
            let names: Vec<String> = text.split(',').map(str::to_owned).collect();
            (names.len() <= N_ATTRIBUTES_MAX && !names.contains(&String::new())).then_some(names)
        };
        Ok(Self {
            panel: required("panel", panel)?,
            frequency: parameters
                .take_parsed("frequency", "a frequency, such as 15min, 1h, 1d, 1mo", |text| text.parse().ok())?,
            time_zone: parameters
                .take_parsed("time_zone", "an IANA name, such as Europe/Madrid", |text| text.parse().ok())?,
            holidays: parameters.take_parsed(
                "holidays",
                "an ISO 3166 code of two letters, such as ES, or `none`",
                |text| text.parse().ok(),
            )?,
            duplicates: parameters
                .take_parsed("duplicates", "reject, keep_first or keep_last", duplicates)?
                .unwrap_or_default(),
            attributes: parameters
                .take_parsed("attributes", "names of columns, separated by commas", read_names)?
                .unwrap_or_default(),
            dry_run: parameters.take_parsed("dry_run", "true or false", |text| text.parse().ok())?.unwrap_or(false),
        })
    }
}

/// A list of values. Other formats have the same columns.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read like a file")]
pub struct PushBody {
    /// The values, in any order.
    observations: Vec<PushedValue>,
}

/// One value; `null` is a gap.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read like a file")]
pub struct PushedValue {
    /// Name of the series; it is made if it does not exist.
    #[schema(example = "no2")]
    series: String,
    /// Start of the interval that the value refers to.
    #[schema(example = "2024-01-01T00:00:00Z")]
    valid_time: String,
    /// The value, in the unit of its series.
    #[schema(example = 21.5)]
    value: Option<f64>,
    /// When it became known. Default: see `available_at` of the observations that are read.
    available_at: Option<String>,
    /// Standard deviation of the measurement.
    sd: Option<f64>,
}

/// Push observations
///
/// The body is read, checked and reported on as a file is; a second push of the same changes nothing. Rows that are wrong
/// are rejected, the others are stored; where none is right, nothing is stored and the answer is a problem.
#[utoipa::path(
    post,
    path = "/v1/observations", operation_id = "pushObservations",
    tag = "data",
    params(PushParameters),
    request_body(
        content(
            (PushBody = "application/json"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.parquet"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
        ),
        description = "Rows with `series`, `valid_time`, `value`, or a time and a column per series; may be compressed"
    ),
    responses(
        (status = 200, description = "What was stored, and the report", body = LoadBody),
        (status = 400, description = "A parameter is wrong"),
        (status = 409, description = "The panel has another frequency or time zone"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has a type that is not read here"),
        (status = 422, description = "Nothing of the body can be used"),
    )
)]
pub async fn create(state: web::Data<State>, query: Query<PushQuery>, upload: Upload) -> Result<HttpResponse, Error> {
    let query = query.0;
    let now = Utc::now();
    let format = format(upload.content_type.as_deref())?;
    let limits = Limits { n_bytes_max: state.limits.push_bytes_max as u64, ..Limits::default() };
    let mut config = LoadConfig {
        format: Some(format),
        frequency: query.frequency,
        time_zone: query.time_zone.unwrap_or_default(),
        duplicates: query.duplicates,
        attributes: query.attributes,
        may_be_empty: true,
        limits,
        ..LoadConfig::default()
    };
    loading::follow_panel(&state.pool, &query.panel, query.time_zone.is_some(), &mut config).await?;
    let input = Input::bytes("body", upload.bytes.to_vec());
    let loaded = blocking::run("reading a body", move || ingest::read(&[input], &config)).await??;

    let target = Target { holidays: query.holidays, ..Target::new(&query.panel, SOURCE, &state.folders.data, now) };
    if loaded.frame.n_rows() == 0 && loaded.report.n_lost() > 0 {
        let failure = "no row of the body can be used";
        if !query.dry_run {
            loading::record_refusal(&state.pool, &target, &loaded, failure).await?;
        }
        let errors = loaded.report.rejected.iter().map(Violation::of_rejection).collect();
        return Err(Error::UnusableData { reason: failure.to_owned(), errors });
    }
    let declare = |name: &str| NewSeries { name: name.to_owned(), ..NewSeries::default() };
    let stored = match query.dry_run {
        true => None,
        false => Some(loading::store(&state.pool, &target, &loaded, declare).await?),
    };
    respond::json(StatusCode::OK, LoadBody::new(&query.panel, None, SOURCE, &loaded, stored, now)?).await
}

/// The format of a media type.
fn format(content_type: Option<&str>) -> Result<Format, Error> {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Format::Ndjson),
        "text/csv" => Ok(Format::Csv),
        "application/vnd.apache.parquet" => Ok(Format::Parquet),
        respond::ARROW_STREAM | "application/vnd.apache.arrow.file" => Ok(Format::Arrow),
        _ => Err(Error::UnsupportedMediaType { expected: EXPECTED, content_type: content_type.map(str::to_owned) }),
    }
}
