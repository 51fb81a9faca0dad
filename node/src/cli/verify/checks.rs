//! The checks themselves, on what was read. Pure.

use std::collections::{BTreeMap, BTreeSet};

use proto::cluster::v1::{ScannedEntity, ShardDigests};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{cli::failure::Failure, provider::wire::OrderLedger};

/// Everything that was read, as far as the checks need it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    stock: BTreeMap<String, Stock>,
    orders: BTreeMap<String, Order>,
    payments: BTreeMap<String, Payment>,
    /// Checkouts and returns, by kind and id.
    sagas: BTreeMap<String, Saga>,
    pub(super) digests: Vec<ShardDigests>,
    /// Nothing if the provider could not be asked.
    pub(super) provider: Option<Vec<OrderLedger>>,
}

#[derive(Debug, Default, Deserialize)]
struct Stock {
    on_hand: u64,
    reserved: u64,
    sold: u64,
    written_off: u64,
    received: u64,
}

#[derive(Debug, Default, Deserialize)]
struct Amount {
    minor: i64,
}

#[derive(Debug, Default, Deserialize)]
struct Order {
    status: String,
    total: Amount,
    refunded: Amount,
    #[serde(default)]
    unpaid: bool,
    #[serde(default)]
    problems: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Payment {
    amount: Amount,
    captured: Amount,
    refunded: Amount,
}

#[derive(Debug, Default, Deserialize)]
struct Saga {
    phase: String,
    /// By step: what could not be done.
    #[serde(default)]
    problems: BTreeMap<String, String>,
}

/// The sums over all orders and payments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MoneySums {
    pub(super) captured: i64,
    pub(super) refunded: i64,
    pub(super) confirmed: i64,
    pub(super) returned: i64,
}

/// One check and who fails it.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) checked: usize,
    /// By key, with the reason.
    pub(super) offenders: BTreeMap<String, String>,
}

impl Check {
    fn new(name: &'static str, checked: usize, offenders: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            name,
            checked,
            offenders: offenders.into_iter().collect(),
        }
    }

    /// Whether nobody fails it.
    pub(super) fn is_ok(&self) -> bool {
        self.offenders.is_empty()
    }

    /// Who fails it again stays; who failed it once, or only now, was under way.
    pub(super) fn look_again(&mut self, mut again: Self) {
        self.checked = again.checked;
        again.offenders.retain(|key, _| self.offenders.contains_key(key));
        self.offenders = again.offenders;
    }
}

impl Seen {
    /// Takes one entity in; other kinds than these are not checked.
    pub(super) fn add(&mut self, entity: &ScannedEntity) -> Result<(), Failure> {
        let key = format!("{}/{}", entity.kind, entity.id);
        match entity.kind.as_str() {
            "stock" => drop(self.stock.insert(key.clone(), state(&key, &entity.state_json)?)),
            "order" => drop(self.orders.insert(entity.id.clone(), state(&key, &entity.state_json)?)),
            "payment" => drop(
                self.payments
                    .insert(entity.id.clone(), state(&key, &entity.state_json)?),
            ),
            "checkout" | "return" => drop(self.sagas.insert(key.clone(), state(&key, &entity.state_json)?)),
            _ => {}
        }
        Ok(())
    }

    /// The sums over all orders and payments.
    pub(super) fn money(&self) -> MoneySums {
        let confirmed = || self.orders.values().filter(|order| order.status == "Confirmed");
        MoneySums {
            captured: self.payments.values().map(|payment| payment.captured.minor).sum(),
            refunded: self.payments.values().map(|payment| payment.refunded.minor).sum(),
            confirmed: confirmed().map(|order| order.total.minor).sum(),
            returned: confirmed().map(|order| order.refunded.minor).sum(),
        }
    }
}

fn state<S: DeserializeOwned>(key: &str, json: &str) -> Result<S, Failure> {
    serde_json::from_str(json).map_err(|error| {
        Failure::no(format!("the state of {key} is not understood: {error}"))
            .help("use the `playhouse` of the same build as the nodes")
    })
}

/// All checks, always in the same order.
pub(super) fn all(seen: &Seen) -> Vec<Check> {
    vec![
        stock_conserved(seen),
        money_matches(seen),
        no_double_charge(seen),
        sagas_ended(seen),
        replicas_equal(seen),
    ]
}

/// Everything that came in is in exactly one place.
fn stock_conserved(seen: &Seen) -> Check {
    let offenders = seen.stock.iter().filter_map(|(key, item)| {
        let places = [item.on_hand, item.reserved, item.sold, item.written_off];
        let sum: u128 = places.into_iter().map(u128::from).sum();
        let Stock { on_hand, reserved, sold, written_off, received } = item;
        let reason = format!(
            "{on_hand} on hand + {reserved} reserved + {sold} sold + {written_off} written off is not {received} received"
        );
        (sum != u128::from(*received)).then(|| (key.clone(), reason))
    });
    Check::new("stock_conserved", seen.stock.len(), offenders)
}

