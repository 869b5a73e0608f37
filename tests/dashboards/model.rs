//! The dashboards as files, and their queries.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A dashboard.
pub struct Dashboard {
    pub file: String,
    pub json: Value,
}

/// The folder of the dashboards.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("dashboards")
}

/// All dashboards, by file name.
pub fn dashboards() -> Vec<Dashboard> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &PathBuf| Dashboard {
        file: path.file_name().unwrap().to_str().unwrap().to_owned(),
        json: serde_json::from_str(&fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    };
    paths.iter().map(read).collect()
}

impl Dashboard {
    /// The panels that show something, without rows.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["panels"]).iter().filter(|panel| panel["type"] != "row")
    }

    /// The variables.
    pub fn variables(&self) -> &[Value] {
        list(&self.json["templating"]["list"])
    }

    /// The annotations.
    pub fn annotations(&self) -> &[Value] {
        list(&self.json["annotations"]["list"])
    }
}

/// The elements of a list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
