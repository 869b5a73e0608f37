//! What training learns from: batches of random windows.

use burn::tensor::Device;

use crate::diffusion::{Example, NoisedBatch, Purpose};
use crate::network::NetworkConfig;
use crate::noise::Stream;
use crate::stage::{Data, Stage};

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

    /// A batch of windows, noised, on the device.
    pub fn draw(&self, stream: &mut Stream, device: &Device) -> NoisedBatch {
        let Self { data, stage, network, paths, influences } = self;
        let examples: Vec<Example> =
            (0..network.batch_size).map(|_| data.example(stage, paths[stage.draw_path(paths.len(), stream)])).collect();
        NoisedBatch::new(&data.layout, &examples, influences, Purpose::Training(network.levels), stream, device)
    }
}
