//! `GET /v1/forecasts/{id}/trajectories`: the sampled futures themselves.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use arrow::{
    array::{ArrayRef, DictionaryArray, Float32Array, Int32Array, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    ipc::writer::StreamWriter,
    record_batch::RecordBatch,
};
use chrono::{DateTime, Utc};
use forecast::Trajectories;
use ingest::trajectories::encode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{chosen::Chosen, stored::Stored};
use crate::{
    Error, blocking,
    routes::{
        extract::{FromQuery, Parameters, Query},
        respond::{self, ARROW_STREAM, Format},
    },
    server::State,
};

/// Which trajectories.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct TrajectoriesParameters {
    /// Name of a series; may be given several times. Default: all.
    series: Option<Vec<String>>,
    /// An attribute that the series must have, as `site:north`; may be given several times.
    attribute: Option<Vec<String>>,
    /// Return only the first so many trajectories. They are equally likely, so this is a fair choice.
    #[param(minimum = 1)]
    samples: Option<usize>,
    /// `json`, `arrow`, `csv` or `parquet`, for clients that cannot set `Accept`.
    format: Option<String>,
}

/// The parameters, read.
pub struct TrajectoriesQuery {
    chosen: Chosen,
    samples: usize,
    format: Option<Format>,
}

impl FromQuery for TrajectoriesQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let samples = parameters.take_parsed("samples", "a positive number", |text| {
            text.parse().ok().filter(|&samples: &usize| samples > 0)
        })?;
        Ok(Self {
            chosen: Chosen::take(parameters)?,
            samples: samples.unwrap_or(usize::MAX),
            format: parameters.take_parsed("format", "`json`, `arrow`, `csv` or `parquet`", Format::named)?,
        })
    }
}

/// Sampled futures. Sample `k` is the same draw in every series.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TrajectoriesBody {
    /// The forecast.
    pub forecast_id: Uuid,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// Start of each interval.
    pub valid_time: Vec<DateTime<Utc>>,
    /// Number of each step.
    pub step: Vec<i32>,
    /// The trajectories, per series.
    pub series: Vec<SeriesTrajectoriesBody>,
}

/// The trajectories of one series.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SeriesTrajectoriesBody {
    /// Name of the series.
    pub name: String,
    /// Unit of its values.
    pub unit: Option<String>,
    /// `[sample][step]`.
    pub samples: Vec<Vec<f32>>,
}

/// Read the sampled futures of a forecast
///
/// With `Accept: application/vnd.apache.arrow.stream` the answer is an Arrow IPC stream with the columns `sample`,
/// `step`, `valid_time`, `series` and `value`, one record batch per series; with `text/csv` or
/// `application/vnd.apache.parquet` a table of the same columns.
#[utoipa::path(
    get,
    path = "/v1/forecasts/{forecast_id}/trajectories", operation_id = "readTrajectories",
    tag = "forecasts",
    params(("forecast_id" = Uuid, Path, description = "Identifier of the forecast"), TrajectoriesParameters),
    responses(
        (status = 200, description = "The trajectories", content(
            (TrajectoriesBody = "application/json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
            (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.parquet"),
        )),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such forecast or series"),
        (status = 406, description = "No format on offer is accepted"),
    )
)]
pub async fn read(
    request: HttpRequest,
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<TrajectoriesQuery>,
) -> Result<HttpResponse, Error> {
    let format = match query.0.format {
        Some(format) => format,
        None => Format::wanted(&request)?,
    };
    let mut stored = Stored::read(&state.pool, &path).await?;
    stored.choose(&query.0.chosen)?;
    let trajectories = stored.trajectories(&state.pool).await?;
    let n_samples = query.0.samples.min(trajectories.n_samples());
    let valid_times = stored.valid_times()?;

    match format {
        Format::Json => {
            let body =
                blocking::run("arranging trajectories", move || body(stored, valid_times, &trajectories, n_samples));
            respond::json(StatusCode::OK, body.await?).await
        }
        Format::Arrow => {
            let names: Vec<String> = stored.series.into_iter().map(|series| series.name).collect();
            let stream =
                blocking::run("writing Arrow", move || arrow_stream(&names, &valid_times, &trajectories, n_samples))
                    .await?
                    .map_err(|error| Error::internal("writing Arrow", error))?;
            Ok(HttpResponse::Ok().content_type(ARROW_STREAM).insert_header((header::VARY, "accept")).body(stream))
        }
        Format::Table(encoding) => {
            let forecast_id = stored.forecast.forecast_id;
            let n_rows = (n_samples * trajectories.n_steps() * trajectories.n_series()) as u64;
            if n_rows > state.limits.cost_max {
                let message = format!("asks for {n_rows} rows; a table has at most {}", state.limits.cost_max);
                return Err(Error::invalid_parameter("samples", "too-many-rows", message));
            }
            let names: Vec<String> = stored.series.into_iter().map(|series| series.name).collect();
            let table = blocking::run("writing a table", move || {
                encode(&trajectories, n_samples, &valid_times, &names, encoding)
            });
            let table = table.await?.map_err(|error| Error::internal("writing a table", error))?;
            Ok(respond::table(&forecast_id.to_string(), encoding, table))
        }
    }
}

