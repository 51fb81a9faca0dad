//! Golden scripts: text files beside an entity that read like a trace of it.
//!
//! Lines that start at the left margin are input; indented lines below them are what came of it, and are checked:
//!
//! ```text
//! # A reservation takes from what is on hand.
//! when {"Receive":{"quantity":10}}
//!     event Received {"quantity":10}
//!     reply {"on_hand":10}
//! when {"Reserve":{"order":"o-1","quantity":11}}
//!     rejected OutOfStock {"on_hand":10,"wanted":11}
//! state
//!     {"on_hand":10}
//! ```
//!
//! Input is one of `new ID` (starts over with another entity), `given EVENT`, `when COMMAND`, `state`, `wait MS` (lets time
//! pass, and the timers fire that are due then), and `outcome TOKEN replied|rejected|failed VALUE` for the outcome of an
//! effect that an earlier command wanted. The clock starts at 1000 and moves by one with each command. Values are JSON in the form that serde gives them. `UPDATE_GOLDEN=1` in the environment writes what came out into the files.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Script, Sent};
use crate::{
    codec,
    entity::{Entity, Outcome, decision::EffectRequest},
    schema::versioned,
};

/// Runs every `*.txt` of a folder as a golden script of the entity `E`.
///
/// # Panics
/// When a script does not come out as it is written, or the folder holds none.
pub fn golden<E: Entity>(folder: &str) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot list {folder}: {error}"));
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds no golden scripts (*.txt)");
    for path in paths {
        check::<E>(&path, update);
    }
}

fn check<E: Entity>(path: &Path, update: bool) {
    let shown = path.display();
    let expected = fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {shown}: {error}"));
    let actual = Run::<E>::of(&expected).unwrap_or_else(|problem| panic!("{shown}:{problem}"));
    if update {
        fs::write(path, actual).unwrap_or_else(|error| panic!("cannot write {shown}: {error}"));
        return;
    }
    let (mut written, mut came_out) = (expected.lines(), actual.lines());
    for at in 1.. {
        let pair = (written.next(), came_out.next());
        if pair == (None, None) {
            break;
        }
        let shown_or_end = |line: Option<&str>| line.unwrap_or("(end of file)").to_owned();
        assert!(
            pair.0 == pair.1,
            "{shown}:{at}\n  written:  {}\n  came out: {}\n(UPDATE_GOLDEN=1 writes what came out)",
            shown_or_end(pair.0),
            shown_or_end(pair.1),
        );
    }
}

/// A golden script on its way from input to output.
struct Run<E: Entity> {
    script: Script<E>,
    /// By token: whether an outcome is to be encoded for a service (or for an entity).
    is_call: BTreeMap<String, bool>,
    out: String,
}

impl<E: Entity> Run<E> {
    /// The script's text as it should be; or the line number and what is wrong with the line.
    fn of(text: &str) -> Result<String, String> {
        let mut run = Self {
            script: Script::new("1"),
            is_call: BTreeMap::new(),
            out: String::new(),
        };
        for (at, line) in (1..).zip(text.lines()) {
            if line.starts_with(' ') {
                continue;
            }
            run.out.push_str(line);
            run.out.push('\n');
            run.input(line).map_err(|problem| format!("{at}: {problem}"))?;
        }
        Ok(run.out)
    }

