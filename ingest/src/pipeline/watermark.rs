//! What was read before, so that a run reads only what is new.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, digest::common::hazmat::SerializableState};

use super::{
    Files, Listed, Objects, SourceFile,
    parts::{Rest, part, part_end, read_tail},
};
use crate::{Content, Error, Finding, Format, Input, LoadConfig, Loaded, Notice};

/// Bytes read at a time.
pub(super) const PIECE: usize = 1 << 18;
/// Layouts that are remembered.
const N_SCHEMAS_MAX: usize = 100;

/// What the last run that stored something has read. It is kept as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watermark {
    /// By name of the file.
    files: BTreeMap<String, Seen>,
    /// Names and types of columns that files have had, the last one last.
    schemas: Vec<Vec<(String, String)>>,
    /// Of a query: what it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
}

/// What a query answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The largest value of the watermark's column so far, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<String>,
    /// SHA-256 of the answer, in hexadecimal.
    pub digest: String,
    /// Whether there were rows.
    pub has_rows: bool,
}

/// What was read of a file: its first bytes up to some point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    n_bytes: u64,
    /// SHA-256 of these bytes, in hexadecimal.
    digest: String,
    /// Line ends among them.
    n_lines: u64,
    /// Whether the last of them ends a line.
    ends_line: bool,
    /// Of an object: the version that they are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Of a file that is packed or has groups of rows: what of these bytes is still to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<Rest>,
    /// Of a plain text that was not read to its end: how to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    going: Option<Going>,
}

/// How to go on with a file that nobody has written to since a part of it was read: without reading that part again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Going {
    /// Length of the file.
    n_bytes: u64,
    /// Time of its last change.
    modified: SystemTime,
    /// State of the digest after the bytes that were read, in hexadecimal.
    hasher: String,
}

/// What a run reads, and what is remembered when it has been stored.
pub struct Plan {
    /// What is to be read; nothing when nothing is new.
    pub inputs: Vec<Input>,
    /// What was noticed about files.
    pub findings: Vec<Finding>,
    /// Whether something is left for the next run, because it is too much for one.
    pub has_more: bool,
    /// Bytes that are read.
    n_bytes: u64,
    next: Watermark,
    /// Length and time of each file before it was looked at.
    stamps: Vec<(PathBuf, u64, SystemTime)>,
    /// Which inputs are the end of a file only.
    tails: Vec<bool>,
}

impl Watermark {
    /// Compares files with what was read of them before.
    ///
    /// A file that is the same byte by byte is not read. Of a plain text file that has only grown, the new lines are
    /// read. Anything else is read as a whole. The last line of a text file that was changed less than `settle` before
    /// `now` is left for the next run if it has no end: it may still be being written.
    ///
    /// No more is read than `part_bytes_max` bytes, or one file or line if that is longer, and for every interval all
    /// that is there if rows are combined; of what is beyond, the next run reads.
    ///
    /// # Errors
    /// [`Error::File`] when a file cannot be read, [`Error::TooManyBytes`] beyond the limits.
    pub fn plan(&self, files: &Files, config: &LoadConfig, now: SystemTime, settle: Duration) -> Result<Plan, Error> {
        let mut plan = Plan::new(self);
        for file in files.iter() {
            let modified = file.path.metadata().and_then(|metadata| metadata.modified());
            let modified = modified.map_err(|source| Error::File { path: file.path.clone(), source })?;
            let is_young = now.duration_since(modified).unwrap_or_default() < settle;
            plan.add(self, file, config, is_young)?;
        }
        plan.note_removed(self);
        Ok(plan)
    }

