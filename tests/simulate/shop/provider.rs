//! The payment provider, and its books, kept by double entry: what it was asked and did, from first to last, moves money from one
//! account to another.
//!
//! Some of its cards are declined; of `away` cards it cannot be reached for an authorisation, and with `unclear` ones it may set the
//! amount aside without anyone hearing of it. What was promised (to take what is set aside, to give back what was taken) it keeps.
//! That calls are lost, arrive long after, or are answered late, the simulation sees to.

use std::collections::BTreeMap;

use actors::payment::provider::{Answer, Request, SERVICE};
use cluster::simulation::{Rng, Served, World};

/// Before the order in every reference of an authorisation.
const REFERENCE: &str = "auth_";

/// Does what it is asked.
pub(super) fn serve(request: Request, rng: &mut Rng) -> Served<Answer> {
    let Request::Authorise { order, card, .. } = request else {
        return Served::Done(match request {
            Request::Capture { .. } => Answer::Captured,
            Request::Refund { .. } => Answer::Refunded,
            _ => Answer::Voided,
        });
    };
    let authorised = Answer::Authorised {
        authorisation: format!("{REFERENCE}{order}"),
    };
    match &*card {
        "declined" => Served::Done(Answer::Declined {
            reason: "card declined".to_owned(),
        }),
        "away" if rng.chance(700) => Served::GivenUp("no connection".to_owned()),
        "unclear" if rng.chance(700) => Served::DoneButGivenUp(authorised, "no answer".to_owned()),
        _ => Served::Done(authorised),
    }
}

/// Where money of an order can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Customer,
    SetAside,
    Shop,
}

/// What the books say of one order. The sum over all places is always 0: what one has more of, another has less of.
#[derive(Debug, Default)]
pub(super) struct Account {
    balance: BTreeMap<Place, i64>,
    /// How often something was set aside.
    pub(super) authorisations: u32,
    pub(super) captured: i64,
    pub(super) refunded: i64,
}

impl Account {
    fn of(&self, place: Place) -> i64 {
        self.balance.get(&place).copied().unwrap_or_default()
    }

    fn moves(&mut self, amount: i64, from: Place, to: Place) {
        *self.balance.entry(from).or_default() -= amount;
        *self.balance.entry(to).or_default() += amount;
    }

    /// What is neither taken nor given up.
    pub(super) fn set_aside(&self) -> i64 {
        self.of(Place::SetAside)
    }

    /// What the shop has of it.
    pub(super) fn kept(&self) -> i64 {
        self.of(Place::Shop)
    }

    /// What the customer has paid, or has set aside.
    pub(super) fn paid(&self) -> i64 {
        -self.of(Place::Customer)
    }
}

/// The books, from the calls that were done; an error where a call asks for what is not there.
pub(super) fn books(world: &World<'_>) -> Result<BTreeMap<String, Account>, String> {
    let mut books: BTreeMap<String, Account> = BTreeMap::new();
    for call in world.calls::<Request, Answer>(SERVICE) {
        let (Served::Done(answer) | Served::DoneButGivenUp(answer, _)) = &call.served else {
            continue;
        };
        let of = |authorisation: &str| authorisation.trim_start_matches(REFERENCE).to_owned();
        match (&call.request, answer) {
            (
                Request::Authorise {
                    order, amount_minor, ..
                },
                Answer::Authorised { .. },
            ) => {
                let account = books.entry(order.clone()).or_default();
                account.moves(*amount_minor, Place::Customer, Place::SetAside);
                account.authorisations += 1;
            }
            (
                Request::Capture {
                    authorisation,
                    amount_minor,
                    ..
                },
                Answer::Captured,
            ) => {
                let account = books.entry(of(authorisation)).or_default();
                if account.set_aside() != *amount_minor {
                    return Err(format!(
                        "{}: {amount_minor} are taken of {account:?}",
                        of(authorisation)
                    ));
                }
                account.moves(*amount_minor, Place::SetAside, Place::Shop);
                account.captured += amount_minor;
            }
            (Request::Void { order }, Answer::Voided) => {
                let account = books.entry(order.clone()).or_default();
                account.moves(account.set_aside(), Place::SetAside, Place::Customer);
            }
            (
                Request::Refund {
                    authorisation,
                    amount_minor,
                    ..
                },
                Answer::Refunded,
            ) => {
                let account = books.entry(of(authorisation)).or_default();
                if account.kept() < *amount_minor {
                    return Err(format!(
                        "{}: {amount_minor} are given back of {account:?}",
                        of(authorisation)
                    ));
                }
                account.moves(*amount_minor, Place::Shop, Place::Customer);
                account.refunded += amount_minor;
            }
            (_, Answer::Declined { .. }) => {}
            (request, answer) => return Err(format!("{request:?} was answered with {answer:?}")),
        }
    }
    Ok(books)
}
