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
//! Input is one of `new ID` (starts over with another entity), `given EVENT`, `when COMMAND`, `state`, and
//! `outcome TOKEN replied|rejected|failed VALUE` for the outcome of an effect that an earlier command wanted. Values are
//! JSON in the form that serde gives them. `UPDATE_GOLDEN=1` in the environment writes what came out into the files.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Script, Sent};
use crate::{
    codec,
    entity::{Entity, Outcome, decision::EffectRequest},
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
            "outcome" => {
                let (token, outcome) = self.outcome(rest)?;
                self.run(E::resume(token, outcome));
                Ok(())
            }
            other => Err(format!(
                "{other:?} is no input; use new, given, when, outcome, state or #"
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
        let encode = |value: &Value| match is_call {
            true => value.to_string().into(),
            false => codec::encode(value),
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
            let (name, value) = map.iter().next().expect("the map has one entry");
            format!("{name} {value}")
        }
        other => other.to_string(),
    }
}

fn effect(request: &EffectRequest, token: Option<&str>) -> String {
    let (target, content) = match request {
        EffectRequest::Command { to, command } => (to.to_string(), codec::decode::<Value>(command).ok()),
        EffectRequest::Call { service, request } => (service.clone(), serde_json::from_slice(request).ok()),
    };
    let content = content.map_or_else(|| "(unreadable)".to_owned(), |value| named(&value));
    match token {
        Some(token) => format!("ask {target} {content} as {token}"),
        None => format!("tell {target} {content}"),
    }
}
