//! What became of a panel's forecasts: scores by lead and by series, whether intervals held what they promised, and when
//! forecasts lean.

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::{
    LISTED_MAX, address_of_panel, chart, encode, format,
    shell::{self, Tab},
};
use crate::{
    Error, blocking,
    db::{
        self, DEFAULT_TENANT,
        panel::Panel,
        score::{Group, Selection},
        score_sum::Lean,
        words::GroupBy,
    },
    routes::{
        extract::{FromQuery, Parameters, Query},
        panels,
    },
    server::State,
};

/// Days before the newest scored value that are looked at, unless the page is asked for others.
const DAYS_DEFAULT: u32 = 90;
const DAYS_MAX: u32 = 3_660;

/// Leads are put together so that there are at most so many bars.
const BLOCKS_MAX: usize = 24;

/// How the quarters of a horizon are called.
const QUARTERS: [&str; 4] = ["First quarter", "Second", "Third", "Last"];

/// What the page shows.
#[derive(Clone, Copy)]
pub struct AccuracyQuery {
    days: u32,
}

impl FromQuery for AccuracyQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let is_possible = |days: &u32| (1..=DAYS_MAX).contains(days);
        let days = parameters.take_parsed("days", &format!("a number from 1 to {DAYS_MAX}"), |text| {
            text.parse().ok().filter(is_possible)
        })?;
        Ok(Self { days: days.unwrap_or(DAYS_DEFAULT) })
    }
}

/// Everything on the page.
struct View {
    panel: Panel,
    start: DateTime<Utc>,
    days: u32,
    by_lead: Vec<Group>,
    by_series: Vec<(String, Group)>,
    leans: Vec<Lean>,
}

/// `GET /panels/{panel}/accuracy`: the page.
///
/// # Errors
/// [`Error::UnknownPanel`]; those of the database.
pub async fn read(
    state: web::Data<State>,
    name: web::Path<String>,
    query: Query<AccuracyQuery>,
) -> Result<HttpResponse, Error> {
    let (pool, days) = (&state.pool, query.0.days);
    let panel = panels::find(pool, &name).await?;
    let newest = db::score_sum::newest(pool, DEFAULT_TENANT, panel.panel_id).await?;
    let start = newest.unwrap_or_else(Utc::now) - TimeDelta::days(i64::from(days));
    let (panel_id, time_zone) = (panel.panel_id, panel.time_zone.as_str());
    let selected =
        |by| Selection { panel_id, time_zone, by, start: Some(start), end: None, version: None, as_of: None };
    let leads_max = i64::try_from(state.limits.horizon_max).unwrap_or(i64::MAX);
    let by_lead = db::score::groups(pool, DEFAULT_TENANT, &selected(GroupBy::Lead), None, leads_max).await?;
    let groups = db::score::groups(pool, DEFAULT_TENANT, &selected(GroupBy::Series), None, LISTED_MAX).await?;
    let ids: Vec<i32> = groups.iter().filter_map(|group| i32::try_from(group.key).ok()).collect();
    let names = db::series::names(pool, DEFAULT_TENANT, panel.panel_id, &ids).await?;
    let named = |group: Group| {
        let (_, name) = names.iter().find(|(id, _)| i64::from(*id) == group.key)?;
        Some((name.clone(), group))
    };
    let leans = db::score_sum::leans(pool, DEFAULT_TENANT, panel.panel_id, &panel.time_zone, start).await?;
    let view = View { by_series: groups.into_iter().filter_map(named).collect(), panel, start, days, by_lead, leans };
    let html = blocking::run("writing the page", move || {
        shell::page(Some(&format!("Accuracy of {}", view.panel.name)), &html! { main.wide { (content(&view)) } })
    });
    Ok(super::respond(html.await?))
}

