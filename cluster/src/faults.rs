//! Faults that a node does to itself, so that it can be seen how a cluster bears them: links that are cut or slow, a device
//! that is full, slow or fails, a clock that is wrong. Only where [`crate::Config::chaos`] allows it.
//!
//! Here stands what is to be wrong and until when. Who is to be hurt asks: connections to peers
//! (`cluster/src/transport/shaped.rs`), the log's files (`cluster/src/store/device.rs`), the state store, the node's clock. While nothing is
//! wrong each of them looks at one flag and goes on.
//!
//! Every fault ends by itself, so that whoever set it may die without leaving a broken cluster. A restart ends all of them.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::config::NodeId;

/// Faults that may be set at one time.
pub const FAULTS_MAX: usize = 256;
/// The longest time after which a fault ends by itself.
pub const LASTS_MAX: Duration = Duration::from_mins(10);
/// The longest delay of a link, or of a sync.
pub const DELAY_MAX: Duration = Duration::from_secs(10);
/// The most that the clock may be wrong.
pub const CLOCK_OFFSET_MAX: Duration = Duration::from_hours(24);

/// Which way of a link is meant, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What this node sends.
    Out,
    /// What this node receives.
    In,
    /// Both.
    Both,
}

/// Something that is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing gets through on the connections that this node opens to a peer. Those that the peer opens are cut at the peer.
    Cut {
        /// The peer.
        peer: NodeId,
        /// Which way.
        direction: Direction,
    },
    /// What this node sends on them comes late.
    SlowLink {
        /// The peer.
        peer: NodeId,
        /// By so much, each time.
        delay: Duration,
        /// Of a hundred pieces, so many are lost at first: they come [`LOST_FOR`] later, as a retransmission does, and what is
        /// behind them waits.
        loss_percent: u32,
    },
    /// Each sync of the log takes so much longer.
    SlowSync {
        /// How much.
        delay: Duration,
    },
    /// Nothing more can be written to the device.
    FullDisk,
    /// The device does not take what it was given: each sync fails.
    FailedSync,
    /// The time of day is wrong by so much. What measures how long something takes is right.
    Clock {
        /// In milliseconds; negative for a clock that is behind.
        offset_ms: i64,
    },
}

/// How long a piece that was lost is on its way.
pub const LOST_FOR: Duration = Duration::from_millis(200);

impl Fault {
    /// What is wrong with it, if it cannot be.
    fn mistake(&self) -> Option<(&'static str, String)> {
        let too_long = |delay: &Duration| {
            (*delay > DELAY_MAX).then(|| ("delay_ms", format!("is {delay:?}; at most {DELAY_MAX:?} are allowed")))
        };
        match self {
            Self::SlowLink {
                delay, loss_percent, ..
            } => too_long(delay).or_else(|| {
                (*loss_percent > 100).then(|| ("loss_percent", format!("is {loss_percent}; it goes from 0 to 100")))
            }),
            Self::SlowSync { delay } => too_long(delay),
            Self::Clock { offset_ms } => (u128::from(offset_ms.unsigned_abs()) > CLOCK_OFFSET_MAX.as_millis())
                .then(|| ("offset_ms", format!("is {offset_ms}; at most a day is allowed"))),
            Self::Cut { .. } | Self::FullDisk | Self::FailedSync => None,
        }
    }

    /// Whether the one takes the place of the other.
    fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Cut { peer, direction },
                Self::Cut {
                    peer: other,
                    direction: way,
                },
            ) => peer == other && direction == way,
            (Self::SlowLink { peer, .. }, Self::SlowLink { peer: other, .. }) => peer == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// How a link to a peer is just now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) cut_out: bool,
    pub(crate) cut_in: bool,
    pub(crate) delay: Duration,
    pub(crate) loss_percent: u32,
}

impl LinkState {
    /// Whether no new connection comes about.
    pub(crate) fn is_cut(self) -> bool {
        self.cut_out || self.cut_in
    }

    /// Whether what is sent comes late.
    pub(crate) fn is_slow(self) -> bool {
        !self.delay.is_zero() || self.loss_percent > 0
    }
}

/// All that is wrong with a node just now.
#[derive(Debug, Default)]
pub struct Faults {
    /// Whether anything is. The one thing that is looked at while nothing is.
    any: AtomicBool,
    standing: Mutex<Vec<(Fault, Instant)>>,
}

