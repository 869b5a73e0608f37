//! What Grafana does with a query before it reaches Postgres, in our words, for versions 10 to 13: variables are put in first,
//! in the browser; then the server replaces intervals and macros.
//!
//! So that queries of dashboards can be run, and measured, without a Grafana.

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

/// The chosen value of a variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a variable with one value.
    One {
        /// What is shown.
        text: String,
        /// What is put in.
        value: String,
    },
    /// Of one with several.
    Many(Vec<(String, String)>),
}

impl Value {
    /// Shown and put in alike.
    #[must_use]
    pub fn one(value: &str) -> Self {
        Self::One { text: value.to_owned(), value: value.to_owned() }
    }

    /// What Grafana chooses when a dashboard is opened, of the options of a variable (what is shown, and what is put in): the
    /// first, or all of several where that is on offer.
    #[must_use]
    pub fn chosen(variable: &Json, options: Vec<(String, String)>) -> Self {
        match (variable["multi"] == true, options.first()) {
            (true, _) if variable["includeAll"] == true => Self::Many(options),
            (true, first) => Self::Many(first.cloned().into_iter().collect()),
            (false, Some((text, value))) => Self::One { text: text.clone(), value: value.clone() },
            (false, None) => Self::one(""),
        }
    }
}

/// The variables of a dashboard, in their order.
pub type Variables = Vec<(String, Value)>;

/// The time range of a dashboard.
#[derive(Clone, Copy, Debug)]
pub struct TimeRange {
    /// Its start.
    pub from: DateTime<Utc>,
    /// Its end.
    pub to: DateTime<Utc>,
}

/// Puts the values of variables into a text: `$name`, `${name}` and `${name:text}`. A value of several is a list of
/// quoted texts; a single one is bare, with quotes doubled. Unknown names and formats stay.
#[must_use]
pub fn with_variables(text: &str, variables: &Variables) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result += &rest[..at];
        rest = &rest[at..];
        let (whole, name, format) = reference(rest);
        let known = variables.iter().find(|(known, _)| known == name && !name.is_empty());
        match known.and_then(|(_, value)| interpolated(value, format)) {
            Some(text) => result += &text,
            None => result += whole,
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

/// The value in one of the formats that our dashboards use.
fn interpolated(value: &Value, format: &str) -> Option<String> {
    let doubled = |text: &str| text.replace('\'', "''");
    Some(match (value, format) {
        (Value::One { text, .. }, "text") => text.clone(),
        (Value::Many(chosen), "text") => chosen.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(" + "),
        (Value::One { value, .. }, "") => doubled(value),
        (Value::Many(chosen), "") => {
            chosen.iter().map(|(_, value)| format!("'{}'", doubled(value))).collect::<Vec<_>>().join(",")
        }
        _ => return None,
    })
}

/// Replaces the interval and the macros of the Postgres data source. A `$name(` that is no macro is an error there, too;
/// arguments contain no parentheses.
///
/// # Errors
/// What is unknown, in words.
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(with_macros("$sum(x)", range, "5m").expect_err("it is none").contains("unknown macro $sum(x)"));
    }
}