    /// Which objects a run needs: those that are new or have changed, or of which something is left; no more than
    /// `n_bytes_max` bytes of them, but one.
    pub fn wanted<'a>(
        &self,
        objects: &'a Objects,
        listed: &'a [Listed],
        n_bytes_max: u64,
    ) -> impl Iterator<Item = &'a Listed> {
        let mut n_bytes = 0_u64;
        let is_new =
            |object: &&Listed| self.files.get(&objects.name(&object.key)).is_none_or(|seen| !seen.is_all_of(object));
        let new: Vec<&Listed> = listed.iter().filter(is_new).collect();
        new.into_iter().take_while(move |object| {
            let has_room = n_bytes == 0 || n_bytes.saturating_add(object.n_bytes) <= n_bytes_max;
            n_bytes = n_bytes.saturating_add(object.n_bytes.max(1));
            has_room
        })
    }

    /// Compares objects with what was read of them before, as [`Watermark::plan`] does files. `copies` has those that are
    /// [wanted](Watermark::wanted), by key, with where a copy of each is.
    ///
    /// # Errors
    /// Those of [`Watermark::plan`].
    pub fn plan_objects(
        &self,
        objects: &Objects,
        listed: &[Listed],
        copies: &BTreeMap<String, PathBuf>,
        config: &LoadConfig,
    ) -> Result<Plan, Error> {
        let mut plan = Plan::new(self);
        for object in listed {
            let name = objects.name(&object.key);
            match (copies.get(&object.key), self.files.get(&name)) {
                (Some(path), _) => {
                    let (path, labels) = (path.clone(), Objects::labels(&object.key));
                    let file = SourceFile { path, name, labels, version: Some(object.version.clone()) };
                    plan.add(self, &file, config, false)?;
                }
                (None, Some(seen)) if seen.is_all_of(object) => {
                    plan.next.files.insert(name, seen.clone());
                }
                (None, seen) => plan.leave(name, seen),
            }
        }
        plan.note_removed(self);
        Ok(plan)
    }

    /// Where the last run of a query ended: the largest value of its watermark's column.
    pub fn end(&self) -> Option<&str> {
        self.answer.as_ref()?.largest.as_deref()
    }

    /// Compares what a query answers with its last answer, and reads it unless it is the same, or has no rows.
    pub fn plan_answer(&self, input: Input, answer: Answer) -> Plan {
        let is_new = answer.has_rows && self.answer.as_ref() != Some(&answer);
        let next = match is_new {
            true => {
                let largest = answer.largest.clone().or_else(|| self.end().map(str::to_owned));
                Self { answer: Some(Answer { largest, ..answer }), ..self.clone() }
            }
            false => self.clone(),
        };
        let inputs = if is_new { vec![input] } else { Vec::new() };
        Plan { tails: vec![false; inputs.len()], inputs, next, ..Plan::new(self) }
    }
}

impl Plan {
    fn new(before: &Watermark) -> Self {
        Self {
            inputs: Vec::new(),
            findings: Vec::new(),
            has_more: false,
            n_bytes: 0,
            next: Watermark { files: BTreeMap::new(), schemas: before.schemas.clone(), answer: None },
            stamps: Vec::new(),
            tails: Vec::new(),
        }
    }

    /// Leaves a file for the next run.
    fn leave(&mut self, name: String, seen: Option<&Seen>) {
        self.has_more = true;
        self.next.files.extend(seen.map(|seen| (name, seen.clone())));
    }

    fn note_removed(&mut self, before: &Watermark) {
        for name in before.files.keys().filter(|name| !self.next.files.contains_key(*name)) {
            self.findings.push(Finding::of_file(Notice::FileRemoved, format!("{name} was read before and is gone")));
        }
    }

