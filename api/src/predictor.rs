//! The models, on a thread of their own.
//!
//! Drawing trajectories takes from milliseconds to minutes and uses every core, so it never runs
//! on a thread that answers requests. Work goes through a bounded queue to one model thread; when
//! the queue is full the caller is told to come back, instead of waiting with everybody else.
//!
//! A model is loaded when it is first asked for and kept while it is used. A damaged one fails the
//! requests that ask for it, nothing else; so does work that panics.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Instant,
};

use forecast::{Device, Model};
use prometheus::IntGauge;
use tokio::sync::oneshot;

use crate::{
    Error,
    artefacts::{Artefacts, Checkpoint},
    metrics::{Metrics, Stage},
};

/// Hands work to the model thread. Clones share its queue.
#[derive(Clone)]
pub struct Predictor {
    jobs: SyncSender<Job>,
    metrics: Metrics,
    /// Mean duration of a job in milliseconds, recent ones weighing more.
    job_milliseconds: Arc<AtomicU64>,
}

/// A piece of work, which sends its own reply.
type Job = Box<dyn FnOnce(&mut Models) + Send>;

impl Predictor {
    /// Starts the model thread, which ends when the last clone is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        artefacts: Artefacts,
        queue_length_max: usize,
        models_loaded_max: usize,
        device: Device,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(queue_length_max);
        let predictor = Self { jobs, metrics, job_milliseconds: Arc::default() };

        let models = Models::new(artefacts, models_loaded_max, device);
        let queue_length = predictor.metrics.queue_length.clone();
        let job_milliseconds = Arc::clone(&predictor.job_milliseconds);
        std::thread::Builder::new()
            .name("model".to_owned())
            .spawn(move || serve_queue(&queue, models, &queue_length, &job_milliseconds))?;
        Ok(predictor)
    }

    /// Runs `work` on the model thread and waits for its result, without blocking.
    ///
    /// Work whose caller has gone (client hung up, timeout) before its turn comes is skipped.
    ///
    /// # Errors
    /// What `work` returns; [`Error::QueueFull`] when too many wait; [`Error::ModelFailed`] when
    /// `work` panics.
    pub async fn run<T, Work>(&self, work: Work) -> Result<T, Error>
    where
        T: Send + 'static,
        Work: FnOnce(&mut Models) -> Result<T, Error> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let metrics = self.metrics.clone();
        let enqueued_at = Instant::now();
        self.enqueue(Box::new(move |models| {
            if reply.is_closed() {
                return;
            }
            metrics.observe_stage(Stage::Queue, enqueued_at.elapsed());
            // The caller may go away while the work runs; then nobody wants the result.
            let _ = reply.send(work(models));
        }))?;
        result.await.unwrap_or_else(|_| Err(Error::ModelFailed { source: "the work panicked".into() }))
    }

    fn enqueue(&self, job: Job) -> Result<(), Error> {
        self.metrics.queue_length.inc();
        self.jobs.try_send(job).map_err(|refused| {
            self.metrics.queue_length.dec();
            match refused {
                TrySendError::Full(_) => {
                    self.metrics.queue_refused.inc();
                    Error::QueueFull { retry_after_seconds: self.retry_after_seconds() }
                }
                TrySendError::Disconnected(_) => Error::Stopping,
            }
        })
    }

    /// Seconds in which the queue should have emptied, at least 1 and at most 60.
    fn retry_after_seconds(&self) -> u64 {
        let waiting = u64::try_from(self.metrics.queue_length.get()).unwrap_or(0);
        let milliseconds = waiting.saturating_mul(self.job_milliseconds.load(Ordering::Relaxed));
        milliseconds.div_ceil(1000).clamp(1, 60)
    }
}

/// The model thread: one job after the other, until no one can send any more.
fn serve_queue(queue: &Receiver<Job>, mut models: Models, queue_length: &IntGauge, job_milliseconds: &AtomicU64) {
    while let Ok(job) = queue.recv() {
        let started_at = Instant::now();
        // Models are only read by a job, so a panic leaves none of them half changed; it drops the
        // job's reply, which tells the caller.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut models)));
        queue_length.dec();

        let elapsed = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mean = job_milliseconds.load(Ordering::Relaxed);
        job_milliseconds.store(mean - mean / 4 + elapsed / 4, Ordering::Relaxed);
    }
}

