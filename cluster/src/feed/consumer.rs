//! A member of a consumer group at work: reads the shards that the group gives it, hands out their records, and reports what is
//! done.
//!
//! Of each shard one batch is out at a time; the next one follows when it is done. So what waits for a slow member is bounded, and
//! the records of an entity are never worked on twice at the same time by members that keep their lease.

mod ask;
mod reading;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, MissedTickBehavior, interval},
};

pub(super) use ask::rejected;

use self::{
    ask::{Answer, Asker},
    reading::{Out, Reading},
};
use super::{
    FeedEvent, FeedFilter, FeedPage, FeedRecord, PageMax, Position, Start,
    follow::{FollowError, Follower},
    group::{Assignment, DeadLetter, Rejection},
    subscription::{WAIT, check_batch, page_max},
};
use crate::{engine::Engine, error::Error};

/// How long what is done waits for more, before it is reported.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// A refused record is handed out again after this time, times the number of attempts,
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// and at the latest after this; so is one that cannot be put aside.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Words of a member that may wait for what is being reported.
const SAYS_LEN_MAX: usize = 1_024;
/// Notes beside the batches that may wait for a member.
const NOTES_LEN_MAX: usize = 64;

/// How a group is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// The group's name. It comes about with its first member.
    pub group: String,
    /// The member's name. One that comes back under its name goes on with its shards, and an earlier one of that name is out.
    pub member: String,
    /// Whose events; the same for all members.
    pub filter: FeedFilter,
    /// Where a new group begins.
    pub start: Start,
    /// A record that was refused so often becomes a dead letter; the same for all members.
    pub attempts_max: u32,
    /// A member that is not heard of for so long has lost its shards.
    pub lease: Duration,
    /// So many events are handed out at once at most, from 1 to
    /// [`BATCH_EVENTS_MAX`](super::subscription::BATCH_EVENTS_MAX).
    pub batch_events_max: usize,
}

impl ConsumeOptions {
    /// The usual options: all events from the beginning, five attempts, ten seconds, 256 events at once.
    pub fn new(group: &str, member: &str) -> Self {
        Self {
            group: group.to_owned(),
            member: member.to_owned(),
            filter: FeedFilter::default(),
            start: Start::Beginning,
            attempts_max: 5,
            lease: Duration::from_secs(10),
            batch_events_max: 256,
        }
    }
}

/// What a member is handed.
#[derive(Debug, Clone, PartialEq)]
pub enum Handed {
    /// Events of one shard, to be done in order and then acknowledged.
    Batch(Batch),
    /// The shards that the member reads from now on. Batches of others are not to be done any more.
    Shards(Vec<u32>),
}

/// Events of one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Their shard.
    pub shard: u32,
    /// At least one; those that were decided together are never parted.
    pub events: Vec<FeedEvent>,
    /// Acknowledge this once all of them are done.
    pub position: Position,
    /// How often the first record of it has been handed out, as far as it was refused; from 1.
    pub attempt: u32,
    /// A dead letter that is tried once more; it is settled by its number.
    pub dead_letter: Option<u64>,
}

/// What a member says.
enum Says {
    Done(u32, Position),
    Refused(u32, Position, String),
    Settled(u64, Option<String>),
}

/// A member of a group. It leaves when both halves are dropped, or when the first one is.
#[derive(Debug)]
pub struct Consumer {
    handed: mpsc::Receiver<Result<Handed, Error>>,
    says: Acknowledger,
}

/// The half of a [`Consumer`] that says what is done. What is said of a batch that is not out any more has no effect.
#[derive(Debug, Clone)]
pub struct Acknowledger(mpsc::Sender<Says>);

impl Consumer {
    /// What comes next; `None` after an error, or when the node stops. An error says why this is no member any more.
    pub async fn next(&mut self) -> Option<Result<Handed, Error>> {
        self.handed.recv().await
    }

    /// Says what is done; may be used beside [`Consumer::next`].
    pub fn acknowledger(&self) -> Acknowledger {
        self.says.clone()
    }
}

impl Acknowledger {
    /// Everything of a shard up to this position is done.
    pub async fn done(&self, shard: u32, position: Position) {
        // Where nobody listens any more, the records are handed to somebody else.
        let _ = self.0.send(Says::Done(shard, position)).await;
    }