fn content(view: &View) -> Markup {
    let name = &view.panel.name;
    html! {
        h1 { (name) }
        (shell::tabs(name, Tab::Accuracy))
        form.question method="get" action={ (address_of_panel(name, None)) "/accuracy" } {
            label {
                "Scored values of the last "
                input type="number" name="days" min="1" max=(DAYS_MAX) value=(view.days);
            }
            " days "
            button type="submit" { "Show" }
        }
        @if view.by_lead.is_empty() {
            p {
                "No forecast has been scored in this time. Scores come with the truth, by " code { "plumecast score" }
                " or a schedule of kind " code { "score" } "."
            }
        } @else {
            (summary(view))
            (figures(view))
            (heat_map(&view.leans, &view.panel.time_zone, address(view, "hour")))
            (by_series(&view.by_series))
            (shell::as_json(&[("by series", address(view, "series")), ("by model", address(view, "model"))]))
        }
    }
}

fn summary(view: &View) -> Markup {
    let all = combined(&view.by_lead);
    html! {
        p.lead {
            strong { (format::whole(all.n_values)) } " values scored"
            @if let Some(crps) = all.crps { " · CRPS " strong { (format::number(crps)) } }
            @if let Some(skill) = all.skill { " · " strong { (format::percent(skill)) } " better than one season before" }
            " · 80 % intervals held " strong { (format::percent(all.coverage_80)) }
        }
    }
}

fn figures(view: &View) -> Markup {
    let blocks = blocks(&view.by_lead);
    let labels: Vec<String> = blocks.iter().map(|(label, _)| label.clone()).collect();
    let of = |share: fn(&Group) -> Option<f64>| blocks.iter().map(|(_, group)| share(group)).collect();
    let coverage = [
        ("interval-50", "50 % interval", of(|group| Some(group.coverage_50))),
        ("interval-80", "80 % interval", of(|group| Some(group.coverage_80))),
        ("interval-90", "90 % interval", of(|group| Some(group.coverage_90))),
    ];
    let coverage = chart::bars("Share of the truth inside", "Steps ahead", &labels, &coverage, &[0.5, 0.8, 0.9]);
    let crps = chart::bars("CRPS", "Steps ahead", &labels, &[("total", "CRPS", of(|group| group.crps))], &[]);
    let skill = [("total", "Skill", of(|group| group.skill))];
    let skill = chart::bars("Skill", "Steps ahead", &labels, &skill, &[0.0]);
    let Group { n_values, pit_counts, .. } = combined(&view.by_lead);
    let tenths: Vec<String> = (0..10).map(|tenth| format!("{} to {} %", 10 * tenth, 10 * (tenth + 1))).collect();
    let shares = pit_counts.iter().map(|&count| Some(count as f64 / n_values.max(1) as f64)).collect();
    let pit = chart::bars("Share of the truth", "Of what was forecast", &tenths, &[("total", "Share", shares)], &[0.1]);
    let by_lead = || shell::as_json(&[("by lead", address(view, "lead"))]);
    html! {
        h2 { "How far off, by how far ahead?" }
        (shell::figure("crps", "CRPS by lead", &crps))
        (by_lead())
        h2 { "How much better than one season before?" }
        (shell::figure("skill", "Skill against seasonal naive by lead", &skill))
        p.quiet {
            "By how much the error of the medians is lower than that of the values one season before: 0 is as good, 1 without "
            "error, below 0 worse."
        }
        (by_lead())
        h2 { "Do intervals hold what they promise?" }
        (shell::figure("coverage", "Coverage of intervals by lead", &coverage))
        p.quiet { "Dotted: what should be." }
        (by_lead())
        h2 { "Where in the predictive distribution did the truth fall?" }
        (shell::figure("pit", "Histogram of the probability integral transform", &pit))
        p.quiet { "High ends: intervals are too narrow. High middle: too wide. A slope: the forecast is biased." }
        (by_lead())
    }
}

