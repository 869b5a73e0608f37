//! The base forecaster: what is expected of the path ahead, and how sure that is.
//!
//! Diffusion Forcing models what it leaves over. It is a [`linear`](crate::linear) map with a
//! [`correction`](crate::correction) by boosted trees. Its errors in training are *out of fold* (each origin is forecast
//! by what did not see it), so the model learns errors as large as those it will meet.
//!
//! All values here are in standard units, see [`crate::scaling`].

use crate::correction::Correction;
use crate::linear::{BaseInput, Linear};
use crate::outlook::Outlook;

/// A base forecaster.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// Its linear part.
    pub linear: Linear,
    /// What the linear part cannot say.
    pub correction: Correction,
}

impl Base {
    /// Number of values up to the last one that it needs.
    pub fn context(&self) -> usize {
        self.linear.context().max(self.correction.context())
    }

    /// What is expected from an origin on.
    pub fn outlook(&self, input: BaseInput<'_>, origin: usize) -> Outlook {
        self.correction.apply(input, origin, self.linear.paths(input, origin))
    }
}
