//! The kinds of work that there are, and the one place where each is done.

use std::future::Future;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::backfill::BackfillOrder;
use super::backtest::BacktestOrder;
use super::load::LoadOrder;
use super::retrain::RetrainOrder;
use super::score::ScoreOrder;
use super::train::TrainOrder;
use super::{Context, Failure, Reporter, Succeeded};
use crate::config::Limits;
use crate::retention::RetentionPolicy;
use crate::routes::forecasts::request::ForecastRequest;
use crate::{Error, problem::Violation};

/// The arguments of a kind of work, which know how it is done.
pub trait Task: Serialize + DeserializeOwned + Send + Sync {
    /// Whether it takes minutes rather than seconds. A worker does one long job at a time, so that short ones get through.
    const IS_LONG: bool;

    /// Name of the panel that it is about.
    fn panel(&self) -> Option<&str>;

    /// Refuses what is out of range, with pointers into the arguments.
    ///
    /// # Errors
    /// [`Error::InvalidBody`] with everything that is wrong.
    fn check(&self, limits: &Limits) -> Result<(), Error>;

    /// The same work, as it would have been done at an instant in the past.
    #[must_use]
    fn dated(self, instant: DateTime<Utc>) -> Self;

    /// Does the work, and stores its effect in the transaction that [`Reporter::begin`] gives and
    /// [`Reporter::succeed`] commits. The process may end at any point.
    fn perform(
        &self,
        context: &Context,
        reporter: &Reporter,
    ) -> impl Future<Output = Result<Succeeded, Failure>> + Send;
}

/// Declares the kinds of work with their words.
macro_rules! kinds {
    ($($(#[$about:meta])* $variant:ident($arguments:ty) = $word:tt,)+) => {
        /// What a job does: a kind and its arguments.
        #[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
        #[serde(tag = "kind", content = "arguments")]
        pub enum Work {
            $($(#[$about])* #[serde(rename = $word)] $variant($arguments),)+
        }

        impl Work {
            /// All the words.
            pub const KINDS: &'static [&'static str] = &[$($word),+];

            /// Those that take seconds rather than minutes.
            #[must_use]
            pub fn short_kinds() -> Vec<&'static str> {
                let kinds = [$(($word, <$arguments as Task>::IS_LONG)),+];
                kinds.into_iter().filter(|(_, is_long)| !is_long).map(|(kind, _)| kind).collect()
            }

            /// The word of the kind.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $word,)+
                }
            }

            /// The work of a kind with these arguments, defaults filled in.
            ///
            /// # Errors
            /// [`Error::InvalidBody`] with pointers to `/kind` and below `/arguments`.
            pub fn parse(kind: &str, arguments: Value) -> Result<Self, Error> {
                match kind {
                    $($word => read_arguments(arguments).map(Self::$variant),)+
                    _ => Err(Error::invalid_body(
                        "/kind",
                        "unknown-kind",
                        format!("must be one of {}", Self::KINDS.join(", ")),
                    )),
                }
            }

            /// The arguments, defaults filled in.
            ///
            /// # Errors
            /// When they cannot be written as JSON, which arguments that were read always can.
            pub fn arguments(&self) -> Result<Value, Error> {
                let value = match self {
                    $(Self::$variant(arguments) => serde_json::to_value(arguments),)+
                };
                value.map_err(|error| Error::internal("writing the arguments of a job", error))
            }

            /// Name of the panel that the work is about.
            #[must_use]
            pub fn panel(&self) -> Option<&str> {
                match self {
                    $(Self::$variant(arguments) => arguments.panel(),)+
                }
            }

            /// Refuses what is out of range.
            ///
            /// # Errors
            /// [`Error::InvalidBody`] with pointers below `/arguments`.
            pub fn check(&self, limits: &Limits) -> Result<(), Error> {
                match self {
                    $(Self::$variant(arguments) => arguments.check(limits),)+
                }
                .map_err(below_arguments)
            }

            /// The same work, as it would have been done at an instant in the past.
            #[must_use]
            pub fn dated(self, instant: DateTime<Utc>) -> Self {
                match self {
                    $(Self::$variant(arguments) => Self::$variant(arguments.dated(instant)),)+
                }
            }

            /// Does the work.
            ///
            /// # Errors
            /// See [`Failure`].
            pub async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
                match self {
                    $(Self::$variant(arguments) => arguments.perform(context, reporter).await,)+
                }
            }
        }
    };
}

