//! A declared way from a source to a panel: what is read, how, and when it counts as failed.
//!
//! The same keys are read from TOML and from JSON. What a run has read before is in a [`Watermark`].

mod files;
mod objects;
mod parts;
mod source;
mod watermark;

use std::collections::BTreeMap;

use forecast::Bounds;
use serde::{Deserialize, Serialize};

use crate::{Checks, Code, Duplicates, Format, Holidays, Layout, Limits, LoadConfig, NumberFormat, Resample};

pub use files::{Files, SourceFile, leads_down};
pub use objects::{Listed, Objects, SCHEME};
pub use source::{Query, Source};
pub use watermark::{Answer, Plan, Watermark};

/// Longest name of a pipeline.
const NAME_LENGTH_MAX: usize = 100;
/// Most attributes of a series.
pub const N_ATTRIBUTES_MAX: usize = 100;

/// What a pipeline file or body says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Its name: letters, digits, `-` and `_`. A file without one is called by its own name.
    #[serde(default)]
    pub name: String,
    /// Name of the panel that the series belong to.
    pub panel: String,
    /// What is read: files, objects of a store, or a query.
    pub source: Source,
    /// What the files are; recognised from their first bytes by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How a table is laid out; found from the names of its columns by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Which column is what.
    #[serde(default, skip_serializing_if = "Columns::is_default")]
    pub columns: Columns,
    /// What columns must hold in the rows that are read, where a source has several panels; all rows by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, String>,
    /// What stands between fields; a comma by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<char>,
    /// Whether a comma stands before the decimals.
    #[serde(default, skip_serializing_if = "is_false")]
    pub decimal_comma: bool,
    /// What stands between groups of three digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thousands_separator: Option<char>,
    /// Values or words that stand for a gap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Zone of local times and of the calendar, an IANA name. Default that of the panel, else UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Spacing of the grid. Default that of the panel, else inferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency: Option<String>,
    /// The country whose public holidays models are told of, or `none`. Default what the panel has, else what a training finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holidays: Option<Holidays>,
    /// What to do with different values for one time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub duplicates: Duplicates,
    /// How irregular times are brought on the grid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resample: Option<Resample>,
    /// What to do with values outside the declared range.
    #[serde(default, skip_serializing_if = "is_default")]
    pub out_of_bounds: OutOfBounds,
    /// What is known of the series by name; `*` is for those not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub series: BTreeMap<String, SeriesDeclaration>,
    /// Seconds after the end of its interval at which a value is usually known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication_delay_seconds: Option<u32>,
    /// From when on things are noticed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checks: Checks,
    /// Bytes of files that are read and stored at a time. Default 256 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_bytes: Option<u64>,
    /// Codes of reasons and findings with any of which the run fails, and nothing is stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fail_on: Vec<String>,
}

/// How a table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A column per series.
    Wide,
    /// A row per observation.
    Long,
}

/// What to do with values outside the declared range of their series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutOfBounds {
    /// Take them, and say so.
    #[default]
    Report,
    /// Reject them.
    Reject,
}

/// Which column is what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// The time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The name of the series; of a long table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// The value; of a long table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The standard deviation of the measurement; of a long table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sd: Option<String>,
    /// When the value became known; of a long table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_at: Option<String>,
    /// Columns that say what the series are; of a long table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    /// The columns that are series; of a wide table. All by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Columns {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of a series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeriesDeclaration {
    /// `target`, `known` or `past`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `mean`, `sum` or `point`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Unit of its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// No value is below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_bound: Option<f64>,
    /// No value is above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_bound: Option<f64>,
    /// Whether all values are whole numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_integer: Option<bool>,
    /// What else is known of it: texts, numbers and truth values by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, serde_json::Value>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a declaration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// The text is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// The value of a key is not allowed.
    #[error("`{key}` {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
}

fn wrong(key: &'static str, reason: impl Into<String>) -> DeclarationError {
    DeclarationError::Value { key, reason: reason.into() }
}

impl Pipeline {
    /// Reads TOML. `file_stem` is its name if it does not say one.
    ///
    /// # Errors
    /// [`DeclarationError`] when it is no declaration.
    pub fn from_toml(text: &str, file_stem: &str) -> Result<Self, DeclarationError> {
        let mut pipeline: Self = toml::from_str(text)?;
        if pipeline.name.is_empty() {
            pipeline.name = file_stem.to_owned();
        }
        pipeline.load_config()?;
        Ok(pipeline)
    }

