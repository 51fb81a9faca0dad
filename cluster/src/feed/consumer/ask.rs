//! What a member says to its group.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    codec,
    engine::Engine,
    entity::{EntityKey, RequestId, envelope::Envelope},
    error::Error,
    feed::{
        consumer::ConsumeOptions,
        group::{Assignment, Command, Done, Group, RecordRef, Rejection, Terms},
    },
    trace::TraceContext,
};

/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(5);
/// A member that ends does not wait longer than this to say so.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// Asks one group on behalf of one member.
pub(super) struct Asker {
    engine: Weak<Engine>,
    group: EntityKey,
    member: String,
    session: u64,
}

/// What the group answers.
pub(super) enum Answer {
    Told(Assignment),
    No(Rejection),
}

impl Engine {
    /// Gives a command to a group, whatever clients have under way: it is the engine's own.
    pub(crate) async fn ask_group(
        self: &Arc<Self>,
        group: &EntityKey,
        command: &Command,
        within: Duration,
    ) -> Result<Result<Assignment, Rejection>, Error> {
        let request = RequestId::new(&format!("group-{:032x}", rand::random::<u128>())).expect("a short id");
        let envelope = Envelope::new(request, TraceContext::default());
        let reply = self.ask_effect(group, codec::encode(command), envelope, within).await?;
        let unreadable = |error: codec::DecodeError| Error::Failed {
            entity: group.to_string(),
            reason: format!("its answer cannot be read by this build: {error}"),
        };
        Ok(match reply {
            Ok(reply) => Ok(codec::decode(&reply).map_err(unreadable)?),
            Err(rejection) => Err(codec::decode(&rejection).map_err(unreadable)?),
        })
    }
}

/// A group's rejection as an error.
pub(crate) fn rejected(group: &EntityKey, rejection: &Rejection) -> Error {
    Error::Invalid {
        field: format!("group {}:", group.id),
        reason: rejection.to_string(),
    }
}

impl Asker {
    pub(super) fn new(engine: &Arc<Engine>, options: &ConsumeOptions) -> Result<Self, Error> {
        Ok(Self {
            engine: Arc::downgrade(engine),
            group: Group::key(&options.group)?,
            member: options.member.clone(),
            session: rand::random(),
        })
    }

    async fn ask(&self, command: Command, within: Duration) -> Result<Answer, Error> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::Unavailable {
            reason: "the node is stopping".to_owned(),
            retry_after: LEAVE_MAX,
        })?;
        Ok(match engine.ask_group(&self.group, &command, within).await? {
            Ok(assignment) => Answer::Told(assignment),
            Err(rejection) => Answer::No(rejection),
        })
    }

    /// Joins, and creates the group if there is none.
    pub(super) async fn join(&self, options: &ConsumeOptions, shards: &[u32]) -> Result<Assignment, Error> {
        let mut begin = None;
        loop {
            let is_first = begin.is_none();
            let command = Command::Join {
                member: self.member.clone(),
                session: self.session,
                lease_ms: u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX),
                terms: Terms {
                    filter: options.filter.clone(),
                    attempts_max: options.attempts_max,
                    begin: begin.take(),
                },
            };
            match self.ask(command, ASK_MAX).await? {
                Answer::Told(assignment) => return Ok(assignment),
                Answer::No(Rejection::NoGroup) if is_first => {
                    let engine = self.engine.upgrade().expect("whoever joins holds it");
                    let places = engine.places(&options.start, shards).await?;
                    let positions = places.iter().map(|place| place.position);
                    begin = Some(shards.iter().copied().zip(positions).collect());
                }
                Answer::No(rejection) => return Err(self.rejected(&rejection)),
            }
        }
    }

    pub(super) async fn report(&self, done: BTreeMap<u32, Done>, given_up: Vec<u32>) -> Result<Answer, Error> {
        let (member, session) = (self.member.clone(), self.session);
        let command = Command::Report {
            member,
            session,
            done,
            given_up,
        };
        self.ask(command, ASK_MAX).await
    }

    pub(super) async fn refuse(
        &self,
        shard: u32,
        epoch: u64,
        record: RecordRef,
        reason: String,
    ) -> Result<Answer, Error> {
        let (member, session) = (self.member.clone(), self.session);
        let command = Command::Refuse {
            member,
            session,
            shard,
            epoch,
            record,
            reason,
        };
        self.ask(command, ASK_MAX).await
    }

    pub(super) async fn settle(&self, id: u64, refused: Option<String>) -> Result<Answer, Error> {
        let (member, session) = (self.member.clone(), self.session);
        let command = Command::Settle {
            member,
            session,
            id,
            refused,
        };
        self.ask(command, ASK_MAX).await
    }

    pub(super) async fn leave(&self, done: BTreeMap<u32, Done>) {
        let (member, session) = (self.member.clone(), self.session);
        let command = Command::Leave { member, session, done };
        if let Err(error) = self.ask(command, LEAVE_MAX).await {
            // Its lease runs out by itself.
            tracing::debug!(%error, "a member has left its group without a word");
        }
    }

    pub(super) fn rejected(&self, rejection: &Rejection) -> Error {
        rejected(&self.group, rejection)
    }
}
