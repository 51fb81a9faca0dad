//! The traces that this node keeps, for itself and the others: a bounded number, the oldest dropped first.
//!
//! Spans come in as they end, in any order, and more than once. They are kept as they came, encoded, in memory and in a
//! [`Spill`]; what is older stays only in the files. Of each trace a [`Summary`] is kept for searches. Putting the spans of
//! a trace in order is [`assemble`](super::assemble)'s.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    path::Path,
};

use bytes::Bytes;
use prost::Message as _;
use proto::telemetry::v1 as pb;

use super::{
    otlp::Read,
    spill::{Place, Spill},
    summary::Summary,
};

/// Spans of one trace that are kept.
pub(crate) const SPANS_PER_TRACE_MAX: u32 = 3_000;
/// Traces that are kept.
pub(crate) const TRACES_MAX: usize = 20_000;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) traces_max: usize,
    pub(crate) memory_bytes_max: usize,
}

/// Some spans of a trace.
#[derive(Debug)]
struct Chunk {
    /// In memory, unless others needed the room.
    content: Option<Bytes>,
    /// In a file, once it is written.
    place: Option<Place>,
}

#[derive(Debug)]
struct Kept {
    summary: Summary,
    chunks: Vec<Chunk>,
    dropped_spans: u32,
}

impl Kept {
    fn memory_bytes(&self) -> usize {
        let contents = self.chunks.iter().filter_map(|chunk| chunk.content.as_ref());
        contents.map(Bytes::len).sum()
    }
}

/// What has happened since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) spans_taken: u64,
    pub(crate) spans_over_limit: u64,
    pub(crate) traces_dropped: u64,
}

/// The traces of this node.
#[derive(Debug)]
pub(crate) struct Store {
    bounds: Bounds,
    traces: HashMap<u128, Kept>,
    /// By when they came.
    order: VecDeque<u128>,
    /// Traces with spans in memory, by when these came.
    in_memory: VecDeque<u128>,
    memory_bytes: usize,
    /// What is to be written: which chunk of which trace.
    unwritten: Vec<(u128, usize)>,
    spill: Option<Spill>,
    tally: Tally,
}

impl Store {
    /// An empty one without files.
    pub(crate) fn in_memory(bounds: Bounds) -> Self {
        Self {
            bounds,
            traces: HashMap::new(),
            order: VecDeque::new(),
            in_memory: VecDeque::new(),
            memory_bytes: 0,
            unwritten: Vec::new(),
            spill: None,
            tally: Tally::default(),
        }
    }

    /// One that goes on with what is in this folder.
    pub(crate) fn open(bounds: Bounds, folder: &Path, disk_bytes_max: u64) -> io::Result<Self> {
        let mut store = Self::in_memory(bounds);
        let spill = Spill::open(folder, disk_bytes_max, |frame| {
            let Ok(trace) = pb::Trace::decode(frame.content) else {
                return;
            };
            let kept = store.entry(frame.trace_id);
            for span in &trace.spans {
                kept.summary.add(span);
            }
            kept.chunks.push(Chunk {
                content: None,
                place: Some(frame.place),
            });
        })?;
        store.spill = Some(spill);
        store.make_room();
        store.tally = Tally::default();
        Ok(store)
    }

