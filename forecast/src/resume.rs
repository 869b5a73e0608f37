//! Training that goes on after it was cut off: what a pass of the network over the data has come to, as bytes.
//!
//! Scaling, base and the law of the errors are fitted again, which gives the same; the network goes on from the step after which its
//! state was kept, with its weights, the moments of the optimiser, the average of the weights, the place in the stream of
//! windows, and what had been found by then. So what comes out is what would have come out. Time that was lost does not count
//! against a budget.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::weights_of;
use crate::denoiser::Denoiser;
use crate::noise::Stream;
use crate::start::Start;
use crate::train::TrainConfig;
use crate::trainer::{Found, Pass};
use crate::{Error, History};

/// Raised with every change of what a state means.
const STATE_VERSION: u32 = 1;
/// Names of the parts of a state; the networks that were found are numbered.
const HEAD: &str = "head";
const WEIGHTS: &str = "weights";
const AVERAGE: &str = "average";
const OPTIMISER: &str = "optimiser";

/// Keeps the state of a training.
pub trait Memory {
    /// Whether it is time to keep the state again. Asked after every step.
    fn is_due(&mut self) -> bool;

    /// Keeps a state in place of the one before. That it cannot be kept is no reason not to train.
    fn keep(&mut self, state: Vec<u8>);

    /// The state that was kept last of the training with a fingerprint, whose states come from then on. One of another training is
    /// passed over.
    fn recall(&mut self, fingerprint: &str) -> Option<Vec<u8>>;
}

/// Where a training went on that had been cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// `select` or `train`.
    pub stage: String,
    /// Optimiser steps that had been done in this stage.
    pub step: usize,
}

/// Names a training by histories that were checked: hexadecimal SHA-256 of all that its outcome depends on, but for the machine.
///
/// # Errors
/// [`Error::Device`] when the weights of the start cannot be read.
fn fingerprint(
    history: &History,
    companions: &[History],
    config: &TrainConfig,
    start: Option<Start<'_>>,
) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let TrainConfig { horizon, budget, seed, network } = config;
    let version = env!("CARGO_PKG_VERSION");
    hash.update(format!("{STATE_VERSION} {version} {horizon} {budget:?} {seed} {network:?}\n"));
    if let Some(Start { model, n_rows_seen }) = start {
        let unreadable = |problem| Error::Device { problem };
        let file = weights_of(&model.denoiser).map_err(unreadable)?;
        // The file also has an identifier for each part, which is drawn when a model is read.
        let parts = SafeTensors::deserialize(&file).map_err(|error| unreadable(error.to_string()))?;
        let mut names = parts.names();
        names.sort_unstable();
        hash.update(format!("{n_rows_seen} {names:?}\n"));
        names.iter().filter_map(|name| parts.tensor(name).ok()).for_each(|part| hash.update(part.data()));
    }
    [history].into_iter().chain(companions).for_each(|history| add_history(&mut hash, history));
    Ok(hex::encode(hash.finalize()))
}

fn add_history(hash: &mut Sha256, history: &History) {
    let History { values, calendar, seasons, bounds, roles } = history;
    hash.update(format!("{seasons:?} {bounds:?} {roles:?} {} {}\n", values.n_series(), calendar.n_features()));
    for step in 0..values.n_steps() {
        let sd = (0..values.n_series()).map(|series| values.sd(step, series));
        let numbers = values.row(step).iter().copied().chain(sd).chain(calendar.row(step).iter().copied());
        numbers.for_each(|number| hash.update(number.to_le_bytes()));
    }
}

/// Everything of a state that is no network and no optimiser.
#[derive(Serialize, Deserialize)]
struct Head {
    fingerprint: String,
    step: usize,
    /// Place in the stream of windows.
    stream: Stream,
    /// That training had taken.
    seconds: f64,
    found: Found,
}

/// Keeps and recalls the state of one training.
pub(crate) struct Keeper<'a> {
    /// With the fingerprint of the training.
    memory: Option<(&'a mut dyn Memory, String)>,
    /// When training began; of one that was cut off, as if it had begun later by the time that was lost.
    pub started: Instant,
}

