//! Totals and events: how a sum, a mean or an extreme of some series over some hours is distributed, and how likely it is to
//! pass a threshold. Read off stored trajectories by what answers `aggregate` and `events` of the REST API; no model runs.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use forecast::{Aggregate, Bounds, Condition, Demand, Over, Reading, quantile_of_sorted};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    LISTED_MAX, address_of_panel, chart, encode,
    format::{FUNCTIONS, capital, number, time, words},
    panel::{self, EARLIER_MAX},
    shell::{self, Tab},
};
use crate::{
    Error, blocking,
    db::{
        self, DEFAULT_TENANT,
        forecast::{Forecast, Issued},
        panel::Panel,
        series::Series,
        words::Kind,
    },
    forecaster::{Grid, scenario},
    routes::{
        extract::{FromQuery, Parameters, Query},
        forecasts::{
            aggregate::{self, parse_function},
            events::{self, EventPeriod, Passage},
            stored::Stored,
        },
        panels,
    },
    server::State,
};

/// The levels that are listed.
const LEVELS: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];

/// What is asked, as far as the address says.
#[derive(Clone, Debug, Default)]
pub struct TotalsQuery {
    forecast: Option<Uuid>,
    series: Vec<String>,
    function: Option<Aggregate>,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    threshold: Option<f64>,
    is_at_most: bool,
}

impl FromQuery for TotalsQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        // A form sends what is not filled in as empty text.
        fn or_none<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
            if text.trim().is_empty() { Some(None) } else { parse(text.trim()).map(Some) }
        }
        let instant = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc));
        let (an_instant, finite) = ("a time as in RFC 3339", |number: &f64| number.is_finite());
        Ok(Self {
            forecast: parameters
                .take_parsed("forecast", "the identifier of a forecast", |text| {
                    or_none(text, |text| Uuid::try_parse(text).ok())
                })?
                .flatten(),
            series: parameters.take_all("series"),
            function: parameters.take_parsed("fn", "`sum`, `max`, `min` or `mean`", parse_function)?,
            start: parameters.take_parsed("start", an_instant, |text| or_none(text, instant))?.flatten(),
            end: parameters.take_parsed("end", an_instant, |text| or_none(text, instant))?.flatten(),
            threshold: parameters
                .take_parsed("threshold", "a number", |text| or_none(text, |text| text.parse().ok().filter(finite)))?
                .flatten(),
            is_at_most: parameters
                .take_parsed("side", "`at_least` or `at_most`", |text| match text {
                    "at_least" => Some(false),
                    "at_most" => Some(true),
                    _ => None,
                })?
                .unwrap_or(false),
        })
    }
}

/// Everything on the page.
struct View {
    panel: Panel,
    time_zone: Tz,
    /// The newest forecasts, the newest first.
    forecasts: Vec<Forecast>,
    query: TotalsQuery,
    shown: Option<Shown>,
}

/// What is asked of one forecast, and the answer.
struct Shown {
    forecast: Forecast,
    /// Series of the forecast.
    series: Vec<Series>,
    /// Those that are combined.
    chosen: Vec<Series>,
    /// Starts of the steps, and the end of the last one.
    boundaries: Vec<DateTime<Utc>>,
    /// The first of these that is combined, and the one at which combining ends.
    period: (usize, usize),
    function: Aggregate,
    /// Nothing where the trajectories are gone.
    answer: Option<Answer>,
}

/// What the trajectories say.
struct Answer {
    /// One number per trajectory, ascending.
    draws: Vec<f64>,
    /// Quantiles at [`LEVELS`].
    quantiles: Vec<f64>,
    event: Option<Event>,
}

/// How likely a threshold is passed.
struct Event {
    /// In the whole period.
    whole: EventPeriod,
    /// On each calendar day of it.
    days: Vec<EventPeriod>,
    /// When, of single values.
    passage: Option<Passage>,
}

