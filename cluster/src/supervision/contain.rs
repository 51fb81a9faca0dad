//! Runs an entity's own code so that its panic ends there: caught with its message, its place and its backtrace, and
//! without a line on standard error. Panics anywhere else are reported as ever.

use std::{
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind},
    sync::Once,
};

use crate::{codec::DecodeError, journal::quarantine::Stage};

/// Bytes of a failure's text that are kept.
pub(crate) const REASON_BYTES_MAX: usize = 1 << 10;
/// Bytes of a backtrace that are kept.
pub(crate) const BACKTRACE_BYTES_MAX: usize = 8 << 10;

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panic {
    pub(crate) text: String,
    /// File, line and column.
    pub(crate) place: String,
    backtrace: Option<Backtrace>,
}

/// An entity's own code failed.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) stage: Stage,
    pub(crate) reason: String,
    /// Faults at one place are alike: that of the panic, or what could not be read.
    pub(crate) place: String,
    panic: Option<Box<Panic>>,
}

impl Fault {
    /// What the engine does not take from an entity's code.
    pub(crate) fn refused(stage: Stage, error: &dyn std::error::Error) -> Self {
        let reason = bounded(&error.to_string(), REASON_BYTES_MAX);
        Self {
            stage,
            place: reason.clone(),
            reason,
            panic: None,
        }
    }

    /// Something of an entity that this build has no code for.
    pub(crate) fn unknown_kind(kind: &str) -> Self {
        let reason = format!("this build knows no kind {kind:?}");
        Self {
            stage: Stage::Revive,
            place: reason.clone(),
            reason,
            panic: None,
        }
    }

    /// Whether code has failed, and not only something could not be read.
    pub(crate) fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// The panic's frames; empty for what could not be read. Slow, see [`Panic::frames`].
    pub(crate) fn frames(&self) -> String {
        self.panic.as_ref().map(|panic| panic.frames()).unwrap_or_default()
    }
}

/// Runs a part of an entity's code; its panic, and what it cannot read, come back as a value.
pub(crate) fn run<T>(stage: Stage, work: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, Fault> {
    match contain(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let what = match stage {
                Stage::Revive => "its stored form cannot be read",
                Stage::Decide => "it does not understand the command",
                Stage::Resume => "it does not understand the outcome of its own effect",
            };
            let reason = bounded(&format!("{what}: {error}"), REASON_BYTES_MAX);
            Err(Fault {
                stage,
                place: reason.clone(),
                reason,
                panic: None,
            })
        }
        Err(panic) => Err(Fault {
            stage,
            reason: bounded(&format!("its code panicked: {}", panic.text), REASON_BYTES_MAX),
            place: panic.place.clone(),
            panic: Some(Box::new(panic)),
        }),
    }
}

thread_local! {
    /// How many contained calls this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static CAUGHT: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Leaves a contained call however it ends.
struct Inside;

impl Inside {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Runs `work`; a panic of it comes back as a value. The caller answers for what it may have left half done.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    install();
    let result = {
        let _inside = Inside::enter();
        catch_unwind(AssertUnwindSafe(work))
    };
    result.map_err(|payload| {
        CAUGHT.take().unwrap_or_else(|| Panic {
            text: text_of(&*payload),
            place: String::new(),
            backtrace: None,
        })
    })
}

/// Puts our hook before the one that is there, once in the life of the process.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A thread that ends may have lost its own values already; then this is none of ours.
            if DEPTH.try_with(Cell::get).unwrap_or_default() == 0 {
                before(info);
            } else {
                catch(info);
            }
        }));
    });
}

fn catch(info: &PanicHookInfo<'_>) {
    let panic = Panic {
        text: bounded(&text_of(info.payload()), REASON_BYTES_MAX),
        place: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace: Some(Backtrace::force_capture()),
    };
    CAUGHT.set(Some(panic));
}

impl Panic {
    /// The frames between the panic and where it was contained, as text. Looks up names, which takes milliseconds: not for
    /// a thread that others wait for.
    pub(crate) fn frames(&self) -> String {
        let Some(backtrace) = &self.backtrace else {
            return String::new();
        };
        let text = backtrace.to_string();
        let lines: Vec<&str> = text.lines().collect();
        let is_machinery = |line: &&str| {
            [
                "core::panicking::",
                "begin_unwind",
                "begin_panic",
                "panic_any",
                "panic_fmt",
            ]
            .iter()
            .any(|name| line.contains(name))
        };
        // A frame is a line with its name and often a second one with its place.
        let first = lines.iter().rposition(is_machinery).map_or(0, |at| at + 1);
        let first = first
            + usize::from(
                lines
                    .get(first)
                    .is_some_and(|line| line.trim_start().starts_with("at ")),
            );
        let last = lines[first..]
            .iter()
            .position(|line| line.contains("supervision::contain::contain"))
            .map_or(lines.len(), |at| first + at);
        bounded(&lines[first..last].join("\n"), BACKTRACE_BYTES_MAX)
    }
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn falls_over(n: u64) -> u64 {
        assert!(n != 3, "three is too many");
        n
    }

    #[test]
    fn a_contained_panic_comes_with_its_text_place_and_frames() {
        assert_eq!(contain(|| falls_over(2)).ok(), Some(2));
        let panic = contain(|| falls_over(3)).expect_err("it panics");
        assert_eq!(panic.text, "three is too many");
        assert!(panic.place.contains("contain.rs"), "{}", panic.place);
        let frames = panic.frames();
        assert!(frames.contains("falls_over"), "{frames}");
        assert!(frames.len() <= BACKTRACE_BYTES_MAX);
    }

    #[test]
    fn one_inside_another_is_caught_by_the_inner() {
        let outer: Result<(), Panic> = contain(|| {
            let inner = contain::<()>(|| panic!("inner")).expect_err("it panics");
            assert_eq!(inner.text, "inner");
            panic!("outer")
        });
        assert_eq!(outer.expect_err("it panics").text, "outer");
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded("aé", 2), "a");
        let panic = contain::<()>(|| panic!("{}", "é".repeat(REASON_BYTES_MAX))).expect_err("it panics");
        assert_eq!(panic.text.len(), REASON_BYTES_MAX);
    }
}
