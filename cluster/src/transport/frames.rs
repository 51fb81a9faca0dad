//! How messages are put into frames: by number and by bytes, so that no frame is larger than the other side takes, and no queue
//! of them larger than its bound.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages in one frame.
pub(super) const FRAME_LEN_MAX: usize = 256;
/// A frame that has so many bytes is full. One message alone may have more.
pub(super) const FRAME_FULL_BYTES: usize = 4 << 20;
/// The largest answer of one forwarded call, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Bytes are counted in units of this size where they are credits.
const CREDIT_BYTES: usize = 1024;

/// Takes what goes into the next frame: at least one message, as long as there is one.
pub(super) fn next_frame<T>(waiting: &mut VecDeque<T>, size: impl Fn(&T) -> usize) -> Vec<T> {
    let mut bytes = 0;
    let fits = waiting
        .iter()
        .take(FRAME_LEN_MAX)
        .take_while(|message| {
            let is_first = bytes == 0;
            bytes += size(message);
            is_first || bytes <= FRAME_FULL_BYTES
        })
        .count();
    waiting.drain(..fits).collect()
}

/// Bytes that wait somewhere, against a limit.
pub(super) struct Waiting {
    bytes: AtomicUsize,
    max: usize,
}

impl Waiting {
    pub(super) fn new(max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            max,
        }
    }

    /// Counts a message in, unless there are too many bytes already. What must get through may use all of the room, the rest three
    /// quarters of it.
    pub(super) fn enter(&self, message: &impl Message, must_get_through: bool) -> bool {
        let size = message.encoded_len();
        let max = if must_get_through { self.max } else { self.max / 4 * 3 };
        let enters = self.bytes.fetch_add(size, Ordering::Relaxed) + size <= max;
        if !enters {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        enters
    }

    pub(super) fn leave(&self, message: &impl Message) {
        self.bytes.fetch_sub(message.encoded_len(), Ordering::Relaxed);
    }
}

/// Credits for bytes, for which one waits.
#[derive(Clone)]
pub(super) struct ByteCredits {
    credits: Arc<Semaphore>,
    max: usize,
}

impl ByteCredits {
    pub(super) fn new(max_bytes: usize) -> Self {
        let max = max_bytes / CREDIT_BYTES;
        Self {
            credits: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Waits until so many bytes are free; they are given back when the permit is dropped.
    pub(super) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let count = (bytes / CREDIT_BYTES + 1).min(self.max);
        Arc::clone(&self.credits)
            .acquire_many_owned(u32::try_from(count).unwrap_or(u32::MAX))
            .await
            .expect("the credits are never closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_full_by_number_or_by_bytes_and_never_empty() {
        let mut small: VecDeque<usize> = (0..600).map(|_| 1).collect();
        let frames: Vec<usize> = std::iter::from_fn(|| Some(next_frame(&mut small, |size| *size).len()))
            .take_while(|len| *len > 0)
            .collect();
        assert_eq!(frames, [256, 256, 88]);
        let mut large = VecDeque::from([1 << 20, 1 << 20, 3 << 20, 64 << 20, 5]);
        let frames: Vec<Vec<usize>> = std::iter::from_fn(|| Some(next_frame(&mut large, |size| *size)))
            .take_while(|frame| !frame.is_empty())
            .collect();
        assert_eq!(frames, [vec![1 << 20, 1 << 20], vec![3 << 20], vec![64 << 20], vec![5]]);
    }

    #[test]
    fn what_must_get_through_finds_room_when_the_rest_does_not() {
        let waiting = Waiting::new(4_000);
        let message = proto::cluster::v1::ForwardReply {
            correlation: 0,
            outcome: vec![0; 990].into(),
        };
        assert!((0..3).all(|_| waiting.enter(&message, false)));
        assert!(!waiting.enter(&message, false));
        assert!(waiting.enter(&message, true));
        assert!(!waiting.enter(&message, true));
        waiting.leave(&message);
        assert!(waiting.enter(&message, true));
    }
}