    /// The record at this position cannot be done; everything before it is. It comes again, until it becomes a dead letter.
    pub async fn refuse(&self, shard: u32, position: Position, reason: &str) {
        let _ = self.0.send(Says::Refused(shard, position, reason.to_owned())).await;
    }

    /// A dead letter that was tried once more is done.
    pub async fn dead_done(&self, id: u64) {
        let _ = self.0.send(Says::Settled(id, None)).await;
    }

    /// It was refused once more.
    pub async fn dead_refused(&self, id: u64, reason: &str) {
        let _ = self.0.send(Says::Settled(id, Some(reason.to_owned()))).await;
    }
}

impl Engine {
    /// Joins a group.
    pub(crate) async fn consume(self: &Arc<Self>, options: ConsumeOptions) -> Result<Consumer, Error> {
        let permit = self.subscription_permit()?;
        check_batch(options.batch_events_max)?;
        let of_entity = options.filter.entity.iter().map(|entity| &*entity.kind);
        let mut kinds = options.filter.kinds.iter().map(|kind| &**kind).chain(of_entity);
        if let Some(kind) = kinds.find(|kind| super::filter::is_own(kind)) {
            return Err(Error::Invalid {
                field: "kinds".to_owned(),
                reason: format!("names {kind:?}, one of the engine's own: a group would read what it writes itself"),
            });
        }
        let shards = self.subscribed_shards(&options.filter, &[])?;
        let asker = Asker::new(self, &options)?;
        let assignment = asker.join(&options, &shards).await?;
        let (sender, handed) = mpsc::channel(shards.len() + NOTES_LEN_MAX);
        let (says, heard) = mpsc::channel(SAYS_LEN_MAX);
        let max = PageMax {
            records: options.batch_events_max,
            ..page_max(shards.len())
        };
        let filter = Arc::new(options.filter.clone());
        let member = Member {
            engine: Arc::clone(self),
            asker,
            filter,
            max,
            batch_events_max: options.batch_events_max,
            renew: options.lease / 3,
            readings: BTreeMap::new(),
            jobs: FuturesUnordered::new(),
            dead_out: None,
            sender,
            reported: Instant::now(),
        };
        tokio::spawn(member.run(assignment, heard, permit));
        let says = Acknowledger(says);
        Ok(Consumer { handed, says })
    }
}

/// What goes on beside.
enum Job {
    /// A page of a shard, under this epoch.
    Page(u64, Follower, Result<FeedPage, FollowError>),
    /// The record of a dead letter.
    Dead(u64, DeadLetter, Option<FeedRecord>),
}

struct Member {
    engine: Arc<Engine>,
    asker: Asker,
    filter: Arc<FeedFilter>,
    max: PageMax,
    batch_events_max: usize,
    renew: Duration,
    readings: BTreeMap<u32, Reading>,
    jobs: FuturesUnordered<BoxFuture<'static, Job>>,
    /// The dead letter that is tried once more.
    dead_out: Option<u64>,
    sender: mpsc::Sender<Result<Handed, Error>>,
    /// When the group heard of this member last.
    reported: Instant,
}

/// The member is none any more.
struct Ended;

