//! How training shows that it moves: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forecast::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::telemetry;

/// Seconds between two plain lines.
const LINE_SECONDS: u64 = 5;

/// Set by Ctrl-C: training keeps what it has and ends.
static STOP: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed since [`stop_on_interrupt`].
pub fn is_stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Lets Ctrl-C end a training run cleanly instead of killing the process; a second Ctrl-C kills it.
pub fn stop_on_interrupt() {
    tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            STOP.store(true, Ordering::Relaxed);
            telemetry::note("stopping; what has been learned so far is kept (Ctrl-C again ends at once)");
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
}

/// Shows the progress of one training run.
pub struct Display {
    label: String,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    stage: &'static str,
}

impl Display {
    /// A display that names what is trained.
    pub fn new(label: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:40} {wide_bar:.cyan/black} {pos:>5}/{len:5}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { label: label.to_owned(), bar, last_line: None, stage: "" }
    }

    /// Shows where training stands, and tells it to stop after Ctrl-C.
    pub fn show(&mut self, progress: &Progress) -> ControlFlow<()> {
        let ends_stage = progress.n_steps > 0 && progress.step == progress.n_steps;
        let new_stage = self.stage != progress.stage;
        self.stage = progress.stage;
        let text = self.text(progress);
        match &self.bar {
            Some(bar) => {
                bar.set_length(progress.n_steps as u64);
                bar.set_position(progress.step as u64);
                bar.set_message(text);
            }
            None => {
                let due = self.last_line.is_none_or(|last| last.elapsed() >= Duration::from_secs(LINE_SECONDS));
                if due || ends_stage || new_stage {
                    telemetry::note(&text);
                    self.last_line = Some(Instant::now());
                }
            }
        }
        if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn text(&self, progress: &Progress) -> String {
        let Progress { stage, step, n_steps, loss, steps_per_second, seconds_left, .. } = progress;
        if *n_steps == 0 {
            return format!("{}: {stage}", self.label);
        }
        let mut text = format!("{}: {stage} ", self.label);
        if self.bar.is_none() {
            text += &format!("step {step}/{n_steps} ");
        }
        text += &format!("loss {loss:.3}");
        if let Some(validation) = progress.validation_loss {
            text += &format!(" (validation {validation:.3})");
        }
        text + &format!(", {steps_per_second:.1} steps/s, {seconds_left:.0} s left")
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
