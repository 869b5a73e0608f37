//! The HTTP service: built on a listener, run until it is told to stop.
//!
//! Every request passes one middleware, which gives it an identifier, a span and a deadline, counts
//! it, and turns whatever went wrong, here or in a library, into a problem document; and another one,
//! which refuses changes that pages of other sites ask for (`cross_site`).

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Instant,
};

use actix_web::{
    App, HttpResponse, HttpServer, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{Server, ServerHandle, ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        Method,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::{Compress, Next, from_fn},
    web,
};
use sqlx::PgPool;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Error,
    artefacts::{Artefacts, UnusableStore},
    config::{Config, Folders, Limits},
    cross_site,
    error::causes,
    metrics::Metrics,
    predictor::Predictor,
    routes,
};

/// Header that carries the request's identifier, in both directions.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest identifier that a client may choose.
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// Longest wait for the next request on an open connection.
const KEEP_ALIVE_SECONDS: u64 = 75;

/// What the routes share.
#[derive(Clone)]
pub struct State {
    /// Connections to Postgres.
    pub pool: PgPool,
    /// The model thread.
    pub predictor: Predictor,
    /// The files of the models.
    pub artefacts: Artefacts,
    /// What is counted.
    pub metrics: Metrics,
    /// What a client may ask for.
    pub limits: Arc<Limits>,
    /// Where pipelines, their sources and rejected rows are.
    pub folders: Arc<Folders>,
    /// A permit for each client that may watch a job.
    pub watchers: Arc<Semaphore>,
    /// Becomes true when the service stops: answers without an end are to end then.
    pub stopping: watch::Receiver<bool>,
}

/// The service, bound to its address and ready to run.
pub struct Application {
    address: SocketAddr,
    server: Server,
    metrics: Metrics,
    stopping: Arc<watch::Sender<bool>>,
}

/// Stops a running service.
#[derive(Clone, Debug)]
pub struct StopHandle {
    server: ServerHandle,
    stopping: Arc<watch::Sender<bool>>,
}

impl StopHandle {
    /// Accepts no more requests and waits for those that run, at most as long as the configuration says.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        self.server.stop(true).await;
    }

    /// Stops at once; running requests are lost. Does not wait.
    pub fn abort(&self) {
        self.stopping.send_replace(true);
        drop(self.server.stop(false));
    }
}

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no thread or socket.
    #[error("cannot start the service's threads")]
    Threads(#[source] std::io::Error),
    /// The build or the machine does not have the device.
    #[error("cannot use the device that models compute on")]
    Device(#[source] forecast::Error),
    /// There can be no store of models there.
    #[error(transparent)]
    Artefacts(#[from] UnusableStore),
    /// Two metrics have one name.
    #[error("cannot set up the metrics")]
    Metrics(#[source] prometheus::Error),
}

impl Application {
    /// Binds the address of `config` and prepares everything; nothing is answered before
    /// [`Application::run`].
    ///
    /// # Errors
    /// When the address cannot be bound, there is no such device, or the system gives no thread.
    pub fn build(config: &Config, pool: PgPool) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;

        let device = config.device.open().map_err(StartError::Device)?;
        let metrics = Metrics::new().map_err(StartError::Metrics)?;
        let limits = Arc::new(config.limits.clone());
        let artefacts = config.database.artefacts()?;
        let predictor = Predictor::start(
            artefacts.clone(),
            limits.queue_length_max,
            limits.models_loaded_max,
            device,
            metrics.clone(),
        )
        .map_err(StartError::Threads)?;

        let folders = Arc::new(config.folders());
        let (stopping, is_stopping) = watch::channel(false);
        let state = State {
            pool,
            predictor,
            artefacts,
            metrics: metrics.clone(),
            limits: Arc::clone(&limits),
            folders,
            watchers: Arc::new(Semaphore::new(routes::job_updates::WATCHERS_MAX)),
            stopping: is_stopping,
        };
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(state.clone()))
                .app_data(web::PayloadConfig::new(state.limits.body_bytes_max))
                .configure(|service| routes::configure(service, &state.limits))
                .wrap(from_fn(cross_site::refuse))
                .wrap(Compress::default())
                .wrap(from_fn(observe))
        })
        .keep_alive(std::time::Duration::from_secs(KEEP_ALIVE_SECONDS))
        .shutdown_timeout(limits.shutdown_timeout.as_secs())
        .disable_signals()
        .listen(listener)
        .map_err(listen)?
        .run();
        Ok(Self { address, server, metrics, stopping: Arc::new(stopping) })
    }

    /// Where the service listens, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the service counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Stops the service from elsewhere.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle { server: self.server.handle(), stopping: Arc::clone(&self.stopping) }
    }

    /// Serves until it is stopped through a [`StopHandle`].
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self) -> std::io::Result<()> {
        self.server.await
    }
}

