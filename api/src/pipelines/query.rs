//! A query as the source of a pipeline: its answer is kept in a file without a name, and read like any other.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use ingest::pipeline::{Answer, Query};
use ingest::{Content, Finding, Input, Notice};
use sha2::{Digest, Sha256};

use super::{nameless, unavailable_source, unusable_source};
use crate::{Error, config, db};

/// What reports call an answer.
const NAME: &str = "query";
/// Folder of answers below the data folder.
const ANSWERS: &str = "answers";

/// An answer. Its file is gone when this is, however the process ends.
pub(super) struct Kept {
    file: File,
    /// What was read.
    pub answer: Answer,
    /// Rows whose watermark is infinite or no number.
    n_unbounded: u64,
}

impl Kept {
    /// The answer as a table to read, while this lives.
    pub(super) fn input(&self) -> Input {
        Input { content: Content::Nameless(nameless::path(&self.file)), ..Input::file(Path::new(NAME)) }
    }

    /// What is odd about it.
    pub(super) fn finding(&self) -> Option<Finding> {
        let message = format!(
            "{} rows have a watermark that is infinite or no number: they are read at every run, and no run begins there",
            self.n_unbounded
        );
        (self.n_unbounded > 0).then(|| Finding::of_file(Notice::UnboundedWatermark, message))
    }
}

/// Asks a query, and keeps the answer. `since` is where an earlier run ended.
///
/// # Errors
/// - [`Error::SourceUnavailable`] when the database is away or takes too long
/// - [`Error::UnusableData`] when the query is refused or answers more than `n_bytes_max`
/// - when the answer cannot be kept
pub(super) async fn ask(query: &Query, since: Option<&str>, n_bytes_max: u64, data_dir: &Path) -> Result<Kept, Error> {
    let variable = &query.url_variable;
    let Some(url) = config::database_url(variable) else {
        let reason =
            format!("the environment variable {variable} is not set; it must hold the address of the database");
        return Err(unusable_source(reason));
    };
    let file =
        nameless::create(&data_dir.join(ANSWERS)).map_err(|error| Error::internal("keeping an answer", error))?;
    let mut sink = Sink { file: BufWriter::new(file), hasher: Sha256::new(), n_lines: 0 };
    let end = db::query::copy(&url, query, since, n_bytes_max, &mut sink).await;
    let end = end.map_err(|error| match error {
        db::query::Error::Unavailable { .. } | db::query::Error::Timeout { .. } => {
            unavailable_source(format!("${variable}: {error}"))
        }
        db::query::Error::Write(error) => Error::internal("keeping an answer", error),
        _ => unusable_source(format!("${variable}: {error}")),
    })?;
    let Sink { file, hasher, n_lines } = sink;
    let file = file.into_inner().map_err(|error| Error::internal("keeping an answer", error))?;
    let digest = hex::encode(hasher.finalize());
    let answer = Answer { largest: end.largest, digest, has_rows: n_lines > 1 };
    Ok(Kept { file, answer, n_unbounded: end.n_unbounded })
}

/// Writes, and takes the digest.
struct Sink {
    file: BufWriter<File>,
    hasher: Sha256,
    n_lines: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n_written]);
        self.n_lines += bytes[..n_written].iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
