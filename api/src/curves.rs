//! Training curves: how the losses moved, as JSON lines.

use std::time::Instant;

use forecast::Progress;
use serde::Serialize;

/// Name of the file in the folder of a model or of a backtest.
pub const FILE_NAME: &str = "training.jsonl";

/// The losses of one training run: a point for each optimiser step.
pub struct Curves {
    begun: Instant,
    points: Vec<Point>,
    /// What progress last gave as validation loss; it repeats that until the next look.
    last_validation_loss: Option<f64>,
}

#[derive(Serialize)]
struct Point {
    stage: &'static str,
    step: usize,
    /// Smoothed training loss.
    loss: f64,
    /// Only where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_loss: Option<f64>,
    /// Since the training began.
    seconds: f64,
}

impl Curves {
    /// No points yet; the time counts from here.
    pub fn start() -> Self {
        Self { begun: Instant::now(), points: vec![], last_validation_loss: None }
    }

    /// Adds where training stands. Stages without optimiser steps have no curve.
    pub fn record(&mut self, progress: &Progress) {
        if progress.n_steps == 0 {
            return;
        }
        let &Progress { stage, step, loss, validation_loss, .. } = progress;
        let is_new = validation_loss != self.last_validation_loss;
        self.last_validation_loss = validation_loss;
        self.points.push(Point {
            stage,
            step,
            loss,
            validation_loss: validation_loss.filter(|_| is_new),
            seconds: self.begun.elapsed().as_secs_f64(),
        });
    }

    /// The content of [`FILE_NAME`]: one JSON object per line.
    ///
    /// # Errors
    /// When a point cannot be written as JSON, which finite numbers always can.
    pub fn lines(&self) -> serde_json::Result<Vec<u8>> {
        let mut lines = vec![];
        for point in &self.points {
            serde_json::to_writer(&mut lines, point)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_for_each_step_has_the_validation_loss_where_it_was_measured() {
        let mut curves = Curves::start();
        for (stage, step, n_steps, validation_loss) in [
            ("base", 0, 0, None),
            ("select", 1, 3, None),
            ("select", 2, 3, Some(0.75)),
            ("select", 3, 3, Some(0.75)),
            ("train", 1, 2, None),
        ] {
            let loss = 1.0 / (step + 1) as f64;
            let (steps_per_second, seconds_left) = (1.0, 1.0);
            curves.record(&Progress { stage, step, n_steps, loss, validation_loss, steps_per_second, seconds_left });
        }
        let text = String::from_utf8(curves.lines().expect("JSON")).expect("text");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let of = |key: &str| lines.iter().map(|line| line[key].clone()).collect::<Vec<_>>();
        assert_eq!(of("stage"), ["select", "select", "select", "train"]);
        assert_eq!(of("step"), [1, 2, 3, 1]);
        assert_eq!(of("loss")[0], 0.5);
        assert_eq!(of("validation_loss"), [Value::Null, 0.75.into(), Value::Null, Value::Null]);
        let seconds: Vec<f64> = of("seconds").iter().filter_map(Value::as_f64).collect();
        assert!(seconds.len() == 4 && seconds.is_sorted() && seconds[0] >= 0.0, "{seconds:?}");
    }
}
