//! A payment provider that keeps books, so that what entities believe can be held against it.

use std::collections::BTreeMap;

use actors::payment::provider::{Answer, Request};
use cluster::Outcome;

/// What stands in the provider's books for one order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Set aside and neither taken nor given up.
    pub(crate) held: i64,
    /// How often something was set aside.
    pub(crate) authorisations: u32,
    /// Taken.
    pub(crate) captured: i64,
    /// Given back.
    pub(crate) refunded: i64,
}

/// The provider. The card `declined` is declined, and with the card `unclear` it sets the amount aside but nobody hears
/// of it (nor of `silent`, where there is no end to the waiting either); captures and refunds of `unwilling` cards are refused.
#[derive(Debug, Default)]
pub(crate) struct Provider {
    pub(crate) accounts: BTreeMap<String, Account>,
    orders: BTreeMap<String, (String, String)>,
    answers: BTreeMap<usize, Answer>,
}

impl Provider {
    /// Answers a call; a call that was answered before gets the same answer and does nothing.
    pub(crate) fn call(&mut self, key: usize, request: &[u8]) -> Outcome {
        let request: Request = serde_json::from_slice(request).expect("a request of the payment");
        let is_unclear = matches!(&request, Request::Authorise { card, .. } if card == "unclear");
        let answer = match self.answers.get(&key) {
            Some(answer) => answer.clone(),
            None => self.answer(request),
        };
        self.answers.insert(key, answer.clone());
        if is_unclear {
            return Outcome::Failed("no answer".to_owned());
        }
        Outcome::Replied(serde_json::to_vec(&answer).expect("json").into())
    }

    fn answer(&mut self, request: Request) -> Answer {
        let refused = |reason: &str| Answer::Refused {
            reason: reason.to_owned(),
        };
        match request {
            Request::Authorise { card, .. } if card == "declined" => Answer::Declined {
                reason: "card declined".to_owned(),
            },
            Request::Authorise {
                order,
                amount_minor,
                card,
                ..
            } => {
                assert!(amount_minor > 0, "the provider is not asked about nothing");
                let authorisation = format!("auth_{}", self.orders.len());
                self.orders.insert(authorisation.clone(), (order.clone(), card));
                let account = self.accounts.entry(order).or_default();
                account.held += amount_minor;
                account.authorisations += 1;
                Answer::Authorised { authorisation }
            }
            Request::Capture {
                authorisation,
                amount_minor,
                ..
            } => {
                let (account, card) = self.account(&authorisation);
                if card == "unwilling" || account.held != amount_minor {
                    return refused("no such amount is set aside");
                }
                account.held = 0;
                account.captured += amount_minor;
                Answer::Captured
            }
            Request::Void { order } => {
                self.accounts.entry(order).or_default().held = 0;
                Answer::Voided
            }
            Request::Refund {
                authorisation,
                amount_minor,
                ..
            } => {
                let (account, card) = self.account(&authorisation);
                if card == "no refunds" || account.captured - account.refunded < amount_minor {
                    return refused("no such amount was taken");
                }
                account.refunded += amount_minor;
                Answer::Refunded
            }
        }
    }

    fn account(&mut self, authorisation: &str) -> (&mut Account, String) {
        let (order, card) = self
            .orders
            .get(authorisation)
            .cloned()
            .expect("an authorisation that was given");
        (self.accounts.entry(order).or_default(), card)
    }
}
