//! Judges what the clients saw. Pure.
//!
//! Every answer of an item carries its version, so all operations on it lie on one line: a write makes its version, a read sees one. They are
//! linearizable exactly when no operation that began after another had ended lies before it on that line, and no two writes lie on the same place.

use std::collections::{BTreeMap, HashMap};

use super::history::{History, Journal, Operation, PlacedOrder, Told, What};

/// One check and who fails it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) checked: usize,
    /// Who, and why.
    pub(super) offenders: Vec<(String, String)>,
}

impl Check {
    pub(super) fn is_ok(&self) -> bool {
        self.offenders.is_empty()
    }
}

/// All checks of what clients saw, against what the cluster holds in the end: a journal for each item, and how each order stands.
pub(super) fn all(history: &History, journals: &[Journal], orders: &HashMap<String, Told>) -> Vec<Check> {
    vec![
        answered(history),
        kept(history, journals),
        once(history, journals),
        linearizable(history),
        orders_stand(&history.orders, orders),
    ]
}

/// Nothing was refused that must be taken, and every write has a definite answer in the end.
fn answered(history: &History) -> Check {
    let writes = history.operations.iter().filter_map(|operation| match &operation.what {
        What::Write { request, .. } => Some((request, operation)),
        What::Read => None,
    });
    let mut offenders = history.refused.clone();
    let mut checked = history.refused.len();
    for (request, operation) in writes {
        checked += 1;
        let is_refused = history.refused.iter().any(|(refused, _)| refused == request);
        if operation.seen.is_none() && !is_refused {
            offenders.push((request.clone(), "has no definite answer, also after healing".to_owned()));
        }
    }
    Check {
        name: "requests_answered",
        checked,
        offenders,
    }
}

/// Every acknowledged write is in the journal, as the version that its answer told; and the levels are the sum of them.
fn kept(history: &History, journals: &[Journal]) -> Check {
    let mut offenders = Vec::new();
    let mut checked = 0;
    for (number, (item, journal)) in history.items.iter().zip(journals).enumerate() {
        let mut versions: HashMap<&str, u64> = HashMap::new();
        for (version, request) in &journal.events {
            versions.entry(request).or_insert(*version);
        }
        let mut sum = item.stocked;
        let writes = acknowledged(history, number);
        for (request, quantity, version) in writes {
            checked += 1;
            sum += quantity;
            match versions.get(request) {
                Some(stored) if *stored == version => {}
                Some(stored) => offenders.push((
                    request.to_owned(),
                    format!(
                        "was acknowledged as version {version} of stock/{}, and is version {stored}",
                        item.sku
                    ),
                )),
                None => offenders.push((
                    request.to_owned(),
                    format!(
                        "was acknowledged as version {version} of stock/{}, and is lost",
                        item.sku
                    ),
                )),
            }
        }
        if journal.received != sum {
            let reason = format!("{} came in, and {sum} were acknowledged", journal.received);
            offenders.push((format!("stock/{}", item.sku), reason));
        }
    }
    Check {
        name: "writes_kept",
        checked,
        offenders,
    }
}

fn acknowledged(history: &History, item: usize) -> impl Iterator<Item = (&str, u64, u64)> {
    let of_item = history
        .operations
        .iter()
        .filter(move |operation| operation.item == item);
    of_item.filter_map(|operation| match (&operation.what, operation.seen) {
        (What::Write { request, quantity }, Some(seen)) => Some((&**request, *quantity, seen.version)),
        _ => None,
    })
}

/// No request, of a client or of an effect, is in the journal twice.
fn once(history: &History, journals: &[Journal]) -> Check {
    let mut offenders = Vec::new();
    let mut checked = 0;
    for (item, journal) in history.items.iter().zip(journals) {
        let mut versions: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (version, request) in journal.events.iter().filter(|(_, request)| !request.is_empty()) {
            versions.entry(request).or_default().push(*version);
        }
        checked += versions.len();
        for (request, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
            let reason = format!(
                "took effect {} times on stock/{}: versions {versions:?}",
                versions.len(),
                item.sku
            );
            offenders.push((request.to_owned(), reason));
        }
    }
    Check {
        name: "requests_once",
        checked,
        offenders,
    }
}