kinds! {
    /// Make and store a forecast.
    Forecast(ForecastRequest) = "forecast",
    /// Train a model.
    Train(TrainOrder) = "train",
    /// Train a candidate that has to beat the champion.
    Retrain(RetrainOrder) = "retrain",
    /// Run a pipeline.
    Load(LoadOrder) = "load",
    /// Test a model on past windows.
    Backtest(BacktestOrder) = "backtest",
    /// Make and store forecasts for issue times of the past.
    Backfill(BackfillOrder) = "backfill",
    /// Score stored forecasts, and retrain when they have become worse.
    Score(ScoreOrder) = "score",
    /// Remove what is old.
    Retain(RetentionPolicy) = "retain",
}

/// A kind and its arguments as they are given, not understood yet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnreadWork {
    /// The word of the kind.
    pub kind: String,
    /// Its arguments.
    #[serde(default = "no_arguments")]
    pub arguments: Value,
}

fn no_arguments() -> Value {
    Value::Object(serde_json::Map::new())
}

fn read_arguments<T: Task>(arguments: Value) -> Result<T, Error> {
    crate::routes::extract::from_value(arguments).map_err(below_arguments)
}

/// Lets pointers into the arguments be pointers into what holds them.
fn below_arguments(error: Error) -> Error {
    match error {
        Error::InvalidBody { errors } => Error::InvalidBody {
            errors: errors
                .into_iter()
                .map(|violation| Violation {
                    pointer: violation.pointer.map(|pointer| format!("/arguments{pointer}")),
                    ..violation
                })
                .collect(),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Pointers of everything that is wrong.
    fn wrong(kind: &str, arguments: Value) -> Vec<String> {
        let checked = Work::parse(kind, arguments).and_then(|work| work.check(&Limits::default()));
        match checked {
            Err(Error::InvalidBody { errors }) => errors.into_iter().filter_map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_kind_is_read_back_as_what_it_was() {
        for (kind, arguments) in [
            ("forecast", json!({"panel": "a", "horizon": 24})),
            ("train", json!({"panel": "a", "horizon": 24})),
            ("retrain", json!({"panel": "a", "policy": {"windows": 12}})),
            ("backtest", json!({"panel": "a", "version": 3})),
            ("backfill", json!({"start": "2026-01-01T00:00:00Z", "forecast": {"panel": "a", "horizon": 24}})),
            ("score", json!({"panel": "a", "retrain_on_drift": {}})),
        ] {
            let work = Work::parse(kind, arguments).expect("it is valid");
            work.check(&Limits::default()).expect("it is within the limits");
            assert_eq!((work.kind(), work.panel()), (kind, Some("a")));
            assert_eq!(Work::parse(kind, work.arguments().expect("JSON")).expect("it is valid"), work);
        }
    }

    #[test]
    fn what_is_wrong_is_pointed_at_below_the_arguments() {
        assert_eq!(wrong("dance", json!({})), ["/kind"]);
        assert_eq!(wrong("train", json!({"panel": "a", "horizon": "x"})), ["/arguments/horizon"]);
        assert_eq!(wrong("train", json!({"panel": "a", "horizon": 1, "seed": 1_u64 << 53})), ["/arguments/seed"]);
        assert_eq!(wrong("train", json!({"horizon": 1})), ["/arguments"]);
        assert_eq!(wrong("train", json!([])), ["/arguments"]);
        assert_eq!(wrong("forecast", json!({"panel": "a", "horizon": 0})), ["/arguments/horizon"]);
        let policy = json!({"windows": 1});
        assert_eq!(
            wrong("retrain", json!({"panel": "a", "horizon": 0, "policy": policy})),
            ["/arguments/horizon", "/arguments/policy/windows"]
        );
        assert_eq!(
            wrong("score", json!({"panel": "a", "retrain_on_drift": policy})),
            ["/arguments/retrain_on_drift/windows"]
        );
        assert_eq!(wrong("forecast", json!({"panel": "a", "horizon": 1, "store": false})), ["/arguments/store"]);
    }
}
