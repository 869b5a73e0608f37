//! Pages in one file, which need no service: what a backtest found, and a forecast.

use forecast::Trajectories;
use forecast::backtest::BacktestRow;
use forecast::reliability::{Coverage, Reliability};
use ingest::Panel;
use maud::{Markup, html};

use super::{
    chart::{self, Drawn, Fan, Path},
    shell,
};
use crate::{Error, db};

/// Most series whose last forecast is drawn.
const SERIES_DRAWN: usize = 12;

/// Rows drawn before a forecast, as a multiple of its horizon.
const ROWS_PER_HORIZON: usize = 3;

/// A forecast: a fan for each series, with its name and what was observed of it.
#[must_use]
pub fn forecast(panel: &db::panel::Panel, charts: &[(&str, Path, Fan)]) -> String {
    let content = html! {
        h1 { (panel.name) }
        p.lead { "Every " (panel.frequency) " · " (panel.time_zone) }
        @for (index, (name, observed, fan)) in charts.iter().enumerate() {
            (shell::figure(
                &format!("series-{index}"),
                &format!("Observations and forecast of {name}"),
                &chart::fan(name, &panel.time_zone, observed, Some(fan)),
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
            h2 { "The last window" }
            @for target in 0..targets.len().min(SERIES_DRAWN) { (self.last_window(target, targets[target])?) }
            @if targets.len() > SERIES_DRAWN {
                p.quiet { "The first " (SERIES_DRAWN) " of " (targets.len()) " series." }
            }
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

    /// Observations and the forecast of one target, which is a column of the panel, in the last window.
    fn last_window(&self, target: usize, series: usize) -> Result<Markup, Error> {
        let Some(trajectories) = self.trajectories.last() else { return Ok(html! {}) };
        let (n_rows, name) = (self.panel.n_steps(), &self.panel.series()[series]);
        let first_ahead = n_rows.saturating_sub(self.horizon);
        let wall_time = |row: usize| self.panel.valid_time(row).with_timezone(&self.panel.time_zone()).naive_local();
        let valid_times = (first_ahead..n_rows).map(wall_time).collect();
        let fan = Fan::of(wall_time(first_ahead), valid_times, trajectories, target, &Drawn::default())?;
        let rows = first_ahead.saturating_sub(ROWS_PER_HORIZON * self.horizon)..n_rows;
        let value = |row: usize| Some(self.panel.values().get(row, series)).filter(|value| value.is_finite());
        let observed = Path { valid_time: rows.clone().map(wall_time).collect(), value: rows.map(value).collect() };
        let plot = chart::fan(name, self.panel.time_zone().name(), &observed, Some(&fan));
        Ok(shell::figure(&format!("series-{series}"), &format!("Forecast and truth of {name}"), &plot))
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
        let trajectories = [Trajectories::new(2, 1, 2, 1, vec![8.0, 9.5, 8.5, 9.0]).expect("the shape is right")];
        let truth = Grid::new(1, vec![8.0, 9.0]).expect("whole rows");
        let reliability =
            reliability(&[Outcome { trajectories: trajectories[0].clone(), truth }]).expect("matching shapes");
        let report =
            Report { panel: &panel, horizon: 2, rows: &[], reliability: &reliability, trajectories: &trajectories };
        let html = report.html().expect("trajectories are the panel's");
        for part in ["tides", "steps 2 to 2", "total", "9/10", "series-0", "height &lt;m&gt;", "Plotly.react"] {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("<link rel") && !html.contains("<script defer"), "nothing is loaded");
    }
}