/// What the clients of each item saw could have happened one after the other.
fn linearizable(history: &History) -> Check {
    let mut offenders = Vec::new();
    let mut checked = 0;
    for (number, item) in history.items.iter().enumerate() {
        let seen: Vec<&Operation> = (history.operations.iter())
            .filter(|operation| operation.item == number && operation.seen.is_some())
            .collect();
        checked += seen.len();
        let key = format!("stock/{}", item.sku);
        offenders.extend(fault_of(&seen).map(|reason| (key, reason)));
    }
    Check {
        name: "linearizable",
        checked,
        offenders,
    }
}

/// Where an operation lies on the item's line: a read after the write of the version that it saw.
fn place(operation: &Operation) -> (u64, bool) {
    let version = operation.seen.map_or(0, |seen| seen.version);
    (version, operation.what == What::Read)
}

/// Why the operations on one item, all of which have an answer, cannot have happened one after the other.
fn fault_of(operations: &[&Operation]) -> Option<String> {
    let mut levels: HashMap<u64, u64> = HashMap::new();
    let mut writers: HashMap<u64, &Operation> = HashMap::new();
    for operation in operations {
        let seen = operation.seen.expect("only operations with an answer");
        let level = *levels.entry(seen.version).or_insert(seen.received);
        if level != seen.received {
            let (one, other) = (level, seen.received);
            return Some(format!(
                "version {} was seen with {one} and with {other} received",
                seen.version
            ));
        }
        if operation.what != What::Read
            && let Some(other) = writers.insert(seen.version, operation)
        {
            return Some(format!(
                "{} and {} both made version {}",
                told(other),
                told(operation),
                seen.version
            ));
        }
    }
    let mut by_end = operations.to_vec();
    by_end.sort_by_key(|operation| operation.end_us);
    let mut by_start = operations.to_vec();
    by_start.sort_by_key(|operation| operation.start_us);
    let mut ended = by_end.into_iter().peekable();
    let mut furthest: Option<&Operation> = None;
    for operation in by_start {
        while let Some(earlier) = ended.next_if(|earlier| earlier.end_us < operation.start_us) {
            if furthest.is_none_or(|furthest| place(furthest) < place(earlier)) {
                furthest = Some(earlier);
            }
        }
        if let Some(earlier) = furthest.filter(|earlier| place(earlier) > place(operation)) {
            return Some(format!("{} had ended when {} began", told(earlier), told(operation)));
        }
    }
    None
}

fn told(operation: &Operation) -> String {
    let version = operation.seen.map_or(0, |seen| seen.version);
    let (from, to) = (operation.start_us / 1_000, operation.end_us / 1_000);
    match &operation.what {
        What::Write { request, .. } => format!("the write {request} of version {version} ({from} to {to} ms)"),
        What::Read => format!("a read of version {version} ({from} to {to} ms)"),
    }
}