fn body(
    stored: Stored,
    valid_times: Vec<DateTime<Utc>>,
    trajectories: &Trajectories,
    n_samples: usize,
) -> TrajectoriesBody {
    let series = stored.series.into_iter().enumerate().map(|(index, series)| SeriesTrajectoriesBody {
        name: series.name,
        unit: series.unit,
        samples: (0..n_samples).map(|sample| path(trajectories, sample, index)).collect(),
    });
    TrajectoriesBody {
        forecast_id: stored.forecast.forecast_id,
        issue_time: stored.forecast.issue_time,
        step: (trajectories.first_step()..).take(valid_times.len()).collect(),
        series: series.collect(),
        valid_time: valid_times,
    }
}

fn path(trajectories: &Trajectories, sample: usize, series: usize) -> Vec<f32> {
    (0..trajectories.n_steps()).map(|step| trajectories.value(sample, step, series)).collect()
}

/// Trajectories as an Arrow IPC stream: a record batch per series, its rows in order of sample and step.
fn arrow_stream(
    names: &[String],
    valid_times: &[DateTime<Utc>],
    trajectories: &Trajectories,
    n_samples: usize,
) -> Result<Vec<u8>, ArrowError> {
    let schema = arrow_schema();
    let (n_steps, first_step) = (trajectories.n_steps(), trajectories.first_step());
    let n_rows = n_samples * n_steps;
    let samples: ArrayRef = Arc::new(Int32Array::from_iter_values(
        (1..).take(n_samples).flat_map(|sample: i32| std::iter::repeat_n(sample, n_steps)),
    ));
    let steps: ArrayRef =
        Arc::new(Int32Array::from_iter_values((0..n_samples).flat_map(|_| (first_step..).take(n_steps))));
    let times: ArrayRef = Arc::new(
        TimestampMicrosecondArray::from_iter_values(
            (0..n_samples).flat_map(|_| valid_times.iter().map(DateTime::timestamp_micros)),
        )
        .with_timezone("UTC"),
    );
    let dictionary: ArrayRef = Arc::new(StringArray::from_iter_values(names));

    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for series in 0..names.len() {
        let key = i32::try_from(series).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        let keys = Int32Array::from_value(key, n_rows);
        let values = (0..n_samples).flat_map(|sample| path(trajectories, sample, series));
        let columns: Vec<ArrayRef> = vec![
            Arc::clone(&samples),
            Arc::clone(&steps),
            Arc::clone(&times),
            Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::clone(&dictionary))?),
            Arc::new(Float32Array::from_iter_values(values)),
        ];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    writer.into_inner()
}

fn arrow_schema() -> SchemaRef {
    let series = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("sample", DataType::Int32, false),
        Field::new("step", DataType::Int32, false),
        Field::new("valid_time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("series", series, false),
        Field::new("value", DataType::Float32, false),
    ]))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayAccessor, AsArray},
        datatypes::Float32Type,
        ipc::reader::StreamReader,
    };

    use super::*;

    #[test]
    fn an_arrow_stream_has_a_batch_per_series_in_order_of_sample_and_step() {
        let values = vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
        let trajectories = Trajectories::new(2, 0, 2, 2, values).expect("the shape is right");
        let times = [DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1)];
        let names = ["a".to_owned(), "b".to_owned()];

        let stream = arrow_stream(&names, &times, &trajectories, 2).expect("it is written");
        let batches: Vec<RecordBatch> = StreamReader::try_new(stream.as_slice(), None)
            .expect("it is a stream")
            .collect::<Result<_, _>>()
            .expect("each batch is read");

        assert_eq!(batches.len(), 2);
        assert_eq!(batches[1].column(0).as_primitive::<Int32Type>().values(), &[1, 1, 2, 2]);
        assert_eq!(batches[1].column(1).as_primitive::<Int32Type>().values(), &[0, 1, 0, 1]);
        assert_eq!(batches[1].column(4).as_primitive::<Float32Type>().values(), &[10.0, 20.0, 30.0, 40.0]);
        let series = batches[1].column(3).as_dictionary::<Int32Type>();
        assert_eq!(series.downcast_dict::<StringArray>().expect("text").value(0), "b");
    }
}
