//! Our numbers must be those of others: each module says whose, and how to make them again.

mod checkpoint;
mod metrics;
mod model;