    /// Adds what is new of a file. Of one that is young, more may be to come.
    fn add(&mut self, before: &Watermark, file: &SourceFile, config: &LoadConfig, is_young: bool) -> Result<(), Error> {
        let SourceFile { path, name, version, .. } = file;
        let limits = &config.limits;
        let file_error = |source| Error::File { path: path.clone(), source };
        let seen = before.files.get(name);
        let n_left = limits.part_bytes_max.saturating_sub(self.n_bytes);
        if n_left == 0 {
            self.leave(name.clone(), seen);
            return Ok(());
        }
        let metadata = path.metadata().map_err(file_error)?;
        let modified = metadata.modified().map_err(file_error)?;
        if let Some(seen) = seen
            && let Some(hasher) = seen.hasher_of(metadata.len(), modified)
            && config.resample.is_none()
            && metadata.len() - seen.n_bytes > n_left
            && let Some(end) = part_end(path, seen.n_bytes, n_left, false).map_err(file_error)?
        {
            let has_header = has_header(path, config).map_err(file_error)?;
            let (bytes, n_header_bytes) = read_tail(path, seen.n_bytes..end, has_header).map_err(file_error)?;
            let n_lines_before = seen.n_lines - u64::from(has_header);
            let part = &bytes[n_header_bytes..];
            let n_lines = seen.n_lines + n_line_ends(part);
            let kept = Seen::up_to(end, n_lines, hasher.chain_update(part), metadata.len(), modified);
            self.next.files.insert(name.clone(), Seen { version: version.clone(), ..kept });
            self.stamps.push((path.clone(), metadata.len(), modified));
            self.has_more = true;
            let input = Input { content: Content::Bytes(bytes.into()), n_lines_before, ..input_of(file) };
            self.push(input, end - seen.n_bytes, true);
            return Ok(());
        }
        let found = Found::of(path, seen.map(|seen| seen.n_bytes)).map_err(file_error)?;
        let same = seen.filter(|seen| seen.n_bytes == found.n_bytes && seen.digest == found.digest);
        if let Some(seen) = same.filter(|seen| seen.rest.is_none()) {
            self.next.files.insert(name.clone(), Seen { version: version.clone(), ..seen.clone() });
            return Ok(());
        }
        self.stamps.push((path.clone(), metadata.len(), modified));

        let is_text = found.is_text && !matches!(config.format, Some(Format::Parquet | Format::Arrow | Format::Json));
        let holds_back = is_text && is_young && !found.ends_line;
        let whole_end = if holds_back { found.last_line_end } else { found.n_bytes };
        let has_grown =
            seen.is_some_and(|seen| found.prefix_digest.as_ref() == Some(&seen.digest) && seen.n_bytes <= whole_end);
        if seen.is_some() && !has_grown {
            let message = format!("what was read of {name} before has changed; it is read as a whole");
            self.findings.push(Finding::of_file(Notice::Rewritten, message));
        }
        let mut input = input_of(file);
        if !is_text && config.resample.is_none() {
            let part = part(input, config, same.and_then(|seen| seen.rest), n_left)?;
            let all = found.all(version.clone());
            self.next.files.insert(name.clone(), Seen { rest: part.rest, ..all });
            self.has_more |= part.rest.is_some();
            self.push(part.input, part.n_bytes, false);
            return Ok(());
        }
        let tail = seen.filter(|seen| has_grown && is_text && seen.ends_line && config.resample.is_none());
        let start = tail.map_or(0, |seen| seen.n_bytes);
        let has_header = has_header(path, config).map_err(file_error)?;
        let part_end = match is_text && config.resample.is_none() && whole_end - start > n_left {
            true => part_end(path, start, n_left, has_header && start == 0).map_err(file_error)?,
            false => None,
        };
        self.has_more |= part_end.is_some();
        let end = part_end.unwrap_or(whole_end);
        if holds_back && part_end.is_none() {
            let message = format!("the last line of {name} has no end yet and is left for the next run");
            self.findings.push(Finding::of_file(Notice::UnterminatedLine, message));
        }
        let n_lines = found.n_lines;
        let is_part = end < found.n_bytes;
        let kept = match is_part {
            true => Seen::first_of(path, end, metadata.len(), modified).map_err(file_error)?,
            false => found.all(None),
        };
        self.next.files.insert(name.clone(), Seen { version: version.clone(), ..kept });
        if tail.is_some() && start == end {
            return Ok(());
        }
        let length = end - start;
        if tail.is_some() || is_part {
            if start == 0 && (end == 0 || (n_lines == 1 && has_header)) {
                // Nothing but the header, or not even that.
                self.next.files.remove(name);
                return Ok(());
            }
            if length > limits.n_bytes_max {
                return Err(Error::TooManyBytes { path: path.clone(), limit: limits.n_bytes_max });
            }
            let (bytes, _) = read_tail(path, start..end, has_header && start > 0).map_err(file_error)?;
            input.content = Content::Bytes(bytes.into());
            input.n_lines_before = tail.map_or(0, |seen| seen.n_lines - u64::from(has_header));
        }
        self.push(input, length, tail.is_some());
        Ok(())
    }

