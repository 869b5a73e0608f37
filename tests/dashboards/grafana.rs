//! What Grafana does with a query before it reaches Postgres, and with the rows that come back.
//!
//! Grafana itself is not at hand in a test, so its rules stand here in our words, for versions 10 to 13: variables are
//! put in first, in the browser; then the server replaces intervals and macros; rows become frames by the names and types
//! of their columns.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{
    AssertSqlSafe, Column as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _, Statement as _, TypeInfo as _,
    ValueRef as _,
};

/// The chosen value of a variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a variable with one value: what is shown, and what is put in.
    One { text: String, value: String },
    /// Of one with several.
    Many(Vec<(String, String)>),
}

impl Value {
    /// Shown and put in alike.
    pub fn one(value: &str) -> Self {
        Self::One { text: value.to_owned(), value: value.to_owned() }
    }
}

/// The variables of a dashboard, in their order.
pub type Variables = Vec<(String, Value)>;

/// The time range of a dashboard.
#[derive(Clone, Copy, Debug)]
pub struct TimeRange {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// Puts the values of variables into a text: `$name`, `${name}` and `${name:text}`. A value of several is a list of
/// quoted texts; a single one is bare, with quotes doubled. Unknown names stay.
pub fn with_variables(text: &str, variables: &Variables) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result += &rest[..at];
        rest = &rest[at..];
        let (whole, name, format) = reference(rest);
        match variables.iter().find(|(known, _)| known == name) {
            Some((_, value)) if !name.is_empty() => result += &interpolated(value, format),
            _ => result += whole,
        }
        rest = &rest[whole.len()..];
    }
    result + rest
}

/// The reference that a text begins with, its name and its format.
fn reference(text: &str) -> (&str, &str, &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some(inner) = text.strip_prefix("${") {
        let Some(end) = inner.find('}') else { return ("$", "", "") };
        let (name, format) = inner[..end].split_once(':').unwrap_or((&inner[..end], ""));
        return (&text[..end + 3], name, format);
    }
    let end = text[1..].find(|c| !is_word(c)).map_or(text.len(), |end| end + 1);
    (&text[..end], &text[1..end], "")
}

fn interpolated(value: &Value, format: &str) -> String {
    let doubled = |text: &str| text.replace('\'', "''");
    match (value, format) {
        (Value::One { text, .. }, "text") => text.clone(),
        (Value::Many(chosen), "text") => chosen.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(" + "),
        (Value::One { value, .. }, "") => doubled(value),
        (Value::Many(chosen), "") => {
            chosen.iter().map(|(_, value)| format!("'{}'", doubled(value))).collect::<Vec<_>>().join(",")
        }
        (_, other) => panic!("format {other} is not described here"),
    }
}

/// Replaces the interval and the macros of the Postgres data source. A `$name(` that is no macro is an error there, too;
/// arguments contain no parentheses.
pub fn with_macros(sql: &str, range: TimeRange, interval: &str) -> Result<String, String> {
    let sql =
        sql.replace("$__interval_ms", &format!("{}", seconds(interval)? * 1000.0)).replace("$__interval", interval);
    let mut result = String::new();
    let mut rest = sql.as_str();
    while let Some(at) = rest.find('$') {
        result += &rest[..at];
        rest = &rest[at..];
        let (_, name, _) = reference(rest);
        let after = &rest[1 + name.len()..];
        match after.strip_prefix('(').and_then(|inner| inner.find(')').map(|end| &inner[..end])) {
            Some(arguments) if !name.is_empty() => {
                let list: Vec<&str> = arguments.split(',').map(str::trim).collect();
                result += &expanded(name, &list, range)?;
                rest = &rest[name.len() + arguments.len() + 3..];
            }
            _ => {
                result.push('$');
                rest = &rest[1..];
            }
        }
    }
    Ok(result + rest)
}

fn expanded(name: &str, arguments: &[&str], range: TimeRange) -> Result<String, String> {
    let quoted = |time: DateTime<Utc>| format!("'{}'", time.format("%Y-%m-%dT%H:%M:%SZ"));
    Ok(match (name, arguments) {
        ("__time", [column]) => format!("{column} AS \"time\""),
        ("__timeFilter", [column]) => format!("{column} BETWEEN {} AND {}", quoted(range.from), quoted(range.to)),
        ("__timeFrom", [""]) => quoted(range.from),
        ("__timeTo", [""]) => quoted(range.to),
        ("__timeGroup" | "__timeGroupAlias", [column, interval]) => {
            let seconds = seconds(interval)?;
            let group = format!("floor(extract(epoch from {column})/{seconds})*{seconds}");
            if name.ends_with("Alias") { format!("{group} AS \"time\"") } else { group }
        }
        _ => return Err(format!("unknown macro ${name}({})", arguments.join(","))),
    })
}

/// The seconds of `'1h'`, `30s` and the like.
fn seconds(interval: &str) -> Result<f64, String> {
    let text = interval.trim().trim_matches('\'');
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or("an interval without a unit")?;
    let count: f64 = text[..unit].parse().map_err(|_| format!("no interval: {text}"))?;
    let length = match &text[unit..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        other => return Err(format!("no unit of an interval: {other}")),
    };
    Ok(count * length)
}

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

#[test]
fn variables_are_put_in_as_grafana_does() {
    let variables = vec![
        (
            "series".to_owned(),
            Value::Many(vec![("it's".to_owned(), "it's".to_owned()), ("b".to_owned(), "2".to_owned())]),
        ),
        ("panel".to_owned(), Value::One { text: "O'Hare".to_owned(), value: "o'7".to_owned() }),
    ];
    for (text, expected) in [
        ("in ($series)", "in ('it''s','2')"),
        ("'$panel' and '${panel}'", "'o''7' and 'o''7'"),
        ("${panel:text}: ${series:text}", "O'Hare: it's + b"),
        ("$panels $__interval $1", "$panels $__interval $1"),
    ] {
        assert_eq!(with_variables(text, &variables), expected);
    }
}

#[test]
fn macros_are_expanded_as_grafana_does() {
    let range = TimeRange { from: DateTime::UNIX_EPOCH, to: DateTime::UNIX_EPOCH };
    for (sql, expected) in [
        ("$__time(t)", "t AS \"time\""),
        ("$__timeFilter(valid_time)", "valid_time BETWEEN '1970-01-01T00:00:00Z' AND '1970-01-01T00:00:00Z'"),
        ("f($__timeFrom(), $__timeTo())", "f('1970-01-01T00:00:00Z', '1970-01-01T00:00:00Z')"),
        ("$__timeGroupAlias(t, $__interval), x", "floor(extract(epoch from t)/300)*300 AS \"time\", x"),
        ("$__timeGroup(t, '1h')", "floor(extract(epoch from t)/3600)*3600"),
        ("select '$1', $2", "select '$1', $2"),
    ] {
        assert_eq!(with_macros(sql, range, "5m").as_deref(), Ok(expected));
    }
    assert!(with_macros("$sum(x)", range, "5m").unwrap_err().contains("unknown macro $sum(x)"));
}
