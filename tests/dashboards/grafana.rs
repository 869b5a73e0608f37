//! What Grafana does with the rows that come back from Postgres; what it does with a query before is in `api::grafana`.
//!
//! Grafana itself is not at hand in a test, so its rules stand here in our words, for versions 10 to 13: rows become frames by
//! the names and types of their columns.

use std::collections::BTreeSet;

pub use api::grafana::{TimeRange, Value, Variables, with_macros, with_variables};
use chrono::DateTime;
use sqlx::{
    AssertSqlSafe, Column as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _, Statement as _, TypeInfo as _,
    ValueRef as _,
};

/// What a column holds, as far as panels care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Time,
    Number,
    Text,
}

/// The rows of a query, as the data source sees them.
#[derive(Debug)]
pub struct Frame {
    pub columns: Vec<(String, Kind)>,
    /// As Postgres writes them.
    pub rows: Vec<Vec<Option<String>>>,
}

impl Frame {
    /// Runs a query as Grafana does: without bind parameters.
    pub async fn read(connection: &mut PgConnection, sql: &str) -> Result<Self, String> {
        // A query without rows still has columns; preparing it tells them.
        let prepared = connection
            .prepare(AssertSqlSafe(sql.to_owned()).into_sql_str())
            .await
            .map_err(|error| error.to_string())?;
        let columns = prepared
            .columns()
            .iter()
            .map(|column| Ok((column.name().to_owned(), kind(column.name(), column.type_info().name())?)))
            .collect::<Result<Vec<_>, String>>()?;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .fetch_all(connection)
            .await
            .map_err(|error| error.to_string())?;
        let cell = |row: &sqlx::postgres::PgRow, index: usize| {
            let value = row.try_get_raw(index).unwrap();
            (!value.is_null()).then(|| value.as_str().unwrap().to_owned())
        };
        let rows = rows.iter().map(|row| (0..row.len()).map(|index| cell(row, index)).collect()).collect();
        Ok(Self { columns, rows })
    }

    /// The place of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(column, _)| column == name)
    }

    /// The values of a column of numbers; gaps are NaN.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let index = self.position(name).unwrap_or_else(|| panic!("no column {name}"));
        self.rows.iter().map(|row| row[index].as_ref().map_or(f64::NAN, |text| text.parse().unwrap())).collect()
    }

    /// Checks what a panel of time series needs, and gives the names of the series.
    ///
    /// The column `time` is an instant or seconds since 1970, and ascends. Numbers become series, named by their columns;
    /// with a text column, by its values, which must then be called `metric` and stand beside one column of numbers.
    pub fn series_names(&self) -> Result<BTreeSet<String>, String> {
        let time = self.position("time").ok_or("no column `time`")?;
        if self.columns[time].1 == Kind::Text {
            return Err("`time` is a text".to_owned());
        }
        let instants: Vec<f64> = self.rows.iter().map(|row| instant(row[time].as_deref())).collect::<Result<_, _>>()?;
        if instants.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err("times do not ascend".to_owned());
        }
        let others = || self.columns.iter().enumerate().filter(move |(index, _)| *index != time);
        let numbers: Vec<(usize, &String)> =
            others().filter(|(_, (_, kind))| *kind == Kind::Number).map(|(index, (name, _))| (index, name)).collect();
        let texts: Vec<usize> = others().filter(|(_, (_, kind))| *kind == Kind::Text).map(|(index, _)| index).collect();
        if numbers.is_empty() || others().count() != numbers.len() + texts.len() {
            return Err("a column that is neither time, number nor name".to_owned());
        }
        match texts.as_slice() {
            [] if instants.windows(2).any(|pair| pair[0] == pair[1]) => Err("a time occurs twice".to_owned()),
            [] => Ok(numbers.iter().map(|(_, name)| (*name).clone()).collect()),
            &[metric] if self.columns[metric].0 == "metric" && numbers.len() == 1 => {
                let mut seen = BTreeSet::new();
                for (row, instant) in self.rows.iter().zip(&instants) {
                    let name = row[metric].clone().ok_or("a series without a name")?;
                    if !seen.insert((instant.to_bits(), name.clone())) {
                        return Err(format!("`{name}` has two values at one time"));
                    }
                }
                Ok(seen.into_iter().map(|(_, name)| name).collect())
            }
            _ => Err("names come in one column `metric`, beside one column of numbers".to_owned()),
        }
    }
}

/// What a type is to Grafana. Types outside Postgres' own are refused by its newer versions.
fn kind(column: &str, type_name: &str) -> Result<Kind, String> {
    match type_name {
        "TIMESTAMPTZ" | "TIMESTAMP" | "DATE" => Ok(Kind::Time),
        "INT2" | "INT4" | "INT8" | "FLOAT4" | "FLOAT8" | "NUMERIC" => Ok(Kind::Number),
        "TEXT" | "VARCHAR" | "BOOL" => Ok(Kind::Text),
        other => Err(format!("column `{column}` has the type {other}")),
    }
}

/// Seconds since 1970 of an instant that Postgres or a grouping macro wrote.
fn instant(text: Option<&str>) -> Result<f64, String> {
    let text = text.ok_or("a row without a time")?;
    if let Ok(seconds) = text.parse::<f64>() {
        // Smaller or larger numbers would be read as other units.
        return if seconds.abs() < 1e10 { Ok(seconds) } else { Err(format!("{text} is not read as seconds")) };
    }
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z")
        .map(|time| time.timestamp_micros() as f64 / 1e6)
        .map_err(|error| format!("{text}: {error}"))
}
