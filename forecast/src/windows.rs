//! What training learns from: batches of random windows.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use burn::tensor::Device;

use crate::companions::Shown;
use crate::conditioning::TokenLayout;
use crate::denoiser::TokenOf;
use crate::diffusion::{Example, NoisedBatch, Purpose, columns};
use crate::network::NetworkConfig;
use crate::noise::Stream;
use crate::stage::{Data, Stage};

/// Batches that wait to be learned from.
const N_BATCHES_AHEAD: usize = 1;

/// Series of a batch where tokens are of single ones: of wider panels each batch shows some, drawn at random.
const N_SERIES_TOGETHER: usize = 16;
/// A batch whose tokens are of single series has at most so many times the tokens of one whose tokens are of the panel.
const N_TIMES_SERIES: usize = 4;
/// Share of the batches that are of the own panel where there are companions.
const OWN_SHARE: f64 = 0.5;

/// The windows of stages, of which none is cut before it is drawn.
pub(crate) struct TrainingWindows<'a> {
    own: PanelWindows<'a>,
    companions: Vec<PanelWindows<'a>>,
    network: &'a NetworkConfig,
}

/// The windows of one panel.
struct PanelWindows<'a> {
    data: &'a Data<'a>,
    stage: &'a Stage,
    paths: Vec<usize>,
    /// By how much each element of the horizon counts in the loss.
    influences: Vec<f32>,
}

impl<'a> TrainingWindows<'a> {
    pub fn new(data: &'a Data<'a>, stage: &'a Stage, companions: &'a [Shown<'a>], network: &'a NetworkConfig) -> Self {
        let companions = companions.iter().map(|Shown { data, stage }| PanelWindows::new(data, stage)).collect();
        Self { own: PanelWindows::new(data, stage), companions, network }
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

    /// A batch of windows of one panel, noised, on the device.
    pub fn draw(&self, stream: &mut Stream, device: &Device) -> NoisedBatch {
        let Self { own, companions, network } = self;
        let is_own = companions.is_empty() || stream.uniform() < OWN_SHARE;
        let panel = if is_own { own } else { &companions[stream.below(companions.len())] };
        panel.draw(network, stream, device)
    }
}

impl<'a> PanelWindows<'a> {
    fn new(data: &'a Data<'a>, stage: &'a Stage) -> Self {
        let (paths, influences) = (stage.training_paths(), stage.innovation.influences());
        Self { data, stage, paths, influences }
    }

    fn draw(&self, network: &NetworkConfig, stream: &mut Stream, device: &Device) -> NoisedBatch {
        let Self { data, stage, paths, influences } = self;
        let (layout, purpose) = (&data.layout, Purpose::Training(network.levels, network.loss_weight));
        let n_windows = match network.token_of() {
            TokenOf::Panel => network.batch_size,
            TokenOf::Series => n_windows_of_series(network.batch_size, layout.n_series),
        };
        let examples: Vec<Example> =
            (0..n_windows).map(|_| data.example(stage, paths[stage.draw_path(paths.len(), stream)])).collect();
        if network.token_of() == TokenOf::Panel || layout.n_series <= N_SERIES_TOGETHER {
            return NoisedBatch::new(layout, &examples, influences, purpose, stream, device);
        }
        let chosen = some_of(layout.n_series, stream);
        let examples: Vec<Example> =
            examples.iter().map(|example| example.of_series(&chosen, layout.n_series)).collect();
        let influences = columns(influences, &chosen, layout.n_series);
        let layout = TokenLayout { n_series: chosen.len(), ..*layout };
        NoisedBatch::new(&layout, &examples, &influences, purpose, stream, device)
    }
}

/// Windows of a batch in which every series has its own tokens: so many that a step does not take as many times as long as there are
/// series.
fn n_windows_of_series(batch_size: usize, n_series: usize) -> usize {
    (N_TIMES_SERIES * batch_size / n_series.min(N_SERIES_TOGETHER)).clamp(1, batch_size)
}

/// As many different series as are shown together, of so many.
fn some_of(n_series: usize, stream: &mut Stream) -> Vec<usize> {
    let mut series: Vec<usize> = (0..n_series).collect();
    for place in 0..N_SERIES_TOGETHER {
        let drawn = place + stream.below(n_series - place);
        series.swap(place, drawn);
    }
    series.truncate(N_SERIES_TOGETHER);
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_many_series_has_fewer_windows() {
        assert_eq!([1, 4, 8, 16, 300].map(|n_series| n_windows_of_series(64, n_series)), [64, 64, 32, 16, 16]);
        assert_eq!(n_windows_of_series(1, 300), 1);
    }

    #[test]
    fn series_shown_together_are_different_and_every_one_has_its_turn() {
        let (mut stream, mut n_shown) = (Stream::new(1, 0), [0_usize; 20]);
        for _ in 0..500 {
            let mut chosen = some_of(20, &mut stream);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), N_SERIES_TOGETHER);
            chosen.into_iter().for_each(|series| n_shown[series] += 1);
        }
        // Each is shown 400 times of 500, with a standard deviation of 9.
        assert!(n_shown.iter().all(|n| (360..440).contains(n)), "{n_shown:?}");
    }
}
