//! The limits that a call can meet, by the names they have in the config file.

use std::{fmt, time::Duration};

/// A limit that a call has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Limit {
    InFlight,
    Share,
    Bytes,
    Waits,
    QueueDelay,
    Deadline,
    Mailbox,
    Tail,
    Outbox,
    Forward,
    EffectRequests,
    Timers,
}

/// A call was not let in: nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overload {
    pub(crate) limit: Limit,
    /// When to come again.
    pub(crate) retry_after: Duration,
}

impl Limit {
    pub(crate) const ALL: [Self; 12] = [
        Self::InFlight,
        Self::Share,
        Self::Bytes,
        Self::Waits,
        Self::QueueDelay,
        Self::Deadline,
        Self::Mailbox,
        Self::Tail,
        Self::Outbox,
        Self::Forward,
        Self::EffectRequests,
        Self::Timers,
    ];
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Its name in configuration, status and errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight_max",
            Self::Share => "share of in_flight_max for one tenant and kind",
            Self::Bytes => "in_flight_bytes_max",
            Self::Waits => "in_flight_max for waiting reads",
            Self::QueueDelay => "queue_delay_max_ms",
            Self::Deadline => "deadline",
            Self::Mailbox => "mailbox_len_max",
            Self::Tail => "tail_bytes_max",
            Self::Outbox => "outbox_len_max",
            Self::Forward => "forward queue",
            Self::EffectRequests => "effect_requests_max",
            Self::Timers => "timers_per_shard_max",
        }
    }

    /// Its name as the label of a metric: one word.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Waits => "waits",
            Self::Forward => "forward_queue",
            other => other.name(),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_counts_in_a_place_of_its_own() {
        for (place, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, place, "{limit}");
        }
    }
}
