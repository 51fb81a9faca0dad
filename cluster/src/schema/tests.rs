//! Versions, upcasts and the committed schema, with small entities that change from build to build.

use std::{fs, path::Path};

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Part, Report, Schema, Upcast,
    card::{Card, raised},
    check_in,
    restrain::Restraint,
    versioned,
};
use crate::{
    JsonSchema, codec,
    entity::{Context, Decision, Entity, EntityKey, NoToken, Outcome, Registry},
};

/// An account of some build: its types are given, its behaviour is to add what an event says.
macro_rules! build {
    ($name:ident, $upcasts:expr, $state:item $event:item $added:expr) => {
        mod $name {
            use super::*;

            #[derive(Debug)]
            pub(super) struct Account;

            #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
            $state

            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
            $event

            impl Entity for Account {
                const KIND: &'static str = "account";
                const UPCASTS: &'static [Upcast] = $upcasts;
                type State = State;
                type Command = Event;
                type Event = Event;
                type Reply = u64;
                type Rejection = String;
                type Token = NoToken;

                fn schema() -> Schema {
                    Schema::of::<Self>()
                }

                fn decide(_: &State, command: Event, _: &Context) -> Result<Decision<Self>, String> {
                    Ok(Decision::reply(1).event(command))
                }

                fn evolve(state: &mut State, event: &Event) {
                    let add: fn(&mut State, &Event) = $added;
                    add(state, event);
                }

                fn resume(token: NoToken, _: Outcome) -> Event {
                    match token {}
                }
            }

            pub(super) fn registry() -> Registry {
                Registry::new().with::<Account>()
            }
        }
    };
}

