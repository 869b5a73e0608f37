//! The figures of the page, as Plotly describes them. Colours are not chosen here: the legend group
//! of a trace is its role, and the page's script paints roles from the style sheet, light or dark.

use chrono::NaiveDateTime;
use forecast::{QuantileLevel, Trajectories, quantile_of_sorted};
use plotly::{
    Bar, Histogram, Layout, Plot, Scatter, Trace,
    common::{Anchor, DashType, Fill, Font, HoverInfo, Line, LineShape, Mode, Orientation},
    layout::{
        Annotation, Axis, AxisType, BarMode, HoverMode, Legend, Margin, RangeMode, Shape, ShapeLayer, ShapeLine,
        ShapeType, TraceOrder,
    },
};
use uuid::Uuid;

use super::format::number;
use crate::Error;

/// How a fan is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Probabilities of the intervals in percent, widest first.
    pub intervals: Vec<u32>,
    /// Trajectories beside the intervals.
    pub n_paths: usize,
    /// Number of the trajectory that stands out, from 1.
    pub highlighted: Option<usize>,
}

impl Default for Drawn {
    fn default() -> Self {
        // Trajectories enough to show how paths move, few enough to tell them apart.
        Self { intervals: vec![90, 80, 50], n_paths: 20, highlighted: None }
    }
}

/// Values of one series over time.
#[derive(Clone, Debug, Default)]
pub struct Path {
    /// Start of each interval, as wall time.
    pub valid_time: Vec<NaiveDateTime>,
    /// The values; `None` is a gap.
    pub value: Vec<Option<f64>>,
}

/// An interval of a forecast, over time.
#[derive(Clone, Debug)]
pub struct Band {
    /// Probability that it holds, in percent.
    pub percent: u32,
    /// Lower end at each step.
    pub lower: Vec<f64>,
    /// Upper end at each step.
    pub upper: Vec<f64>,
}

/// What there is to draw of one series.
#[derive(Clone, Debug)]
pub struct SeriesChart {
    /// Its name.
    pub name: String,
    /// Unit of its values.
    pub unit: Option<String>,
    /// What was observed.
    pub observed: Path,
    /// The forecast.
    pub fan: Fan,
}

/// The median of an earlier forecast.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// Its identifier.
    pub forecast_id: Uuid,
    /// When it was made, as wall time.
    pub issue_time: NaiveDateTime,
    /// The median.
    pub path: Path,
}

impl Earlier {
    /// When it was made, in words; of a monthly panel they lie years apart.
    pub fn made(&self) -> String {
        self.issue_time.format("%a %-d %b %Y %H:%M").to_string()
    }
}

/// A forecast of one series, ready to be drawn.
#[derive(Clone, Debug)]
pub struct Fan {
    /// When it was made, as wall time.
    pub issue_time: NaiveDateTime,
    /// Start of each interval, as wall time.
    pub valid_time: Vec<NaiveDateTime>,
    /// The intervals, widest first.
    pub bands: Vec<Band>,
    /// The median at each step.
    pub median: Vec<f64>,
    /// Some of the trajectories.
    pub paths: Vec<Vec<f64>>,
    /// The one that stands out, and its number.
    pub highlighted: Option<(usize, Vec<f64>)>,
}

impl Fan {
    /// The forecast of one series.
    ///
    /// # Errors
    /// Never: the levels of the intervals are ones.
    pub fn of(
        issue_time: NaiveDateTime,
        valid_time: Vec<NaiveDateTime>,
        trajectories: &Trajectories,
        series: usize,
        drawn: &Drawn,
    ) -> Result<Self, Error> {
        let n_steps = trajectories.n_steps();
        let sorted: Vec<Vec<f32>> = (0..n_steps).map(|step| trajectories.sorted(step, series)).collect();
        let at = |number| {
            let level = level(number)?;
            Ok::<_, Error>(sorted.iter().map(|draws| quantile_of_sorted(draws, level)).collect())
        };
        let band = |&percent: &u32| {
            let outside = (1.0 - f64::from(percent) / 100.0) / 2.0;
            Ok(Band { percent, lower: at(outside)?, upper: at(1.0 - outside)? })
        };
        let n_samples = trajectories.n_samples();
        let path = |sample| (0..n_steps).map(|step| f64::from(trajectories.value(sample, step, series))).collect();
        Ok(Self {
            issue_time,
            bands: drawn.intervals.iter().map(band).collect::<Result<_, Error>>()?,
            median: at(0.5)?,
            paths: (0..drawn.n_paths.min(n_samples)).map(path).collect(),
            highlighted: drawn
                .highlighted
                .filter(|&number| number <= n_samples)
                .map(|number| (number, path(number - 1))),
            valid_time,
        })
    }
}

