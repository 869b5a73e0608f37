//! Which series of a forecast a request is about: named ones, those of which something is known, or all.

use serde_json::Value;

use crate::{Error, db::series::Series, routes::extract::Parameters};

/// The parameter that names what is known.
const ATTRIBUTE: &str = "attribute";

/// Series by name and by attribute; where nothing is said, all.
#[derive(Debug)]
pub struct Chosen {
    /// Names, one of which a series must have.
    pub names: Vec<String>,
    /// Names of attributes with values, all of which a series must have.
    attributes: Vec<(String, String)>,
}

impl Chosen {
    /// Takes `series` and `attribute`, as often as they are given.
    ///
    /// # Errors
    /// When an attribute has no value.
    pub fn take(parameters: &mut Parameters) -> Result<Self, Error> {
        let read = |text: String| match text.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(wrong("must be a name and a value, as in `site:north`")),
        };
        let attributes = parameters.take_all(ATTRIBUTE).into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { names: parameters.take_all("series"), attributes })
    }

    /// Keeps the series that have all attributes.
    ///
    /// # Errors
    /// When none has.
    pub fn keep(&self, series: &mut Vec<Series>) -> Result<(), Error> {
        // Of a forecast whose values are gone there are none to begin with, which is told of elsewhere.
        let had_series = !series.is_empty();
        series.retain(|series| self.attributes.iter().all(|(name, value)| has(series, name, value)));
        match had_series && series.is_empty() {
            true => Err(wrong("is one that no series of the forecast has")),
            false => Ok(()),
        }
    }
}

fn has(series: &Series, name: &str, value: &str) -> bool {
    series.attributes.get(name).is_some_and(|known| match known {
        Value::String(text) => text == value,
        known => serde_json::from_str::<Value>(value).is_ok_and(|asked| asked == *known),
    })
}

fn wrong(message: &str) -> Error {
    Error::invalid_parameter(ATTRIBUTE, "invalid-value", message)
}
