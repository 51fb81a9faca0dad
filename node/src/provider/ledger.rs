//! The provider's books: authorisations, what moved for each order, and the answers that idempotency keys have had. Pure:
//! no clock, no socket, no file.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hasher as _},
    ops::Bound,
};

use actors::{
    Currency,
    payment::provider::{Answer, Request},
};
use serde::{Deserialize, Serialize};

use super::wire::{LedgerPage, OrderLedger};

/// Orders that the books can hold; over it new ones are refused.
pub(super) const ORDERS_MAX: usize = 2_000_000;
/// Idempotency keys that are remembered; the oldest is forgotten first.
pub(super) const KEYS_MAX: usize = 1_000_000;
/// Orders on one page of the ledger.
pub(super) const PAGE_LEN_MAX: usize = 10_000;
/// The longest idempotency key, order id, card and reference, in bytes.
pub(super) const TEXT_LEN_MAX: usize = 500;
/// The largest amount of one call, in the smallest unit of the currency.
const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000;

/// Cards and amounts that are always declined, as providers document them for tests.
const DECLINED_CARDS: [(&str, &str); 3] = [
    ("4000000000000002", "card declined"),
    ("4000000000009995", "insufficient funds"),
    ("4000000000000069", "expired card"),
];
/// Amounts with these last four digits are declined.
const DECLINED_AMOUNT_ENDING: i64 = 6666;

/// Why a call is not taken. It changed nothing, and the key stays free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untaken {
    #[error("{0}")]
    Malformed(String),
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("the ledger holds {ORDERS_MAX} orders and takes no more; start with an empty one")]
    Full,
}

/// One line of the data file: a call that was taken under a key, with the answer it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) request: Request,
    pub(super) answer: Answer,
}

/// What a call makes under its key.
pub(super) enum Taken {
    /// Something new; still to be kept and applied.
    New(Entry),
    /// The answer that the key has had.
    Kept(Answer),
}

/// The books.
#[derive(Default)]
pub(super) struct Ledger {
    orders: BTreeMap<String, Paid>,
    authorisations: HashMap<String, Authorisation>,
    answered: HashMap<String, Answered>,
    answered_order: VecDeque<String>,
}

struct Paid {
    sums: OrderLedger,
    authorisations: Vec<String>,
    /// Once let go, an order is not authorised again: a late authorisation would hold money for nothing.
    voided: bool,
}

struct Authorisation {
    order: String,
    currency: Currency,
    authorised_minor: i64,
    captured_minor: i64,
    refunded_minor: i64,
    voided: bool,
}

struct Answered {
    request_hash: u64,
    answer: Answer,
}

impl Ledger {
    /// What a call makes under its key. Changes nothing yet.
    pub(super) fn decide(
        &self,
        key: &str,
        request: Request,
        decline_over_minor: Option<i64>,
    ) -> Result<Taken, Untaken> {
        check_text("the idempotency key", key)?;
        if let Some(answered) = self.answered.get(key) {
            return if answered.request_hash == hash_of(&request) {
                Ok(Taken::Kept(answered.answer.clone()))
            } else {
                Err(Untaken::KeyReused)
            };
        }
        let answer = self.answer(&request, decline_over_minor)?;
        Ok(Taken::New(Entry {
            key: key.to_owned(),
            request,
            answer,
        }))
    }

