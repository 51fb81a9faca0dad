//! What travels with a command beside its content.

use std::sync::Arc;

use tokio::time::Instant;

use super::RequestId;
use crate::{
    journal::{Chain, Origin},
    trace::TraceContext,
};

/// What travels with a command beside its content.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// The idempotency key.
    pub(crate) request: RequestId,
    pub(crate) trace: TraceContext,
    /// Of what the caller sent; 0 where nobody said. Another one under the same request id is refused.
    pub(crate) fingerprint: u64,
    /// Its place in a chain of effects; none where it begins with this.
    pub(crate) chain: Option<Arc<Chain>>,
    /// Where it came from, if it is another entity's effect.
    pub(crate) origin: Option<Arc<Origin>>,
    /// Nobody waits for it any more after this.
    pub(crate) deadline: Option<Instant>,
    /// It comes from a node with another build, which may know fields that this one does not.
    pub(crate) is_foreign: bool,
}

impl Envelope {
    /// For a command that nothing but this caused.
    pub(crate) fn new(request: RequestId, trace: TraceContext) -> Self {
        Self {
            request,
            trace,
            fingerprint: 0,
            chain: None,
            origin: None,
            deadline: None,
            is_foreign: false,
        }
    }
}
