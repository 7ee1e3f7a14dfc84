//! The trace context of a request: read from the caller, decided on, logged, and passed on.

#[cfg(test)]
mod collector;
mod export;
mod parent;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt::Display;

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceId},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::Config;

pub(crate) use export::Exporter;

/// The target of spans that OpenTelemetry takes up; their children follow. All others it never sees.
pub const SAMPLED: &str = "request.sampled";

/// The target of request spans that stay out of OpenTelemetry.
pub const UNSAMPLED: &str = "request";

/// How it is decided whether a request is traced.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// A random number below this many 2⁶⁴ths is sampled; 128 bits wide so that a ratio of 1 fits.
    bound: u128,
    trust_caller: bool,
    exporting: bool,
}

impl Sampling {
    /// As `config` says.
    pub fn new(config: &Config) -> Self {
        Self {
            bound: bound(config.sample_ratio),
            trust_caller: config.trust_caller,
            exporting: config.otlp_endpoint.is_some(),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the ratio is clamped to 0..=1, so the product is from 0 to 2^64"
)]
fn bound(ratio: f64) -> u128 {
    (ratio.clamp(0.0, 1.0) * 2f64.powi(64)) as u128
}

/// A request's place in its trace. Both ids are chosen here, before the span exists, so that logs, the
/// exported span and outgoing calls agree whether or not the request is sampled.
#[derive(Clone, Debug)]
pub struct Incoming {
    trace_id: TraceId,
    span_id: SpanId,
    parent: Option<SpanContext>,
    /// What the callees are told. Differs from `sampled` where traces are off here and on at the caller.
    flag: bool,
    sampled: bool,
}

impl Incoming {
    /// Continues the caller's trace, or starts one when `traceparent` is missing or malformed.
    #[must_use]
    pub fn parse(headers: &HeaderMap, sampling: Sampling) -> Self {
        Self::child_of(parent::parse(headers), sampling)
    }

    /// Starts a trace for work that no request asked for.
    #[must_use]
    pub fn root(sampling: Sampling) -> Self {
        Self::child_of(None, sampling)
    }

    /// Continues a trace that this service has written down with [`Self::traceparent`], or starts one. What was decided of it then
    /// still holds.
    #[must_use]
    pub fn resume(traceparent: Option<&str>, sampling: Sampling) -> Self {
        let sampling = Sampling {
            trust_caller: true,
            ..sampling
        };
        Self::child_of(traceparent.and_then(parent::read), sampling)
    }

    fn child_of(parent: Option<SpanContext>, sampling: Sampling) -> Self {
        let random = RandomIdGenerator::default();
        let span_id = random.new_span_id();
        let flag = match &parent {
            Some(parent) if sampling.trust_caller => parent.is_sampled(),
            // The draw is on an id of ours: a caller could pick a trace id that always wins.
            _ => {
                sampling.exporting
                    && u128::from(u64::from_be_bytes(span_id.to_bytes())) < sampling.bound
            }
        };

        Self {
            trace_id: parent
                .as_ref()
                .map_or_else(|| random.new_trace_id(), SpanContext::trace_id),
            span_id,
            parent,
            flag,
            sampled: flag && sampling.exporting,
        }
    }

    /// Whether the request's span is to be exported.
    #[must_use]
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    /// The trace's id: 32 lower-case hex digits.
    #[must_use]
    pub fn trace_id(&self) -> impl Display + Copy + use<> {
        self.trace_id
    }

    /// The id of the request's span: 16 lower-case hex digits.
    #[must_use]
    pub fn span_id(&self) -> impl Display + Copy + use<> {
        self.span_id
    }

    /// Gives a sampled request's span its parent and ids. The span must be new and its target [`SAMPLED`];
    /// [`request_span!`](crate::request_span) sees to both.
    pub fn attach(&self, span: &Span) {
        if !self.sampled {
            return;
        }
        if let Some(parent) = &self.parent {
            // Fails only where the layer is not installed; the span is then not exported at all.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent.clone()));
        }
        CHOSEN.set(Some((self.trace_id, self.span_id)));
        // Asking for the context starts the span, which takes its ids from `Ids` on this thread.
        let _ = span.context();
        CHOSEN.set(None);
    }

    /// The `traceparent` of what follows from this. The span entered now is its parent; outside of this trace's spans, or
    /// unsampled, the request's own span is.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let current = Context::map_current(|cx| {
            let span = cx.span();
            let current = span.span_context();
            (current.trace_id() == self.trace_id).then(|| current.span_id())
        });
        let parent_id = current.unwrap_or(self.span_id);
        format!(
            "00-{}-{parent_id}-{:02x}",
            self.trace_id,
            u8::from(self.flag)
        )
    }

    /// Writes `traceparent` and `tracestate` for an outgoing call.
    pub fn inject(&self, headers: &mut HeaderMap) {
        headers.insert(
            parent::TRACEPARENT,
            HeaderValue::try_from(self.traceparent()).expect("hex digits and dashes"),
        );

        let state = self
            .parent
            .as_ref()
            .map(|parent| parent.trace_state().header())
            .unwrap_or_default();
        match HeaderValue::try_from(state) {
            Ok(state) if !state.is_empty() => headers.insert(parent::TRACESTATE, state),
            _ => headers.remove(parent::TRACESTATE),
        };
    }
}

/// The span of a request, with `trace_id` and `span_id`, attached to its trace. Further fields are written
/// as in `tracing`'s macros. Once the route is known, record `otel.name` (`GET /v1/products/{id}`) and, for a
/// failure of ours, `otel.status_code` (`ERROR`): they go to the exporter only.
///
/// Its level is ERROR so that a log filter of `warn` still shows which request an event belongs to.
#[macro_export]
macro_rules! request_span {
    ($incoming:expr $(, $($fields:tt)*)?) => {{
        let incoming: &$crate::trace::Incoming = &$incoming;
        let (trace_id, span_id) = (incoming.trace_id(), incoming.span_id());
        let span = if incoming.sampled() {
            $crate::__tracing::error_span!(
                target: $crate::trace::SAMPLED, "request",
                otel.kind = "server",
                otel.name = $crate::__tracing::field::Empty,
                otel.status_code = $crate::__tracing::field::Empty,
                %trace_id,
                %span_id
                $(, $($fields)*)?
            )
        } else {
            $crate::__tracing::error_span!(
                target: $crate::trace::UNSAMPLED, "request", %trace_id, %span_id $(, $($fields)*)?
            )
        };
        incoming.attach(&span);
        span
    }};
}

thread_local! {
    static CHOSEN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Hands the SDK the ids that [`Incoming`] chose, and random ones to every other span.
#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        CHOSEN
            .get()
            .map_or_else(|| self.0.new_trace_id(), |(trace_id, _)| trace_id)
    }

    fn new_span_id(&self) -> SpanId {
        CHOSEN
            .get()
            .map_or_else(|| self.0.new_span_id(), |(_, span_id)| span_id)
    }
}