/// When forecasts lean: a row for each quarter of the horizon, a column for each hour, unless there is only one.
fn heat_map(leans: &[Lean], time_zone: &str, address: String) -> Markup {
    let hours: BTreeSet<i32> = leans.iter().map(|lean| lean.hour).collect();
    if hours.len() < 2 {
        return html! {};
    }
    let at = |hour: i32, quarter: usize| {
        leans.iter().find(|lean| lean.hour == hour && usize::try_from(lean.quarter) == Ok(quarter))
    };
    html! {
        h2 { "When do forecasts lean?" }
        div.scroll role="region" aria-label="Lean by hour and lead" tabindex="0" {
            table.heat {
                thead {
                    tr {
                        th scope="col" { "Of the horizon" }
                        @for hour in &hours { th.number scope="col" { (format!("{hour:02}h")) } }
                    }
                }
                tbody {
                    @for (quarter, name) in (1..).zip(QUARTERS) {
                        tr {
                            th scope="row" { (name) }
                            @for &hour in &hours { (lean_cell(at(hour, quarter))) }
                        }
                    }
                }
            }
        }
        p.quiet {
            "By hour on the clock of " (time_zone) ": how many percentage points of what was forecast the truth lay above (+) or "
            "below (−) its middle, on average. 0 is unbiased; ±50 would be always beyond everything."
        }
        (shell::as_json(&[("by hour", address)]))
    }
}

fn lean_cell(lean: Option<&Lean>) -> Markup {
    let Some(Lean { n_values, pit, .. }) = lean else {
        return html! { td.number { "–" } };
    };
    let points = (100.0 * (pit - 0.5)).round();
    // Where forecasts lean by a quarter of the distribution, the colour is full.
    let strength = (points.abs() * 4.0).min(100.0);
    let (class, sign) = if points < 0.0 { ("low", "−") } else { ("high", if points > 0.0 { "+" } else { "" }) };
    html! {
        td.number.(class) style={ "--lean: " (strength) "%" } title={ (n_values) " values" } { (sign) (points.abs()) }
    }
}

fn by_series(series: &[(String, Group)]) -> Markup {
    let mut series: Vec<&(String, Group)> = series.iter().collect();
    let skill = |group: &Group| group.skill.unwrap_or(f64::INFINITY);
    series.sort_by(|(_, a), (_, b)| skill(a).total_cmp(&skill(b)));
    html! {
        h2 { "Series, the worst first" }
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Series" } th.number { "Values" } th.number { "CRPS" } th.number { "Skill" }
                        th.number { "Inside 50 %" } th.number { "80 %" } th.number { "90 %" } th.number { "Mean PIT" }
                    }
                }
                tbody {
                    @for (name, group) in series {
                        tr {
                            th scope="row" { (name) }
                            td.number { (group.n_values) }
                            td.number { @if let Some(crps) = group.crps { (format::number(crps)) } }
                            td.number { @if let Some(skill) = group.skill { (format::percent(skill)) } }
                            @for share in [group.coverage_50, group.coverage_80, group.coverage_90] {
                                td.number { (format::percent(share)) }
                            }
                            td.number { (format!("{:.2}", group.pit)) }
                        }
                    }
                }
            }
        }
        p.quiet {
            "CRPS: relative to the size of the values. Skill: by how much the error of the medians is lower than that of "
            "the values one season before. Mean PIT: 0.50 is unbiased, above it too much came."
        }
    }
}

