//! The parent of a shard's activations for one term of leadership: it sends idle ones away and takes note of failed ones.
//! When leadership ends it is stopped, and its children with it.

use std::{sync::Weak, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::replica::Replica;

/// What a supervisor is told.
#[derive(Debug)]
pub(crate) enum SupervisorMessage {
    /// Look for idle activations.
    Sweep,
}

/// A shard's supervisor.
pub(crate) struct Supervisor;

/// What a supervisor begins with.
pub(crate) struct SupervisorArguments {
    pub(crate) replica: Weak<Replica>,
    pub(crate) idle: Duration,
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorArguments;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.send_interval(arguments.idle / 4, || SupervisorMessage::Sweep);
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Sweep => {
                if let Some(replica) = state.replica.upgrade() {
                    replica.passivate_idle(state.idle);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (child, reason) = match event {
            SupervisionEvent::ActorFailed(child, error) => (child, Some(error.to_string())),
            SupervisionEvent::ActorTerminated(child, ..) => (child, None),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        if let Some(replica) = state.replica.upgrade() {
            // The next command brings the entity back from the journal.
            let key = replica.forget_activation(child.get_id());
            if let (Some(key), Some(reason)) = (key, reason) {
                tracing::warn!(entity = %key, reason, "an activation failed");
            }
        }
        Ok(())
    }
}