build! { first, &[],
    pub(super) struct State { pub(super) balance: u64 }
    pub(super) enum Event { Deposited { sum: u64 }, Closed }
    |state, event| if let Event::Deposited { sum } = event { state.balance += sum }
}
build! { noted, &[],
    pub(super) struct State { pub(super) balance: u64, #[serde(default)] pub(super) notes: Vec<String> }
    pub(super) enum Event { Deposited { sum: u64, #[serde(default)] note: Option<String> }, Closed }
    |state, event| if let Event::Deposited { sum, note } = event {
        state.balance += sum;
        state.notes.extend(note.clone());
    }
}
build! { lossy, &[],
    pub(super) struct State { pub(super) balance: u64 }
    pub(super) enum Event { Deposited {}, Closed }
    |_, _| {}
}
build! { renamed, &[
        Upcast::event("Deposited", 1, |event| event.rename("sum", "amount"))
            .down(|event| event.rename("amount", "sum")),
        Upcast::event("Closed", 1, |_| Ok(())).renamed("Ended", 1).down(|_| Ok(())),
    ],
    pub(super) struct State { pub(super) balance: u64 }
    pub(super) enum Event { Deposited { amount: u64 }, Ended }
    |state, event| if let Event::Deposited { amount } = event { state.balance += amount }
}
build! { one_way, &[Upcast::event("Deposited", 1, |event| event.rename("sum", "amount"))],
    pub(super) struct State { pub(super) balance: u64 }
    pub(super) enum Event { Deposited { amount: u64 }, Closed }
    |state, event| if let Event::Deposited { amount } = event { state.balance += amount }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn context() -> Context {
    Context {
        key: EntityKey::new("account", "ann").expect("a key"),
        version: 0,
        now_ms: 1,
    }
}

/// What is stored must stay readable: version 1 stands as it always has, later ones behind a mark.
#[test]
fn golden_bytes_of_versioned_values() {
    let old = first::Event::Deposited { sum: 5 };
    let old = versioned::encode::<first::Account>(Part::Event, &old);
    assert_eq!(hex(&old), "81a94465706f736974656481a373756d05");
    let new = renamed::Event::Deposited { amount: 5 };
    let new = versioned::encode::<renamed::Account>(Part::Event, &new);
    assert_eq!(hex(&new), "c10281a94465706f736974656481a6616d6f756e7405");
    let read = |bytes: &[u8]| versioned::decode::<renamed::Account, renamed::Event>(Part::Event, bytes);
    assert_eq!(read(&old).expect("upcast"), renamed::Event::Deposited { amount: 5 });
    assert_eq!(read(&new).expect("as it is"), renamed::Event::Deposited { amount: 5 });
    let closed = versioned::encode::<first::Account>(Part::Event, &first::Event::Closed);
    assert_eq!(hex(&closed), "a6436c6f736564");
    assert_eq!(read(&closed).expect("renamed"), renamed::Event::Ended);
    let head = versioned::Head {
        version: 300,
        fingerprint: Some(7),
    };
    let joined = versioned::join(head, &[0xc0]);
    assert_eq!(hex(&joined), "c192ce0000012ccf0000000000000007c0");
    assert_eq!(versioned::split(&joined), Ok((head, &[0xc0][..])));
}

#[test]
fn a_version_that_is_not_known_is_named() {
    let new = versioned::encode::<renamed::Account>(Part::Event, &renamed::Event::Deposited { amount: 5 });
    let error = versioned::decode::<first::Account, first::Event>(Part::Event, &new).expect_err("too new");
    let said = error.to_string();
    assert!(said.contains("event Deposited has version 2"), "{said}");
    assert!(said.contains("up to version 1"), "{said}");
}

#[test]
fn a_snapshot_of_another_build_is_not_trusted() {
    let (first, noted) = (first::registry(), noted::registry());
    let (first, noted) = (
        first.get("account").expect("a kind"),
        noted.get("account").expect("a kind"),
    );
    let snapshot = first.load(None).expect("a state").snapshot();
    assert!(first.trusts(&snapshot));
    assert!(!noted.trusts(&snapshot), "it may lack what this build would know");
    assert!(
        !first.trusts(&codec::encode(&first::State::default())),
        "it does not say who made it"
    );
    noted.load(Some(&snapshot)).expect("it can be read all the same");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn committed(registry: &Registry, folder: &Path) {
    let report = check_in(registry, folder, true);
    assert_eq!(report.incompatible, Vec::<String>::new());
    assert!(
        check_in(registry, folder, false).is_ok(),
        "it knows what it has written"
    );
}

fn only(report: &Report) -> &str {
    let [finding] = &report.incompatible[..] else {
        panic!("one finding is expected: {report}")
    };
    finding
}

#[test]
fn a_compatible_change_only_needs_the_file_refreshed() {
    let folder = folder();
    committed(&first::registry(), folder.path());
    let report = check_in(&noted::registry(), folder.path(), false);
    assert_eq!(report.incompatible, Vec::<String>::new());
    assert!(
        report
            .fresh
            .iter()
            .any(|text| text == "event Deposited of account: field note is new"),
        "{report}"
    );
    committed(&noted::registry(), folder.path());
}

#[test]
fn a_removed_field_is_named_with_its_event_and_never_committed() {
    let folder = folder();
    committed(&first::registry(), folder.path());
    let before = fs::read_to_string(folder.path().join("account.json")).expect("a file");
    let report = check_in(&lossy::registry(), folder.path(), true);
    let events: Vec<_> = report
        .incompatible
        .iter()
        .filter(|text| text.starts_with("event"))
        .collect();
    assert_eq!(events, ["event Deposited of account: field sum is removed"]);
    let after = fs::read_to_string(folder.path().join("account.json")).expect("a file");
    assert_eq!(after, before);
}

#[test]
#[should_panic(expected = "event Deposited of account: field sum is removed")]
fn the_authors_test_fails_with_the_name_of_event_and_field() {
    let folder = folder();
    committed(&first::registry(), folder.path());
    super::check(&lossy::registry(), folder.path());
}

#[test]
fn an_upcast_needs_an_example_that_passes_through_it() {
    let folder = folder();
    committed(&first::registry(), folder.path());
    // Commands are of the same type here, and have no upcasts of their own.
    let report = check_in(&renamed::registry(), folder.path(), false);
    let commands: Vec<_> = report
        .incompatible
        .iter()
        .filter(|text| !text.starts_with("command"))
        .collect();
    assert_eq!(commands, Vec::<&String>::new());
    assert!(
        report
            .fresh
            .iter()
            .any(|text| text == "event Deposited of account: version 1 is upcast from now on"),
        "{report}"
    );
}

build! { versioned_commands, &[
        Upcast::event("Deposited", 1, |event| event.rename("sum", "amount")),
        Upcast::command("Deposited", 1, |command| command.rename("sum", "amount")),
    ],
    pub(super) struct State { pub(super) balance: u64 }
    pub(super) enum Event { Deposited { amount: u64 }, Closed }
    |_, _| {}
}
build! { wrong_upcast, &[
        Upcast::event("Deposited", 1, |event| event.rename("total", "amount")),
        Upcast::command("Deposited", 1, |command| command.rename("sum", "amount")),
    ],
    pub(super) struct State { pub(super) balance: u64 }
    pub(super) enum Event { Deposited { amount: u64 }, Closed }
    |_, _| {}
}

#[test]
fn a_committed_example_of_an_old_version_is_tried_for_ever() {
    let folder = folder();
    committed(&first::registry(), folder.path());
    committed(&versioned_commands::registry(), folder.path());
    let file = fs::read_to_string(folder.path().join("account.json")).expect("a file");
    assert!(file.contains("\"event Deposited 1\""), "{file}");
    let report = check_in(&wrong_upcast::registry(), folder.path(), false);
    let finding = only(&report);
    assert!(
        finding.starts_with("event Deposited 1 of account: the committed example"),
        "{finding}"
    );
    assert!(
        finding.contains("missing field `amount`") || finding.contains("sum is lost"),
        "{finding}"
    );
    let back = check_in(&first::registry(), folder.path(), false);
    assert!(
        back.incompatible.iter().any(|text| text.contains("versions only grow")),
        "{back}"
    );
}

#[test]
fn what_is_gone_is_named() {
    let folder = folder();
    committed(&renamed::registry(), folder.path());
    let report = check_in(&one_way::registry(), folder.path(), false);
    assert!(
        report
            .incompatible
            .iter()
            .any(|text| text.starts_with("event Ended of account is gone")),
        "{report}"
    );
    let none = check_in(&Registry::new(), folder.path(), false);
    assert!(only(&none).starts_with("account: the kind is not registered"));
}

fn card(registry: &Registry) -> Card {
    let card = registry.card();
    let sent: Card = codec::decode(&codec::encode(&card)).expect("it can be sent");
    assert_eq!(sent, card);
    card
}

#[test]
fn a_build_that_cannot_read_says_what() {
    let (first, renamed) = (card(&first::registry()), card(&renamed::registry()));
    let floor = raised(None, &[renamed.clone().into()]);
    let reason = first.obstacle(floor.as_ref()).expect("it is too old");
    assert!(reason.contains("event Deposited version 2 of account"), "{reason}");
    assert!(reason.contains("up to version 1"), "{reason}");
    assert_eq!(renamed.obstacle(floor.as_ref()), None);
    let lossy = card(&lossy::registry());
    assert_eq!(
        lossy.obstacle(raised(None, &[first.clone().into()]).as_ref()),
        None,
        "it only loses"
    );
    assert!(!lossy.covers(&first));
    let none = Card::default().obstacle(floor.as_ref()).expect("it has nothing");
    assert!(none.contains("the kind account"), "{none}");
}

#[test]
fn the_floor_is_what_all_can_read_and_never_less() {
    let (first, renamed) = (card(&first::registry()), card(&renamed::registry()));
    let both = raised(None, &[first.clone().into(), renamed.clone().into()]).expect("both have said it");
    assert_eq!(both.reads("account", Part::Event, "Deposited"), 1);
    assert_eq!(both.reads("account", Part::Event, "Ended"), 0);
    assert_eq!(both.reads("account", Part::Event, "Closed"), 1);
    let new = raised(Some(&both), &[renamed.into()]).expect("known");
    assert_eq!(new.reads("account", Part::Event, "Deposited"), 2);
    assert_eq!(new.reads("account", Part::Event, "Ended"), 1);
    assert_eq!(
        new.reads("account", Part::Event, "Closed"),
        1,
        "it may still be in the journal"
    );
    assert!(first.obstacle(Some(&new)).is_some());
}

#[test]
fn what_a_member_cannot_read_is_written_as_it_can_or_not_at_all() {
    let registry = renamed::registry();
    let kind = registry.get("account").expect("a kind");
    let floor = Restraint::Floor(card(&first::registry()).into());
    let decide = |event: renamed::Event| {
        let command = codec::encode(&event);
        let mut live = kind.load(None).expect("a state");
        live.decide(&command, &context()).expect("decided")
    };
    let taken_back = floor
        .apply(&registry, "account", decide(renamed::Event::Deposited { amount: 5 }))
        .expect("there is a way back");
    assert_eq!(
        versioned::decode::<first::Account, first::Event>(Part::Event, &taken_back.events[0]).expect("as it knows it"),
        first::Event::Deposited { sum: 5 }
    );
    let ended = floor
        .apply(&registry, "account", decide(renamed::Event::Ended))
        .expect("there is a way back");
    assert_eq!(hex(&ended.events[0]), "a6436c6f736564");

    let registry = one_way::registry();
    let kind = registry.get("account").expect("a kind");
    let mut live = kind.load(None).expect("a state");
    let command = codec::encode(&one_way::Event::Deposited { amount: 5 });
    let decision = live.decide(&command, &context()).expect("decided");
    assert_eq!(
        floor
            .apply(&registry, "account", decision.clone())
            .expect_err("there is no way back"),
        "event Deposited version 2 of account"
    );
    assert!(
        Restraint::FirstVersions
            .apply(&registry, "account", decision.clone())
            .is_err()
    );
    assert_eq!(
        Restraint::None.apply(&registry, "account", decision.clone()),
        Ok(decision)
    );
}

#[test]
fn a_field_that_is_not_known_is_named_unless_it_holds_nothing() {
    let registry = first::registry();
    let kind = registry.get("account").expect("a kind");
    let unknown = |note: Option<&str>| {
        let event = noted::Event::Deposited {
            sum: 5,
            note: note.map(str::to_owned),
        };
        kind.unknown_fields(Part::Event, &codec::encode(&event))
            .expect("readable")
    };
    assert_eq!(unknown(None), Vec::<String>::new());
    assert_eq!(unknown(Some("tip")).len(), 1);
    assert!(unknown(Some("tip"))[0].contains("note"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever bytes are there, reading them ends with a value or with a reason.
    #[test]
    fn no_bytes_end_the_process(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), is_marked in any::<bool>()) {
        if is_marked {
            bytes.insert(0, versioned::MARK);
        }
        let registry = renamed::registry();
        let kind = registry.get("account").expect("a kind");
        let _ = kind.load(Some(&bytes));
        let _ = kind.trusts(&bytes);
        for part in Part::ALL {
            let _ = kind.unknown_fields(part, &bytes);
        }
        let _ = Restraint::FirstVersions.fit(&**kind, "account", Part::Event, &Bytes::from(bytes.clone()));
        let _ = codec::decode::<Card>(&bytes);
    }

    /// A damaged event is read as one or refused.
    #[test]
    fn a_damaged_event_is_no_end(at in 0_usize..22, byte in any::<u8>()) {
        let event = renamed::Event::Deposited { amount: 5 };
        let mut bytes = versioned::encode::<renamed::Account>(Part::Event, &event).to_vec();
        bytes[at] = byte;
        let _ = versioned::decode::<renamed::Account, renamed::Event>(Part::Event, &bytes);
    }

    /// Up and down are each other's way back.
    #[test]
    fn the_way_back_leads_back(amount in any::<u64>()) {
        let floor = Restraint::Floor(first::registry().card().into());
        let registry = renamed::registry();
        let kind = registry.get("account").expect("a kind");
        let event = renamed::Event::Deposited { amount };
        let written = versioned::encode::<renamed::Account>(Part::Event, &event);
        let old = floor.fit(&**kind, "account", Part::Event, &written).expect("a way back");
        prop_assert_eq!(versioned::decode::<renamed::Account, renamed::Event>(Part::Event, &old).expect("upcast"), event);
    }
}

#[test]
fn deep_bytes_are_refused() {
    let registry = renamed::registry();
    let kind = registry.get("account").expect("a kind");
    for opening in [&[0x91_u8][..], &[0x81, 0xa1, b'a']] {
        let mut deep = opening.repeat(100_000);
        deep.push(0xc0);
        for part in Part::ALL {
            assert!(kind.unknown_fields(part, &deep).is_err());
        }
        assert!(codec::decode::<Card>(&deep).is_err());
    }
}