/// A quantile level of ours.
///
/// # Errors
/// [`Error::Internal`] when it is none.
pub fn level(number: f64) -> Result<QuantileLevel, Error> {
    QuantileLevel::new(number).map_err(|error| Error::internal("computing quantiles", error))
}

/// Groups of bars, and lines that they should reach. A group is a role, its name, and a height for each label.
#[must_use]
pub fn bars(
    title: &str,
    title_of_labels: &str,
    labels: &[String],
    groups: &[(&str, &str, Vec<Option<f64>>)],
    marks: &[f64],
) -> Plot {
    let mut plot = Plot::new();
    for (role, name, heights) in groups {
        plot.add_trace(
            Bar::new(labels.to_vec(), heights.clone())
                .name(name)
                .legend_group(role)
                .hover_template("%{x}: %{y:.3f}<extra></extra>"),
        );
    }
    let mut layout = layout(
        Axis::new().type_(AxisType::Category).title(title_of_labels),
        Axis::new().title(title).range_mode(RangeMode::ToZero),
    )
    .bar_mode(BarMode::Group)
    .show_legend(groups.len() > 1);
    for &mark in marks {
        layout.add_shape(
            Shape::new()
                .shape_type(ShapeType::Line)
                .x_ref("paper")
                .y_ref("y")
                .x0(0.0)
                .x1(1.0)
                .y0(mark)
                .y1(mark)
                .layer(ShapeLayer::Above)
                .line(ShapeLine::new().width(1.0).dash(DashType::Dot)),
        );
    }
    plot.set_layout(layout);
    plot
}

/// What stands beside the values of a series: its name, and its unit.
#[must_use]
pub fn value_title(name: &str, unit: Option<&str>) -> String {
    unit.map_or_else(|| name.to_owned(), |unit| format!("{name} ({unit})"))
}

/// Observations and forecasts that follow them, each after the other, with the name of the zone of their wall times, and what
/// earlier forecasts said.
#[must_use]
pub fn fan(value_title: &str, time_zone: &str, observed: &Path, fans: &[Fan], earlier: &[Earlier]) -> Plot {
    let mut plot = Plot::new();
    let mut layout =
        layout(Axis::new().type_(AxisType::Date).title(format!("Time ({time_zone})")), Axis::new().title(value_title))
            .hover_mode(HoverMode::XUnified);

    for (number, fan) in fans.iter().enumerate() {
        let is_first = number == 0;
        for band in &fan.bands {
            plot.add_traces(band_traces(&fan.valid_time, band, is_first));
        }
        for (index, path) in fan.paths.iter().enumerate() {
            plot.add_trace(path_trace(&fan.valid_time, path, is_first && index == 0));
        }
        plot.add_trace(
            Scatter::new(times(&fan.valid_time), fan.median.clone())
                .mode(Mode::Lines)
                .name("Median")
                .legend_group("median")
                .show_legend(is_first)
                .line(Line::new().width(2.0))
                .hover_template("%{y:.4~g}"),
        );
        if let Some((number, path)) = &fan.highlighted {
            plot.add_trace(
                Scatter::new(times(&fan.valid_time), path.clone())
                    .mode(Mode::Lines)
                    .name(format!("Trajectory {number}"))
                    .legend_group("highlighted")
                    .line(Line::new().width(2.0))
                    .hover_template("%{y:.4~g}"),
            );
        }
        layout = mark(layout, &time(&fan.issue_time), if is_first { "issue time" } else { "" });
    }
    for one in earlier {
        plot.add_trace(
            Scatter::new(times(&one.path.valid_time), one.path.value.clone())
                .mode(Mode::Lines)
                .name(format!("Made {}", one.made()))
                .legend_group("earlier")
                .connect_gaps(false)
                .line(Line::new().width(1.4).dash(DashType::Dot))
                .hover_template("%{y:.4~g}"),
        );
    }
    plot.add_trace(
        Scatter::new(times(&observed.valid_time), observed.value.clone())
            .mode(Mode::Lines)
            .name("Observed")
            .legend_group("observed")
            .connect_gaps(false)
            .line(Line::new().width(1.6))
            .hover_template("%{y:.4~g}"),
    );
    plot.set_layout(layout);
    plot
}

