//! Which shards answer: a linearizable read of each, again and again, as long as somebody watches.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actors::product::Product;
use cluster::{Cluster, Entity as _, EntityKey, ReadOptions, Request, RequestId};
use futures::{Stream, StreamExt as _, stream};
use proto::chaos::v1 as pb;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tonic::Status;

use super::super::{request::Edge, status::Fault};

/// Who may watch at one time at a node; each one's reads are a load.
const WATCHERS_MAX: usize = 4;
/// Shards that can be watched.
const SHARDS_MAX: u32 = 128;
/// Between two reads of a shard.
const READ_PAUSE: Duration = Duration::from_millis(20);
/// How long a read may take before it is tried again.
const READ_MAX: Duration = Duration::from_secs(1);
/// A shorter time without an answer is no interruption.
const OUTAGE_MIN: Duration = Duration::from_millis(100);
/// Between two things that a watcher is told.
const TELL_INTERVAL: Duration = Duration::from_millis(250);
/// Ends of outages that wait to be told.
const ENDED_LEN_MAX: usize = 1_024;

/// Reads need no id of their own.
static READ: LazyLock<RequestId> = LazyLock::new(|| RequestId::new("probe").expect("it is letters"));

static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// One of [`WATCHERS_MAX`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = WATCHERS.fetch_update(Ordering::AcqRel, Ordering::Acquire, |watchers| {
            (watchers < WATCHERS_MAX).then_some(watchers + 1)
        });
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a watcher is told.
pub(super) type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchShardsResponse, Status>> + Send>>;

/// Begins to read every shard; the stream's end ends it.
pub(super) fn watch(edge: &Edge) -> Result<WatchStream, Fault> {
    let shards = edge.cluster.shards();
    if shards > SHARDS_MAX {
        return Err(Fault::Refused {
            reason: "TOO_MANY_SHARDS".into(),
            subject: "cluster".to_owned(),
            message: format!("there are {shards} shards; {SHARDS_MAX} can be watched"),
        });
    }
    let Some(place) = Place::take() else {
        return Err(Fault::Refused {
            reason: "TOO_MANY_WATCHERS".into(),
            subject: "node".to_owned(),
            message: format!(
                "{WATCHERS_MAX} watch the shards from this node already; close another page, or ask another node"
            ),
        });
    };
    let (ended, ends) = mpsc::channel(ENDED_LEN_MAX);
    let mut probes = JoinSet::new();
    let mut silent = BTreeMap::new();
    for (shard, id) in ids(&edge.cluster, shards) {
        let (since, silent_since) = watch::channel(None);
        silent.insert(shard, silent_since);
        probes.spawn(probe(edge.cluster.clone(), shard, id, since, ended.clone()));
    }
    let mut tick = interval(TELL_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = Watching {
        ends,
        silent,
        tick,
        _probes: probes,
        _place: place,
    };
    Ok(stream::unfold(watching, |mut watching| async move {
        watching.tick.tick().await;
        Some((Ok(watching.tell()), watching))
    })
    .boxed())
}

/// An entity of each shard. It need not be there: a read of nothing takes the same way.
fn ids(cluster: &Cluster, shards: u32) -> BTreeMap<u32, String> {
    let mut ids = BTreeMap::new();
    for number in 0_u32.. {
        if ids.len() as u32 == shards {
            break;
        }
        let id = format!("probe-{number}");
        let key = EntityKey::new(Product::KIND, &id).expect("letters, a digit and a sign make an id");
        ids.entry(cluster.shard_of(&key)).or_insert(id);
    }
    ids
}

struct Watching {
    ends: mpsc::Receiver<pb::Outage>,
    silent: BTreeMap<u32, watch::Receiver<Option<(Instant, u64)>>>,
    tick: tokio::time::Interval,
    _probes: JoinSet<()>,
    _place: Place,
}

impl Watching {
    fn tell(&mut self) -> pb::WatchShardsResponse {
        let mut outages = Vec::new();
        while let Ok(ended) = self.ends.try_recv() {
            outages.push(ended);
        }
        for (shard, silent) in &self.silent {
            let since = *silent.borrow();
            if let Some((since, since_unix_ms)) = since.filter(|(since, _)| since.elapsed() >= OUTAGE_MIN) {
                outages.push(pb::Outage {
                    shard: *shard,
                    from_unix_ms: since_unix_ms,
                    lasted_ms: since.elapsed().as_millis() as u64,
                    is_over: false,
                });
            }
        }
        pb::WatchShardsResponse {
            now_unix_ms: unix_ms(),
            outages,
        }
    }
}

/// Reads one shard until it is aborted. An outage begins with the last answer.
async fn probe(
    cluster: Cluster,
    shard: u32,
    id: String,
    since: watch::Sender<Option<(Instant, u64)>>,
    ended: mpsc::Sender<pb::Outage>,
) {
    let mut answered = (Instant::now(), unix_ms());
    loop {
        let asked = Instant::now();
        since.send_replace(Some(answered));
        let request = Request::new(READ.clone(), READ_MAX);
        let is_there = cluster
            .read::<Product>(&id, ReadOptions::default(), &request)
            .await
            .is_ok();
        if is_there {
            let lasted = answered.0.elapsed();
            if lasted >= OUTAGE_MIN {
                let outage = pb::Outage {
                    shard,
                    from_unix_ms: answered.1,
                    lasted_ms: lasted.as_millis() as u64,
                    is_over: true,
                };
                // Nobody has listened for a long time: it is a figure for people, and the next ones are told again.
                let _ = ended.try_send(outage);
            }
            answered = (Instant::now(), unix_ms());
            since.send_replace(None);
        }
        sleep(READ_PAUSE.saturating_sub(asked.elapsed())).await;
    }
}

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}
