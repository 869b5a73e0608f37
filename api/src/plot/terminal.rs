//! A fan chart in the terminal.

use textplots::{Chart, Plot, Shape};

use crate::page::chart::{Fan, Path};

/// Size of a chart in dots, of which a character has two by four.
const WIDTH: u32 = 150;
const HEIGHT: u32 = 56;

/// Observations, then the median, the 50 % interval filled, and the 90 % interval as lines.
#[must_use]
pub fn fan(observed: &Path, fan: &Fan) -> String {
    // Observations that came in since stand over the forecast.
    let n_before = observed.valid_time.partition_point(|&time| time < fan.issue_time);
    let at = |index: usize| index as f32 - n_before as f32;
    let points = |values: &mut dyn Iterator<Item = (usize, f64)>| -> Vec<(f32, f32)> {
        values.map(|(index, value)| (at(index), value as f32)).collect()
    };
    // A gap of the observations ends a line.
    let rows: Vec<(usize, Option<f64>)> = observed.value.iter().copied().enumerate().collect();
    let runs: Vec<Vec<(f32, f32)>> = rows
        .split(|(_, value)| value.is_none())
        .map(|run| points(&mut run.iter().filter_map(|&(index, value)| Some((index, value?)))))
        .collect();
    let line = |values: &[f64]| points(&mut values.iter().enumerate().map(|(step, &value)| (n_before + step, value)));
    let bound = |percent: u32| fan.bands.iter().find(|band| band.percent == percent);
    let outer: Vec<Vec<(f32, f32)>> =
        bound(90).map(|band| vec![line(&band.lower), line(&band.upper)]).unwrap_or_default();
    let inner: Vec<Vec<(f32, f32)>> = bound(50)
        .map(|band| line(&band.lower).into_iter().zip(line(&band.upper)).map(|(low, high)| vec![low, high]).collect())
        .unwrap_or_default();
    let median = line(&fan.median);

    let last = at(n_before + fan.valid_time.len()).max(1.0);
    let mut chart = Chart::new(WIDTH, HEIGHT, at(0), last);
    let shapes: Vec<Shape<'_>> =
        runs.iter().chain(&outer).chain(&inner).chain([&median]).map(|points| Shape::Lines(points)).collect();
    let chart = shapes.iter().fold(&mut chart, |chart, shape| chart.lineplot(shape));
    chart.axis();
    chart.figures();
    chart.to_string()
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use forecast::Trajectories;

    use super::*;
    use crate::page::chart::Drawn;

    #[test]
    fn a_chart_spans_observations_and_forecast() {
        let at = |hour: i64| (DateTime::UNIX_EPOCH + TimeDelta::hours(hour)).naive_utc();
        let observed = Path {
            valid_time: (0..5).map(at).collect(),
            value: vec![Some(1.0), None, Some(2.0), Some(3.0), Some(2.5)],
        };
        let trajectories = Trajectories::new(2, 1, 2, 1, vec![2.0, 9.0, 4.0, 5.0]).expect("the shape is right");
        let forecast =
            Fan::of(at(5), vec![at(5), at(6)], &trajectories, 0, &Drawn::default()).expect("levels are in range");
        let text = fan(&observed, &forecast);
        assert!(text.contains("-5.0") && text.contains(" 2.0"), "steps before and after the issue time: {text}");
        assert!(text.contains(" 1.0") && text.contains(" 8.8"), "lowest and highest value: {text}");
        assert!(text.lines().count() >= 14, "{text}");
    }
}
