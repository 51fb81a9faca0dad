//! The kinds of faults: their names on the command line, and one of them as it is done.

use std::fmt;

use clap::ValueEnum;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL, and a start a while later.
    Kill,
    /// SIGSTOP and SIGCONT: the node keeps its connections and says nothing.
    Pause,
    /// A node is cut off from all others in both directions or in one; or two nodes from each other, while a third reaches both.
    Partition,
    /// All that goes between a node and the others comes late, and some of it is lost at first.
    SlowLink,
    /// Each sync of a node's log takes long.
    SlowDisk,
    /// A node's device is full: it ends, and is started again when there is room.
    FullDisk,
    /// A node's device fails to sync: it ends, and is started again.
    Fsync,
    /// A node is killed and everything that it kept is deleted.
    Wipe,
    /// A node's time of day jumps.
    Clock,
    /// The payment provider is down, or fails half of its calls.
    Provider,
}

impl Kind {
    /// Whether no node that is well loses its majority by it: then another fault may go with it.
    pub(super) fn is_mild(self) -> bool {
        matches!(self, Self::SlowLink | Self::SlowDisk | Self::Clock | Self::Provider)
    }

    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::SlowLink => "slow-link",
            Self::SlowDisk => "slow-disk",
            Self::FullDisk => "full-disk",
            Self::Fsync => "fsync",
            Self::Wipe => "wipe",
            Self::Clock => "clock",
            Self::Provider => "provider",
        }
    }
}

/// One fault with all that was drawn for it. Nodes by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Kill {
        node: u32,
    },
    Pause {
        node: u32,
    },
    Isolate {
        node: u32,
    },
    Mute {
        node: u32,
    },
    Deafen {
        node: u32,
    },
    Bridge {
        one: u32,
        other: u32,
    },
    SlowLink {
        node: u32,
        delay_ms: u64,
        loss_percent: u32,
    },
    SlowDisk {
        node: u32,
        delay_ms: u64,
    },
    FullDisk {
        node: u32,
    },
    Fsync {
        node: u32,
    },
    Wipe {
        node: u32,
    },
    Clock {
        node: u32,
        offset_ms: i64,
    },
    ProviderDown,
    ProviderFails {
        percent: u32,
    },
}

impl Act {
    /// The node that ends by it.
    pub(super) fn ends(&self) -> Option<u32> {
        match self {
            Self::Kill { node } | Self::FullDisk { node } | Self::Fsync { node } | Self::Wipe { node } => Some(*node),
            _ => None,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { node } => write!(f, "node {node} is killed"),
            Self::Pause { node } => write!(f, "node {node} stands still"),
            Self::Isolate { node } => write!(f, "node {node} is cut off"),
            Self::Mute { node } => write!(f, "nothing that node {node} sends arrives"),
            Self::Deafen { node } => write!(f, "nothing that is sent to node {node} arrives"),
            Self::Bridge { one, other } => write!(f, "nodes {one} and {other} do not reach each other"),
            Self::SlowLink {
                node,
                delay_ms,
                loss_percent,
            } => write!(
                f,
                "the links of node {node} take {delay_ms} ms and lose {loss_percent} %"
            ),
            Self::SlowDisk { node, delay_ms } => write!(f, "node {node} syncs {delay_ms} ms longer"),
            Self::FullDisk { node } => write!(f, "the disk of node {node} is full"),
            Self::Fsync { node } => write!(f, "the disk of node {node} fails to sync"),
            Self::Wipe { node } => write!(f, "node {node} loses its folder"),
            Self::Clock { node, offset_ms } => write!(f, "the clock of node {node} is wrong by {offset_ms} ms"),
            Self::ProviderDown => write!(f, "the payment provider is down"),
            Self::ProviderFails { percent } => write!(f, "the payment provider fails {percent} % of its calls"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for kind in Kind::value_variants() {
            assert_eq!(Kind::from_str(kind.name(), false), Ok(*kind));
        }
    }
}