impl Member {
    async fn run(mut self, assignment: Assignment, mut heard: mpsc::Receiver<Says>, permit: OwnedSemaphorePermit) {
        let engine = Arc::clone(&self.engine);
        let mut ticks = interval(REPORT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outcome = self.take(assignment).await;
        while outcome.is_ok() {
            outcome = tokio::select! {
                Some(job) = self.jobs.next(), if !self.jobs.is_empty() => self.finished(job).await,
                says = heard.recv() => match says {
                    Some(says) => self.said(says).await,
                    None => break,
                },
                _ = ticks.tick() => self.look().await,
                () = self.sender.closed() => break,
                () = engine.until_stopping() => break,
            };
        }
        if outcome.is_ok() {
            // What was said before the end counts.
            while let Ok(says) = heard.try_recv() {
                if let Says::Done(shard, position) = says
                    && let Some(reading) = self.readings.get_mut(&shard)
                {
                    reading.done(position);
                }
            }
            let done = self
                .readings
                .iter()
                .filter_map(|(shard, reading)| Some((*shard, reading.unreported()?)));
            self.asker.leave(done.collect()).await;
        }
        drop(permit);
    }

    async fn send(&mut self, handed: Handed) -> Result<(), Ended> {
        self.sender.send(Ok(handed)).await.map_err(|_| Ended)
    }

    async fn fail(&mut self, error: Error) -> Ended {
        // Whoever waits for it may have gone.
        let _ = self.sender.send(Err(error)).await;
        Ended
    }

    /// Takes note of what the group says of this member.
    async fn take(&mut self, assignment: Assignment) -> Result<(), Ended> {
        let before: Vec<u32> = self.readings.keys().copied().collect();
        self.readings.retain(|shard, reading| {
            assignment
                .partitions
                .get(shard)
                .is_some_and(|now| now.epoch == reading.epoch)
        });
        let mut is_other = before.len() != self.readings.len();
        for (shard, assigned) in assignment.partitions {
            if let Some(reading) = self.readings.get_mut(&shard) {
                if reading.is_recalled && !assigned.is_recalled {
                    // It goes on with it after all.
                    reading.pause(Duration::ZERO);
                }
                reading.is_recalled = assigned.is_recalled;
                reading.refused = assigned.refused;
                continue;
            }
            is_other = true;
            let at = (assigned.committed, 0);
            let follower = Follower::new(Arc::clone(&self.engine), shard, Arc::clone(&self.filter), self.max, at);
            let mut reading = Reading::new(&assigned);
            if assigned.is_recalled {
                reading.follower = Some(follower);
            } else {
                self.fetch(assigned.epoch, follower);
            }
            self.readings.insert(shard, reading);
        }
        if is_other {
            let shards = self.readings.keys().copied().collect();
            self.send(Handed::Shards(shards)).await?;
        }
        let retried = assignment.retried.into_iter().next();
        if let (None, Some((id, letter))) = (self.dead_out, retried) {
            self.dead_out = Some(id);
            let (engine, any) = (
                Arc::clone(&self.engine),
                Arc::new(FeedFilter::of_entity(letter.record.entity.clone())),
            );
            self.jobs.push(
                async move {
                    let max = PageMax { records: 1, bytes: 1 };
                    let at = (letter.record.position.before(), 0);
                    let mut follower = Follower::new(engine, letter.shard, any, max, at);
                    let page = follower.next(Duration::ZERO).await.unwrap_or_default();
                    let position = letter.record.position;
                    let is_it = |record: &FeedRecord| record.position == position;
                    Job::Dead(id, letter, page.records.into_iter().next().filter(is_it))
                }
                .boxed(),
            );
        }
        Ok(())
    }

    fn fetch(&mut self, epoch: u64, mut follower: Follower) {
        self.jobs.push(
            async move {
                let page = follower.next(WAIT).await;
                Job::Page(epoch, follower, page)
            }
            .boxed(),
        );
    }

    async fn finished(&mut self, job: Job) -> Result<(), Ended> {
        match job {
            Job::Page(epoch, follower, page) => {
                let reading = self
                    .readings
                    .get_mut(&follower.shard)
                    .filter(|reading| reading.epoch == epoch);
                let Some(reading) = reading else { return Ok(()) };
                let page = match page {
                    Ok(page) => page,
                    Err(error) => {
                        let reason = error.to_string();
                        let error = Error::Failed {
                            entity: format!("the group's shard {}", follower.shard),
                            reason,
                        };
                        return Err(self.fail(error).await);
                    }
                };
                let shard = follower.shard;
                reading.waiting.extend(page.records);
                reading.follower = Some(follower);
                self.go_on(shard).await
            }
            Job::Dead(id, letter, Some(record)) => {
                let batch = Batch {
                    shard: letter.shard,
                    events: FeedEvent::of(self.engine.registry(), letter.shard, &record).collect(),
                    position: record.position,
                    attempt: letter.attempts + 1,
                    dead_letter: Some(id),
                };
                self.send(Handed::Batch(batch)).await
            }
            Job::Dead(..) => {
                // It cannot be read just now; the group says it again.
                self.dead_out = None;
                Ok(())
            }
        }
    }

    /// Hands out the next batch of a shard, or reads on.
    async fn go_on(&mut self, shard: u32) -> Result<(), Ended> {
        let max = self.batch_events_max;
        let Some(reading) = self.readings.get_mut(&shard) else {
            return Ok(());
        };
        match reading.next_batch(max, Instant::now()) {
            Out::Batch(records, attempt) => {
                let position = records.last().map_or(Position::BEGINNING, |record| record.position);
                let registry = self.engine.registry();
                let events = records.iter().flat_map(|record| FeedEvent::of(registry, shard, record));
                let batch = Batch {
                    shard,
                    events: events.collect(),
                    position,
                    attempt,
                    dead_letter: None,
                };
                self.send(Handed::Batch(batch)).await
            }
            Out::Read(follower) => {
                let epoch = reading.epoch;
                self.fetch(epoch, follower);
                Ok(())
            }
            Out::Nothing => Ok(()),
        }
    }

    async fn said(&mut self, says: Says) -> Result<(), Ended> {
        match says {
            Says::Done(shard, position) => {
                let is_whole = self
                    .readings
                    .get_mut(&shard)
                    .is_some_and(|reading| reading.done(position));
                if is_whole { self.go_on(shard).await } else { Ok(()) }
            }
            Says::Refused(shard, position, reason) => self.refused(shard, position, reason).await,
            Says::Settled(id, refused) => {
                if self.dead_out != Some(id) {
                    return Ok(());
                }
                self.dead_out = None;
                let answer = self.asker.settle(id, refused).await;
                self.answered(answer).await
            }
        }
    }

    async fn refused(&mut self, shard: u32, position: Position, reason: String) -> Result<(), Ended> {
        let Some(reading) = self.readings.get_mut(&shard) else {
            return Ok(());
        };
        let Some(record) = reading.refuse(position) else {
            return Ok(());
        };
        let attempts = reading
            .refused
            .filter(|(at, _)| *at == position)
            .map_or(0, |(_, attempts)| attempts);
        reading.pause((RETRY_PAUSE * (attempts + 1)).min(RETRY_PAUSE_MAX));
        let epoch = reading.epoch;
        match self.asker.refuse(shard, epoch, record, reason).await {
            Ok(Answer::Told(assignment)) => {
                if assignment.dead.is_some()
                    && let Some(reading) = self.readings.get_mut(&shard)
                {
                    reading.put_aside(position);
                }
                self.answered(Ok(Answer::Told(assignment))).await
            }
            Ok(Answer::No(full @ Rejection::DeadLettersFull(_))) => {
                tracing::warn!(shard, %position, reason = %full, "a refused record cannot be put aside");
                if let Some(reading) = self.readings.get_mut(&shard) {
                    reading.pause(RETRY_PAUSE_MAX);
                }
                Ok(())
            }
            // The next report tells who reads it now.
            Ok(Answer::No(Rejection::Fenced(_))) => Ok(()),
            other => self.answered(other).await,
        }
    }

    /// Reports what there is to report, and hands out what was waiting for its time.
    async fn look(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let is_due = now.duration_since(self.reported) >= self.renew;
        let has_news = self.readings.values().any(Reading::has_news);
        if is_due || has_news {
            let given_up: Vec<u32> = (self.readings.iter())
                .filter(|(_, reading)| reading.can_be_given_up())
                .map(|(shard, _)| *shard)
                .collect();
            let done: BTreeMap<_, _> = (self.readings.iter())
                .filter_map(|(shard, reading)| Some((*shard, reading.unreported()?)))
                .collect();
            let answer = self.asker.report(done.clone(), given_up).await;
            if matches!(answer, Ok(Answer::Told(_))) {
                for (shard, done) in done {
                    if let Some(reading) = self.readings.get_mut(&shard) {
                        reading.reported(done.position);
                    }
                }
            }
            self.answered(answer).await?;
        }
        let ready: Vec<u32> = (self.readings.iter())
            .filter(|(_, reading)| reading.is_resuming(now))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in ready {
            self.go_on(shard).await?;
        }
        Ok(())
    }

    async fn answered(&mut self, answer: Result<Answer, Error>) -> Result<(), Ended> {
        match answer {
            Ok(Answer::Told(assignment)) => {
                self.reported = Instant::now();
                self.take(assignment).await
            }
            Ok(Answer::No(Rejection::NoDeadLetter(_))) => Ok(()),
            Ok(Answer::No(rejection)) => Err(self.fail(self.asker.rejected(&rejection)).await),
            // What was not said is said again.
            Err(error) if error.is_retryable() => Ok(()),
            Err(error) => Err(self.fail(error).await),
        }
    }
}
