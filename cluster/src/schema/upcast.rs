//! How stored values of an earlier build become values of this one.

use super::{Part, Stored, WHOLE};

/// Changes a stored value, or says why it cannot.
pub(crate) type Change = fn(&mut Stored) -> Result<(), String>;

/// The step from one version of a stored value to the next. An entity lists its steps in
/// [`Entity::UPCASTS`](crate::Entity::UPCASTS); the version that this build writes follows from them: one more than the last
/// step's.
///
/// ```
/// use cluster::Upcast;
///
/// const UPCASTS: &[Upcast] = &[
///     // Version 1 called it `sum`.
///     Upcast::event("Deposited", 1, |event| event.rename("sum", "amount"))
///         .down(|event| event.rename("amount", "sum")),
///     // Version 1 of `Closed` is called `Ended` now.
///     Upcast::event("Closed", 1, |_| Ok(())).renamed("Ended", 1),
/// ];
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Upcast {
    pub(crate) part: Part,
    pub(crate) from: (&'static str, u32),
    pub(crate) to: (&'static str, u32),
    pub(crate) up: Change,
    pub(crate) down: Option<Change>,
}

impl Upcast {
    const fn new(part: Part, name: &'static str, version: u32, up: Change) -> Self {
        Self {
            part,
            from: (name, version),
            to: (name, version + 1),
            up,
            down: None,
        }
    }

    /// From this version of an event to the next. `name` is that of the variant, as serde writes it; `"*"` where the events
    /// are no enum. What is stored without a version has version 1.
    pub const fn event(name: &'static str, version: u32, up: fn(&mut Stored) -> Result<(), String>) -> Self {
        Self::new(Part::Event, name, version, up)
    }

    /// From this version of the state to the next. It is used only where the state cannot be made from all of the
    /// entity's events.
    pub const fn state(version: u32, up: fn(&mut Stored) -> Result<(), String>) -> Self {
        Self::new(Part::State, WHOLE, version, up)
    }

    /// From this version of a command to the next: commands are under way between nodes of two builds, and in effects.
    pub const fn command(name: &'static str, version: u32, up: fn(&mut Stored) -> Result<(), String>) -> Self {
        Self::new(Part::Command, name, version, up)
    }

    /// From this version of a reply to the next: replies are kept with their requests.
    pub const fn reply(name: &'static str, version: u32, up: fn(&mut Stored) -> Result<(), String>) -> Self {
        Self::new(Part::Reply, name, version, up)
    }

    /// From this version of a rejection to the next.
    pub const fn rejection(name: &'static str, version: u32, up: fn(&mut Stored) -> Result<(), String>) -> Self {
        Self::new(Part::Rejection, name, version, up)
    }

    /// From this version of a token to the next: tokens of effects and timers wait for days.
    pub const fn token(name: &'static str, version: u32, up: fn(&mut Stored) -> Result<(), String>) -> Self {
        Self::new(Part::Token, name, version, up)
    }

    /// The step leads to another variant.
    #[must_use]
    pub const fn renamed(mut self, name: &'static str, version: u32) -> Self {
        self.to = (name, version);
        self
    }

    /// The way back. While a cluster is upgraded node by node, what is written must be readable by those that are not
    /// upgraded yet; with a way back it is written as they know it, without one the command has to wait for them.
    #[must_use]
    pub const fn down(mut self, down: fn(&mut Stored) -> Result<(), String>) -> Self {
        self.down = Some(down);
        self
    }
}

/// The steps of an entity, as they are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps(pub(crate) &'static [Upcast]);

impl Steps {
    /// Those of one part.
    pub(crate) fn of(self, part: Part) -> impl Iterator<Item = &'static Upcast> {
        self.0.iter().filter(move |step| step.part == part)
    }

    /// Whether a part has any.
    pub(crate) fn has(self, part: Part) -> bool {
        self.of(part).next().is_some()
    }

    /// Whether a part is versioned as a whole, and not by its variants.
    pub(crate) fn is_whole(self, part: Part) -> bool {
        part == Part::State || self.of(part).any(|step| step.from.0 == WHOLE)
    }

    /// The version that this build writes, and the last one that it reads.
    pub(crate) fn version(self, part: Part, name: &str) -> u32 {
        let targets = self.of(part).filter(|step| step.to.0 == name).map(|step| step.to.1);
        let retired = self.of(part).filter(|step| step.from.0 == name).map(|step| step.from.1);
        targets.chain(retired).max().unwrap_or(1)
    }

    /// The step that leads on from a version.
    pub(crate) fn next(self, part: Part, name: &str, version: u32) -> Option<&'static Upcast> {
        self.of(part).find(|step| step.from.0 == name && step.from.1 == version)
    }

    /// The step that has led to a version.
    pub(crate) fn last(self, part: Part, name: &str, version: u32) -> Option<&'static Upcast> {
        self.of(part).find(|step| step.to.0 == name && step.to.1 == version)
    }

    /// Where the steps lead from a version.
    pub(crate) fn end(self, part: Part, name: &str, version: u32) -> (String, u32) {
        let (mut name, mut version) = (name.to_owned(), version);
        // `fault` has seen to it that this ends.
        while let Some(step) = self.next(part, &name, version) {
            (name, version) = (step.to.0.to_owned(), step.to.1);
        }
        (name, version)
    }

    /// What is wrong with the steps, if anything is.
    pub(crate) fn fault(self) -> Option<String> {
        for step in self.0 {
            let title = super::title(step.part, step.from.0);
            if step.from.1 == 0 || step.to.1 == 0 {
                return Some(format!("{title}: versions begin with 1"));
            }
            let same = self.of(step.part).filter(|other| other.from == step.from);
            if same.count() > 1 {
                return Some(format!("{title}: two steps lead from version {}", step.from.1));
            }
            if step.part == Part::State && step.to.0 != WHOLE {
                return Some("state: it has no variants, so no step can rename one".to_owned());
            }
            if (step.from.0 == WHOLE) != self.is_whole(step.part) || (step.to.0 == WHOLE) != self.is_whole(step.part) {
                return Some(format!(
                    "{title}: steps name either variants or the whole (\"*\"), not both"
                ));
            }
            let mut at = step.to;
            for _ in 0..=self.0.len() {
                match self.next(step.part, at.0, at.1) {
                    Some(next) => at = next.to,
                    None => break,
                }
            }
            if self.next(step.part, at.0, at.1).is_some() {
                return Some(format!(
                    "{title}: the steps from version {} lead round in a circle",
                    step.from.1
                ));
            }
            if step.to.0 == step.from.0 && step.to.1 <= step.from.1 {
                return Some(format!("{title}: the step from version {} leads back", step.from.1));
            }
            if at.1 != self.version(step.part, at.0) {
                return Some(format!(
                    "{}: no step leads on from version {}, and {} is the last one",
                    super::title(step.part, at.0),
                    at.1,
                    self.version(step.part, at.0)
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Change = |_| Ok(());

    #[test]
    fn versions_follow_from_the_steps() {
        const STEPS: &[Upcast] = &[
            Upcast::event("A", 1, NONE),
            Upcast::event("A", 2, NONE),
            Upcast::event("B", 1, NONE).renamed("A", 3),
            Upcast::event("C", 1, NONE).renamed("D", 1),
        ];
        let steps = Steps(STEPS);
        assert_eq!(steps.fault(), None);
        let version = |name: &str| steps.version(Part::Event, name);
        assert_eq!((version("A"), version("B"), version("D"), version("E")), (3, 1, 1, 1));
        assert_eq!(steps.end(Part::Event, "B", 1), ("A".to_owned(), 3));
        assert_eq!(steps.end(Part::Event, "C", 1), ("D".to_owned(), 1));
        assert_eq!(steps.version(Part::State, WHOLE), 1);
    }

    #[test]
    fn steps_that_cannot_be_say_why() {
        fn fault(steps: &'static [Upcast]) -> String {
            Steps(steps).fault().unwrap_or_default()
        }
        const TWICE: &[Upcast] = &[Upcast::event("A", 1, NONE), Upcast::event("A", 1, NONE)];
        const ROUND: &[Upcast] = &[
            Upcast::event("A", 1, NONE).renamed("B", 1),
            Upcast::event("B", 1, NONE).renamed("A", 1),
        ];
        const GAP: &[Upcast] = &[Upcast::event("A", 1, NONE), Upcast::event("A", 3, NONE)];
        const ZERO: &[Upcast] = &[Upcast::state(0, NONE)];
        const BOTH: &[Upcast] = &[Upcast::reply("*", 1, NONE), Upcast::reply("A", 1, NONE)];
        assert!(fault(TWICE).contains("two steps lead from version 1"));
        assert!(fault(ROUND).contains("circle"));
        assert!(fault(GAP).contains("no step leads on from version 2"), "{}", fault(GAP));
        assert!(fault(ZERO).contains("begin with 1"));
        assert!(fault(BOTH).contains("not both"));
    }
}