/// Identifies, times, counts and logs a request; answers every failure with a problem document.
async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started_at = Instant::now();
    let head = RequestHead::of(&request);
    let state = request.app_data::<web::Data<State>>().cloned();
    let time_limit = state.as_ref().map_or(Limits::default().request_timeout, |state| state.limits.request_timeout);
    let span = tracing::info_span!("request", request.id = head.id, http.method = %head.method, http.path = head.path);

    let answer = next.call(request).instrument(span.clone());
    let outcome = tokio::time::timeout(time_limit, answer).await;
    let _entered = span.entered();
    let outcome = match outcome {
        Ok(Ok(response)) => Ok(head.describe_failure(response)),
        Ok(Err(error)) => Err(head.problem(&error)),
        Err(_elapsed) => Err(head.problem(&Error::Timeout { limit: time_limit }.into())),
    };

    let status = outcome.as_ref().map_or_else(HttpResponse::status, ServiceResponse::status);
    let duration = started_at.elapsed();
    if let Some(state) = state {
        let method = head.method_label();
        let metrics = &state.metrics;
        metrics.http_requests.with_label_values(&[&head.route, method, status.as_str()]).inc();
        metrics.http_request_duration.with_label_values(&[&head.route, method]).observe(duration.as_secs_f64());
    }
    tracing::info!(
        http.status = status.as_u16(),
        duration_ms = duration.as_secs_f64() * 1e3,
        "{} {} answered with {}",
        head.method,
        head.path,
        status.as_u16()
    );
    outcome.map_err(|response| InternalError::from_response("answered with a problem", response).into())
}

/// What is needed of a request once it has been handed on.
struct RequestHead {
    id: String,
    method: Method,
    path: String,
    route: String,
}

impl RequestHead {
    fn of(request: &ServiceRequest) -> Self {
        let id = request
            .headers()
            .get(X_REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|id| is_request_id(id))
            .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
        Self {
            id,
            method: request.method().clone(),
            path: request.path().to_owned(),
            route: request.match_pattern().unwrap_or_else(|| "unmatched".to_owned()),
        }
    }

    /// The method as a metric's label; a client can invent methods, but not labels.
    fn method_label(&self) -> &str {
        match self.method {
            Method::GET
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::HEAD
            | Method::OPTIONS => self.method.as_str(),
            _ => "other",
        }
    }

    /// The response, replaced by a problem document where it is a failure.
    fn describe_failure<B>(&self, response: ServiceResponse<B>) -> ServiceResponse<BoxBody>
    where
        B: MessageBody + 'static,
    {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            let mut response = response.map_into_boxed_body();
            self.identify(response.headers_mut());
            return response;
        }
        let mut problem = match response.response().error() {
            Some(error) => self.problem(error),
            None => self.problem(&Error::from_status(status).into()),
        };
        if let Some(allowed) = response.headers().get(header::ALLOW) {
            problem.headers_mut().insert(header::ALLOW, allowed.clone());
        }
        response.into_response(problem)
    }

    /// The problem document for an error of ours or of a library; a failure of ours is logged here.
    fn problem(&self, error: &actix_web::Error) -> HttpResponse {
        let foreign;
        let error = match error.as_error::<Error>() {
            Some(error) => error,
            None => {
                foreign = Error::from_status(error.as_response_error().status_code());
                &foreign
            }
        };
        if error.status_code().is_server_error() {
            tracing::error!(cause = causes(error), "{} {} failed", self.method, self.path);
        }
        let problem = error.problem(Some(self.path.clone()), Some(self.id.clone()));
        let mut response = problem.into_response(error.retry_after_seconds());
        self.identify(response.headers_mut());
        response
    }

    fn identify(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(X_REQUEST_ID, id);
        }
    }
}

/// Whether a client's identifier is safe to log and to send back.
fn is_request_id(id: &str) -> bool {
    (1..=REQUEST_ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_choose_a_harmless_request_id() {
        for (id, is_accepted) in [
            ("order-7/retry_2", true),
            ("", false),
            ("two words", false),
            ("line\nbreak", false),
            (&"x".repeat(129), false),
        ] {
            assert_eq!(is_request_id(id), is_accepted, "{id:?}");
        }
    }
}
