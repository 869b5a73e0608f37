//! Pages in one file, which need no service: what a backtest found, and a forecast.

use std::slice;

use forecast::Trajectories;
use forecast::backtest::BacktestRow;
use forecast::reliability::{Coverage, Reliability};
use ingest::Panel;
use maud::{Markup, html};

use super::{
    chart::{self, Drawn, Fan, Path, SeriesChart},
    shell,
};
use crate::{Error, db};

/// Most series whose last forecast is drawn.
const SERIES_DRAWN: usize = 12;

/// Rows drawn before the first forecast, as a multiple of its horizon.
const ROWS_PER_HORIZON: usize = 3;

/// Trajectories drawn of each window, beside the intervals.
const PATHS_DRAWN: usize = 5;

/// A forecast: a fan for each series.
#[must_use]
pub fn forecast(panel: &db::panel::Panel, charts: &[SeriesChart]) -> String {
    let content = html! {
        h1 { (panel.name) }
        p.lead { "Every " (panel.frequency) " · " (panel.time_zone) }
        @for (index, SeriesChart { name, unit, observed, fan }) in charts.iter().enumerate() {
            (shell::figure(
                &format!("series-{index}"),
                &format!("Observations and forecast of {name}"),
                &chart::fan(
                    &chart::value_title(name, unit.as_deref()), &panel.time_zone, observed, slice::from_ref(fan), &[],
                ),
            ))
        }
    };
    shell::standalone(&format!("Forecast of {}", panel.name), &content).into_string()
}

/// A backtest, ready to be shown.
pub struct Report<'a> {
    /// All data, the test included.
    pub panel: &'a Panel,
    /// Steps of a window.
    pub horizon: usize,
    /// A row for each forecaster.
    pub rows: &'a [BacktestRow],
    /// Whether our intervals cover what they should.
    pub reliability: &'a Reliability,
    /// Our trajectories of each window.
    pub trajectories: &'a [Trajectories],
    /// What was trained and tested how: names, and what they are.
    pub settings: &'a [(&'a str, String)],
}

impl Report<'_> {
    /// The page, which needs nothing but a browser.
    ///
    /// # Errors
    /// Never for trajectories of the panel.
    pub fn html(&self) -> Result<String, Error> {
        let (name, n_windows) = (self.panel.name(), self.trajectories.len());
        let targets = self.panel.targets();
        let content = html! {
            h1 { (name) }
            p.lead {
                (n_windows) " windows of " (self.horizon) " steps, " (targets.len())
                " series. Training has seen nothing of them."
            }
            (scores(self.rows))
            (self.calibration())
            h2 { "What was forecast, and what came" }
            @for target in 0..targets.len().min(SERIES_DRAWN) { (self.windows(target, targets[target])?) }
            p.quiet {
                "The windows one after the other; each was forecast at its dotted line."
                @if targets.len() > SERIES_DRAWN { " The first " (SERIES_DRAWN) " of " (targets.len()) " series." }
            }
            h2 { "Settings" }
            dl { @for (name, value) in self.settings { dt { (name) } dd { (value) } } }
        };
        Ok(shell::standalone(&format!("Backtest of {name}"), &content).into_string())
    }

    /// Coverage by lead and of totals, and the histogram of the PIT.
    fn calibration(&self) -> Markup {
        let Reliability { leads, totals, pit } = self.reliability;
        let mut labels: Vec<String> =
            leads.iter().map(|block| format!("steps {} to {}", block.first_step, block.last_step)).collect();
        labels.push("total".to_owned());
        let blocks: Vec<Coverage> = leads.iter().map(|block| block.coverage).chain([*totals]).collect();
        let of = |share: fn(&Coverage) -> Option<f64>| blocks.iter().map(share).collect();
        let groups = [
            ("interval-50", "50 % interval", of(|coverage| coverage.coverage_50)),
            ("interval-80", "80 % interval", of(|coverage| coverage.coverage_80)),
            ("interval-90", "90 % interval", of(|coverage| coverage.coverage_90)),
        ];
        let coverage = chart::bars("Share of the truth inside", "", &labels, &groups, &[0.5, 0.8, 0.9]);
        let tenths: Vec<String> = (0..pit.len()).map(|bin| format!("{bin}/{}", pit.len())).collect();
        let shares = [("total", "Share", pit.iter().copied().map(Some).collect())];
        let pit = chart::bars("Share of the truth", "", &tenths, &shares, &[1.0 / pit.len().max(1) as f64]);
        html! {
            h2 { "Do intervals hold what they promise?" }
            (shell::figure("coverage", "Coverage of intervals by lead and of totals", &coverage))
            p.quiet { "Dotted: what should be. A total is that of a series over the whole horizon." }
            h2 { "Where in the predictive distribution did the truth fall?" }
            (shell::figure("pit", "Histogram of the probability integral transform", &pit))
            p.quiet { "High ends: intervals are too narrow. High middle: too wide. A slope: the forecast is biased." }
        }
    }

    /// Observations and the forecasts of one target, which is a column of the panel, in all windows.
    fn windows(&self, target: usize, series: usize) -> Result<Markup, Error> {
        let (n_rows, name) = (self.panel.n_steps(), &self.panel.series()[series]);
        let n_tested = self.trajectories.len() * self.horizon;
        let first_ahead = n_rows.saturating_sub(n_tested);
        let wall_time = |row: usize| self.panel.valid_time(row).with_timezone(&self.panel.time_zone()).naive_local();
        let drawn = Drawn { n_paths: PATHS_DRAWN, ..Drawn::default() };
        let starts = (first_ahead..n_rows).step_by(self.horizon.max(1));
        let fan = |(trajectories, start): (&Trajectories, usize)| {
            let valid_times = (start..n_rows.min(start + self.horizon)).map(wall_time).collect();
            Fan::of(wall_time(start), valid_times, trajectories, target, &drawn)
        };
        let fans: Vec<Fan> = self.trajectories.iter().zip(starts).map(fan).collect::<Result<_, _>>()?;
        let rows = first_ahead.saturating_sub(ROWS_PER_HORIZON * self.horizon)..n_rows;
        let value = |row: usize| Some(self.panel.values().get(row, series)).filter(|value| value.is_finite());
        let observed = Path { valid_time: rows.clone().map(wall_time).collect(), value: rows.map(value).collect() };
        let plot = chart::fan(name, self.panel.time_zone().name(), &observed, &fans, &[]);
        Ok(shell::figure(&format!("series-{series}"), &format!("Forecasts and truth of {name}"), &plot))
    }
}

