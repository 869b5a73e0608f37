//! Enumerations that are stored as text, with the very words that JSON and the command line use.

use std::fmt;
use std::str::FromStr;

use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// A word that is none of those allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is none of {}", .expected.join(", "))]
pub struct UnknownWord {
    /// What was given.
    pub word: String,
    /// What would have been right.
    pub expected: &'static [&'static str],
}

/// Declares an enumeration together with its words.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[$about_variant:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$about_variant])* $variant,)+
        }

        impl $name {
            /// All the words.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word in SQL, JSON and on the command line.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), expected: Self::WORDS }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <str as Type<Postgres>>::type_info()
            }

            fn compatible(info: &PgTypeInfo) -> bool {
                <str as Type<Postgres>>::compatible(info)
            }
        }

        impl Encode<'_, Postgres> for $name {
            fn encode_by_ref(
                &self,
                buffer: &mut PgArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <&str as Encode<Postgres>>::encode(self.as_str(), buffer)
            }
        }

        impl<'r> Decode<'r, Postgres> for $name {
            fn decode(value: PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(<&str as Decode<Postgres>>::decode(value)?.parse()?)
            }
        }
    };
}

words! {
    /// What a series is to the model.
    Role {
        /// It is forecast.
        Target = "target",
        /// A covariate whose future is supplied.
        Known = "known",
        /// A covariate whose future is not known.
        Past = "past",
    }
}

impl From<Role> for forecast::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Target => Self::Target,
            Role::Known => Self::Known,
            Role::Past => Self::Past,
        }
    }
}

impl From<forecast::Role> for Role {
    fn from(role: forecast::Role) -> Self {
        match role {
            forecast::Role::Target => Self::Target,
            forecast::Role::Known => Self::Known,
            forecast::Role::Past => Self::Past,
        }
    }
}

words! {
    /// What a value of a series means over its interval.
    Kind {
        /// The average: over a longer interval, averages are averaged.
        Mean = "mean",
        /// The total: over a longer interval, totals are added.
        Sum = "sum",
        /// The value at the start of the interval.
        Point = "point",
    }
}

words! {
    /// Where a model stands in its life.
    Stage {
        /// It serves. A panel has at most one.
        Champion = "champion",
        /// It has not (yet) beaten the champion.
        Candidate = "candidate",
        /// It has served, or never will.
        Archived = "archived",
        /// It was to replace the champion and was not better.
        Rejected = "rejected",
    }
}

words! {
    /// What a candidate was compared with.
    ReferenceKind {
        /// The champion.
        Champion = "champion",
        /// Last season's values with the errors that they made before.
        SeasonalNaive = "seasonal_naive",
    }
}

words! {
    /// What became of a candidate that was compared.
    Decision {
        /// It serves.
        Promoted = "promoted",
        /// It is kept, and does not serve.
        Rejected = "rejected",
        /// It stays a candidate.
        Undecided = "undecided",
    }
}

words! {
    /// What the values of a group of scores have in common.
    GroupBy {
        /// How far ahead they were forecast.
        Lead = "lead",
        /// The series.
        Series = "series",
        /// The model.
        Model = "model",
        /// The day, by the clock of the panel's zone.
        Day = "day",
        /// The hour of that clock, and how far ahead they were forecast, by quarter of the horizon.
        Hour = "hour",
    }
}

words! {
    /// How scores of a model differ from what its backtest said.
    DriftKind {
        /// Its CRPS is higher.
        CrpsHigh = "crps-high",
        /// Its intervals hold less of the truth.
        CoverageLow = "coverage-low",
        /// Its intervals hold more of the truth: they are too wide.
        CoverageHigh = "coverage-high",
        /// Means of its inputs are not those of its training.
        InputLevel = "input-level",
        /// Its inputs vary otherwise than in its training.
        InputVariance = "input-variance",
        /// More of its inputs is missing than in its training.
        InputMissing = "input-missing",
    }
}

words! {
    /// How far a forecast has come.
    Status {
        /// It waits for its turn.
        Pending = "pending",
        /// It is being made.
        Running = "running",
        /// Its values and trajectories are stored.
        Succeeded = "succeeded",
        /// It could not be made.
        Failed = "failed",
        /// Somebody withdrew it.
        Cancelled = "cancelled",
    }
}

words! {
    /// How far a forecast can be trusted.
    Quality {
        /// Made as it should be.
        Ok = "ok",
        /// Made from incomplete or late data.
        Degraded = "degraded",
        /// Made by a baseline, because the model could not be used.
        Fallback = "fallback",
    }
}

words! {
    /// How far a job has come.
    JobState {
        /// It waits for a worker, for its time, or for another attempt.
        Waiting = "waiting",
        /// A worker does it.
        Running = "running",
        /// Its effect is stored.
        Succeeded = "succeeded",
        /// It could not be done.
        Failed = "failed",
        /// Somebody withdrew it.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// Whether nothing more becomes of it by itself.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

words! {
    /// What becomes of occasions of a schedule that nobody was there for.
    CatchUp {
        /// They are left out.
        Skip = "skip",
        /// One job makes up for all of them.
        Once = "once",
        /// Each has a job, up to a limit.
        All = "all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back_as_what_it_was() {
        for word in Role::WORDS {
            assert_eq!(word.parse::<Role>().unwrap().as_str(), *word);
        }
        for word in Stage::WORDS {
            assert_eq!(word.parse::<Stage>().unwrap().to_string(), *word);
        }
    }

    #[test]
    fn an_unknown_word_is_told_what_would_be_right() {
        let error = "total".parse::<Kind>().unwrap_err();
        assert_eq!(error.to_string(), "`total` is none of mean, sum, point");
    }
}