/// `GET /panels/{panel}/totals`: the page.
///
/// # Errors
/// [`Error::UnknownPanel`], [`Error::UnknownSeries`], [`Error::UnknownForecast`]; those of the database.
pub async fn read(
    state: web::Data<State>,
    name: web::Path<String>,
    query: Query<TotalsQuery>,
) -> Result<HttpResponse, Error> {
    let (pool, query) = (&state.pool, query.0);
    let panel = panels::find(pool, &name).await?;
    let time_zone = Grid::of(&panel)?.time_zone;
    let mut forecasts =
        db::forecast::list(pool, DEFAULT_TENANT, Some(panel.panel_id), Issued::default(), None, EARLIER_MAX).await?;
    forecasts.retain(|forecast| forecast.scenario.is_none());
    let shown = match panel::choose(pool, &panel, query.forecast).await? {
        Some(forecast) => Some(show(pool, Stored::of(pool, forecast).await?, time_zone, &query).await?),
        None => None,
    };
    let view = View { panel, time_zone, forecasts, query, shown };
    let html = blocking::run("writing the page", move || {
        let title = format!("Totals of {}", view.panel.name);
        shell::page(Some(&title), &html! { main.wide { (content(&view)) } })
    });
    Ok(super::respond(html.await?))
}

async fn show(pool: &sqlx::PgPool, mut stored: Stored, zone: Tz, query: &TotalsQuery) -> Result<Shown, Error> {
    let series = stored.series.clone();
    stored.select(&query.series)?;
    if query.series.is_empty() {
        // Those that can be added up with the first one.
        let alike = |one: &Series| series.first().is_some_and(|first| one.unit == first.unit && one.kind == first.kind);
        stored.series.retain(alike);
    }
    let chosen = stored.series.clone();
    let function = query.function.unwrap_or(match chosen.first().map(|series| series.kind) {
        Some(Kind::Sum) => Aggregate::Sum,
        _ => Aggregate::Mean,
    });
    let boundaries = stored.boundaries()?;
    // Times of another forecast may be none of this one.
    let at = |time: Option<DateTime<Utc>>| time.and_then(|time| boundaries.binary_search(&time).ok());
    let last = boundaries.len() - 1;
    let first = at(query.start).filter(|&first| first < last).unwrap_or(0);
    let period = (first, at(query.end).filter(|&end| end > first).unwrap_or(last));
    let steps =
        scenario::steps(&boundaries, Some(boundaries[period.0]), Some(boundaries[period.1])).map_err(events::wrong)?;
    let limit = |is_it: bool| query.threshold.filter(|_| is_it);
    let condition = Condition {
        reading: Reading::Aggregate(function),
        series: (0..chosen.len()).collect(),
        steps,
        demand: Demand::Within(Bounds { lower: limit(!query.is_at_most), upper: limit(query.is_at_most) }),
    };
    let answer = match stored.trajectories(pool).await {
        Ok(trajectories) => {
            let (boundaries, is_asked) = (boundaries.clone(), query.threshold.is_some());
            let answer = blocking::run("combining trajectories", move || {
                let combined = trajectories.steps(condition.steps.clone()).aggregate(function, Over::HorizonAndSeries);
                let sorted = combined.sorted(0, 0);
                let quantile = |level| Ok::<_, Error>(quantile_of_sorted(&sorted, chart::level(level)?));
                let quantiles = LEVELS.into_iter().map(quantile).collect::<Result<_, _>>()?;
                let event = is_asked.then(|| {
                    let date = |time: &DateTime<Utc>| time.with_timezone(&zone).date_naive();
                    let of = |date, part: &Condition| {
                        events::period(date, part, &boundaries, &events::met(part, &trajectories))
                    };
                    let days = events::days(&condition, &boundaries, date).into_iter();
                    Event {
                        whole: of(None, &condition),
                        days: days.map(|(date, part)| of(date, &part)).collect(),
                        passage: events::passage(&condition, &boundaries, &trajectories),
                    }
                });
                Ok::<_, Error>(Answer { draws: sorted.into_iter().map(f64::from).collect(), quantiles, event })
            });
            Some(answer.await??)
        }
        Err(Error::NoTrajectories { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Shown { forecast: stored.forecast, series, chosen, boundaries, period, function, answer })
}

fn content(view: &View) -> Markup {
    let name = &view.panel.name;
    html! {
        h1 { (name) }
        (shell::tabs(name, Tab::Totals))
        @match &view.shown {
            None => p { "There is no forecast of this panel yet." },
            Some(shown) => {
                (question(view, shown))
                div #answered aria-live="polite" {
                    @match &shown.answer {
                        Some(answer) => (answered(view, shown, answer)),
                        None => p { "The trajectories of this forecast are no longer stored." },
                    }
                }
            },
        }
    }
}

/// The question as a form, which works without a script, too.
fn question(view: &View, shown: &Shown) -> Markup {
    let (query, last) = (&view.query, shown.boundaries.len() - 1);
    let moment = |index: usize| shown.boundaries[index].with_timezone(&view.time_zone).format("%a %-d %b %Y, %H:%M");
    let value = |index: usize| shown.boundaries[index].to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let is_chosen = |series: &Series| shown.chosen.iter().any(|chosen| chosen.series_id == series.series_id);
    html! {
        form method="get" action={ (address_of_panel(&view.panel.name, None)) "/totals" } data-answer="answered" {
            div.question {
                label {
                    "Made at "
                    select name="forecast" {
                        option value="" selected[query.forecast.is_none()] { "latest" }
                        @for forecast in &view.forecasts {
                            option value=(forecast.forecast_id) selected[query.forecast == Some(forecast.forecast_id)] {
                                (time(forecast.issue_time, view.time_zone))
                            }
                        }
                    }
                }
                label {
                    "The "
                    select name="fn" {
                        @for (name, function, word) in FUNCTIONS {
                            option value=(name) selected[function == shown.function] { (word) }
                        }
                    }
                }
                label {
                    " from "
                    select name="start" {
                        @for index in 0..last {
                            option value=(value(index)) selected[index == shown.period.0] { (moment(index)) }
                        }
                    }
                }
                label {
                    " until "
                    select name="end" {
                        @for index in 1..=last {
                            option value=(value(index)) selected[index == shown.period.1] { (moment(index)) }
                        }
                    }
                }
                label {
                    " is "
                    select name="side" {
                        option value="at_least" selected[!query.is_at_most] { "at least" }
                        option value="at_most" selected[query.is_at_most] { "at most" }
                    }
                }
                input.number type="text" inputmode="decimal" name="threshold" aria-label="Threshold"
                    placeholder="threshold" value=[query.threshold];
                button type="submit" { "Show" }
            }
            fieldset.choices {
                legend { "of" }
                @for series in shown.series.iter().take(usize::try_from(LISTED_MAX).unwrap_or(usize::MAX)) {
                    label {
                        input type="checkbox" name="series" value=(series.name) checked[is_chosen(series)];
                        " " (series.name)
                        @if let Some(unit) = &series.unit { span.quiet { " " (unit) } }
                    }
                }
            }
        }
    }
}

fn answered(view: &View, shown: &Shown, answer: &Answer) -> Markup {
    let (function, word) = words(shown.function);
    let unit = aggregate::shared_unit(&shown.chosen);
    let what = match shown.chosen.as_slice() {
        [one] => format!("{} of {}", capital(word), one.name),
        several => format!("{} of {} series", capital(word), several.len()),
    };
    let title = chart::value_title(&what, unit.as_deref());
    let with_unit =
        |value: f64| format!("{}{}", number(value), unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default());
    let side = if view.query.is_at_most { "at most" } else { "at least" };
    let addresses = Addresses::of(view, shown, function);
    html! {
        section #value {
            h2 { "What will it be?" }
            p {
                "Between " strong { (number(answer.quantiles[0])) } " and " strong { (with_unit(answer.quantiles[6])) }
                " with 90 % probability, half of the time above " (number(answer.quantiles[3])) "."
            }
            @for warning in aggregate::warnings(shown.function, Over::HorizonAndSeries, &shown.chosen) {
                p.alarm { (capital(&warning.message)) "." }
            }
            (shell::figure(
                "distribution",
                "How the value is distributed over the trajectories",
                &chart::distribution(&title, answer.draws.clone(), view.query.threshold),
            ))
            div.scroll role="region" aria-label="Quantiles" tabindex="0" {
                table {
                    thead { tr { th scope="col" { "Quantile" } @for level in LEVELS { th.number scope="col" { (level) } } } }
                    tbody {
                        tr {
                            th scope="row" { (title) }
                            @for &quantile in &answer.quantiles { td.number { (number(quantile)) } }
                        }
                    }
                }
            }
            (shell::as_json(&[("these quantiles", addresses.quantiles())]))
        }
        @if let Some((event, threshold)) = answer.event.as_ref().zip(view.query.threshold) {
            section #event {
                h2 { "How likely is " (side) " " (with_unit(threshold)) "?" }
                (happens(view, shown, event, answer.draws.len(), &addresses))
            }
        } @else {
            p.quiet { "Give a threshold to see how likely it is, on which day, and when." }
        }
    }
}

