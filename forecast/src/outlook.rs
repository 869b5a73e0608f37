//! What a base forecaster expects of a path, and the law around it.

use std::sync::Arc;

use crate::quantile_trees::{Quantiles, move_back, move_error, slope};

/// What a base forecaster expects of a path, `[lead, series]`, standard units.
///
/// An error is a monotone function of the *relative* error, whose law is the same in every state: that times the spread, or, where the
/// shape of the law depends on the state too, piecewise linear between its quantiles.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// Expected values.
    pub path: Vec<f64>,
    /// Spread of each element relative to what is usual for its lead and series.
    pub spread: Vec<f64>,
    /// Where the quantiles of relative errors come to lie before they are spread; none leaves them where they are.
    pub moved: Option<Moved>,
}

/// Quantiles of relative errors, and where they are moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// What is usual, in usual sizes.
    pub usual: Quantiles,
    /// The usual size of each element.
    pub sizes: Arc<[f64]>,
    /// Quantiles of each element, in usual sizes.
    pub quantiles: Vec<Quantiles>,
}

impl Outlook {
    /// The error that a relative one stands for.
    pub fn error(&self, element: usize, relative: f64) -> f64 {
        let moved = self.moved.as_ref().map_or(relative, |Moved { usual, sizes, quantiles }| {
            let size = sizes[element];
            size * move_error(usual, &quantiles[element], relative / size)
        });
        self.spread[element] * moved
    }

    /// The value at a relative error.
    pub fn value(&self, element: usize, relative: f64) -> f64 {
        self.path[element] + self.error(element, relative)
    }

    /// The relative error of a value.
    pub fn relative(&self, element: usize, value: f64) -> f64 {
        let moved = (value - self.path[element]) / self.spread[element];
        self.moved.as_ref().map_or(moved, |Moved { usual, sizes, quantiles }| {
            let size = sizes[element];
            size * move_back(usual, &quantiles[element], moved / size)
        })
    }

    /// By how much a value grows with its relative error.
    pub fn slope(&self, element: usize, relative: f64) -> f64 {
        let of_moved =
            |Moved { usual, sizes, quantiles }: &Moved| slope(usual, &quantiles[element], relative / sizes[element]);
        self.spread[element] * self.moved.as_ref().map_or(1.0, of_moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_relative_error() {
        let plain = Outlook { path: vec![3.0, -1.0], spread: vec![2.0, 0.5], moved: None };
        let moved = Moved {
            usual: [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0],
            sizes: [0.1, 4.0].into(),
            quantiles: vec![[-0.2, -0.1, 0.0, 0.1, 0.2, 1.5, 6.0], [-3.0, -2.5, -1.0, 0.0, 0.1, 0.2, 0.3]],
        };
        assert_eq!((plain.value(0, 1.5), plain.relative(0, 6.0), plain.slope(1, 9.0)), (6.0, 1.5, 0.5));
        let bent = Outlook { moved: Some(moved), ..plain };
        // Half the way from the fifth to the sixth quantile of the second element: 4 · 0.75 becomes 4 · 0.15.
        assert!((bent.value(1, 3.0) - (-1.0 + 0.5 * 4.0 * 0.15)).abs() < 1e-6);
        for element in 0..2 {
            for relative in [-30.0, -2.0, -0.03, 0.0, 0.07, 3.0, 30.0] {
                let value = bent.value(element, relative);
                assert!((bent.relative(element, value) - relative).abs() < 1e-4, "{element} {relative}");
                let slope = (bent.value(element, relative + 1e-7) - value) / 1e-7;
                assert!((slope - bent.slope(element, relative + 1e-9)).abs() < 1e-3, "{element} {relative}");
            }
        }
    }
}
