//! Services of a simulated world: functions from the seed and the request to what comes of a call.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{journal::EffectId, simulation::rng::Rng};

/// What comes of a call to a service.
///
/// A service is asked once for each effect, however often the engine has to repeat the call: it takes the effect's id as the
/// idempotency key, as real ones should. That a call is lost before it arrives, or its answer after, the simulation sees to by
/// itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served<A> {
    /// It was done, and this is the answer.
    Done(A),
    /// It was not done, and will not be: the entity gets [`Outcome::Failed`](crate::Outcome::Failed) with this reason.
    GivenUp(String),
    /// It was done, but nobody here knows: the entity gets [`Outcome::Failed`](crate::Outcome::Failed) with this reason, though
    /// the service did what it was asked.
    DoneButGivenUp(A, String),
}

pub(super) type Raw = dyn Fn(&[u8], &mut Rng) -> Result<Served<Bytes>, String> + Send + Sync;

/// A call that arrived.
pub(super) struct CalledRaw {
    pub(super) service: String,
    pub(super) id: EffectId,
    pub(super) request: Bytes,
    pub(super) served: Served<Bytes>,
    /// How often it arrived.
    pub(super) times: u64,
}

/// A service over bytes, of one over values.
pub(super) fn raw<R: DeserializeOwned, A: Serialize>(
    serve: impl Fn(R, &mut Rng) -> Served<A> + Send + Sync + 'static,
) -> impl Fn(&[u8], &mut Rng) -> Result<Served<Bytes>, String> + Send + Sync {
    move |request, rng| {
        let request = serde_json::from_slice(request)
            .map_err(|error| format!("{} is not what it takes: {error}", String::from_utf8_lossy(request)))?;
        let json = |answer: &A| {
            let json = serde_json::to_vec(answer);
            json.map(Bytes::from)
                .map_err(|error| format!("its answer has no JSON form: {error}"))
        };
        Ok(match serve(request, rng) {
            Served::Done(answer) => Served::Done(json(&answer)?),
            Served::GivenUp(reason) => Served::GivenUp(reason),
            Served::DoneButGivenUp(answer, reason) => Served::DoneButGivenUp(json(&answer)?, reason),
        })
    }
}