/// An order that was confirmed is so in the end, one that was refused too, and none is undecided.
fn orders_stand(placed: &[PlacedOrder], orders: &HashMap<String, Told>) -> Check {
    let offenders = placed.iter().filter_map(|order| {
        let now = orders.get(&order.id).copied();
        let reason = match (order.told, now) {
            (Some(told), None) => format!("was told to be {told:?}, and is not there"),
            (Some(told @ (Told::Confirmed | Told::Refused)), Some(now)) if told != now => {
                format!("was told to be {told:?}, and is {now:?}")
            }
            (_, Some(Told::Pending)) => "is still pending".to_owned(),
            _ => return None,
        };
        Some((format!("order/{}", order.id), reason))
    });
    Check {
        name: "orders_stand",
        checked: placed.len(),
        offenders: offenders.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::history::{Item, Seen},
        *,
    };

    fn write(request: &str, start_us: u64, end_us: u64, version: u64) -> Operation {
        Operation {
            item: 0,
            what: What::Write {
                request: request.to_owned(),
                quantity: 1,
            },
            start_us,
            end_us,
            seen: Some(Seen {
                version,
                received: 100 + version,
            }),
        }
    }

    fn read(start_us: u64, end_us: u64, version: u64) -> Operation {
        Operation {
            what: What::Read,
            ..write("", start_us, end_us, version)
        }
    }

    fn is_linearizable(operations: &[Operation]) -> bool {
        let operations: Vec<&Operation> = operations.iter().collect();
        let fault = fault_of(&operations);
        println!("{fault:?}");
        fault.is_none()
    }

    #[test]
    fn what_overlaps_may_be_in_any_order() {
        assert!(is_linearizable(&[]));
        assert!(is_linearizable(&[
            write("a", 0, 10, 2),
            write("b", 5, 9, 1),
            read(0, 20, 2),
            read(8, 9, 0)
        ]));
        assert!(is_linearizable(&[
            write("a", 0, 10, 1),
            read(11, 12, 1),
            read(13, 14, 1),
            write("b", 15, 16, 2)
        ]));
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(!is_linearizable(&[write("a", 0, 10, 2), read(11, 12, 1)]));
        assert!(
            !is_linearizable(&[read(0, 10, 2), read(11, 12, 1)]),
            "once seen, always seen"
        );
    }

    #[test]
    fn a_write_that_was_seen_before_it_began_is_found() {
        assert!(!is_linearizable(&[read(0, 10, 1), write("a", 11, 12, 1)]));
        assert!(!is_linearizable(&[write("a", 0, 10, 2), write("b", 11, 12, 1)]));
    }

    #[test]
    fn two_of_one_version_are_found() {
        assert!(!is_linearizable(&[write("a", 0, 10, 1), write("b", 0, 10, 1)]));
        let mut other = read(0, 10, 1);
        other.seen = Some(Seen {
            version: 1,
            received: 7,
        });
        assert!(!is_linearizable(&[write("a", 0, 10, 1), other]));
    }

    fn history(operations: Vec<Operation>) -> History {
        let item = Item {
            sku: "tea".to_owned(),
            shard: 3,
            stocked: 100,
        };
        History {
            items: vec![item],
            operations,
            ..History::default()
        }
    }

    fn journal(requests: &[&str]) -> Journal {
        let events = (1..).zip(requests);
        Journal {
            events: events
                .map(|(version, request)| (version, (*request).to_owned()))
                .collect(),
            received: 100 + requests.iter().filter(|request| request.len() == 1).count() as u64,
        }
    }

    fn broken(history: &History, journal: Journal) -> Vec<&'static str> {
        let checks = all(history, &[journal], &HashMap::new());
        checks
            .into_iter()
            .filter(|check| !check.is_ok())
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn lost_doubled_and_unanswered_writes_are_told_apart() {
        let two = || history(vec![write("a", 0, 10, 1), write("b", 11, 20, 2)]);
        assert!(broken(&two(), journal(&["a", "b"])).is_empty());
        assert_eq!(broken(&two(), journal(&["a"])), ["writes_kept"]);
        assert_eq!(broken(&two(), journal(&["b", "a"])), ["writes_kept"]);
        assert_eq!(
            broken(&two(), journal(&["a", "b", "b"])),
            ["writes_kept", "requests_once"]
        );
        assert_eq!(
            broken(&two(), journal(&["a", "b", "order/1#1.0", "order/1#1.0"])),
            ["requests_once"]
        );
        let mut open = two();
        open.operations[1].seen = None;
        assert_eq!(broken(&open, journal(&["a"])), ["requests_answered"]);
        open.refused.push(("b".to_owned(), "no".to_owned()));
        assert_eq!(broken(&open, journal(&["a"])), ["requests_answered"]);
    }

    #[test]
    fn an_order_stays_what_it_was_told_to_be() {
        let check = |told, now: Option<Told>| {
            let order = PlacedOrder {
                id: "1".to_owned(),
                told,
            };
            let now = now.map(|now| ("1".to_owned(), now)).into_iter().collect();
            orders_stand(&[order], &now).is_ok()
        };
        assert!(check(Some(Told::Confirmed), Some(Told::Confirmed)) && check(None, None));
        assert!(check(Some(Told::Pending), Some(Told::Refused)) && check(None, Some(Told::Confirmed)));
        assert!(!check(Some(Told::Confirmed), Some(Told::Refused)));
        assert!(!check(Some(Told::Confirmed), None) && !check(None, Some(Told::Pending)));
    }
}
