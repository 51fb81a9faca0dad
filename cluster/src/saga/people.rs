//! What a user of the engine may do with sagas beyond what entities can: run one to its end, list them, have one explained, and
//! nudge one.

use std::time::Duration;

use proto::saga::v1 as pb;
use tokio::time::{Instant, sleep};

use super::{Command, Rejection, Saga, StateOf};
use crate::{
    cluster::{Cluster, ReadOptions, Request},
    engine::sagas::SagaQuery,
    entity::EntityKey,
    error::{AskError, Error},
};

/// Between two looks at a saga after one that failed.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

impl Cluster {
    /// Starts a saga and waits until it has ended; gives how it stands then ([`State::phase`](super::State::phase) says how it
    /// ended). One that was started before under this id with the same input is waited for. [`Error::TimedOut`] where the time
    /// of the request is over before: the saga goes on, and the same call waits for it again.
    pub async fn run_saga<S: Saga>(
        &self,
        id: &str,
        input: S::Input,
        request: &Request,
    ) -> Result<StateOf<S>, AskError<Rejection>> {
        let ends = Instant::now() + request.timeout;
        self.ask::<S>(id, &Command::Start(input), request).await?;
        let mut version = 0;
        loop {
            let timeout = ends.saturating_duration_since(Instant::now());
            if timeout.is_zero() {
                let after = request.timeout;
                return Err(AskError::Engine(Error::TimedOut { after }));
            }
            let options = ReadOptions {
                newer_than: Some(version),
                ..ReadOptions::default()
            };
            let request = Request {
                timeout,
                ..request.clone()
            };
            match self.read::<S>(id, options, &request).await {
                Ok(seen) if seen.state.phase.end().is_some() => return Ok(seen.state),
                Ok(seen) => version = seen.version,
                Err(error) if error.is_retryable() => sleep(AGAIN_AFTER.min(timeout)).await,
                Err(error) => return Err(AskError::Engine(error)),
            }
        }
    }

    /// A page of the sagas of all shards that are asked for.
    pub async fn sagas(&self, request: &pb::ListSagasRequest) -> Result<pb::ListSagasResponse, Error> {
        let query = SagaQuery {
            kind: request.kind.clone(),
            state: request.state.clone(),
            older_than_ms: request.older_than_ms,
            limit: request.limit as usize,
            page: request.page.clone(),
        };
        self.engine().sagas(&query).await
    }

    /// The saga that is meant: by kind and id, or by an id that only one saga has. `None` if an id alone is nobody's.
    pub async fn saga_named(&self, text: &str, request: &Request) -> Result<Option<EntityKey>, Error> {
        self.engine().saga_named(text, request).await
    }

    /// One saga, as its own state tells it. `None` if it was never started.
    pub async fn show_saga(&self, key: &EntityKey, request: &Request) -> Result<Option<pb::ShowSagaResponse>, Error> {
        self.engine().show_saga(key, request).await
    }

    /// The same, and what those whom it waits for wait for. `None` if it was never started.
    pub async fn explain_saga(
        &self,
        key: &EntityKey,
        request: &Request,
    ) -> Result<Option<pb::ExplainSagaResponse>, Error> {
        self.engine().explain_saga(key, request).await
    }

    /// Has what waits to be tried again tried now. A rejection says why there is nothing to.
    pub async fn nudge_saga(
        &self,
        key: &EntityKey,
        request: &Request,
    ) -> Result<pb::NudgeSagaResponse, AskError<Rejection>> {
        self.engine().nudge_saga(key, request).await
    }
}
