//! One direction of one connection: reads, keeps what is to be late, writes. One loop, so that a change of faults is
//! seen whatever it waits for.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    time::{Instant, sleep_until},
};

use super::{Draw, toxic::Effects};

const READ_BYTES_MAX: usize = 64 * 1024;
/// What one direction holds at most; a full queue stops the reading, and TCP then stops the sender.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// A limited bandwidth is spent in so many portions a second.
const PORTIONS_PER_SECOND: u32 = 100;

/// How a connection ended before both sides had closed it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Reset,
    Closed,
}

/// Carries bytes until the sender has closed and the receiver knows.
pub(super) async fn pipe(
    mut reader: ReadHalf<'_>,
    mut writer: WriteHalf<'_>,
    mut draw: Draw,
) -> Result<(), End> {
    let mut queue = Queue::new(draw.effects());
    let mut buffer = BytesMut::new();
    loop {
        if let Some(end) = queue.end_by_fault() {
            return Err(end);
        }
        if let Some(end) = queue.end_by_sender() {
            let _ = writer.shutdown().await;
            return end;
        }
        let next = queue.next_step();
        let is_due = next.is_some_and(|at| at <= Instant::now());
        buffer.reserve(READ_BYTES_MAX);
        tokio::select! {
            changed = draw.changed() => queue.change(changed?),
            read = reader.read_buf(&mut buffer), if queue.has_room() => queue.push(read.ok(), &mut buffer),
            written = writer.write(queue.portion()), if is_due && queue.has_bytes() => {
                queue.pop(written.map_err(|_| End::Reset)?);
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() && !is_due => {}
        }
    }
}

/// Bytes on their way, with the time each may arrive.
struct Queue {
    effects: Effects,
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// How and when the sender's end is to be passed on.
    ending: Option<(Instant, Result<(), End>)>,
    passed_bytes: u64,
    /// When the bandwidth allows the next portion.
    next_portion: Instant,
}

impl Queue {
    fn new(effects: Effects) -> Self {
        Self {
            effects,
            chunks: VecDeque::new(),
            bytes: 0,
            ending: None,
            passed_bytes: 0,
            next_portion: Instant::now(),
        }
    }

    fn change(&mut self, effects: Effects) {
        let latest = Instant::now() + effects.delay;
        for (due, _) in &mut self.chunks {
            *due = latest.min(*due);
        }
        if let Some((due, _)) = &mut self.ending {
            *due = (latest + effects.close_delay).min(*due);
        }
        (self.effects, self.passed_bytes, self.next_portion) = (effects, 0, Instant::now());
    }

    fn end_by_fault(&self) -> Option<End> {
        if self.effects.is_reset {
            return Some(End::Reset);
        }
        self.effects
            .cut_after_bytes
            .is_some_and(|limit| self.passed_bytes >= limit)
            .then_some(End::Closed)
    }

    /// The sender's end, when all its bytes are through and its time has come.
    fn end_by_sender(&self) -> Option<Result<(), End>> {
        let (due, end) = self.ending?;
        let is_due = due <= Instant::now() && !self.effects.is_held && self.chunks.is_empty();
        is_due.then_some(end)
    }

    /// When there is something to do next but to read.
    fn next_step(&self) -> Option<Instant> {
        if self.effects.is_held {
            return None;
        }
        match (self.chunks.front(), self.ending) {
            (Some((due, _)), _) => Some(self.next_portion.max(*due)),
            (None, ending) => ending.map(|(due, _)| due),
        }
    }

    fn has_room(&self) -> bool {
        self.ending.is_none() && self.bytes < QUEUE_BYTES_MAX
    }

    fn has_bytes(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// `None` is a failed read: the sender has reset the connection.
    fn push(&mut self, read: Option<usize>, buffer: &mut BytesMut) {
        let due = Instant::now() + self.effects.delay_now();
        match read {
            Some(0) => self.ending = Some((due + self.effects.close_delay, Ok(()))),
            Some(count) => {
                self.bytes += count;
                self.chunks.push_back((due, buffer.split().freeze()));
            }
            None => self.ending = Some((due + self.effects.close_delay, Err(End::Reset))),
        }
    }

    /// What may be written at once.
    fn portion(&self) -> &[u8] {
        let Some((_, chunk)) = self.chunks.front() else {
            return &[];
        };
        let mut length = chunk.len();
        if let Some(rate) = self.effects.bytes_per_second {
            length = length.min((rate / PORTIONS_PER_SECOND).max(1) as usize);
        }
        if let Some(limit) = self.effects.cut_after_bytes {
            length = length.min(usize::try_from(limit - self.passed_bytes).unwrap_or(usize::MAX));
        }
        &chunk[..length]
    }

    fn pop(&mut self, count: usize) {
        let Some((_, chunk)) = self.chunks.front_mut() else {
            return;
        };
        chunk.advance(count);
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.bytes -= count;
        self.passed_bytes += count as u64;
        if let Some(rate) = self.effects.bytes_per_second {
            let cost = Duration::from_secs_f64(count as f64 / f64::from(rate));
            self.next_portion = self.next_portion.max(Instant::now()) + cost;
        }
    }
}
