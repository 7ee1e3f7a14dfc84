//! Logs, traces and metrics of one process. [`init`] installs logs and traces and returns the guard that
//! flushes them last; [`metrics::Metrics`] owns the registry behind `/metrics`. Names no feature of the shop.
//!
//! Whether a request is traced is decided before its span exists, and both ids are chosen then, so that a
//! request that is not sampled never touches OpenTelemetry and still logs the trace id it passes on:
//!
//! ```text
//! let incoming = trace::Incoming::parse(req.headers(), sampling);          // sampling = telemetry.sampling()
//! let span = telemetry::request_span!(incoming, request_id, http.route = field::Empty);
//! next.run(req).instrument(span).await;
//! incoming.inject(outgoing.headers_mut());                                 // before a call to an upstream
//! ```
#![warn(missing_docs, unreachable_pub)]

mod config;
mod logs;
pub mod metrics;
pub mod trace;

use prometheus_client::registry::Registry;
use tracing_subscriber::{Layer, layer::SubscriberExt};

pub use config::{Config, LogFormat};
pub use logs::LogLevel;

/// For [`request_span!`] only.
#[doc(hidden)]
pub use tracing as __tracing;

/// What can go wrong while telemetry starts or is changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a list of log directives such as `info,sqlx=warn`.
    #[error("{0:?} is not a log filter; write it like info,sqlx=warn")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// The exporter cannot be built for this endpoint.
    #[error("traces cannot be sent to {0:?}")]
    Endpoint(String, #[source] opentelemetry_otlp::ExporterBuildError),
    /// The thread of the exporter cannot be started.
    #[error("the trace exporter cannot be started")]
    Exporter(#[source] std::io::Error),
    /// Another subscriber is installed in this process.
    #[error("telemetry is installed already")]
    Installed(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// The subscriber is gone, as it is only while the process ends.
    #[error("the log filter can no longer be changed")]
    Gone(#[source] tracing_subscriber::reload::Error),
}

/// Handles to the installed telemetry. Dropped without [`Telemetry::shutdown`], the spans still queued are lost.
#[derive(Debug)]
pub struct Telemetry {
    log_level: LogLevel,
    exporter: Option<trace::Exporter>,
    sampling: trace::Sampling,
}

/// Installs logs and traces for the whole process. `version` is the service's, as traces show it.
///
/// The exporter has a thread of its own, so this may be called with or without a running tokio runtime.
/// An unreachable collector is no error, neither here nor later.
///
/// # Errors
/// The log filter or the endpoint is malformed, the exporter's thread cannot start, or telemetry is installed already.
pub fn init(config: &Config, version: &'static str) -> Result<Telemetry, Error> {
    let (subscriber, telemetry) = build(config, version, std::io::stdout)?;
    tracing::subscriber::set_global_default(subscriber).map_err(Error::Installed)?;

    Ok(telemetry)
}

fn build<W>(
    config: &Config,
    version: &'static str,
    writer: W,
) -> Result<(impl tracing::Subscriber + Send + Sync + use<W>, Telemetry), Error>
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let (log_layer, log_level) = logs::layer(config, writer)?;
    let mut layers = vec![log_layer];
    let exporter = trace::Exporter::start(config, version)?;
    if let Some(exporter) = &exporter {
        layers.push(exporter.layer().boxed());
    }
    let sampling = trace::Sampling::new(config);

    Ok((
        tracing_subscriber::registry().with(layers),
        Telemetry {
            log_level,
            exporter,
            sampling,
        },
    ))
}

impl Telemetry {
    /// The handle that changes the log filter at run time.
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.log_level.clone()
    }

    /// How requests are sampled; [`trace::Incoming::parse`] wants it.
    #[must_use]
    pub fn sampling(&self) -> trace::Sampling {
        self.sampling
    }

    /// Registers the counts of exported, failed and dropped spans; nothing when traces are off.
    pub fn register(&self, registry: &mut Registry) {
        if let Some(exporter) = &self.exporter {
            exporter.register(registry);
        }
    }

    /// Sends the spans that are still queued, for at most the flush timeout, and stops the exporter. Call it
    /// last: a span that ends later is lost. Says whether everything queued was delivered or refused in time.
    pub async fn shutdown(self) -> bool {
        match self.exporter {
            Some(exporter) => exporter.shutdown().await,
            None => true,
        }
    }
}