    fn push(&mut self, input: Input, n_bytes: u64, is_tail: bool) {
        self.n_bytes += n_bytes;
        self.tails.push(is_tail);
        self.inputs.push(input);
    }

    /// Ends the run: makes sure that no file was changed since it was looked at, notices columns that have changed, and
    /// gives what is to be remembered.
    ///
    /// # Errors
    /// [`Error::ChangedWhileRead`] when one was; [`Error::File`] when it is gone.
    pub fn finish(mut self, loaded: Option<&Loaded>) -> Result<(Watermark, Vec<Finding>), Error> {
        for (path, n_bytes, modified) in &self.stamps {
            let file_error = |source| Error::File { path: path.clone(), source };
            let metadata = path.metadata().map_err(file_error)?;
            if metadata.len() != *n_bytes || metadata.modified().map_err(file_error)? != *modified {
                return Err(Error::ChangedWhileRead { path: path.clone() });
            }
        }
        let schemas = loaded.map_or(&[][..], |loaded| &loaded.schemas);
        for ((schema, input), is_tail) in schemas.iter().zip(&self.inputs).zip(&self.tails) {
            let known = &mut self.next.schemas;
            if schema.is_empty() || known.contains(schema) {
                continue;
            }
            if let Some(last) = known.last() {
                self.findings.extend(changes(last, schema, &input.name, *is_tail));
            }
            known.push(schema.clone());
            if known.len() > N_SCHEMAS_MAX {
                known.remove(0);
            }
        }
        Ok((self.next, self.findings))
    }
}

/// How the columns of a file differ from those of the file before. The end of a file may lack columns.
pub(super) fn changes(
    before: &[(String, String)],
    after: &[(String, String)],
    file: &str,
    is_tail: bool,
) -> Vec<Finding> {
    let types = |schema: &[(String, String)]| schema.iter().cloned().collect::<HashMap<String, String>>();
    let (old, new) = (types(before), types(after));
    let mut findings = Vec::new();
    for (position, (name, dtype)) in before.iter().enumerate() {
        match (new.get(name), after.get(position)) {
            (Some(now), _) if now != dtype => {
                let message = format!("{file}: column `{name}` has type {now}, it had {dtype}");
                findings.push(Finding::of_file(Notice::ColumnTypeChanged, message));
            }
            (None, Some((other, _))) if !old.contains_key(other) && before.len() == after.len() => {
                let message = format!("{file}: column `{name}` is now called `{other}`");
                findings.push(Finding::of_file(Notice::ColumnRenamed, message));
            }
            (None, _) if !is_tail => {
                findings.push(Finding::of_file(Notice::ColumnRemoved, format!("{file}: column `{name}` is gone")));
            }
            _ => {}
        }
    }
    let renamed = findings.iter().filter(|finding| finding.code == Notice::ColumnRenamed).count();
    let added = after.iter().filter(|(name, _)| !old.contains_key(name)).skip(renamed);
    findings.extend(
        added.map(|(name, _)| Finding::of_file(Notice::ColumnAdded, format!("{file}: column `{name}` is new"))),
    );
    findings
}

/// What one pass over a file finds.
struct Found {
    n_bytes: u64,
    digest: String,
    /// Digest of as many bytes as were read before, if there are so many.
    prefix_digest: Option<String>,
    n_lines: u64,
    /// Bytes up to the end of the last line that has one.
    last_line_end: u64,
    ends_line: bool,
    /// Whether it is neither packed nor binary.
    is_text: bool,
}