impl<'a> Keeper<'a> {
    /// Of a training that began now. Without a memory nothing is kept.
    ///
    /// # Errors
    /// Those of [`fingerprint`].
    pub fn new(
        memory: Option<&'a mut dyn Memory>,
        history: &History,
        companions: &[History],
        config: &TrainConfig,
        start: Option<Start<'_>>,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let named = |memory| Ok((memory, fingerprint(history, companions, config, start)?));
        Ok(Self { memory: memory.map(named).transpose()?, started })
    }

    /// Keeps the state after a step, if it is time: the pass, and what has been found with the networks that belong to it.
    pub fn after_step<'n>(&mut self, pass: &Pass, found: impl FnOnce() -> (Found, Vec<&'n Denoiser>)) {
        let Some((memory, fingerprint)) = &mut self.memory else { return };
        if !memory.is_due() {
            return;
        }
        let (found, networks) = found();
        let (fingerprint, seconds) = (fingerprint.clone(), self.started.elapsed().as_secs_f64());
        let head = Head { fingerprint, step: pass.step, stream: pass.stream.clone(), seconds, found };
        if let Ok(bytes) = to_bytes(&head, pass, &networks) {
            memory.keep(bytes);
        }
    }

    /// What was kept of this training: the pass that was cut off, what had been found, and the networks that belong to it; these
    /// take the place of weights of their shape.
    pub fn recall(&mut self, new: impl FnOnce() -> Pass, network: &Denoiser) -> Option<(Pass, Found, Vec<Denoiser>)> {
        let (memory, fingerprint) = self.memory.as_mut()?;
        let bytes = memory.recall(fingerprint)?;
        let parts = SafeTensors::deserialize(&bytes).ok()?;
        let part = |name: &str| parts.tensor(name).ok().map(|part| part.data());
        let head: Head = serde_json::from_slice(part(HEAD)?).ok()?;
        if head.fingerprint != *fingerprint {
            return None;
        }
        let new = new();
        let pass = Pass {
            denoiser: restored(&new.denoiser, part(WEIGHTS)?).ok()?,
            average: restored(&new.average, part(AVERAGE)?).ok()?,
            optimiser: new.optimiser.from_bytes(Bytes::from_bytes_vec(part(OPTIMISER)?.to_vec())).ok()?,
            stream: head.stream,
            step: head.step,
        };
        let network = |index: usize| restored(network, part(&index.to_string())?).ok();
        let networks = (0..head.found.n_networks()).map(network).collect::<Option<_>>()?;
        self.started = Instant::now().checked_sub(Duration::try_from_secs_f64(head.seconds).ok()?)?;
        Some((pass, head.found, networks))
    }
}

fn record(denoiser: &Denoiser) -> Result<Vec<u8>, RecordError> {
    Ok(denoiser.clone().into_record().into_bytes()?.to_vec())
}

fn restored(denoiser: &Denoiser, bytes: &[u8]) -> Result<Denoiser, RecordError> {
    denoiser.clone().try_load_record(ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes.to_vec()))?)
}

/// A state as a safetensors file whose tensors are files themselves.
fn to_bytes(head: &Head, pass: &Pass, networks: &[&Denoiser]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut parts = vec![
        (HEAD.to_owned(), serde_json::to_vec(head)?),
        (WEIGHTS.to_owned(), record(&pass.denoiser)?),
        (AVERAGE.to_owned(), record(&pass.average)?),
        (OPTIMISER.to_owned(), pass.optimiser.into_bytes()?.to_vec()),
    ];
    for (index, network) in networks.iter().enumerate() {
        parts.push((index.to_string(), record(network)?));
    }
    let mut views = Vec::with_capacity(parts.len());
    for (name, bytes) in &parts {
        views.push((name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes)?));
    }
    Ok(safetensors::serialize(views, None)?)
}
