//! What a script may expect of effects, timers and state, and outcomes in a line each.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Script, Sent, golden::line_of, same};
use crate::{
    codec,
    entity::{Effect, Entity, Outcome},
};

/// What can come before the next command.
impl<E: Entity> Script<E> {
    /// The state is this one, however it came about. Events given after it are taken into it.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "scripts read better without references")]
    pub fn given_state(mut self, state: E::State) -> Self {
        self.state = super::stored(&state);
        self
    }

    /// The clock stands there, in milliseconds; it never goes back. The next command is decided one millisecond later. Timers
    /// that are due wait for [`Script::wait`] or [`Script::fires`].
    #[must_use]
    pub fn at(mut self, now_ms: u64) -> Self {
        self.set_clock(now_ms);
        self
    }

    /// The entity that was asked, of kind `T`, has accepted: its reply comes back with this token.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "scripts read better without references")]
    pub fn replied<T: Entity>(self, token: E::Token, reply: T::Reply) -> Self {
        self.outcome(token, Outcome::replied::<T>(&reply))
    }

    /// The entity that was asked, of kind `T`, has refused: its rejection comes back with this token.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "scripts read better without references")]
    pub fn refused<T: Entity>(self, token: E::Token, rejection: T::Rejection) -> Self {
        self.outcome(token, Outcome::rejected::<T>(&rejection))
    }

    /// The service that was called has answered.
    ///
    /// # Panics
    /// When the answer has no JSON form.
    #[must_use]
    pub fn answered(self, token: E::Token, answer: &impl Serialize) -> Self {
        let json = serde_json::to_vec(answer).expect("an answer has a JSON form");
        self.outcome(token, Outcome::Replied(json.into()))
    }

    /// Whoever was asked or called has failed for good.
    #[must_use]
    pub fn failed(self, token: E::Token, reason: &str) -> Self {
        self.outcome(token, Outcome::Failed(reason.to_owned()))
    }

    /// The timer of this name fires: now, or, if it is not due yet, when it is due.
    ///
    /// # Panics
    /// When no timer of that name is set.
    #[must_use]
    pub fn fires(mut self, name: &str) -> Self {
        if self.fire(name).is_none() {
            let set: Vec<&str> = self.timers().map(|(name, _)| name).collect();
            panic!("no timer {name:?} is set; there are {set:?}");
        }
        self
    }
}

/// What can be expected of the last command.
impl<E: Entity> Script<E> {
    /// The last command was accepted and wants exactly this done, timers set and cancelled included, in this order.
    #[allow(clippy::return_self_not_must_use, reason = "a check is a statement as well")]
    pub fn then_effects(self, effects: impl IntoIterator<Item = Effect<E>>) -> Self {
        let decided = self.decided();
        let sent = effects
            .into_iter()
            .map(|Effect { request, token }| Sent { request, token });
        let (timers, wanted): (Vec<_>, Vec<_>) = sent.partition(Sent::is_timer);
        let (expected, actual) = (
            lines(wanted.iter().chain(&timers)),
            lines(decided.effects.iter().chain(&decided.timers)),
        );
        let is_same = expected.len() == actual.len()
            && (wanted.iter().chain(&timers))
                .zip(decided.effects.iter().chain(&decided.timers))
                .all(|(wanted, sent)| is_like(wanted, sent));
        assert!(
            is_same,
            "other effects than expected\nexpected:{}\nactual:{}",
            listed(&expected),
            listed(&actual)
        );
        self
    }

    /// The state is now this one.
    #[allow(clippy::return_self_not_must_use, reason = "a check is a statement as well")]
    #[allow(clippy::needless_pass_by_value, reason = "scripts read better without references")]
    pub fn then_state(self, state: E::State) -> Self {
        same("state", &self.state, &state);
        self
    }