impl Faults {
    /// Sets a fault, which ends by itself after this time. One of the same kind (and peer) is replaced.
    ///
    /// # Errors
    /// The field that is wrong, and what is wrong with it.
    pub fn set(&self, fault: Fault, lasts: Duration) -> Result<(), (&'static str, String)> {
        if lasts.is_zero() || lasts > LASTS_MAX {
            let reason = format!("is {lasts:?}; it goes from 1 ms to {LASTS_MAX:?}");
            return Err(("lasts_ms", reason));
        }
        if let Some(mistake) = fault.mistake() {
            return Err(mistake);
        }
        let mut standing = self.standing.lock();
        let now = Instant::now();
        standing.retain(|(other, until)| *until > now && !fault.is_same_as(other));
        if standing.len() >= FAULTS_MAX {
            return Err(("faults", format!("{FAULTS_MAX} are set already; clear them first")));
        }
        tracing::warn!(?fault, ?lasts, "a fault was asked for");
        standing.push((fault, now + lasts));
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends all of them. Says how many there were.
    pub fn clear(&self) -> usize {
        let mut standing = self.standing.lock();
        let now = Instant::now();
        let count = standing.iter().filter(|(_, until)| *until > now).count();
        standing.clear();
        self.any.store(false, Ordering::Release);
        if count > 0 {
            tracing::warn!(count, "faults were cleared");
        }
        count
    }

    /// What is wrong, and for how long still.
    pub fn standing(&self) -> Vec<(Fault, Duration)> {
        let now = Instant::now();
        let standing = self.standing.lock();
        let left = |until: &Instant| until.saturating_duration_since(now);
        let all = standing.iter().map(|(fault, until)| (fault.clone(), left(until)));
        all.filter(|(_, left)| !left.is_zero()).collect()
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// How the link to a peer is.
    pub(crate) fn link(&self, node: NodeId) -> LinkState {
        let mut state = LinkState::default();
        self.each(|fault| match fault {
            Fault::Cut { peer, direction } if *peer == node => {
                state.cut_out |= *direction != Direction::In;
                state.cut_in |= *direction != Direction::Out;
            }
            Fault::SlowLink {
                peer,
                delay,
                loss_percent,
            } if *peer == node => {
                state.delay = *delay;
                state.loss_percent = *loss_percent;
            }
            _ => {}
        });
        state
    }

    /// To be asked before something is written to the device.
    pub(crate) fn before_write(&self) -> io::Result<()> {
        let mut is_full = false;
        self.each(|fault| is_full |= *fault == Fault::FullDisk);
        if is_full {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Ok(())
    }

    /// To be asked before something is synced; takes as long as the device would.
    pub(crate) fn before_sync(&self) -> io::Result<()> {
        let (mut fails, mut longest) = (false, Duration::ZERO);
        self.each(|fault| match fault {
            Fault::FailedSync => fails = true,
            Fault::SlowSync { delay } => longest = *delay,
            _ => {}
        });
        if !longest.is_zero() {
            std::thread::sleep(longest);
        }
        if fails {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    /// By how much the time of day is wrong, in milliseconds.
    pub(crate) fn clock_offset_ms(&self) -> i64 {
        let mut offset = 0;
        self.each(|fault| {
            if let Fault::Clock { offset_ms } = fault {
                offset = *offset_ms;
            }
        });
        offset
    }

    fn each(&self, mut see: impl FnMut(&Fault)) {
        if self.is_quiet() {
            return;
        }
        let mut standing = self.standing.lock();
        let now = Instant::now();
        standing.retain(|(_, until)| *until > now);
        if standing.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        standing.iter().for_each(|(fault, _)| see(fault));
    }
}

/// "No space left on device", the same number on all Unixes.
const ENOSPC: i32 = 28;
/// "Input/output error", likewise.
const EIO: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn nothing_is_wrong_until_it_is_asked_for_and_after_it_was_cleared() {
        let faults = Faults::default();
        assert!(faults.is_quiet() && faults.before_write().is_ok() && faults.before_sync().is_ok());
        faults.set(Fault::FullDisk, LONG).expect("set");
        faults.set(Fault::FailedSync, LONG).expect("set");
        let full = faults.before_write().expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(faults.before_sync().is_err());
        assert_eq!(faults.standing().len(), 2);
        assert_eq!(faults.clear(), 2);
        assert!(faults.is_quiet() && faults.before_write().is_ok() && faults.before_sync().is_ok());
    }

    #[test]
    fn a_fault_ends_by_itself() {
        let faults = Faults::default();
        faults.set(Fault::FullDisk, Duration::from_millis(1)).expect("set");
        std::thread::sleep(Duration::from_millis(5));
        assert!(faults.before_write().is_ok());
        assert!(faults.is_quiet() && faults.standing().is_empty());
    }

    #[test]
    fn links_are_cut_each_way_for_each_peer() {
        let faults = Faults::default();
        let cut = |peer, direction| Fault::Cut { peer, direction };
        faults.set(cut(2, Direction::Out), LONG).expect("set");
        faults.set(cut(3, Direction::Both), LONG).expect("set");
        let (two, three, four) = (faults.link(2), faults.link(3), faults.link(4));
        assert!(two.cut_out && !two.cut_in && three.cut_out && three.cut_in && !four.is_cut());
        faults.set(cut(2, Direction::In), LONG).expect("set");
        assert!(faults.link(2).cut_in && faults.link(2).cut_out, "both stand");
    }

    #[test]
    fn one_of_a_kind_is_replaced() {
        let faults = Faults::default();
        for offset_ms in [5_000, -7_000] {
            faults.set(Fault::Clock { offset_ms }, LONG).expect("set");
        }
        assert_eq!(faults.standing().len(), 1);
        assert_eq!(faults.clock_offset_ms(), -7_000);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        let faults = Faults::default();
        let field = |fault, lasts| faults.set(fault, lasts).expect_err("cannot be").0;
        assert_eq!(field(Fault::FullDisk, Duration::ZERO), "lasts_ms");
        assert_eq!(field(Fault::FullDisk, LASTS_MAX * 2), "lasts_ms");
        let delay = DELAY_MAX * 2;
        assert_eq!(field(Fault::SlowSync { delay }, LONG), "delay_ms");
        let slow = Fault::SlowLink {
            peer: 1,
            delay: Duration::ZERO,
            loss_percent: 101,
        };
        assert_eq!(field(slow, LONG), "loss_percent");
        assert_eq!(field(Fault::Clock { offset_ms: i64::MIN }, LONG), "offset_ms");
        assert!(faults.is_quiet());
    }
}
