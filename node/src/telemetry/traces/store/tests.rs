//! What the store keeps, and what it lets go.

use super::*;

const ROOMY: Bounds = Bounds {
    traces_max: 100,
    memory_bytes_max: 1 << 20,
};

fn span(trace_id: u128, number: u64, entity: &str) -> Read {
    let span = pb::Span {
        span_id: format!("{number:016x}"),
        name: "decide".to_owned(),
        start_unix_ns: trace_id as u64 * 1_000 + number,
        end_unix_ns: trace_id as u64 * 1_000 + number + 1,
        status: "ok".to_owned(),
        attributes: [("entity".to_owned(), entity.to_owned())].into(),
        ..pb::Span::default()
    };
    (trace_id, span)
}

fn ids(store: &Store) -> Vec<String> {
    let found = store.search(&pb::SearchTracesRequest::default(), 1_000);
    found
        .into_iter()
        .map(|told| told.trace_id.trim_start_matches('0').to_owned())
        .collect()
}

#[test]
fn the_oldest_traces_go_when_there_are_too_many() {
    let mut store = Store::in_memory(Bounds { traces_max: 3, ..ROOMY });
    for trace in 1..=5 {
        store.take(vec![span(trace, 1, "order/1")]);
    }
    assert_eq!(ids(&store), ["5", "4", "3"]);
    assert!(store.get(1).is_none());
    assert_eq!((store.tally().traces_dropped, store.tally().spans_taken), (2, 5));
    let bytes = [3, 4, 5].map(|trace| store.traces[&trace].memory_bytes());
    assert_eq!(
        (store.memory_bytes, store.in_memory.len()),
        (bytes.iter().sum(), 3),
        "nothing of them is left"
    );
}

#[test]
fn without_files_the_oldest_go_when_memory_is_full() {
    let mut store = Store::in_memory(Bounds {
        memory_bytes_max: 1_000,
        ..ROOMY
    });
    for trace in 1..=100 {
        store.take(vec![span(trace, 1, "order/1")]);
    }
    let (traces, bytes, _) = store.size();
    assert!((5..50).contains(&traces) && bytes <= 1_000, "{traces} {bytes}");
    assert!(store.get(100).is_some() && store.get(1).is_none());
}

#[test]
fn what_memory_has_no_room_for_is_read_from_the_files_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let bounds = Bounds {
        memory_bytes_max: 500,
        ..ROOMY
    };
    let mut store = Store::open(bounds, folder.path(), u64::MAX).expect("opens");
    for trace in 1..=50 {
        store.take(vec![span(trace, 1, "order/1")]);
        store.take(vec![span(trace, 2, "stock/tea")]);
        store.flush().expect("written");
    }
    assert!(store.size().1 <= 500, "{:?}", store.size());
    for store in [store, Store::open(bounds, folder.path(), u64::MAX).expect("opens")] {
        assert_eq!(ids(&store).len(), 50);
        for trace in 1..=50 {
            let (spans, dropped) = store.get(trace).expect("kept");
            assert_eq!((spans.len(), dropped), (2, 0));
            assert_eq!(spans[1], span(trace, 2, "stock/tea").1);
        }
        let search = pb::SearchTracesRequest {
            entity: "stock/tea".to_owned(),
            ..Default::default()
        };
        assert_eq!(store.search(&search, 7).len(), 7);
    }
}

#[test]
fn a_trace_has_room_for_so_many_spans() {
    let mut store = Store::in_memory(ROOMY);
    store.take((0..4_000).map(|number| span(1, number, "order/1")).collect());
    store.take(vec![span(1, 5_000, "order/1")]);
    let (spans, dropped) = store.get(1).expect("kept");
    assert_eq!((spans.len(), dropped), (3_000, 1_001));
    assert_eq!(store.tally().spans_over_limit, 1_001);
}

#[test]
fn a_forgotten_entity_leaves_no_trace_and_others_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = Store::open(ROOMY, folder.path(), u64::MAX).expect("opens");
    store.take(vec![span(1, 1, "order/secret"), span(2, 1, "order/2")]);
    store.flush().expect("written");
    // One with more entities than a summary keeps.
    store.take(
        (0..30)
            .map(|number| span(3, number, &format!("stock/{number}")))
            .collect(),
    );
    store.take(vec![span(3, 99, "order/secret"), span(4, 1, "order/4")]);
    assert_eq!(store.purge("order/secret").expect("purged"), 2);
    assert_eq!(ids(&store), ["4", "2"]);
    assert_eq!(store.get(2).expect("kept").0.len(), 1);
    for entry in std::fs::read_dir(folder.path()).expect("read") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("read");
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
    let again = Store::open(ROOMY, folder.path(), u64::MAX).expect("opens");
    assert_eq!(ids(&again), ["4", "2"]);
}

#[test]
fn files_that_are_too_large_take_their_traces_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let bounds = Bounds {
        memory_bytes_max: 1_000,
        traces_max: 100_000,
    };
    let mut store = Store::open(bounds, folder.path(), 1 << 20).expect("opens");
    let filler = "x".repeat(1_000);
    for trace in 1..=12_000 {
        let (trace, mut span) = span(trace, 1, "order/1");
        span.error.clone_from(&filler);
        store.take(vec![(trace, span)]);
        if trace % 500 == 0 {
            store.flush().expect("written");
        }
    }
    store.flush().expect("written");
    let (traces, _, disk) = store.size();
    assert!(traces < 9_000 && disk < 9 << 20, "{traces} {disk}");
    assert!(store.get(1).is_none() && store.get(12_000).is_some());
}
