//! An author's test: what is stored, compared with the committed schema.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    compare::{Weight, compare},
    described::{Described, parted, sorted},
    example::example,
    title,
    versioned::{self, Head, MARK},
};
use crate::{
    codec,
    entity::{Registry, kind::Kind},
};

/// What came of a check; nothing in it says that all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is incompatible: each names the kind, the event (or other part) and the field.
    pub incompatible: Vec<String>,
    /// What is compatible and not yet committed.
    pub fresh: Vec<String>,
}

impl Report {
    /// Whether the committed schema is that of the code.
    pub fn is_ok(&self) -> bool {
        self.incompatible.is_empty() && self.fresh.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.incompatible {
            writeln!(f, "incompatible: {finding}")?;
        }
        for finding in &self.fresh {
            writeln!(f, "not committed: {finding}")?;
        }
        Ok(())
    }
}

/// Compares what the kinds of a registry store with the schema that is committed in a folder, one file for each kind.
///
/// What is compatible (a new variant, a new field that may be missing) is written into the files when the environment has
/// `UPDATE_SCHEMA`. What is incompatible never is: it needs a new version with an [`Upcast`](super::Upcast); then
/// `UPDATE_SCHEMA` commits an example of the old version, which has to pass through the upcast from then on.
///
/// ```no_run
/// # let registry = cluster::Registry::new();
/// cluster::schema::check(&registry, "schema");
/// ```
///
/// # Panics
/// When the code and the committed schema differ: with all differences, by kind, event and field.
pub fn check(registry: &Registry, folder: impl AsRef<Path>) {
    let folder = folder.as_ref();
    let is_update = env::var_os("UPDATE_SCHEMA").is_some();
    let report = check_in(registry, folder, is_update);
    assert!(
        report.incompatible.is_empty(),
        "what is stored is incompatible with {}\n{report}Either take the change back, or give the new form a version of its \
         own by an upcast, then run this test with UPDATE_SCHEMA=1.",
        folder.display()
    );
    assert!(
        report.fresh.is_empty() || is_update,
        "what is stored has changed, compatibly, and {} does not know it\n{report}Run this test with UPDATE_SCHEMA=1 and \
         commit what it writes.",
        folder.display()
    );
}

/// The same as a report; `is_update` writes what is compatible into the folder.
pub fn check_in(registry: &Registry, folder: &Path, is_update: bool) -> Report {
    let mut report = Report::default();
    for name in registry.names() {
        let kind = registry.get(name).expect("it is one of its own names");
        Check::new(name, &**kind, folder).run(is_update, &mut report);
    }
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut gone: Vec<_> = files
        .filter_map(|file| file.file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .filter(|name| registry.get(name).is_none())
        .collect();
    gone.sort_unstable();
    report
        .incompatible
        .extend(gone.into_iter().map(|name| {
            format!("{name}: the kind is not registered any more; what is stored of it could not be read")
        }));
    report
}

/// One kind's committed schema.
struct Check<'a> {
    name: &'a str,
    kind: &'a dyn Kind,
    path: PathBuf,
}

/// What stands in a file.
struct Committed {
    described: Described,
    /// Examples of older versions: `event Deposited 1`.
    examples: Map<String, Value>,
}

impl<'a> Check<'a> {
    fn new(name: &'a str, kind: &'a dyn Kind, folder: &Path) -> Self {
        Self {
            name,
            kind,
            path: folder.join(format!("{name}.json")),
        }
    }

    fn run(&self, is_update: bool, report: &mut Report) {
        let name = self.name;
        let now = self.kind.described();
        if !now.is_declared {
            report.incompatible.push(format!(
                "{name}: its types are not declared; derive JsonSchema for them and add \
                 `fn schema() -> Schema {{ Schema::of::<Self>() }}` to its `impl Entity`"
            ));
            return;
        }
        let before = match self.read() {
            Ok(before) => before,
            Err(reason) => {
                report.incompatible.push(format!("{}: {reason}", self.path.display()));
                return;
            }
        };
        let found = report.incompatible.len();
        let examples = if let Some(before) = &before {
            self.compare(before, report)
        } else {
            report.fresh.push(format!("{name}: it is new"));
            Map::new()
        };
        for (key, example) in &examples {
            if let Err(reason) = self.try_example(key, example) {
                report.incompatible.push(format!(
                    "{key} of {name}: the committed example of that version cannot be read any more: {reason}. If its \
                     texts are not such as the code wrote, put a real value in its place in {}",
                    self.path.display()
                ));
            }
        }
        if report.incompatible.len() > found {
            return;
        }
        let text = self.text(&examples);
        if fs::read_to_string(&self.path).is_ok_and(|before| before == text) {
            return;
        }
        if is_update {
            self.write(&text, report);
        } else if before.is_some_and(|before| before.described == *now) && report.fresh.is_empty() {
            report.fresh.push(format!("{name}: its file is written otherwise"));
        }
    }