/// How a number that each trajectory gives is distributed, and a threshold.
#[must_use]
pub fn distribution(value_title: &str, draws: Vec<f64>, threshold: Option<f64>) -> Plot {
    let mut plot = Plot::new();
    plot.add_trace(
        Histogram::new(draws)
            .name("Trajectories")
            .legend_group("total")
            .n_bins_x(24)
            .hover_template("%{x}: %{y} trajectories<extra></extra>"),
    );
    let value_axis = Axis::new().title(value_title);
    let count_axis = Axis::new().title("Trajectories").range_mode(RangeMode::ToZero).n_ticks(4);
    let mut layout = layout(value_axis, count_axis).show_legend(false).bar_gap(0.06);
    if let Some(threshold) = threshold {
        layout = mark(layout, &threshold.to_string(), "threshold");
    }
    plot.set_layout(layout);
    plot
}

/// What both figures share: quiet axes, no frame, room for labels.
fn layout(x_axis: Axis, y_axis: Axis) -> Layout {
    Layout::new()
        .x_axis(x_axis.show_grid(false).zero_line(false).auto_margin(true))
        .y_axis(y_axis.zero_line(false).auto_margin(true))
        .margin(Margin::new().left(56).right(40).top(32).bottom(48))
        .font(Font::new().size(13))
        .auto_size(true)
        .legend(
            Legend::new()
                .orientation(Orientation::Horizontal)
                .x(0.0)
                .x_anchor(Anchor::Left)
                .y(1.02)
                .y_anchor(Anchor::Bottom)
                .trace_order(TraceOrder::Normal),
        )
}

/// An invisible lower edge, and an upper edge filled down to it.
fn band_traces(valid_time: &[NaiveDateTime], band: &Band, is_in_legend: bool) -> Vec<Box<dyn Trace>> {
    // The style sheet has three shades.
    let group = match band.percent {
        85.. => "interval-90",
        65.. => "interval-80",
        _ => "interval-50",
    };
    let name = format!("{} % interval", band.percent);
    let lower = Scatter::new(times(valid_time), band.lower.clone())
        .mode(Mode::Lines)
        .line(Line::new().width(0.0))
        .legend_group(group)
        .show_legend(false)
        .hover_info(HoverInfo::Skip);
    let upper = Scatter::new(times(valid_time), band.upper.clone())
        .mode(Mode::Lines)
        .line(Line::new().width(0.0))
        .fill(Fill::ToNextY)
        .legend_group(group)
        .show_legend(is_in_legend)
        .name(&name)
        .text_array(
            band.lower
                .iter()
                .zip(&band.upper)
                .map(|(lower, upper)| format!("{} … {}", number(*lower), number(*upper)))
                .collect(),
        )
        .hover_template("%{text}");
    vec![lower, upper]
}

fn path_trace(valid_time: &[NaiveDateTime], path: &[f64], is_first: bool) -> Box<dyn Trace> {
    Scatter::new(times(valid_time), path.to_vec())
        .mode(Mode::Lines)
        .name("Trajectories")
        .legend_group("trajectory")
        .show_legend(is_first)
        .line(Line::new().width(0.8).shape(LineShape::Linear))
        .hover_info(HoverInfo::Skip)
}