/// The models that are in memory, most recently used last.
pub struct Models {
    artefacts: Artefacts,
    loaded_max: usize,
    device: Device,
    loaded: Vec<(i32, Model)>,
}

impl Models {
    fn new(artefacts: Artefacts, loaded_max: usize, device: Device) -> Self {
        Self { artefacts, loaded_max: loaded_max.max(1), device, loaded: Vec::new() }
    }

    /// The model, loaded if it is not in memory.
    ///
    /// # Errors
    /// [`Error::BrokenModel`] when its checkpoint is missing, damaged or of another version.
    pub fn get(&mut self, wanted: &Checkpoint) -> Result<&Model, Error> {
        let position = self.loaded.iter().position(|(model_id, _)| *model_id == wanted.model_id);
        let entry = match position {
            Some(position) => self.loaded.remove(position),
            None => (wanted.model_id, self.load(wanted)?),
        };
        if self.loaded.len() >= self.loaded_max {
            self.loaded.remove(0);
        }
        self.loaded.push(entry);
        let (_, model) = &self.loaded[self.loaded.len() - 1];
        Ok(model)
    }

    fn load(&self, wanted: &Checkpoint) -> Result<Model, Error> {
        let started_at = Instant::now();
        let model = self.artefacts.get_model(wanted, &self.device)?;
        tracing::info!(
            model.id = wanted.model_id,
            duration_ms = started_at.elapsed().as_secs_f64() * 1e3,
            "loaded model {}",
            wanted.model_id
        );
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;

    use super::*;

    fn predictor(queue_length_max: usize) -> Predictor {
        let metrics = Metrics::new().expect("metrics are named once");
        let artefacts = Artefacts::local(Path::new("/nonexistent")).expect("a name of a folder");
        Predictor::start(artefacts, queue_length_max, 1, forecast::cpu(), metrics).expect("a thread starts")
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_recovers() {
        let predictor = predictor(1);
        let (started, has_started) = channel();
        let (release, released) = channel::<()>();

        let busy = tokio::spawn({
            let predictor = predictor.clone();
            async move {
                let work = move |_: &mut Models| {
                    let _ = started.send(());
                    let _ = released.recv();
                    Ok(1)
                };
                predictor.run(work).await
            }
        });
        tokio::task::spawn_blocking(move || has_started.recv())
            .await
            .expect("the thread ends")
            .expect("the first work starts");

        // Polled once each: the second work fills the queue, the third finds it full.
        let mut waiting = Box::pin(predictor.run(|_| Ok(2)));
        assert!(
            std::future::poll_fn(|context| { std::task::Poll::Ready(waiting.as_mut().poll(context).is_pending()) })
                .await
        );
        let refused = predictor.run(|_| Ok(3)).await;
        assert!(matches!(refused, Err(Error::QueueFull { retry_after_seconds: 1 })));

        release.send(()).expect("the first work waits");
        assert_eq!(busy.await.expect("no panic").expect("the first work succeeds"), 1);
        assert_eq!(waiting.await.expect("the second work succeeds"), 2);
        assert_eq!(predictor.run(|_| Ok(4)).await.expect("the queue has room again"), 4);
    }

    #[tokio::test]
    async fn work_that_panics_fails_alone() {
        let predictor = predictor(4);
        let failed = predictor.run(|_| -> Result<(), Error> { panic!("on purpose") }).await;
        assert!(matches!(failed, Err(Error::ModelFailed { .. })));
        assert_eq!(predictor.run(|_| Ok(5)).await.expect("the thread lives"), 5);
    }

    #[tokio::test]
    async fn a_missing_checkpoint_fails_the_request_that_asks_for_it() {
        let predictor = predictor(4);
        let model = Checkpoint { model_id: 7, folder: "gone".to_owned(), digest: String::new() };
        let failed = predictor.run(move |models| models.get(&model).map(|_| ())).await;
        assert!(matches!(failed, Err(Error::BrokenModel { model_id: 7, .. })));
        assert_eq!(predictor.run(|_| Ok(6)).await.expect("the thread lives"), 6);
    }
}