impl Found {
    fn of(path: &Path, prefix: Option<u64>) -> std::io::Result<Self> {
        let mut reader = BufReader::with_capacity(PIECE, File::open(path)?);
        let head = reader.fill_buf()?;
        let is_text = !head.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
        let mut hasher = Sha256::new();
        let (mut n_bytes, mut n_lines, mut last_line_end) = (0, 0, 0);
        let mut prefix_digest = (prefix == Some(0)).then(|| hex::encode(Sha256::new().finalize()));
        loop {
            let piece = reader.fill_buf()?;
            if piece.is_empty() {
                break;
            }
            // A piece never crosses the end of what was read before.
            let n_left = prefix.map_or(u64::MAX, |prefix| prefix.saturating_sub(n_bytes));
            let n_taken = if n_left == 0 {
                piece.len()
            } else {
                usize::try_from(n_left).map_or(piece.len(), |n| n.min(piece.len()))
            };
            let piece = &piece[..n_taken];
            hasher.update(piece);
            n_lines += n_line_ends(piece);
            if let Some(position) = memchr::memrchr(b'\n', piece) {
                last_line_end = n_bytes + position as u64 + 1;
            }
            n_bytes += n_taken as u64;
            reader.consume(n_taken);
            if prefix == Some(n_bytes) {
                prefix_digest = Some(hex::encode(hasher.clone().finalize()));
            }
        }
        let digest = hex::encode(hasher.finalize());
        let ends_line = n_bytes == last_line_end;
        Ok(Self { n_bytes, digest, prefix_digest, n_lines, last_line_end, ends_line, is_text })
    }
}

impl Found {
    /// All of it, as it is remembered.
    fn all(self, version: Option<String>) -> Seen {
        let Self { n_bytes, digest, n_lines, ends_line, .. } = self;
        Seen { n_bytes, digest, n_lines, ends_line, version, rest: None, going: None }
    }
}

impl Seen {
    /// Whether it is all that an object has.
    fn is_all_of(&self, object: &Listed) -> bool {
        self.n_bytes == object.n_bytes && self.version.as_ref() == Some(&object.version) && self.rest.is_none()
    }

    /// The first bytes of a file of some length and time, which end a line.
    fn first_of(path: &Path, n_bytes: u64, file_bytes: u64, modified: SystemTime) -> std::io::Result<Self> {
        let mut reader = BufReader::with_capacity(PIECE, File::open(path)?.take(n_bytes));
        let mut hasher = Sha256::new();
        let mut n_lines = 0;
        loop {
            let piece = reader.fill_buf()?;
            if piece.is_empty() {
                break;
            }
            hasher.update(piece);
            n_lines += n_line_ends(piece);
            let n_read = piece.len();
            reader.consume(n_read);
        }
        Ok(Self::up_to(n_bytes, n_lines, hasher, file_bytes, modified))
    }

    /// So many bytes and lines at the beginning of a file of some length and time.
    fn up_to(n_bytes: u64, n_lines: u64, hasher: Sha256, file_bytes: u64, modified: SystemTime) -> Self {
        let going = Some(Going { n_bytes: file_bytes, modified, hasher: hex::encode(hasher.serialize()) });
        let digest = hex::encode(hasher.finalize());
        Self { n_bytes, digest, n_lines, ends_line: true, version: None, rest: None, going }
    }

    /// The state of the digest, if the file has still this length and was last changed then.
    fn hasher_of(&self, n_bytes: u64, modified: SystemTime) -> Option<Sha256> {
        let going = self.going.as_ref().filter(|going| going.n_bytes == n_bytes && going.modified == modified)?;
        let state = hex::decode(&going.hasher).ok()?;
        Sha256::deserialize(state.as_slice().try_into().ok()?).ok()
    }
}

/// Whether the first line of a text names its columns: it does, unless there is an object in each line.
fn has_header(path: &Path, config: &LoadConfig) -> std::io::Result<bool> {
    let mut reader = BufReader::with_capacity(PIECE, File::open(path)?);
    let head = reader.fill_buf()?;
    let is_ndjson = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start().starts_with(b"{");
    Ok(!is_ndjson && config.format != Some(Format::Ndjson))
}

fn n_line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// A whole file, as an input.
fn input_of(file: &SourceFile) -> Input {
    let SourceFile { path, name, labels, version } = file;
    let content = if version.is_some() { Content::Nameless(path.clone()) } else { Content::File(path.clone()) };
    Input { name: name.clone(), content, labels: labels.clone(), n_lines_before: 0, groups: None }
}