/// How likely it is, on which day, and when.
fn happens(view: &View, shown: &Shown, event: &Event, n_draws: usize, addresses: &Addresses) -> Markup {
    let n_steps = shown.period.1 - shown.period.0;
    let EventPeriod { probability, standard_error, num_met, .. } = event.whole;
    // With 95 % confidence.
    let unseen = format!("{:.1}", 300.0 / n_draws as f64);
    let has_hours = event.days.len() < n_steps;
    let format = if has_hours { "%a %-d %b %H:%M" } else { "%-d %b %Y" };
    let label = |time: &DateTime<Utc>| time.with_timezone(&view.time_zone).format(format).to_string();
    html! {
        p {
            strong { (format!("{:.1} %", 100.0 * probability)) } ": " (num_met) " of " (n_draws) " trajectories have it. "
            @if num_met == 0 {
                "What happens in none of them may still have a probability of up to " (unseen) " %."
            } @else if num_met == n_draws {
                "What happens in all of them may still fail, with a probability of up to " (unseen) " %."
            } @else {
                "So many tell it to ±" (format!("{:.1}", 100.0 * standard_error)) " percentage points."
            }
        }
        (shell::as_json(&[("this probability", addresses.event("")) ]))
        @if event.days.len() > 1 {
            @let format = if has_hours { "%a %-d %b" } else { format };
            @let day = |day: &EventPeriod| day.date.map(|date| date.format(format).to_string()).unwrap_or_default();
            @let labels: Vec<String> = event.days.iter().map(day).collect();
            @let shares = event.days.iter().map(|day| Some(day.probability)).collect();
            @let bars = [("total", "Probability", shares)];
            h2 { @if has_hours { "On which day?" } @else { "In which step?" } }
            (shell::figure("by-day", "Probability by day", &chart::bars("Probability", "", &labels, &bars, &[])))
            (shell::as_json(&[("by day", addresses.event("&per=day"))]))
        }
        @if let Some(passage) = &event.passage {
            @let labels: Vec<String> = passage.valid_time.iter().map(label).collect();
            @let share = |shares: &[f64]| shares.iter().copied().map(Some).collect::<Vec<_>>();
            h2 { "When?" }
            (shell::figure("passage", "When it is passed", &chart::bars(
                "Probability",
                "",
                &labels,
                &[("interval-80", "so far", share(&passage.by)), ("interval-50", "in this step", share(&passage.beyond))],
                &[],
            )))
            p.quiet {
                "So far: that it has happened by then. In this step: that it happens there. "
                "On average " (number(passage.mean_steps)) " steps."
            }
            (shell::as_json(&[("when", addresses.event(""))]))
        }
    }
}

/// Where the numbers of the page are read by REST.
struct Addresses {
    forecast: String,
    question: String,
    limit: String,
}

impl Addresses {
    fn of(view: &View, shown: &Shown, function: &str) -> Self {
        let series: String = shown.chosen.iter().map(|series| format!("&series={}", encode(&series.name))).collect();
        let time = |index: usize| encode(&shown.boundaries[index].to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        let (start, end) = (time(shown.period.0), time(shown.period.1));
        let side = if view.query.is_at_most { "at_most" } else { "at_least" };
        Self {
            forecast: format!("/v1/forecasts/{}", shown.forecast.forecast_id),
            question: format!("fn={function}{series}&start={start}&end={end}"),
            limit: view.query.threshold.map(|threshold| format!("&{side}={threshold}")).unwrap_or_default(),
        }
    }

    fn quantiles(&self) -> String {
        let levels: Vec<String> = LEVELS.iter().map(f64::to_string).collect();
        let Self { forecast, question, .. } = self;
        format!("{forecast}/aggregate?{question}&over=horizon,series&quantiles={}", levels.join(","))
    }

    fn event(&self, more: &str) -> String {
        let Self { forecast, question, limit } = self;
        format!("{forecast}/events?{question}{limit}{more}")
    }
}
