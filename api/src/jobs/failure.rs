//! Why an attempt failed, and whether another one may do better.

use crate::{Error, db};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What is asked for does not exist or is out of range: another attempt would fail in the same way.
    #[error("{0}")]
    Refused(#[source] Cause),
    /// It may be better next time.
    #[error("{0}")]
    Passing(#[source] Cause),
    /// The job was cancelled or taken over; the transaction that found it out is not kept.
    #[error("the job was cancelled or taken over")]
    LeaseLost,
}

impl Failure {
    /// The error and what caused it, in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let cause: &dyn std::error::Error = match self {
            Self::Refused(cause) | Self::Passing(cause) => cause.as_ref(),
            Self::LeaseLost => self,
        };
        crate::error::causes(cause)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // A pipeline file is as wrong as before until somebody has changed it.
        let is_lasting = error.is_of_client() || matches!(error, Error::InvalidPipelineFile { .. });
        if is_lasting { Self::Refused(error.into()) } else { Self::Passing(error.into()) }
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        db::Error::from(error).into()
    }
}

/// What the model refuses once, it refuses always.
impl From<forecast::Error> for Failure {
    fn from(error: forecast::Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<ingest::Error> for Failure {
    fn from(error: ingest::Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Passing(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_did_wrong_is_not_tried_again() {
        assert!(matches!(Error::UnknownPanel { panel: "x".into() }.into(), Failure::Refused(_)));
        assert!(matches!(Error::from(sqlx::Error::PoolTimedOut).into(), Failure::Passing(_)));
        assert!(matches!(Error::Stopping.into(), Failure::Passing(_)));
        let file = Error::InvalidPipelineFile { path: "a.toml".into(), reason: "no `panel`".into() };
        assert!(matches!(file.into(), Failure::Refused(_)));
        assert!(matches!(db::Error::UnstorableText(sqlx::Error::RowNotFound).into(), Failure::Refused(_)));
    }

    #[test]
    fn a_reason_has_its_causes() {
        let error = anyhow::anyhow!("disk gone").context("writing the checkpoint");
        assert_eq!(Failure::from(error).reason(), "writing the checkpoint: disk gone");
    }
}
