//! A forecast as a file for documents, SVG or PNG: a chart for each series, one below the other.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use chrono::{DateTime, NaiveDateTime, TimeDelta};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{canvas::Canvas, png};
use crate::page::chart::{Fan, Path, SeriesChart};
use crate::page::format::number;

/// Size of a chart, in pixels.
const WIDTH: u32 = 960;
const HEIGHT: u32 = 380;

/// Most ticks of an axis.
const TICKS_MAX: usize = 8;
const VALUES_MAX: usize = 6;

const INK: RGBColor = RGBColor(29, 35, 39);
const QUIET: RGBColor = RGBColor(102, 112, 120);
const GRID: RGBColor = RGBColor(225, 228, 224);
const FORECAST: RGBColor = RGBColor(11, 110, 168);
const HIGHLIGHTED: RGBColor = RGBColor(180, 84, 10);

/// How much of the colour a band has.
const BAND: f64 = 0.15;
/// The same of a trajectory.
const PATH: f64 = 0.35;

/// Room for the heading and for the labels of values, in pixels.
const HEADING: u32 = 62;
const LEFT: u32 = 72;

/// Draws charts of a panel whose clock is that of `time_zone`, as SVG.
///
/// # Errors
/// In words, when a chart cannot be drawn.
pub fn svg(charts: &[SeriesChart], time_zone: &str) -> Result<String, String> {
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, (WIDTH, height(charts))).into_drawing_area();
    root.fill(&WHITE).map_err(|error| error.to_string())?;
    draw_all(&root, charts, time_zone).map_err(|error| error.to_string())?;
    root.present().map_err(|error| error.to_string())?;
    drop(root);
    Ok(text)
}

/// The same as PNG.
///
/// # Errors
/// In words, when a chart cannot be drawn, or there are too many.
pub fn png(charts: &[SeriesChart], time_zone: &str) -> Result<Vec<u8>, String> {
    let canvas = Rc::new(RefCell::new(Canvas::new(WIDTH, height(charts))?));
    draw_all(&DrawingArea::from(&canvas), charts, time_zone).map_err(|error| error.to_string())?;
    let (width, height, pixels) = canvas.borrow().pixels();
    png::encode(width, height, &pixels).map_err(|error| error.to_string())
}

fn height(charts: &[SeriesChart]) -> u32 {
    HEIGHT.saturating_mul(u32::try_from(charts.len().max(1)).unwrap_or(u32::MAX))
}

type Area<B> = DrawingArea<B, Shift>;
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn draw_all<B: DrawingBackend>(root: &Area<B>, charts: &[SeriesChart], time_zone: &str) -> Drawn<B> {
    let areas = root.split_evenly((charts.len().max(1), 1));
    areas.iter().zip(charts).try_for_each(|(area, chart)| draw(area, chart, time_zone))
}

fn draw<B: DrawingBackend>(area: &Area<B>, chart: &SeriesChart, time_zone: &str) -> Drawn<B> {
    let SeriesChart { name, unit, observed, fan } = chart;
    let times: BTreeSet<NaiveDateTime> = observed.valid_time.iter().chain(&fan.valid_time).copied().collect();
    let (first, last) =
        (times.first().copied().unwrap_or(fan.issue_time), times.last().copied().unwrap_or(fan.issue_time));
    let range = seconds(first)..seconds(last).max(seconds(first) + 1.0);
    let axis = TimeAxis { range, ticks: ticks(&times, fan.issue_time) };
    let (low, high) = span(observed, fan);
    heading(area, name, fan)?;
    let mut context = ChartBuilder::on(area)
        .margin(14)
        .margin_top(HEADING)
        .x_label_area_size(48)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(axis, low..high)?;
    let format = if last - first < TimeDelta::days(8) { "%a %-d %b %H:%M" } else { "%-d %b %Y" };
    let moment = |at: &f64| {
        let time = DateTime::from_timestamp(*at as i64, 0);
        time.map(|time| time.format(format).to_string()).unwrap_or_default()
    };
    context
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(QUIET)
        .x_labels(TICKS_MAX)
        .y_labels(VALUES_MAX)
        .x_label_formatter(&moment)
        .y_label_formatter(&label)
        .label_style(font(13, QUIET))
        .axis_desc_style(font(14, QUIET))
        .x_desc(format!("Time ({time_zone})"))
        .y_desc(unit.as_deref().unwrap_or_default())
        .draw()?;

    let points = |values: &[f64]| fan.valid_time.iter().copied().map(seconds).zip(values.to_vec());
    // They lie upon each other, so that the inner ones are darker.
    for band in &fan.bands {
        let outline: Vec<(f64, f64)> = points(&band.upper).chain(points(&band.lower).rev()).collect();
        context.draw_series([Polygon::new(outline, FORECAST.mix(BAND))])?;
    }
    for path in &fan.paths {
        context.draw_series(LineSeries::new(points(path), FORECAST.mix(PATH).stroke_width(1)))?;
    }
    context.draw_series(LineSeries::new(points(&fan.median), FORECAST.stroke_width(2)))?;
    if let Some((_, path)) = &fan.highlighted {
        context.draw_series(LineSeries::new(points(path), HIGHLIGHTED.stroke_width(2)))?;
    }
    // A gap ends a line.
    let rows: Vec<(NaiveDateTime, Option<f64>)> =
        observed.valid_time.iter().copied().zip(observed.value.iter().copied()).collect();
    for run in rows.split(|(_, value)| value.is_none()) {
        let points = run.iter().filter_map(|&(time, value)| Some((seconds(time), value?)));
        context.draw_series(LineSeries::new(points, INK.stroke_width(2)))?;
    }
    let now = seconds(fan.issue_time);
    context.draw_series([PathElement::new([(now, low), (now, high)], QUIET)])?;
    let note = font(13, QUIET).pos(Pos::new(HPos::Right, VPos::Top));
    context.draw_series([Text::new("issue time ", (now, high), note)]).map(|_| ())
}

