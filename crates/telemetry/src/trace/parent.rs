//! Reads W3C Trace Context headers strictly: one malformed byte and the trace starts anew, as the
//! specification asks, because half of a context is worse than none.

use std::str::FromStr;

use http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

pub(super) const TRACEPARENT: &str = "traceparent";
pub(super) const TRACESTATE: &str = "tracestate";

/// Version, trace id, parent id and flags, with the dashes between them.
const LEN: usize = 55;

/// What the specification obliges everybody to pass on; longer lists are dropped whole.
const STATE_BYTES_MAX: usize = 512;

pub(super) fn parse(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (trace_id, span_id, flags) = fields(value.as_bytes())?;

    Some(SpanContext::new(
        trace_id,
        span_id,
        flags,
        true,
        state(headers),
    ))
}

/// A `traceparent` that was written down without its headers.
pub(super) fn read(traceparent: &str) -> Option<SpanContext> {
    let (trace_id, span_id, flags) = fields(traceparent.as_bytes())?;
    let state = TraceState::NONE;
    Some(SpanContext::new(trace_id, span_id, flags, true, state))
}

fn fields(text: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let known = text.get(..LEN)?;
    let future = text.get(LEN..)?;
    let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
    let version = hex(&known[..2])?;
    // Version 00 ends here; a later one may go on after a dash. Version ff does not exist.
    let ends = if version == 0 {
        future.is_empty()
    } else {
        future.is_empty() || future[0] == b'-'
    };
    if !dashes || !ends || version == 0xff {
        return None;
    }
    let trace_id = hex(&known[3..35]).filter(|id| *id != 0)?;
    let span_id = hex(&known[36..52]).filter(|id| *id != 0)?;
    let flags = hex(&known[53..])?;

    Some((
        TraceId::from(trace_id),
        SpanId::from(u64::try_from(span_id).ok()?),
        TraceFlags::default().with_sampled(flags & 1 == 1),
    ))
}

/// Lower-case digits only, as the specification has it; up to 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Several headers are one list. A list that is malformed or too long is dropped; the trace goes on.
fn state(headers: &HeaderMap) -> TraceState {
    let mut list = String::new();
    for value in headers.get_all(TRACESTATE) {
        let Ok(text) = value.to_str() else {
            return TraceState::NONE;
        };
        if list.len() + text.len() >= STATE_BYTES_MAX {
            return TraceState::NONE;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(text);
    }
    if list.is_empty() {
        TraceState::NONE
    } else {
        TraceState::from_str(&list).unwrap_or(TraceState::NONE)
    }
}