    /// Exactly these timers are set, each with the time at which it is due, in milliseconds, by name.
    #[allow(clippy::return_self_not_must_use, reason = "a check is a statement as well")]
    pub fn then_timers<'a>(self, timers: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let mut expected: Vec<(&str, u64)> = timers.into_iter().collect();
        expected.sort_unstable();
        let actual: Vec<(&str, u64)> = self.timers().collect();
        assert!(
            actual == expected,
            "other timers than expected\nexpected: {expected:?}\nactual:   {actual:?}"
        );
        self
    }
}

/// Values of the domain need no equality of their own: what is stored the same is the same.
fn is_like<E: Entity>(one: &Sent<E>, other: &Sent<E>) -> bool {
    let token = |sent: &Sent<E>| sent.token.as_ref().map(codec::encode);
    one.request == other.request && token(one) == token(other)
}

fn lines<'a, E: Entity>(sent: impl Iterator<Item = &'a Sent<E>>) -> Vec<String> {
    sent.map(line_of).collect()
}

fn listed(lines: &[String]) -> String {
    if lines.is_empty() {
        return " none".to_owned();
    }
    lines.iter().fold(String::new(), |mut text, line| {
        write!(text, "\n    {line}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use crate::{Context, Decision, Effect, Entity, Outcome, entity::script::Script};

    /// Asks itself, sets a timer, and counts what comes back.
    struct Echo;

    #[derive(Debug, Clone, Serialize, Deserialize)]
    enum Command {
        Begin,
        Back(String),
    }

    impl Entity for Echo {
        const KIND: &'static str = "echo";
        type State = Vec<String>;
        type Command = Command;
        type Event = String;
        type Reply = ();
        type Rejection = ();
        type Token = u8;

        fn decide(_: &Vec<String>, command: Command, context: &Context) -> Result<Decision<Self>, ()> {
            Ok(match command {
                Command::Begin => Decision::reply(())
                    .effect(Effect::ask::<Echo>("b", &Command::Begin, 1))
                    .effect(Effect::set_timer("late", context.now_ms + 50, 2)),
                Command::Back(what) => Decision::reply(()).event(what).effect(Effect::cancel_timer("late")),
            })
        }

        fn evolve(state: &mut Vec<String>, event: &String) {
            state.push(event.clone());
        }

        fn resume(token: u8, outcome: Outcome) -> Command {
            Command::Back(match outcome {
                Outcome::Fired { .. } => format!("{token} fired"),
                Outcome::Failed(reason) => format!("{token} {reason}"),
                Outcome::Replied(_) => format!("{token} replied"),
                Outcome::Rejected(_) => format!("{token} rejected"),
            })
        }
    }

    fn begun() -> Script<Echo> {
        Script::new("a").at(1_999).when(Command::Begin)
    }

    #[test]
    fn effects_timers_outcomes_and_states_are_expected_in_a_line_each() {
        begun()
            .then_effects([
                Effect::ask::<Echo>("b", &Command::Begin, 1),
                Effect::set_timer("late", 2_050, 2),
            ])
            .then_timers([("late", 2_050)])
            .replied::<Echo>(1, ())
            .then_effects([Effect::cancel_timer("late")])
            .then_timers([])
            .then_state(vec!["1 replied".to_owned()]);
        let refused = begun().refused::<Echo>(1, ()).failed(1, "gone").answered(1, &7);
        let _ = refused.then_state(["1 rejected", "1 gone", "1 replied"].map(str::to_owned).to_vec());
        let fired = begun().given_state(vec!["before".to_owned()]).fires("late");
        let _ = fired.then_state(vec!["before".to_owned(), "2 fired".to_owned()]);
    }

    #[test]
    #[should_panic(expected = "ask echo/b Begin as 1")]
    fn effects_that_differ_are_shown_as_a_golden_script_shows_them() {
        let _ = begun().then_effects([]);
    }

    #[test]
    #[should_panic(expected = "no timer \"early\" is set; there are [\"late\"]")]
    fn a_timer_that_is_not_set_does_not_fire() {
        let _ = begun().fires("early");
    }
}
