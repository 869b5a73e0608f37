//! Our numbers must be those of others: each module says whose, and how to make them again.

mod metrics;
mod model;