/// Of each order, what the customer has paid is what the order costs; and nothing where there is no order.
fn money_matches(seen: &Seen) -> Check {
    let ids: BTreeSet<&String> = seen.orders.keys().chain(seen.payments.keys()).collect();
    let checked = ids.len();
    let offenders = ids.into_iter().filter_map(|id| {
        let reason = money_fault(seen.orders.get(id), seen.payments.get(id))?;
        Some((format!("order/{id}"), reason))
    });
    Check::new("money_matches", checked, offenders)
}

fn money_fault(order: Option<&Order>, payment: Option<&Payment>) -> Option<String> {
    let paid = payment.map_or(0, |payment| payment.captured.minor - payment.refunded.minor);
    let Some(order) = order else {
        return (paid != 0).then(|| format!("paid {paid}, but there is no order"));
    };
    if let Some(problem) = order.problems.first() {
        return Some(format!("what was taken could not be given back: {problem}"));
    }
    let due = match order.status.as_str() {
        "Confirmed" if order.unpaid => return Some("confirmed, but the money could not be taken".to_owned()),
        "Confirmed" => order.total.minor - order.refunded.minor,
        // It may still go either way; `sagas_ended` insists that it ends.
        "Pending" | "Cancelling" => return None,
        _ => 0,
    };
    (paid != due).then(|| format!("{}: paid {paid}, due {due}", order.status.to_lowercase()))
}

/// No payment took more than its amount, and the provider's books say the same.
fn no_double_charge(seen: &Seen) -> Check {
    let mut offenders = Vec::new();
    for (id, payment) in &seen.payments {
        let Payment {
            amount,
            captured,
            refunded,
        } = payment;
        if captured.minor > amount.minor {
            offenders.push((
                format!("payment/{id}"),
                format!("captured {} of {}", captured.minor, amount.minor),
            ));
        } else if refunded.minor > captured.minor {
            offenders.push((
                format!("payment/{id}"),
                format!("refunded {} of {}", refunded.minor, captured.minor),
            ));
        }
    }
    for ledger in seen.provider.iter().flatten() {
        let (captured, refunded) = seen
            .payments
            .get(&ledger.order_id)
            .map_or((0, 0), |p| (p.captured.minor, p.refunded.minor));
        let reason = if ledger.captures > 1 {
            format!("the provider charged it {} times", ledger.captures)
        } else if ledger.captured_minor != captured {
            format!(
                "the provider took {}, the payment says {captured}",
                ledger.captured_minor
            )
        } else if ledger.refunded_minor != refunded {
            format!(
                "the provider gave {} back, the payment says {refunded}",
                ledger.refunded_minor
            )
        } else {
            continue;
        };
        offenders.push((format!("payment/{}", ledger.order_id), reason));
    }
    Check::new("no_double_charge", seen.payments.len(), offenders)
}

/// Every checkout and every return has ended, and none had to give up.
fn sagas_ended(seen: &Seen) -> Check {
    let mut offenders: Vec<(String, String)> = Vec::new();
    for (key, saga) in &seen.sagas {
        // Somebody may have asked one that was never started.
        if !matches!(saga.phase.as_str(), "New" | "Completed" | "Undone") {
            offenders.push((key.clone(), "has not ended".to_owned()));
        } else if let Some((step, problem)) = saga.problems.first_key_value() {
            offenders.push((key.clone(), format!("ended with a problem: {step}: {problem}")));
        }
    }
    for (id, order) in &seen.orders {
        if matches!(order.status.as_str(), "Pending" | "Cancelling") {
            offenders.push((
                format!("order/{id}"),
                format!("is still {}", order.status.to_lowercase()),
            ));
        }
    }
    Check::new("sagas_ended", seen.sagas.len(), offenders)
}

/// The replicas of a shard hold the same.
fn replicas_equal(seen: &Seen) -> Check {
    let mut offenders = Vec::new();
    for shard in &seen.digests {
        // Most replicas are right about the digest.
        let mut counts: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        for replica in shard.replicas.iter().filter(|replica| replica.error.is_empty()) {
            *counts.entry((replica.applied, replica.digest)).or_default() += 1;
        }
        let common = counts
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(common, _)| *common);
        for replica in &shard.replicas {
            let key = format!("shard {} on node {}", shard.shard, replica.node);
            if !replica.error.is_empty() {
                offenders.push((key, format!("cannot be asked: {}", replica.error)));
            } else if Some((replica.applied, replica.digest)) != common {
                offenders.push((
                    key,
                    format!("differs from the other replicas at position {}", replica.applied),
                ));
            }
        }
    }
    Check::new("replicas_equal", seen.digests.len(), offenders)
}

#[cfg(test)]
mod tests;