/// An axis of times, in seconds.
struct TimeAxis {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Ranged for TimeAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// A wall time as a place on the axis.
fn seconds(time: NaiveDateTime) -> f64 {
    time.and_utc().timestamp() as f64
}

/// Some of the times, equally many steps apart; the issue time is one of them.
fn ticks(times: &BTreeSet<NaiveDateTime>, issue_time: NaiveDateTime) -> Vec<f64> {
    let stride = times.len().div_ceil(TICKS_MAX).max(1);
    let offset = times.range(..issue_time).count() % stride;
    times.iter().skip(offset).step_by(stride).copied().map(seconds).collect()
}

/// A number without zeros at its end.
fn label(value: &f64) -> String {
    let text = number(*value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn font(size: u32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}

/// The name of the series, and below it what is drawn how.
fn heading<B: DrawingBackend>(area: &Area<B>, name: &str, fan: &Fan) -> Drawn<B> {
    let (left, line) = (i32::try_from(LEFT).unwrap_or(0) + 14, 44);
    area.draw(&Text::new(name.to_owned(), (left, 12), font(20, INK)))?;
    let bands = (1..).zip(&fan.bands).map(|(depth, band)| {
        let shade = FORECAST.mix(1.0 - (1.0 - BAND).powi(depth));
        (format!("{} % interval", band.percent), shade.filled(), 5)
    });
    let paths = ("Trajectories", FORECAST.mix(PATH));
    let lines = (!fan.paths.is_empty())
        .then_some(paths)
        .into_iter()
        .chain([("Median", FORECAST.mix(1.0)), ("Observed", INK.mix(1.0))]);
    let lines = lines.map(|(name, colour)| (name.to_owned(), colour.filled(), 1));
    let highlighted =
        fan.highlighted.iter().map(|(number, _)| (format!("Trajectory {number}"), HIGHLIGHTED.filled(), 1));
    for ((name, style, half), x) in bands.chain(lines).chain(highlighted).zip((left..).step_by(122)) {
        area.draw(&Rectangle::new([(x, line - half), (x + 20, line + half)], style))?;
        let beside = font(13, INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(name, (x + 27, line), beside))?;
    }
    Ok(())
}

/// The lowest and the highest value that is drawn, with some room.
fn span(observed: &Path, fan: &Fan) -> (f64, f64) {
    let bands = fan.bands.iter().flat_map(|band| band.lower.iter().chain(&band.upper));
    let highlighted = fan.highlighted.iter().flat_map(|(_, path)| path);
    let drawn = bands.chain(&fan.median).chain(fan.paths.iter().flatten()).chain(highlighted).copied();
    let (low, high) = drawn
        .chain(observed.value.iter().filter_map(|value| *value))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let room = if high > low { 0.04 * (high - low) } else { low.abs().max(1.0) };
    (low - room, high + room)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use forecast::Trajectories;

    use super::*;
    use crate::page::chart::Drawn as Look;

    fn chart(name: &str) -> SeriesChart {
        let at = |hour: i64| (DateTime::UNIX_EPOCH + TimeDelta::hours(hour)).naive_utc();
        let value = vec![Some(1.0), None, Some(2.0), Some(3.0)];
        let trajectories = Trajectories::new(2, 1, 2, 1, vec![2.0, 9.0, 4.0, 5.0]).expect("the shape is right");
        let fan = Fan::of(at(4), vec![at(4), at(5)], &trajectories, 0, &Look::default()).expect("levels are in range");
        let observed = Path { valid_time: (0..4).map(at).collect(), value };
        SeriesChart { name: name.to_owned(), unit: Some("MW".to_owned()), observed, fan }
    }

    #[test]
    fn a_file_has_a_chart_for_each_series_with_unit_zone_and_bands() {
        let text = svg(&[chart("load <north>"), chart("wind")], "Europe/Madrid").expect("it is drawn");
        for part in ["load &lt;north&gt;", "wind", "MW", "Time (Europe/Madrid)", "90 % interval", "issue time"] {
            assert!(text.contains(part), "{part}");
        }
        assert_eq!(text.matches("<polygon").count(), 2 * 3, "bands");
        // Two trajectories, a median, two runs of observations and the issue time, apart from axes.
        let with_four_values = |line: &str| line.contains("<polyline") && line.contains("#1D2327");
        assert_eq!(text.lines().filter(|line| with_four_values(line)).count(), 2 * 2, "a gap ends a line");
        assert!(text.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_trajectory_that_stands_out_is_within_the_axis() {
        let SeriesChart { observed, fan, .. } = chart("load");
        let fan = Fan { highlighted: Some((1, vec![50.0, -50.0])), ..fan };
        let (low, high) = span(&observed, &fan);
        assert!(low < -50.0 && high > 50.0, "{low} {high}");
    }

    #[test]
    fn a_constant_has_an_axis() {
        let at = DateTime::UNIX_EPOCH.naive_utc();
        let fan = Fan {
            issue_time: at,
            valid_time: vec![at],
            bands: vec![],
            median: vec![0.0],
            paths: vec![],
            highlighted: None,
        };
        let chart = SeriesChart { name: "still".to_owned(), unit: None, observed: Path::default(), fan };
        assert!(svg(&[chart], "UTC").expect("it is drawn").contains("still"));
    }
}
