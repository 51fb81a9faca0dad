//! How much there is of everything just now: this node's part, which is that of the shards that it leads. The parts of all nodes
//! together are the whole.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use actors::models::{Levels as Model, levels::Answer};
use cluster::{Cluster, Projection as _};
use opentelemetry::{KeyValue, metrics::Meter};
use parking_lot::RwLock;

/// Looks at all figures from one look at this to the next: the model is told of what is new about once a second.
const LOOKS: u64 = 2;

/// The last look.
pub(super) struct Levels {
    answer: Arc<RwLock<Answer>>,
    looks: AtomicU64,
}

impl Levels {
    pub(super) fn new(meter: &Meter) -> Self {
        let answer = Arc::new(RwLock::new(Answer::default()));
        let shown = Arc::clone(&answer);
        meter
            .u64_observable_gauge("playhouse.orders.active")
            .with_description("Orders whose checkout is under way, or that are being called off.")
            .with_callback(move |observer| observer.observe(shown.read().orders, &[]))
            .build();
        let shown = Arc::clone(&answer);
        meter
            .u64_observable_gauge("playhouse.sagas.active")
            .with_description("Sagas under way, by kind.")
            .with_callback(move |observer| {
                for (kind, level) in &shown.read().sagas {
                    observer.observe(level.active, &[KeyValue::new("kind", kind.clone())]);
                }
            })
            .build();
        let shown = Arc::clone(&answer);
        meter
            .f64_observable_gauge("playhouse.sagas.oldest.age")
            .with_unit("s")
            .with_description("How long ago the oldest saga under way was started; 0 where there is none.")
            .with_callback(move |observer| {
                let now_ms = super::unix_ms();
                for (kind, level) in &shown.read().sagas {
                    let age_ms = level.oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
                    observer.observe(age_ms as f64 / 1000.0, &[KeyValue::new("kind", kind.clone())]);
                }
            })
            .build();
        let shown = Arc::clone(&answer);
        let places = ["on_hand", "reserved", "sold", "written_off"].map(|place| [KeyValue::new("place", place)]);
        meter
            .u64_observable_gauge("playhouse.stock.pieces")
            .with_description("Pieces of all products, by where they are.")
            .with_callback(move |observer| {
                let pieces = shown.read().pieces;
                let counts = [pieces.on_hand, pieces.reserved, pieces.sold, pieces.written_off];
                for (count, place) in counts.into_iter().zip(&places) {
                    observer.observe(count, place);
                }
            })
            .build();
        let shown = Arc::clone(&answer);
        let states = ["in_stock", "out_of_stock"].map(|state| [KeyValue::new("state", state)]);
        meter
            .u64_observable_gauge("playhouse.stock.items")
            .with_description("Products that were ever delivered, by whether anything of them is on hand.")
            .with_callback(move |observer| {
                let items = shown.read().items;
                observer.observe(items.all.saturating_sub(items.empty), &states[0]);
                observer.observe(items.empty, &states[1]);
            })
            .build();
        Self {
            answer,
            looks: AtomicU64::new(0),
        }
    }

    /// Looks, unless it has just done so.
    pub(super) async fn look(&self, cluster: &Cluster) {
        if self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKS) {
            let parts = cluster.led_parts::<Model>(&()).await;
            self.take(Model::merge(parts, &()));
        }
    }

    /// What there is just now.
    pub(super) fn take(&self, answer: Answer) {
        *self.answer.write() = answer;
    }
}
