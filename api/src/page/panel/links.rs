//! Where the numbers of a panel's pictures are read by REST.

use chrono::{DateTime, SecondsFormat, Utc};

use super::{Answer, ShownForecast, ShownSeries, View};
use crate::page::encode;

/// A name, and an address.
pub type Link = (String, String);

/// The numbers of the fan: what was observed, quantiles, trajectories, and what earlier forecasts said.
pub fn of_fan(view: &View, shown: &ShownSeries) -> Vec<Link> {
    let series = encode(&shown.series.name);
    let mut links = vec![];
    if let Some(forecast) = &shown.forecast {
        let drawn = &view.look.drawn;
        let mut percents: Vec<u32> = drawn.intervals.iter().flat_map(|&one| [100 - one, 100 + one]).collect();
        percents.push(100);
        percents.sort_unstable();
        let levels: Vec<String> = percents.iter().map(|&twice| (f64::from(twice) / 200.0).to_string()).collect();
        let address = address(forecast);
        links.push(("quantiles", format!("{address}/quantiles?series={series}&quantiles={}", levels.join(","))));
        let n_samples = drawn.n_paths.max(drawn.highlighted.unwrap_or(0));
        if n_samples > 0 {
            links.push(("trajectories", format!("{address}/trajectories?series={series}&samples={n_samples}")));
        }
    }
    if let Some(times) = &shown.observed_times {
        let (start, end) = (time(times.start), time(times.end));
        let panel = encode(&view.panel.name);
        links
            .push(("observations", format!("/v1/panels/{panel}/observations?series={series}&start={start}&end={end}")));
    }
    let earlier = shown.forecast.iter().flat_map(|forecast| &forecast.earlier).map(|earlier| {
        let address = format!("/v1/forecasts/{}/quantiles?series={series}&quantiles=0.5", earlier.forecast_id);
        (format!("made {}", earlier.made()), address)
    });
    links.into_iter().map(|(name, address)| (name.to_owned(), address)).chain(earlier).collect()
}

/// The fan itself, as a file of a format.
pub fn picture(view: &View, shown: &ShownSeries, forecast: &ShownForecast, format: &str) -> String {
    let drawn = &view.look.drawn;
    let levels: Vec<String> = drawn.intervals.iter().map(u32::to_string).collect();
    let highlight = drawn.highlighted.map(|number| format!("&highlight={number}")).unwrap_or_default();
    format!(
        "{}/plot?format={format}&series={}&level={}&samples={}{highlight}",
        address(forecast),
        encode(&shown.series.name),
        levels.join(","),
        drawn.n_paths
    )
}

/// The distribution of what is asked for, and how likely it is above the threshold.
pub fn of_answer(forecast: &ShownForecast, function: &str) -> Vec<Link> {
    let Answer { steps, above, .. } = &forecast.answer;
    let series: String = forecast.added_up.iter().map(|name| format!("&series={}", encode(name))).collect();
    if forecast.added_up.len() > 1 && function != "sum" {
        // Nothing adds series up before it takes the mean or an extreme of the steps.
        let asked = series.trim_start_matches('&');
        return vec![("trajectories".to_owned(), format!("{}/trajectories?{asked}", address(forecast)))];
    }
    // An end that is none of the forecast's times would be refused.
    let boundary = |index: usize| forecast.boundaries.get(index).map(|&one| time(one)).unwrap_or_default();
    let (start, end) = (boundary(steps.start() - 1), boundary(*steps.end()));
    let (address, asked) = (address(forecast), format!("fn={function}{series}&start={start}&end={end}"));
    let mut links = vec![("quantiles".to_owned(), format!("{address}/aggregate?{asked}&over=horizon,series"))];
    links.extend(above.map(|(threshold, _)| {
        ("chance of the threshold".to_owned(), format!("{address}/events?{asked}&at_least={threshold}"))
    }));
    links
}

/// Of the forecast.
pub fn address(forecast: &ShownForecast) -> String {
    format!("/v1/forecasts/{}", forecast.stored.forecast.forecast_id)
}

fn time(time: DateTime<Utc>) -> String {
    encode(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}