    /// Takes what was decided, now or in an earlier life.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match (&entry.request, &entry.answer) {
            (
                Request::Authorise {
                    order,
                    amount_minor,
                    currency,
                    ..
                },
                Answer::Authorised { authorisation },
            ) => {
                let paid = self.orders.entry(order.clone()).or_insert_with(|| Paid::new(order));
                paid.sums.currency = *currency;
                paid.sums.authorisations += 1;
                paid.sums.authorised_minor += amount_minor;
                paid.authorisations.push(authorisation.clone());
                let granted = Authorisation {
                    order: order.clone(),
                    currency: *currency,
                    authorised_minor: *amount_minor,
                    captured_minor: 0,
                    refunded_minor: 0,
                    voided: false,
                };
                self.authorisations.insert(authorisation.clone(), granted);
            }
            (
                Request::Capture {
                    authorisation,
                    amount_minor,
                    ..
                },
                Answer::Captured,
            ) => self.change(authorisation, |authorisation, sums| {
                authorisation.captured_minor += amount_minor;
                sums.captured_minor += amount_minor;
                sums.captures += 1;
            }),
            (
                Request::Refund {
                    authorisation,
                    amount_minor,
                    ..
                },
                Answer::Refunded,
            ) => self.change(authorisation, |authorisation, sums| {
                authorisation.refunded_minor += amount_minor;
                sums.refunded_minor += amount_minor;
            }),
            (Request::Void { order }, Answer::Voided) => self.void(order),
            _ => {}
        }
        self.remember(entry);
    }

    /// One page of the ledger, of the orders after `after`.
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> LedgerPage {
        let limit = limit.clamp(1, PAGE_LEN_MAX);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.orders.range::<str, _>((from, Bound::Unbounded));
        let orders: Vec<_> = rest.by_ref().take(limit).map(|(_, paid)| paid.sums.clone()).collect();
        let next_after = rest
            .next()
            .and_then(|_| orders.last())
            .map(|last| last.order_id.clone());
        LedgerPage { orders, next_after }
    }

    fn answer(&self, request: &Request, decline_over_minor: Option<i64>) -> Result<Answer, Untaken> {
        match request {
            Request::Authorise {
                order,
                amount_minor,
                currency,
                card,
            } => {
                check_text("order", order)?;
                check_text("card", card)?;
                check_amount(*amount_minor)?;
                self.check_room(order)?;
                Ok(
                    match self.decline(order, *amount_minor, *currency, card, decline_over_minor) {
                        Some(reason) => Answer::Declined {
                            reason: reason.to_owned(),
                        },
                        None => Answer::Authorised {
                            authorisation: format!("auth-{}", self.authorisations.len() + 1),
                        },
                    },
                )
            }
            Request::Capture {
                authorisation,
                amount_minor,
                currency,
            } => {
                check_amount(*amount_minor)?;
                let refusal = self.refusal(authorisation, *currency, |granted| {
                    if granted.voided {
                        return Some("the authorisation was voided");
                    }
                    let left = granted.authorised_minor - granted.captured_minor;
                    (*amount_minor > left).then_some("more than is authorised and not captured yet")
                });
                Ok(refusal.unwrap_or(Answer::Captured))
            }
            Request::Refund {
                authorisation,
                amount_minor,
                currency,
                reference,
            } => {
                check_text("reference", reference)?;
                check_amount(*amount_minor)?;
                let refusal = self.refusal(authorisation, *currency, |granted| {
                    let left = granted.captured_minor - granted.refunded_minor;
                    (*amount_minor > left).then_some("more than was captured and not refunded yet")
                });
                Ok(refusal.unwrap_or(Answer::Refunded))
            }
            Request::Void { order } => {
                check_text("order", order)?;
                self.check_room(order)?;
                Ok(Answer::Voided)
            }
        }
    }

    fn decline(
        &self,
        order: &str,
        amount_minor: i64,
        currency: Currency,
        card: &str,
        decline_over_minor: Option<i64>,
    ) -> Option<&'static str> {
        if let Some(paid) = self.orders.get(order) {
            if paid.voided {
                return Some("the order was voided");
            }
            if paid.sums.currency != currency {
                return Some("the order is paid in another currency");
            }
        }
        if let Some((_, reason)) = DECLINED_CARDS.iter().find(|(declined, _)| *declined == card) {
            return Some(reason);
        }
        if decline_over_minor.is_some_and(|limit| amount_minor > limit) {
            return Some("over the card's limit");
        }
        (amount_minor % 10_000 == DECLINED_AMOUNT_ENDING).then_some("card declined")
    }

    fn refusal(
        &self,
        authorisation: &str,
        currency: Currency,
        reason: impl FnOnce(&Authorisation) -> Option<&'static str>,
    ) -> Option<Answer> {
        let reason = match self.authorisations.get(authorisation) {
            None => "there is no such authorisation",
            Some(granted) if granted.currency != currency => "the authorisation is in another currency",
            Some(granted) => reason(granted)?,
        };
        Some(Answer::Refused {
            reason: reason.to_owned(),
        })
    }

    fn check_room(&self, order: &str) -> Result<(), Untaken> {
        if self.orders.len() >= ORDERS_MAX && !self.orders.contains_key(order) {
            return Err(Untaken::Full);
        }
        Ok(())
    }

    fn change(&mut self, authorisation: &str, change: impl FnOnce(&mut Authorisation, &mut OrderLedger)) {
        let granted = self
            .authorisations
            .get_mut(authorisation)
            .expect("money moves only on an authorisation that was granted before");
        let paid = self
            .orders
            .get_mut(&granted.order)
            .expect("an authorisation is granted for an order that is in the books");
        change(granted, &mut paid.sums);
    }

    /// Lets go of what is authorised for an order and not captured.
    fn void(&mut self, order: &str) {
        let paid = self.orders.entry(order.to_owned()).or_insert_with(|| Paid::new(order));
        paid.voided = true;
        for authorisation in &paid.authorisations {
            if let Some(granted) = self.authorisations.get_mut(authorisation)
                && granted.captured_minor == 0
                && !granted.voided
            {
                granted.voided = true;
                paid.sums.voided_minor += granted.authorised_minor;
            }
        }
    }

    fn remember(&mut self, entry: &Entry) {
        if self.answered.len() >= KEYS_MAX
            && let Some(oldest) = self.answered_order.pop_front()
        {
            self.answered.remove(&oldest);
        }
        let answered = Answered {
            request_hash: hash_of(&entry.request),
            answer: entry.answer.clone(),
        };
        self.answered.insert(entry.key.clone(), answered);
        self.answered_order.push_back(entry.key.clone());
    }
}

impl Paid {
    fn new(order: &str) -> Self {
        Self {
            sums: OrderLedger {
                order_id: order.to_owned(),
                currency: Currency::NONE,
                authorisations: 0,
                captures: 0,
                authorised_minor: 0,
                captured_minor: 0,
                voided_minor: 0,
                refunded_minor: 0,
            },
            authorisations: Vec::new(),
            voided: false,
        }
    }
}

fn check_text(what: &str, text: &str) -> Result<(), Untaken> {
    match text.len() {
        0 => Err(Untaken::Malformed(format!("{what} is empty"))),
        len if len > TEXT_LEN_MAX => Err(Untaken::Malformed(format!(
            "{what} is {len} bytes long; at most {TEXT_LEN_MAX} are allowed"
        ))),
        _ => Ok(()),
    }
}

fn check_amount(minor: i64) -> Result<(), Untaken> {
    if (0..=AMOUNT_MINOR_MAX).contains(&minor) {
        Ok(())
    } else {
        Err(Untaken::Malformed(format!(
            "amount_minor is {minor}; it goes from 0 to {AMOUNT_MINOR_MAX}"
        )))
    }
}

/// Tells requests under the same key apart. Compared within one process only, so the hash need not be stable.
fn hash_of(request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(request).expect("a request has string keys only"));
    hasher.finish()
}

#[cfg(test)]
mod tests;