    /// How its files are read.
    ///
    /// # Errors
    /// [`DeclarationError::Value`] for the first key whose value is not allowed.
    pub fn load_config(&self) -> Result<LoadConfig, DeclarationError> {
        let is_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        let n_characters = self.name.chars().count();
        if n_characters == 0 || n_characters > NAME_LENGTH_MAX || !self.name.chars().all(is_name) {
            return Err(wrong("name", format!("must be 1 to {NAME_LENGTH_MAX} letters, digits, `-` or `_`")));
        }
        if self.panel.is_empty() {
            return Err(wrong("panel", "must not be empty"));
        }
        source::check(self)?;
        let separator = self.separator.map(|c| u8::try_from(c).ok().filter(|byte| byte.is_ascii() && *byte != b'"'));
        if separator == Some(None) {
            return Err(wrong("separator", "must be one ASCII character"));
        }
        let decimal = if self.decimal_comma { ',' } else { '.' };
        if self.thousands_separator.is_some_and(|c| c == decimal || c.is_ascii_digit()) {
            return Err(wrong("thousands_separator", "must differ from the decimal mark and be no digit"));
        }
        if self.separator == Some(decimal) || (self.separator.is_none() && self.decimal_comma) {
            return Err(wrong("separator", "must differ from the decimal mark"));
        }
        let time_zone = self.time_zone.as_deref().map(str::parse).transpose();
        let time_zone = time_zone.map_err(|_| wrong("time_zone", "must be an IANA name such as Europe/Madrid"))?;
        let frequency = self.frequency.as_deref().map(str::parse).transpose();
        let frequency = frequency.map_err(|error: crate::Error| wrong("frequency", format!("is refused: {error}")))?;
        if self.part_bytes == Some(0) {
            return Err(wrong("part_bytes", "must be at least 1"));
        }
        let limits = Limits::default();
        self.codes()?;
        let bound = |series: &SeriesDeclaration| Bounds { lower: series.lower_bound, upper: series.upper_bound };
        let bounds: BTreeMap<String, Bounds> =
            self.series.iter().map(|(name, series)| (name.clone(), bound(series))).collect();
        if bounds.values().flat_map(|b| [b.lower, b.upper]).flatten().any(|bound| !bound.is_finite()) {
            return Err(wrong("series", "has a bound that is not a finite number"));
        }
        if bounds.values().any(|b| b.lower.zip(b.upper).is_some_and(|(lower, upper)| lower >= upper)) {
            return Err(wrong("series", "has a lower bound that is not below the upper one"));
        }
        let attributes = self.series.values().map(|series| &series.attributes);
        if attributes.clone().map(BTreeMap::len).chain([self.columns.attributes.len()]).any(|n| n > N_ATTRIBUTES_MAX) {
            return Err(wrong("series", format!("has more than {N_ATTRIBUTES_MAX} attributes")));
        }
        if attributes.flat_map(BTreeMap::values).any(|value| value.is_object() || value.is_array() || value.is_null()) {
            return Err(wrong("series", "has an attribute that is no text, number or truth value"));
        }
        Ok(LoadConfig {
            format: self.format,
            separator: separator.flatten(),
            layout: self.layout()?,
            time_column: self.columns.time.clone(),
            attributes: self.columns.attributes.clone(),
            rows: self.rows.clone(),
            time_zone: time_zone.unwrap_or_default(),
            frequency,
            numbers: NumberFormat {
                decimal_comma: self.decimal_comma,
                thousands_separator: self.thousands_separator,
                missing: self.missing.clone(),
            },
            duplicates: self.duplicates,
            resample: self.resample,
            bounds,
            reject_out_of_bounds: self.out_of_bounds == OutOfBounds::Reject,
            checks: self.checks.clone(),
            may_be_empty: true,
            limits: Limits { part_bytes_max: self.part_bytes.unwrap_or(limits.part_bytes_max), ..limits },
        })
    }

    fn layout(&self) -> Result<Option<Layout>, DeclarationError> {
        let Columns { time, series, value, sd, available_at, attributes, values } = &self.columns;
        let is_long = series.is_some() || value.is_some() || sd.is_some() || available_at.is_some();
        match self.shape {
            Some(Shape::Wide) if is_long || !attributes.is_empty() => {
                Err(wrong("columns", "of a wide table are `time` and `values` only"))
            }
            Some(Shape::Long) | None if is_long && !values.is_empty() => {
                Err(wrong("columns", "of a long table have no `values`"))
            }
            Some(Shape::Long) if !values.is_empty() => Err(wrong("columns", "of a long table have no `values`")),
            Some(Shape::Wide) => Ok(Some(Layout::Wide { values: values.clone() })),
            None if !values.is_empty() => Ok(Some(Layout::Wide { values: values.clone() })),
            None if !is_long => Ok(None),
            Some(Shape::Long) | None => Ok(Some(Layout::Long {
                series: series.clone().unwrap_or_else(|| crate::SERIES.to_owned()),
                time: time.clone(),
                value: value.clone().unwrap_or_else(|| crate::VALUE.to_owned()),
                available_at: available_at.clone(),
                sd: sd.clone(),
            })),
        }
    }

    /// The codes with which a run fails.
    ///
    /// # Errors
    /// [`DeclarationError::Value`] for a word that is no code.
    pub fn codes(&self) -> Result<Vec<Code>, DeclarationError> {
        let code =
            |word: &String| word.parse().map_err(|error: crate::UnknownCode| wrong("fail_on", format!("{error}")));
        self.fail_on.iter().map(code).collect()
    }

    /// What is known of a series: what is said of it, else of all.
    pub fn series(&self, name: &str) -> Option<&SeriesDeclaration> {
        self.series.get(name).or_else(|| self.series.get("*"))
    }
}

#[cfg(test)]
mod tests;