/// Where scores by something are read by REST.
fn address(view: &View, by: &str) -> String {
    let start = encode(&view.start.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    format!("/v1/scores?panel={}&by={by}&start={start}", encode(&view.panel.name))
}

/// Groups of neighbouring leads, named by them.
fn blocks(by_lead: &[Group]) -> Vec<(String, Group)> {
    let named = |groups: &[Group]| {
        let (first, last) = (groups[0].key, groups[groups.len() - 1].key);
        let name = if first == last { first.to_string() } else { format!("{first}–{last}") };
        (name, combined(groups))
    };
    by_lead.chunks(by_lead.len().div_ceil(BLOCKS_MAX).max(1)).map(named).collect()
}

/// Several groups as one, as if they had never been apart.
fn combined(groups: &[Group]) -> Group {
    let n_values: i64 = groups.iter().map(|group| group.n_values).sum();
    let mean = |share: fn(&Group) -> f64| {
        groups.iter().map(|group| group.n_values as f64 * share(group)).sum::<f64>() / n_values.max(1) as f64
    };
    // Ratios are put together by what they are relative to.
    let ratio = |of: fn(&Group) -> Option<(f64, f64)>| {
        let weight: f64 = groups.iter().filter_map(of).map(|(weight, _)| weight).sum();
        let sum: f64 = groups.iter().filter_map(of).map(|(weight, ratio)| weight * ratio).sum();
        (weight > 0.0).then(|| sum / weight)
    };
    let pit_counts = (0..10).map(|tenth| groups.iter().filter_map(|group| group.pit_counts.get(tenth)).sum()).collect();
    let naive_error = groups.iter().filter_map(|group| group.naive_error).reduce(|sum, error| sum + error);
    Group {
        key: groups.first().map_or(0, |group| group.key),
        n_values,
        magnitude: groups.iter().map(|group| group.magnitude).sum(),
        naive_error,
        crps: ratio(|group| Some((group.magnitude, group.crps?))),
        coverage_50: mean(|group| group.coverage_50),
        coverage_80: mean(|group| group.coverage_80),
        coverage_90: mean(|group| group.coverage_90),
        pit: mean(|group| group.pit),
        pit_counts,
        skill: ratio(|group| Some((group.naive_error?, group.skill?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(key: i64, n_values: i64, coverage_80: f64, skill: Option<f64>) -> Group {
        let (magnitude, naive_error) = (key as f64, skill.map(|_| key as f64));
        let (crps, coverage_50, coverage_90, pit) = (Some(0.1 * key as f64), 0.5, 0.9, 0.5);
        let pit_counts = vec![n_values; 10];
        Group {
            key,
            n_values,
            magnitude,
            naive_error,
            crps,
            coverage_50,
            coverage_80,
            coverage_90,
            pit,
            pit_counts,
            skill,
        }
    }

    #[test]
    fn leads_are_put_together_by_their_numbers_of_values() {
        let leads: Vec<Group> =
            (1..=49).map(|lead| group(lead, 1 + lead % 2, 0.5 + 0.1 * (lead % 2) as f64, None)).collect();
        let blocks = blocks(&leads);
        assert_eq!((blocks.len(), blocks[0].0.as_str(), blocks[16].0.as_str()), (17, "1–3", "49"));
        // Two, one and two values.
        let expected = (2.0 * 0.6 + 0.5 + 2.0 * 0.6) / 5.0;
        assert!((blocks[0].1.coverage_80 - expected).abs() < 1e-12 && blocks[0].1.n_values == 5);
        assert_eq!(blocks[0].1.pit_counts, [5; 10]);
    }

    #[test]
    fn ratios_are_put_together_by_what_they_are_relative_to() {
        let all = combined(&[group(1, 3, 0.8, None), group(2, 1, 0.8, Some(0.25)), group(6, 1, 0.8, Some(0.05))]);
        assert!((all.skill.expect("known of two") - (2.0 * 0.25 + 6.0 * 0.05) / 8.0).abs() < 1e-12);
        assert!((all.crps.expect("known of all") - (0.1 + 0.4 + 3.6) / 9.0).abs() < 1e-12);
        assert_eq!(combined(&[group(1, 3, 0.8, None)]).skill, None);
    }

    #[test]
    fn the_heat_map_says_when_forecasts_lean_and_which_way() {
        let lean = |hour, quarter, pit| Lean { hour, quarter, n_values: 7, pit };
        let html = heat_map(&[lean(0, 1, 0.5), lean(0, 4, 0.58), lean(13, 1, 0.1)], "Europe/Madrid", String::new())
            .into_string();
        for part in ["13h", "--lean: 0%", ">+8<", "--lean: 32%", "number low", ">−40<", "--lean: 100%", "7 values"] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert_eq!(heat_map(&[lean(0, 1, 0.5)], "UTC", String::new()).into_string(), "", "days have no hours");
    }

    #[test]
    fn the_worst_series_comes_first() {
        let series =
            [("good".to_owned(), group(1, 9, 0.8, Some(0.3))), ("bad".to_owned(), group(2, 9, 0.6, Some(-0.1)))];
        let html = by_series(&series).into_string();
        assert!(html.find("bad").expect("listed") < html.find("good").expect("listed"), "{html}");
    }
}
