//! What the clients of a trial did and saw, as it is judged later.

/// One write or read of an item. Times in microseconds since the trial began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    /// Which item; its shard stands with the item.
    pub(super) item: usize,
    pub(super) what: What,
    pub(super) start_us: u64,
    /// When it was answered; for one that was not, until when it was waited for.
    pub(super) end_us: u64,
    /// What the answer said.
    pub(super) seen: Option<Seen>,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// So many pieces were received, under this request id.
    Write {
        request: String,
        quantity: u64,
    },
    Read,
}

/// An item as an answer shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) version: u64,
    /// All that ever came in.
    pub(super) received: u64,
}

/// An item that the clients write and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) sku: String,
    pub(super) shard: u32,
    /// What it began with, as its first write.
    pub(super) stocked: u64,
}

/// An order that was placed, and what was said of it; nothing while no answer was definite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlacedOrder {
    pub(super) id: String,
    pub(super) told: Option<Told>,
}

/// How an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Pending,
    Confirmed,
    Refused,
    /// Somebody has called it off; not the clients of a trial.
    Other,
}

/// Everything that was done.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) items: Vec<Item>,
    pub(super) operations: Vec<Operation>,
    pub(super) orders: Vec<PlacedOrder>,
    /// Definite refusals of what should never be refused: the request, and what was said.
    pub(super) refused: Vec<(String, String)>,
    /// Writes that had no definite answer and were repeated under their ids once everything was healed.
    pub(super) repeated: usize,
    /// When the clients ended, in microseconds since the trial began; what ended later was repeated.
    pub(super) worked_us: u64,
}

/// What the cluster says in the end of an item: its events' versions and request ids, and all that ever came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) events: Vec<(u64, String)>,
    pub(super) received: u64,
}