    fn input(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" => Ok(()),
            "new" => {
                self.script = Script::new(rest);
                Ok(())
            }
            "given" => {
                self.script.take(&json(rest)?);
                Ok(())
            }
            "state" => {
                let state = shown(self.script.state());
                self.line(&state.to_string());
                Ok(())
            }
            "when" => {
                self.run(json(rest)?);
                Ok(())
            }
            "wait" => {
                let ms: u64 = rest
                    .parse()
                    .map_err(|_| format!("{rest:?} is no number of milliseconds"))?;
                let until_ms = self.script.context.now_ms + ms;
                while let Some((name, due_ms)) = self.script.due(until_ms) {
                    self.line(&format!("fires {name} of {due_ms}"));
                    self.script.fire(&name);
                    self.show();
                }
                self.script.set_clock(until_ms);
                Ok(())
            }
            "outcome" => {
                let (token, outcome) = self.outcome(rest)?;
                self.run(E::resume(token, outcome));
                Ok(())
            }
            other => Err(format!(
                "{other:?} is no input; use new, given, when, wait, outcome, state or #"
            )),
        }
    }

    fn outcome(&self, text: &str) -> Result<(E::Token, Outcome), String> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let token = values.next().ok_or("a token is missing")?.map_err(|e| e.to_string())?;
        let rest = text[values.byte_offset()..].trim_start();
        let (word, value) = rest.split_once(' ').unwrap_or((rest, "null"));
        let value: Value = json(value)?;
        let is_call = self
            .is_call
            .get(&token.to_string())
            .ok_or("no earlier effect has this token")?;
        let encode = |value: &Value| {
            if *is_call {
                value.to_string().into()
            } else {
                codec::encode(value)
            }
        };
        let outcome = match word {
            "replied" => Outcome::Replied(encode(&value)),
            "rejected" => Outcome::Rejected(encode(&value)),
            "failed" => Outcome::Failed(value.as_str().unwrap_or_default().to_owned()),
            other => return Err(format!("{other:?} is no outcome; use replied, rejected or failed")),
        };
        Ok((serde_json::from_value(token).map_err(|e| e.to_string())?, outcome))
    }

    fn run(&mut self, command: E::Command) {
        self.script.run(command);
        self.show();
    }

    /// What came of the last command.
    fn show(&mut self) {
        let mut lines = Vec::new();
        match &self.script.last {
            Ok(decided) => {
                lines.extend(
                    decided
                        .events
                        .iter()
                        .map(|event| format!("event {}", named(&shown(event)))),
                );
                if let Some(reply) = &decided.reply {
                    lines.push(format!("reply {}", named(&shown(reply))));
                }
                for Sent { request, token } in &decided.effects {
                    let token = token.as_ref().map(|token| shown(token).to_string());
                    lines.push(effect(request, token.as_deref()));
                    if let Some(token) = token {
                        self.is_call
                            .insert(token, matches!(request, EffectRequest::Call { .. }));
                    }
                }
                for Sent { request, token } in &decided.timers {
                    let token = token.as_ref().map(|token| shown(token).to_string());
                    lines.push(effect(request, token.as_deref()));
                }
            }
            Err(rejection) => lines.push(format!("rejected {}", named(&shown(rejection)))),
        }
        for line in lines {
            self.line(&line);
        }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.out, "    {line}").expect("writing to a string cannot fail");
    }
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn shown(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("values of an entity have a JSON form, which people are shown")
}

/// Serde writes an enum as its variant's name, alone or as the only key of an object: the name reads better in front.
fn named(value: &Value) -> String {
    match value {
        Value::String(name) => name.clone(),
        Value::Object(map) if map.len() == 1 => {
            let (name, content) = map.iter().next().expect("the map has one entry");
            // A field's name, unlike a variant's, is in lower case.
            if name.starts_with(char::is_uppercase) {
                format!("{name} {content}")
            } else {
                value.to_string()
            }
        }
        other => other.to_string(),
    }
}

