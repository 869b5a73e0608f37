//! The state of a training that may be cut off, beside the models: the next attempt at the same training goes on from it.

use std::time::{Duration, Instant};

use forecast::Memory;

use crate::artefacts::Artefacts;

/// Shortest time between two states that are kept.
const PAUSE: Duration = Duration::from_secs(2);
/// And how many times as long as keeping one takes.
const PAUSE_FACTOR: u32 = 20;

/// The state of one training, in the store of artefacts. For threads that may wait.
#[derive(Debug)]
pub struct StoredState<'a> {
    artefacts: &'a Artefacts,
    /// Names the training, once it is known.
    pub fingerprint: String,
    /// When a state was last kept, or began to be.
    last: Instant,
    pause: Duration,
}

impl<'a> StoredState<'a> {
    /// That of a training that begins now.
    #[must_use]
    pub fn new(artefacts: &'a Artefacts) -> Self {
        Self { artefacts, fingerprint: String::new(), last: Instant::now(), pause: PAUSE }
    }
}

impl Memory for StoredState<'_> {
    fn is_due(&mut self) -> bool {
        let is_due = self.last.elapsed() >= self.pause;
        if is_due {
            self.last = Instant::now();
        }
        is_due
    }

    fn keep(&mut self, state: Vec<u8>) {
        if let Err(error) = self.artefacts.put_training(&self.fingerprint, state) {
            tracing::warn!("cannot keep the state of a training; cut off now, it would begin anew: {error}");
        }
        self.pause = PAUSE.max(self.last.elapsed() * PAUSE_FACTOR);
        self.last = Instant::now();
    }

    fn recall(&mut self, fingerprint: &str) -> Option<Vec<u8>> {
        fingerprint.clone_into(&mut self.fingerprint);
        self.artefacts.get_training(fingerprint).unwrap_or_else(|error| {
            tracing::warn!("cannot read the state of a training, which begins anew: {error}");
            None
        })
    }
}
