//! What the reader of a forecast should know.

use forecast::{BaseRate, Guidance, Schedule};
use serde::{Deserialize, Serialize};

use super::Order;

/// Something that makes a forecast less than it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Warning {
    /// Stable name.
    #[schema(example = "silent-series")]
    pub code: String,
    /// What it means here.
    pub message: String,
}

impl Warning {
    /// A warning.
    pub fn new(code: &str, message: String) -> Self {
        Self { code: code.to_owned(), message }
    }
}

/// Code of the warning about conditions that hardly ever hold.
const UNLIKELY_SCENARIO: &str = "unlikely-scenario";

/// A warning for conditions that the plain forecast hardly ever meets.
pub(super) fn of_guidance(guidance: &Guidance) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(BaseRate { probability, n_met: 0, n_candidates, .. }) = guidance.base_rate {
        let message = format!(
            "none of {n_candidates} trajectories of the plain forecast meets the limits; their probability of about \
             {probability:.1e} is the model's opinion about what it has hardly ever seen"
        );
        warnings.push(Warning::new(UNLIKELY_SCENARIO, message));
    }
    for (index, condition) in guidance.conditions.iter().enumerate() {
        if condition.quantile_level.is_some_and(|level| level == 0.0 || level == 1.0) {
            let message = format!("no trajectory of the plain forecast is as far out as condition {index} asks");
            warnings.push(Warning::new(UNLIKELY_SCENARIO, message));
        }
    }
    warnings
}

/// A warning for a model that knows what came.
pub(super) fn seen_in_training(version: i32) -> Warning {
    let message = format!(
        "version {version} has learned from values that came after the issue time; scores would flatter it, and leave this \
         forecast out"
    );
    // `db::forecast` knows the code.
    Warning::new("seen-in-training", message)
}

/// Warnings that follow from the order alone.
pub(super) fn of_order(order: &Order, trained_horizon: usize) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if order.horizon > trained_horizon {
        let message = format!("the model was trained for {trained_horizon} steps; later ones continue its own paths");
        warnings.push(Warning::new("beyond-trained-horizon", message));
    }
    if order.sampling.schedule != Schedule::Autoregressive {
        // Measured with 12 passes in `forecast/tests/exactness.rs`.
        let message = "intervals of sums over time come out too narrow with this schedule: where a step depends on the \
                       one before with coefficient 0.9, the standard deviation of the sum of three comes out as 80 % of \
                       the true one with `full`, 85 % with `blocks:2`, 90 % with `pyramid:1`, 95 % with `pyramid:2`"
            .to_owned();
        warnings.push(Warning::new("biased-schedule", message));
    }
    warnings
}