fn effect(request: &EffectRequest, token: Option<&str>) -> String {
    let (target, content) = match request {
        EffectRequest::Command { to, command } => {
            let value = versioned::split(command).ok().map(|(_, value)| value);
            (
                to.to_string(),
                value.and_then(|value| codec::decode::<Value>(value).ok()),
            )
        }
        EffectRequest::Call { service, request } => (service.clone(), serde_json::from_slice(request).ok()),
        EffectRequest::SetTimer { name, due_ms, every_ms } => {
            let every = every_ms.map(|ms| format!(" every {ms}")).unwrap_or_default();
            return format!("timer {name} at {due_ms}{every} as {}", token.unwrap_or_default());
        }
        EffectRequest::CancelTimer { name } => return format!("cancel timer {name}"),
    };
    let content = content.map_or_else(|| "(unreadable)".to_owned(), |value| named(&value));
    match token {
        Some(token) => format!("ask {target} {content} as {token}"),
        None => format!("tell {target} {content}"),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::entity::{Context, Decision, Effect};

    /// Counts, and asks its twin to count too.
    struct Counter;

    #[derive(Debug, Clone, Serialize, Deserialize)]
    enum Command {
        Add { by: u64 },
        TwinSaid(String),
        Remind { every: Option<u64> },
        Forget,
    }

    #[derive(Debug, Clone, Serialize, Deserialize)]
    enum Event {
        Added { by: u64 },
    }

    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Zero;

    impl Entity for Counter {
        const KIND: &'static str = "counter";
        type State = u64;
        type Command = Command;
        type Event = Event;
        type Reply = u64;
        type Rejection = Zero;
        type Token = String;

        fn decide(state: &u64, command: Command, context: &Context) -> Result<Decision<Self>, Zero> {
            match command {
                Command::Add { by: 0 } => Err(Zero),
                Command::Add { by } => Ok(Decision::reply(state + by)
                    .event(Event::Added { by })
                    .effect(Effect::ask::<Self>("twin", &Command::Add { by }, "added".to_owned()))),
                Command::TwinSaid(_) => Ok(Decision::reply(*state)),
                Command::Remind { every: None } => Ok(Decision::reply(*state).effect(Effect::set_timer(
                    "reminder",
                    context.now_ms + 500,
                    "time".to_owned(),
                ))),
                Command::Remind { every: Some(ms) } => Ok(Decision::reply(*state).effect(Effect::repeat_timer(
                    "reminder",
                    context.now_ms + 500,
                    ms,
                    "time".to_owned(),
                ))),
                Command::Forget => Ok(Decision::reply(*state).effect(Effect::cancel_timer("reminder"))),
            }
        }

        fn evolve(state: &mut u64, event: &Event) {
            let Event::Added { by } = event;
            *state += by;
        }

        fn resume(token: String, outcome: Outcome) -> Command {
            Command::TwinSaid(format!("{token}: {:?}", outcome.answer::<Self>().into_reply()))
        }
    }

    impl crate::entity::Answer<Counter> {
        fn into_reply(self) -> Option<u64> {
            match self {
                Self::Replied(reply) => Some(reply),
                Self::Rejected(_) | Self::Failed(_) => None,
            }
        }
    }

    const SCRIPT: &str = "\
# Counts.
new one
given {\"Added\":{\"by\":1}}
when {\"Add\":{\"by\":2}}
    event Added {\"by\":2}
    reply 3
    ask counter/twin Add {\"by\":2} as \"added\"
outcome \"added\" replied 5
    reply 3
when {\"Add\":{\"by\":0}}
    rejected null
state
    3
when {\"Remind\":{\"every\":null}}
    reply 3
    timer reminder at 1504 as \"time\"
wait 400
wait 500
    fires reminder of 1504
    reply 3
when {\"Remind\":{\"every\":200}}
    reply 3
    timer reminder at 2405 every 200 as \"time\"
wait 700
    fires reminder of 2405
    reply 3
    fires reminder of 2605
    reply 3
when \"Forget\"
    reply 3
    cancel timer reminder
wait 10000
";

    #[test]
    fn a_script_comes_out_as_it_is_written() {
        assert_eq!(Run::<Counter>::of(SCRIPT).as_deref(), Ok(SCRIPT));
    }

    #[test]
    fn what_is_missing_is_filled_in() {
        let lines: Vec<_> = SCRIPT.lines().filter(|line| !line.starts_with(' ')).collect();
        let input = lines.join("\n");
        assert_eq!(Run::<Counter>::of(&input).as_deref(), Ok(SCRIPT));
    }

    #[test]
    #[should_panic(expected = "counts.txt:5")]
    fn a_difference_names_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(
            folder.path().join("counts.txt"),
            SCRIPT.replace("    event Added {\"by\":2}", "    event Lost"),
        )
        .expect("a file");
        check::<Counter>(&folder.path().join("counts.txt"), false);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_line() {
        for (script, problem) in [
            ("new a\nthen 3\n", "2: \"then\" is no input"),
            ("when {\"Add\":{}}\n", "1: missing field"),
            ("outcome \"added\" replied 5\n", "1: no earlier effect"),
        ] {
            let said = Run::<Counter>::of(script).expect_err("a problem");
            assert!(said.starts_with(problem), "{said}");
        }
    }
}