    /// What differs from the committed schema, and the examples that are to be kept.
    fn compare(&self, before: &Committed, report: &mut Report) -> Map<String, Value> {
        let now = self.kind.described();
        let name = self.name;
        let mut examples = before.examples.clone();
        for ((part, variant), entry) in &before.described.entries {
            let what = title(*part, variant);
            let known = now.reads(*part, variant);
            if known == 0 {
                report.incompatible.push(format!(
                    "{what} of {name} is gone: what is stored of it could not be read. Keep it, or upcast it to what takes \
                     its place (`.renamed`)"
                ));
                continue;
            }
            if known < entry.version {
                report.incompatible.push(format!(
                    "{what} of {name} was version {} and is version {known} now: versions only grow",
                    entry.version
                ));
                continue;
            }
            if let Some(same) = now.entry(*part, variant).filter(|now| now.version == entry.version) {
                let findings = compare(before.described.side(&entry.shape), now.side(&same.shape));
                for finding in findings {
                    let text = format!("{what} of {name}: {}", finding.say());
                    match finding.weight {
                        Weight::Fine => report.fresh.push(text),
                        Weight::Loses | Weight::Breaks => report.incompatible.push(text),
                    }
                }
            } else {
                // What was written before goes through an upcast now: an example of it has to pass.
                let key = format!("{} {variant} {}", part.name(), entry.version);
                if !examples.contains_key(&key) {
                    let example = example(variant, entry, &before.described.types);
                    examples.insert(key, example);
                    report.fresh.push(format!(
                        "{what} of {name}: version {} is upcast from now on",
                        entry.version
                    ));
                }
            }
        }
        for ((part, variant), entry) in &now.entries {
            if before.described.entry(*part, variant).is_none() {
                report.fresh.push(format!(
                    "{} of {name} is new, in version {}",
                    title(*part, variant),
                    entry.version
                ));
            }
        }
        sorted(examples)
    }

    /// Whether an example of an earlier version is still read, and whether the way back leads to what is read again.
    fn try_example(&self, key: &str, example: &Value) -> Result<(), String> {
        let (rest, version) = key.rsplit_once(' ').ok_or("its name has no version")?;
        let (part, variant) = parted(rest).ok_or("its name is no part, variant and version")?;
        let version: u32 = version.parse().map_err(|_| "its version is no number")?;
        let head = Head {
            version,
            fingerprint: None,
        };
        let stored = versioned::join(head, &codec::encode(example));
        let steps = self.kind.steps();
        let read = |bytes: &[u8]| self.kind.unknown_fields(part, bytes).map_err(|error| error.to_string());
        let unknown = read(&stored)?;
        if let Some(field) = unknown.first() {
            return Err(format!("field {field} is lost: nothing reads it"));
        }
        let upcasted = versioned::upcast(steps, part, &stored)?;
        let (name, last) = steps.end(part, variant, version);
        let current = versioned::join(
            Head {
                version: last,
                fingerprint: None,
            },
            upcasted.bytes(),
        );
        let mut at = (name.as_str(), last);
        while at != (variant, version) {
            match steps.last(part, at.0, at.1) {
                Some(step) if step.down.is_some() => at = step.from,
                _ => return Ok(()), // There is no way back, or it leads elsewhere.
            }
        }
        let back = versioned::downcast(steps, part, &current, &|name| {
            if name == variant { version } else { 0 }
        })
        .map_err(|what| format!("the way back fails: {what}"))?;
        debug_assert!(version == 1 || back.first() == Some(&MARK), "it says its version");
        read(&back)
            .map(drop)
            .map_err(|error| format!("what the way back makes of it cannot be read: {error}"))
    }

    fn read(&self) -> Result<Option<Committed>, String> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let described = Described::of_json(&value)?;
        let examples = value.get("examples").and_then(Value::as_object).cloned();
        Ok(Some(Committed {
            described,
            examples: examples.unwrap_or_default(),
        }))
    }

    fn text(&self, examples: &Map<String, Value>) -> String {
        let mut value = self.kind.described().to_json();
        if let (Value::Object(object), false) = (&mut value, examples.is_empty()) {
            object.insert("examples".to_owned(), json!(examples));
            *object = sorted(std::mem::take(object));
        }
        let mut text = serde_json::to_string_pretty(&value).expect("plain data has a JSON form");
        text.push('\n');
        text
    }

    fn write(&self, text: &str, report: &mut Report) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if let Err(error) = fs::create_dir_all(folder).and_then(|()| fs::write(&self.path, text)) {
            report
                .incompatible
                .push(format!("{} cannot be written: {error}", self.path.display()));
        }
    }
}
