//! Each check is shown a sound cluster and one planted fault, which it must find.

use proto::cluster::v1::ReplicaDigest;

use super::*;

fn seen(entities: &[(&str, &str, &str)]) -> Seen {
    let mut seen = Seen::default();
    for (kind, id, json) in entities {
        let entity = ScannedEntity {
            kind: (*kind).to_owned(),
            id: (*id).to_owned(),
            version: 1,
            state_json: (*json).to_owned(),
            outbox: 0,
        };
        seen.add(&entity).expect("the state is understood");
    }
    seen
}

const STOCK: &str = r#"{"on_hand":5,"reserved":1,"sold":3,"written_off":1,"received":10,"reservations":{}}"#;
const ORDER: &str =
    r#"{"status":"Confirmed","total":{"minor":765,"currency":"GBP"},"refunded":{"minor":255,"currency":"GBP"}}"#;
const PAYMENT: &str =
    r#"{"status":"Captured","amount":{"minor":765},"captured":{"minor":765},"refunded":{"minor":255}}"#;
const CHECKOUT: &str = r#"{"phase":"Completed"}"#;

fn sound() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("stock", "tea", STOCK),
        ("order", "1", ORDER),
        ("payment", "1", PAYMENT),
        ("checkout", "1", CHECKOUT),
        ("customer", "ann", "{}"),
    ]
}

fn offenders(check: &Check) -> Vec<(&str, &str)> {
    check
        .offenders
        .iter()
        .map(|(key, reason)| (key.as_str(), reason.as_str()))
        .collect()
}

/// Who fails the named check when `json` stands in place of that entity's state.
fn planted(name: &str, key: (&str, &str), json: &str) -> Vec<(String, String)> {
    let mut entities = sound();
    entities.retain(|(kind, id, _)| (*kind, *id) != key);
    entities.push((key.0, key.1, json));
    let check = all(&seen(&entities))
        .into_iter()
        .find(|check| check.name == name)
        .expect("is one of the checks");
    check.offenders.into_iter().collect()
}

#[test]
fn a_sound_cluster_passes() {
    let seen = seen(&sound());
    for check in all(&seen) {
        assert!(check.is_ok(), "{check:?}");
    }
    assert_eq!(
        seen.money(),
        MoneySums {
            captured: 765,
            refunded: 255,
            confirmed: 765,
            returned: 255
        }
    );
}

#[test]
fn a_lost_piece_is_found() {
    let found = planted(
        "stock_conserved",
        ("stock", "tea"),
        &STOCK.replace("\"on_hand\":5", "\"on_hand\":4"),
    );
    assert_eq!(found[0].0, "stock/tea");
}

#[test]
fn money_that_does_not_fit_its_order_is_found() {
    let captured = |minor| {
        PAYMENT.replace(
            "\"captured\":{\"minor\":765}",
            &format!("\"captured\":{{\"minor\":{minor}}}"),
        )
    };
    assert_eq!(
        planted("money_matches", ("payment", "1"), &captured(764))[0].1,
        "confirmed: paid 509, due 510"
    );
    let refused = ORDER.replace("Confirmed", "Refused");
    assert_eq!(
        planted("money_matches", ("order", "1"), &refused)[0].1,
        "refused: paid 510, due 0"
    );
    let unpaid = ORDER.replace("{\"status\"", "{\"unpaid\":true,\"status\"");
    assert!(!planted("money_matches", ("order", "1"), &unpaid).is_empty());
    assert_eq!(
        planted("money_matches", ("payment", "2"), PAYMENT)[0].1,
        "paid 510, but there is no order"
    );
}

#[test]
fn a_double_charge_is_found_in_either_book() {
    let twice = PAYMENT.replace("\"captured\":{\"minor\":765}", "\"captured\":{\"minor\":1530}");
    assert_eq!(
        planted("no_double_charge", ("payment", "1"), &twice)[0].1,
        "captured 1530 of 765"
    );

    let ledger = |json: &str| serde_json::from_str::<OrderLedger>(json).expect("is a ledger");
    let right = r#"{"order_id":"1","currency":"GBP","authorisations":1,"captures":1,"authorised_minor":765,"captured_minor":765,"voided_minor":0,"refunded_minor":255}"#;
    let mut seen = seen(&sound());
    seen.provider = Some(vec![ledger(right)]);
    assert!(no_double_charge(&seen).is_ok());
    seen.provider = Some(vec![ledger(&right.replace("\"captures\":1", "\"captures\":2"))]);
    assert_eq!(
        offenders(&no_double_charge(&seen)),
        [("payment/1", "the provider charged it 2 times")]
    );
    seen.provider = Some(vec![ledger(
        &right.replace("\"order_id\":\"1\"", "\"order_id\":\"lost\""),
    )]);
    assert_eq!(
        offenders(&no_double_charge(&seen)),
        [("payment/lost", "the provider took 765, the payment says 0")]
    );
}

#[test]
fn a_saga_that_hangs_or_gave_up_is_found() {
    assert_eq!(
        planted("sagas_ended", ("checkout", "1"), r#"{"phase":"Running"}"#)[0].1,
        "has not ended"
    );
    assert_eq!(
        planted("sagas_ended", ("return", "C1"), r#"{"phase":"Undoing"}"#)[0].0,
        "return/C1"
    );
    let problem = r#"{"phase":"Completed","problems":{"capture":"gone"}}"#;
    assert_eq!(
        planted("sagas_ended", ("checkout", "1"), problem)[0].1,
        "ended with a problem: capture: gone"
    );
    assert_eq!(
        planted("sagas_ended", ("order", "1"), &ORDER.replace("Confirmed", "Pending"))[0].1,
        "is still pending"
    );
}

#[test]
fn a_replica_that_differs_or_is_away_is_found() {
    let replica = |node, digest, error: &str| ReplicaDigest {
        node,
        applied: 9,
        digest,
        error: error.to_owned(),
    };
    let digests = ShardDigests {
        shard: 4,
        replicas: vec![replica(1, 7, ""), replica(2, 7, ""), replica(3, 7, "")],
    };
    let mut seen = Seen {
        digests: vec![digests],
        ..Default::default()
    };
    assert!(replicas_equal(&seen).is_ok());
    seen.digests[0].replicas[1].digest = 8;
    seen.digests[0].replicas[2].error = "does not answer".to_owned();
    seen.digests[0].replicas.push(replica(4, 7, ""));
    assert_eq!(
        offenders(&replicas_equal(&seen)),
        [
            ("shard 4 on node 2", "differs from the other replicas at position 9"),
            ("shard 4 on node 3", "cannot be asked: does not answer"),
        ]
    );
}

#[test]
fn only_who_offends_in_every_look_is_broken() {
    let look = |keys: &[&str]| {
        Check::new(
            "sagas_ended",
            3,
            keys.iter().map(|key| ((*key).to_owned(), String::new())),
        )
    };
    let mut check = look(&["a", "b"]);
    check.look_again(look(&["b", "c"]));
    assert_eq!(offenders(&check), [("b", "")]);
    check.look_again(look(&["c"]));
    assert!(check.is_ok());
}

#[test]
fn a_state_of_another_build_is_refused() {
    let entity = ScannedEntity {
        kind: "stock".to_owned(),
        id: "tea".to_owned(),
        state_json: "{}".to_owned(),
        ..Default::default()
    };
    assert!(Seen::default().add(&entity).is_err());
}