/// A vertical line over the full height, and its name.
fn mark(mut layout: Layout, x: &str, name: &str) -> Layout {
    layout.add_shape(
        Shape::new()
            .shape_type(ShapeType::Line)
            .x_ref("x")
            .y_ref("paper")
            .x0(x)
            .x1(x)
            .y0(0.0)
            .y1(1.0)
            .layer(ShapeLayer::Below)
            .line(ShapeLine::new().width(1.0).dash(DashType::Dot)),
    );
    layout.add_annotation(
        Annotation::new()
            .x_ref("x")
            .y_ref("paper")
            .x(x)
            .y(1.0)
            .x_anchor(Anchor::Right)
            .y_anchor(Anchor::Top)
            .x_shift(-6.0)
            .show_arrow(false)
            .text(name),
    );
    layout
}

fn times(times: &[NaiveDateTime]) -> Vec<String> {
    times.iter().map(time).collect()
}

/// A wall time as Plotly reads it.
fn time(time: &NaiveDateTime) -> String {
    time.format("%Y-%m-%dT%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> NaiveDateTime {
        chrono::DateTime::UNIX_EPOCH.naive_utc() + chrono::TimeDelta::hours(hour)
    }

    #[test]
    fn the_fan_has_a_role_for_every_trace() {
        let observed = Path { valid_time: vec![at(0), at(1)], value: vec![Some(1.0), None] };
        let forecast = Fan {
            issue_time: at(2),
            valid_time: vec![at(2), at(3)],
            bands: vec![Band { percent: 90, lower: vec![0.0, 0.0], upper: vec![2.0, 3.0] }],
            median: vec![1.0, 1.5],
            paths: vec![vec![1.0, 2.0], vec![0.5, 0.25]],
            highlighted: Some((2, vec![0.5, 0.25])),
        };
        let path = Path { valid_time: vec![at(2)], value: vec![Some(1.25)] };
        let earlier = [Earlier { forecast_id: Uuid::nil(), issue_time: at(1), path }];
        let figure: serde_json::Value =
            serde_json::from_str(&fan("NO2 (µg/m³)", "UTC", &observed, &[forecast], &earlier).to_json())
                .expect("it is JSON");
        let traces = figure["data"].as_array().expect("traces");
        let roles: Vec<&str> = traces.iter().filter_map(|trace| trace["legendgroup"].as_str()).collect();
        assert_eq!(
            roles,
            ["interval-90", "interval-90", "trajectory", "trajectory", "median", "highlighted", "earlier", "observed"]
        );
        assert_eq!(traces[6]["name"], "Made Thu 1 Jan 1970 01:00");
        assert_eq!(traces[7]["y"][1], serde_json::Value::Null, "a gap stays a gap");
        assert_eq!(figure["layout"]["yaxis"]["title"]["text"], "NO2 (µg/m³)");
        assert_eq!(figure["layout"]["shapes"][0]["x0"], "1970-01-01T02:00:00");
    }

    #[test]
    fn the_fan_is_nested_and_of_one_series() {
        // Two steps of two series, in three trajectories.
        let values = vec![-1.0, 9.0, 1.0, 9.0, 0.0, 9.0, 0.0, 9.0, 1.0, 9.0, -1.0, 9.0];
        let trajectories = Trajectories::new(3, 1, 2, 2, values).expect("the shape is right");
        let drawn = Drawn { highlighted: Some(3), ..Drawn::default() };
        let fan = Fan::of(at(0), vec![at(0), at(1)], &trajectories, 0, &drawn).expect("levels are in range");
        assert_eq!(fan.highlighted, Some((3, vec![1.0, -1.0])));
        let widths: Vec<f64> = fan.bands.iter().map(|band| band.upper[0] - band.lower[0]).collect();
        assert!(widths.is_sorted_by(|wide, narrow| wide > narrow), "{widths:?}");
        assert_eq!((fan.paths.len(), fan.median.as_slice()), (3, [0.0, 0.0].as_slice()));
    }

    #[test]
    fn a_series_without_forecast_shows_its_observations() {
        let figure: serde_json::Value =
            serde_json::from_str(&fan("y", "UTC", &Path::default(), &[], &[]).to_json()).expect("it is JSON");
        assert_eq!(figure["data"].as_array().map(Vec::len), Some(1));
    }
}
