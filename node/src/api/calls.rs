//! The calls of clients that are under way, so that a node that stops can let them end.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// Counts calls; a cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Arc<watch::Sender<usize>>);

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// A call that counts until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Calls);

impl Calls {
    /// Counts a call in.
    pub(crate) fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Waits until there are none; says whether that was in time.
    pub(crate) async fn until_none(&self, limit: Duration) -> bool {
        let mut counts = self.0.subscribe();
        // The sender lives as long as this handle.
        timeout(limit, counts.wait_for(|count| *count == 0)).await.is_ok()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_waits_for_the_calls_under_way_and_not_for_ever() {
        let calls = Calls::default();
        assert!(calls.until_none(Duration::from_millis(1)).await, "there are none");
        let call = calls.begin();
        assert!(!calls.until_none(Duration::from_millis(20)).await);
        let ending = async {
            tokio::task::yield_now().await;
            drop(call);
        };
        assert!(tokio::join!(calls.until_none(Duration::from_mins(1)), ending).0);
    }
}
