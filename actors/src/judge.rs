//! What the answers of the domain's entities mean for the steps of its sagas.

use cluster::{Answer, Entity, Outcome, saga::Verdict};

/// A rejection is a refusal with that reason; what was given up has failed, as `unavailable`. Reasons are a word that machines
/// know, a colon, and the detail.
pub(crate) fn judge<T: Entity, F>(
    outcome: &Outcome,
    unavailable: &str,
    replied: impl FnOnce(T::Reply) -> Verdict<F>,
    rejected: impl FnOnce(T::Rejection) -> String,
) -> Verdict<F> {
    match outcome.answer::<T>() {
        Answer::Replied(reply) => replied(reply),
        Answer::Rejected(rejection) => Verdict::Refused(rejected(rejection)),
        Answer::Failed(reason) => Verdict::Failed(format!("{unavailable}: {reason}")),
    }
}