    /// Takes in what another one has taken meanwhile.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for trace_id in &other.order {
            let spans = other.get(*trace_id).map(|(spans, _)| spans).unwrap_or_default();
            self.take(spans.into_iter().map(|span| (*trace_id, span)).collect());
        }
        self.tally = other.tally;
    }

    fn entry(&mut self, trace_id: u128) -> &mut Kept {
        let order = &mut self.order;
        self.traces.entry(trace_id).or_insert_with(|| {
            order.push_back(trace_id);
            Kept {
                summary: Summary::new(trace_id),
                chunks: Vec::new(),
                dropped_spans: 0,
            }
        })
    }

    /// Takes spans in.
    pub(crate) fn take(&mut self, spans: Vec<Read>) {
        let mut by_trace: HashMap<u128, Vec<pb::Span>> = HashMap::new();
        for (trace_id, span) in spans {
            by_trace.entry(trace_id).or_default().push(span);
        }
        for (trace_id, mut spans) in by_trace {
            self.tally.spans_taken += spans.len() as u64;
            let kept = self.entry(trace_id);
            let room = SPANS_PER_TRACE_MAX.saturating_sub(kept.summary.told.spans) as usize;
            let over = spans.len().saturating_sub(room);
            kept.dropped_spans += over as u32;
            spans.truncate(room);
            for span in &spans {
                kept.summary.add(span);
            }
            if !spans.is_empty() {
                let chunk = pb::Trace {
                    spans,
                    ..pb::Trace::default()
                };
                let content = Bytes::from(chunk.encode_to_vec());
                let (number, bytes) = (kept.chunks.len(), content.len());
                kept.chunks.push(Chunk {
                    content: Some(content),
                    place: None,
                });
                self.memory_bytes += bytes;
                self.unwritten.push((trace_id, number));
                self.in_memory.push_back(trace_id);
            }
            self.tally.spans_over_limit += over as u64;
        }
        self.make_room();
    }

    /// Writes what is not written yet.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(spill) = &mut self.spill else {
            self.unwritten.clear();
            return Ok(());
        };
        let unwritten = std::mem::take(&mut self.unwritten);
        let mut frames = Vec::new();
        let mut of = Vec::new();
        for (trace_id, number) in unwritten {
            let chunk = self.traces.get(&trace_id).and_then(|kept| kept.chunks.get(number));
            if let Some(Chunk {
                content: Some(content),
                place: None,
            }) = chunk
            {
                frames.push((trace_id, content.clone()));
                of.push((trace_id, number));
            }
        }
        let places = spill.append(&frames)?;
        for ((trace_id, number), place) in of.into_iter().zip(places) {
            if let Some(chunk) = self
                .traces
                .get_mut(&trace_id)
                .and_then(|kept| kept.chunks.get_mut(number))
            {
                chunk.place = Some(place);
            }
        }
        while let Some(segment) = self.spill.as_mut().and_then(Spill::drop_oldest) {
            self.forget_segment(segment);
        }
        self.make_room();
        Ok(())
    }

    /// The file is gone; a trace of which nothing is left goes with it.
    fn forget_segment(&mut self, segment: u64) {
        let mut gone = HashSet::new();
        for (trace_id, kept) in &mut self.traces {
            let is_there = |chunk: &Chunk| chunk.content.is_some() || chunk.place.is_some();
            for chunk in &mut kept.chunks {
                if chunk.place.is_some_and(|place| place.segment == segment) {
                    chunk.place = None;
                }
            }
            if !kept.chunks.iter().any(is_there) {
                gone.insert(*trace_id);
            }
        }
        self.tally.traces_dropped += gone.len() as u64;
        self.remove(&gone);
    }

    fn remove(&mut self, gone: &HashSet<u128>) {
        for trace_id in gone {
            let kept = self.traces.remove(trace_id);
            self.memory_bytes -= kept.map_or(0, |kept| kept.memory_bytes());
        }
        self.order.retain(|trace_id| !gone.contains(trace_id));
        self.in_memory.retain(|trace_id| !gone.contains(trace_id));
    }

    fn make_room(&mut self) {
        // Traces come and go all the time once there are as many as may be: that must not take a look at all of them.
        while self.order.len() > self.bounds.traces_max {
            let oldest = self
                .order
                .pop_front()
                .and_then(|trace_id| self.traces.remove(&trace_id));
            self.memory_bytes -= oldest.map_or(0, |kept| kept.memory_bytes());
            self.tally.traces_dropped += 1;
        }
        let is_gone = |trace_id: &u128| !self.traces.contains_key(trace_id);
        while self.in_memory.front().is_some_and(is_gone) {
            self.in_memory.pop_front();
        }
        while self.memory_bytes > self.bounds.memory_bytes_max {
            let Some(trace_id) = self.in_memory.pop_front() else {
                return;
            };
            let Some(kept) = self.traces.get_mut(&trace_id) else {
                continue;
            };
            let has_files = self.spill.is_some();
            for chunk in &mut kept.chunks {
                // What is not in a file yet stays until it is; without files it is lost.
                if chunk.place.is_some() || !has_files {
                    self.memory_bytes -= chunk.content.take().map_or(0, |content| content.len());
                }
            }
            if kept.chunks.iter().any(|chunk| chunk.content.is_some()) {
                self.in_memory.push_front(trace_id);
                return;
            }
            if !has_files {
                self.tally.traces_dropped += 1;
                self.remove(&HashSet::from([trace_id]));
            }
        }
    }

    /// The newest traces that a search means, at most so many.
    pub(crate) fn search(&self, search: &pb::SearchTracesRequest, limit: usize) -> Vec<pb::TraceSummary> {
        let mut found: Vec<&pb::TraceSummary> = self
            .traces
            .values()
            .filter(|kept| kept.summary.matches(search))
            .map(|kept| &kept.summary.told)
            .collect();
        found.sort_unstable_by_key(|told| std::cmp::Reverse(told.start_unix_ns));
        found.into_iter().take(limit).cloned().collect()
    }

    /// All spans of a trace as they came, and how many were not kept; `None` if there is no such trace here.
    pub(crate) fn get(&self, trace_id: u128) -> Option<(Vec<pb::Span>, u32)> {
        let kept = self.traces.get(&trace_id)?;
        let mut spans = Vec::new();
        for chunk in &kept.chunks {
            let content = match (&chunk.content, chunk.place, &self.spill) {
                (Some(content), _, _) => Ok(content.clone()),
                (None, Some(place), Some(spill)) => spill.read(place),
                _ => continue,
            };
            match content.map(pb::Trace::decode) {
                Ok(Ok(trace)) => spans.extend(trace.spans),
                Ok(Err(error)) => tracing::warn!(%error, "a part of a trace is damaged"),
                Err(error) => tracing::warn!(%error, "a part of a trace cannot be read"),
            }
        }
        Some((spans, kept.dropped_spans))
    }

    /// Forgets every trace that an entity has a part in, in memory and in the files; says how many.
    pub(crate) fn purge(&mut self, entity: &str) -> io::Result<usize> {
        self.flush()?;
        let candidates = self.traces.iter().filter(|(_, kept)| kept.summary.may_have(entity));
        let gone: HashSet<u128> = candidates
            .map(|(trace_id, _)| *trace_id)
            .filter(|trace_id| self.has_entity(*trace_id, entity))
            .collect();
        let places = gone
            .iter()
            .filter_map(|id| self.traces.get(id))
            .flat_map(|kept| &kept.chunks);
        let segments: HashSet<u64> = places.filter_map(|chunk| Some(chunk.place?.segment)).collect();
        self.remove(&gone);
        let moved = match &mut self.spill {
            Some(spill) => spill.purge(&segments, &gone)?,
            None => Vec::new(),
        };
        for (trace_id, from, to) in moved {
            let chunks = self.traces.get_mut(&trace_id).map(|kept| &mut kept.chunks);
            for chunk in chunks.into_iter().flatten().filter(|chunk| chunk.place == Some(from)) {
                chunk.place = Some(to);
            }
        }
        Ok(gone.len())
    }

    fn has_entity(&self, trace_id: u128, entity: &str) -> bool {
        let spans = self.get(trace_id).map(|(spans, _)| spans).unwrap_or_default();
        spans.iter().any(|span| {
            let names = ["entity", "to", "saga"];
            names
                .iter()
                .any(|name| span.attributes.get(*name).is_some_and(|key| key == entity))
        })
    }

    /// How much is kept: traces, bytes in memory, bytes in files.
    pub(crate) fn size(&self) -> (usize, usize, u64) {
        (
            self.traces.len(),
            self.memory_bytes,
            self.spill.as_ref().map_or(0, Spill::bytes),
        )
    }

    /// What has happened since the node started.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests;
