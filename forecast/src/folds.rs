//! Folds of forecast origins: whatever is measured in training is measured where it was not fitted.

/// Contiguous folds of forecast origins. The last `horizon` origins of a fold, or half of a short one, are purged: their paths reach
/// into the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Folds {
    first: usize,
    end: usize,
    n_folds: usize,
    horizon: usize,
}

const N_FOLDS_MAX: usize = 5;

impl Folds {
    /// Folds of the origins `first..end`.
    pub fn new(first: usize, end: usize, horizon: usize) -> Self {
        let n_folds = ((end - first) / (3 * horizon)).clamp(2, N_FOLDS_MAX);
        Self { first, end, n_folds, horizon }
    }

    /// Number of origins.
    pub fn n_origins(&self) -> usize {
        self.end - self.first
    }

    /// Number of folds.
    pub fn n_folds(&self) -> usize {
        self.n_folds
    }

    /// First origin of a fold; the end of the last one for `fold == n_folds`.
    pub fn start(&self, fold: usize) -> usize {
        self.first + (self.end - self.first) * fold / self.n_folds
    }

    /// The fold of an origin; origins outside belong to the nearest.
    pub fn of(&self, origin: usize) -> usize {
        (1..self.n_folds).take_while(|&fold| self.start(fold) <= origin).count()
    }

    /// Origins of a fold whose paths stay inside it; at least one.
    pub fn usable(&self, fold: usize) -> std::ops::Range<usize> {
        let (start, end) = (self.start(fold), self.start(fold + 1));
        let purged = if fold + 1 == self.n_folds { 0 } else { self.horizon.min((end - start) / 2) };
        start..end - purged
    }
}

/// What was fitted on every fold, and without each of them.
#[derive(Clone)]
pub struct CrossFitted<T> {
    /// Fitted on every fold.
    pub whole: T,
    /// For each fold, what did not see it.
    pub without_fold: Vec<T>,
    /// The folds.
    pub folds: Folds,
}

impl<T> CrossFitted<T> {
    /// What was fitted, made into something else.
    pub fn map<U>(self, f: impl Fn(T) -> U) -> CrossFitted<U> {
        let without_fold = self.without_fold.into_iter().map(&f).collect();
        CrossFitted { whole: f(self.whole), without_fold, folds: self.folds }
    }

    /// What was fitted on the same folds, put together.
    pub fn zip<O, U>(self, other: CrossFitted<O>, f: impl Fn(T, O) -> U) -> CrossFitted<U> {
        let without_fold = self.without_fold.into_iter().zip(other.without_fold);
        let without_fold = without_fold.map(|(fitted, other)| f(fitted, other)).collect();
        CrossFitted { whole: f(self.whole, other.whole), without_fold, folds: self.folds }
    }

    /// What did not see an origin.
    pub fn out_of_fold(&self, origin: usize) -> &T {
        &self.without_fold[self.folds.of(origin)]
    }
}
