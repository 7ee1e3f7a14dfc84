//! Sends sampled spans to an OTLP collector in batches, from threads of its own. A collector that is down or
//! hangs costs spans, which are counted, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, RandomIdGenerator, Sampler, SdkTracerProvider,
        Span, SpanData, SpanExporter, SpanProcessor,
    },
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::runtime::Runtime;
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    Layer,
    layer::{self, Filter},
    registry::LookupSpan,
};

use super::{Ids, SAMPLED};
use crate::{Config, Error};

/// The running exporter.
#[derive(Debug)]
pub(crate) struct Exporter {
    provider: SdkTracerProvider,
    /// Drives the connection to the collector, so that a busy service does not delay its own traces.
    runtime: Option<Runtime>,
    counts: Arc<Counts>,
    flush_timeout: Duration,
}

impl Exporter {
    pub(crate) fn start(config: &Config, version: &'static str) -> Result<Option<Self>, Error> {
        let Some(endpoint) = &config.otlp_endpoint else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .map_err(Error::Exporter)?;
        let counts = Arc::new(Counts::default());
        let exporter = Counting {
            exporter: connect(config, endpoint, &runtime)?,
            counts: Arc::clone(&counts),
        };
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", version))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Bounded::new(config, exporter))
            // `Incoming` has decided; the SDK only sees what is to be exported.
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(Ids(RandomIdGenerator::default()))
            .with_resource(resource)
            .build();

        Ok(Some(Self {
            provider,
            runtime: Some(runtime),
            counts,
            flush_timeout: config.flush_timeout,
        }))
    }

    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("holdfast"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(SampledOnly)
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "telemetry_spans",
            "Sampled spans by what became of them",
            self.counts.spans.clone(),
        );
    }

    /// The SDK's shutdown blocks, so it runs on a thread for blocking work.
    pub(crate) async fn shutdown(self) -> bool {
        let (provider, timeout) = (self.provider.clone(), self.flush_timeout);
        let flush =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(timeout).is_ok());
        // The SDK bounds its wait for the queue, but not every step of it.
        let bound = timeout + Duration::from_millis(250);
        matches!(tokio::time::timeout(bound, flush).await, Ok(Ok(true)))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // A runtime that is dropped inside another one panics.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Connects at the first export, not here.
fn connect(config: &Config, endpoint: &str, runtime: &Runtime) -> Result<OtlpExporter, Error> {
    let _inside = runtime.enter();
    OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(config.export_timeout)
        .build()
        .map_err(|error| Error::Endpoint(endpoint.to_owned(), error))
}

/// Spans by outcome, and how many wait.
#[derive(Debug, Default)]
struct Counts {
    spans: Family<Labels, Counter>,
    queued: AtomicUsize,
    failing: AtomicBool,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
enum Outcome {
    exported,
    failed,
    dropped,
}

impl Counts {
    fn add(&self, outcome: Outcome, spans: usize) {
        self.spans
            .get_or_create(&Labels { outcome })
            .inc_by(spans as u64);
    }
}

/// Bounds the queue before the SDK does, because the SDK does not tell how many spans it dropped.
#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    queue_max: usize,
    counts: Arc<Counts>,
}

impl Bounded {
    fn new(config: &Config, exporter: Counting) -> Self {
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(config.queue_spans_max)
            .with_max_export_batch_size(config.batch_spans_max.min(config.queue_spans_max))
            .with_scheduled_delay(config.batch_delay)
            .build();
        let counts = Arc::clone(&exporter.counts);
        let batches = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batch)
            .build();

        Self {
            batches,
            queue_max: config.queue_spans_max,
            counts,
        }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.batches.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if self.counts.queued.fetch_add(1, Ordering::Relaxed) < self.queue_max {
            self.batches.on_end(span);
        } else {
            self.counts.queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.add(Outcome::dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts what the collector took, and logs when that changes.
#[derive(Debug)]
struct Counting {
    exporter: OtlpExporter,
    counts: Arc<Counts>,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.counts.queued.fetch_sub(spans, Ordering::Relaxed);
        self.counts.add(
            if result.is_ok() {
                Outcome::exported
            } else {
                Outcome::failed
            },
            spans,
        );
        let failed_before = self.counts.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => tracing::warn!(%error, "traces cannot be exported"),
            Ok(()) if failed_before => tracing::info!("traces are exported again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Lets OpenTelemetry see sampled request spans and what happens inside them, at INFO or above.
struct SampledOnly;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for SampledOnly {
    fn enabled(&self, meta: &Metadata<'_>, cx: &layer::Context<'_, S>) -> bool {
        // The context shows only spans that passed this filter.
        *meta.level() <= Level::INFO && (meta.target() == SAMPLED || cx.lookup_current().is_some())
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        match *meta.level() {
            Level::DEBUG | Level::TRACE => Interest::never(),
            _ if meta.target() == SAMPLED => Interest::always(),
            _ => Interest::sometimes(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}