fn scores(rows: &[BacktestRow]) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Model" } th.number { "CRPS" } th.number { "CRPS_sum" } th.number { "ND" } th.number { "MASE" }
                        th.number { "Energy" } th.number { "Coverage 50" } th.number { "80" } th.number { "90" }
                    }
                }
                tbody {
                    @for BacktestRow { model, scores, .. } in rows {
                        tr {
                            th scope="row" { (model) }
                            @for score in [scores.crps, scores.crps_sum, scores.nd] { td.number { (format!("{score:.5}")) } }
                            @for score in [scores.mase, scores.energy_score] { td.number { (format!("{score:.3}")) } }
                            @for share in [scores.coverage_50, scores.coverage_80, scores.coverage_90] {
                                td.number { (format!("{share:.2}")) }
                            }
                        }
                    }
                }
            }
        }
        p.quiet { "Lower is better; coverage should be as named. What the rows are is in docs/MODEL.md, under Scores." }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use chrono_tz::Tz;
    use forecast::Grid;
    use forecast::metrics::Outcome;
    use forecast::reliability::reliability;
    use ingest::{Frequency, Observation, PanelConfig};

    use super::*;

    #[test]
    fn a_report_stands_alone_and_shows_scores_calibration_and_fans() {
        let observations = (0..10).map(|hour| Observation {
            series: 0,
            valid_time: DateTime::UNIX_EPOCH + TimeDelta::hours(hour),
            available_at: None,
            value: hour as f64,
            sd: None,
        });
        let config = PanelConfig::new("tides", Frequency::HOUR, Tz::UTC);
        let panel = Panel::from_observations(config, vec!["height <m>".to_owned()], observations).expect("on the grid");
        let trajectories = [vec![6.0, 7.5, 6.5, 7.0], vec![8.0, 9.5, 8.5, 9.0]]
            .map(|values| Trajectories::new(2, 1, 2, 1, values).expect("the shape is right"));
        let truth = Grid::new(1, vec![8.0, 9.0]).expect("whole rows");
        let reliability =
            reliability(&[Outcome { trajectories: trajectories[1].clone(), truth }]).expect("matching shapes");
        let report = Report {
            panel: &panel,
            horizon: 2,
            rows: &[],
            reliability: &reliability,
            trajectories: &trajectories,
            settings: &[("Seed", "17".to_owned())],
        };
        let html = report.html().expect("trajectories are the panel's");
        // Both windows begin where they were forecast.
        let shapes = [r#""x0":"1970-01-01T06:00:00""#, r#""x0":"1970-01-01T08:00:00""#];
        let parts =
            ["tides", "steps 2 to 2", "total", "9/10", "series-0", "height &lt;m&gt;", "Plotly.react", "<dd>17</dd>"];
        for part in parts.into_iter().chain(shapes) {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("<link rel") && !html.contains("<script defer"), "nothing is loaded");
    }
}
