//! What training learns from: batches of random windows.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use burn::tensor::Device;

use crate::diffusion::{Example, NoisedBatch, Purpose};
use crate::network::NetworkConfig;
use crate::noise::Stream;
use crate::stage::{Data, Stage};

/// Batches that wait to be learned from.
const N_BATCHES_AHEAD: usize = 1;

/// The windows of a stage, of which none is cut before it is drawn.
pub(crate) struct TrainingWindows<'a> {
    data: &'a Data<'a>,
    stage: &'a Stage,
    network: &'a NetworkConfig,
    paths: Vec<usize>,
    /// By how much each element of the horizon counts in the loss.
    influences: Vec<f32>,
}

impl<'a> TrainingWindows<'a> {
    pub fn new(data: &'a Data<'a>, stage: &'a Stage, network: &'a NetworkConfig) -> Self {
        let (paths, influences) = (stage.training_paths(), stage.innovation.influences());
        Self { data, stage, network, paths, influences }
    }

    /// Has batches drawn on a thread of their own while `learn` takes one after the other, so that it does not wait for them.
    /// They are the same and in the same order as if they were drawn when they are taken; each comes with the stream as it is after
    /// it.
    pub fn ahead<R>(
        &self,
        mut stream: Stream,
        device: &Device,
        learn: impl FnOnce(&Receiver<(NoisedBatch, Stream)>) -> R,
    ) -> R {
        thread::scope(|scope| {
            let (sender, batches) = sync_channel(N_BATCHES_AHEAD);
            scope.spawn(move || {
                let mut next = || (self.draw(&mut stream, device), stream.clone());
                while sender.send(next()).is_ok() {}
            });
            let learned = learn(&batches);
            // Then nobody takes what is drawn, and the thread ends.
            drop(batches);
            learned
        })
    }

    /// A batch of windows, noised, on the device.
    pub fn draw(&self, stream: &mut Stream, device: &Device) -> NoisedBatch {
        let Self { data, stage, network, paths, influences } = self;
        let examples: Vec<Example> =
            (0..network.batch_size).map(|_| data.example(stage, paths[stage.draw_path(paths.len(), stream)])).collect();
        NoisedBatch::new(&data.layout, &examples, influences, Purpose::Training(network.levels), stream, device)
    }
}
