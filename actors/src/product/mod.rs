//! A product: what is sold, under which name and at what price. Its id is the SKU.
//!
//! Its version rises with each change; putting what is already there changes nothing.

use cluster::{Context, Decision, Entity, JsonSchema, NoToken, Outcome, Schema};
use serde::{Deserialize, Serialize};

use crate::money::Money;

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 500;

/// The kind `product`.
#[derive(Debug)]
pub struct Product;

/// A product as it stands; version 0 is a product that was never put.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// What people call it.
    pub name: String,
    /// What one of it costs.
    pub price: Money,
    /// The number of changes.
    pub version: u64,
}

impl State {
    /// Whether it was ever put.
    pub fn exists(&self) -> bool {
        self.version > 0
    }
}

/// What a product can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Command {
    /// Creates the product, or changes its name and price.
    Put {
        /// What people call it.
        name: String,
        /// What one of it costs.
        price: Money,
    },
}

/// What happened to a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Event {
    /// It is there for the first time.
    Put {
        /// What people call it.
        name: String,
        /// What one of it costs.
        price: Money,
    },
    /// It has another name.
    Renamed {
        /// The new one.
        name: String,
    },
    /// It has another price.
    PriceChanged {
        /// The new one.
        price: Money,
    },
}

/// The product as it stands after the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    /// The number of changes so far.
    pub version: u64,
}

/// Why a product says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
pub enum Rejection {
    /// A product needs a name.
    #[error("the name is empty; give the product a name")]
    EmptyName,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("the name is {len} bytes long; at most {max} are allowed")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Nobody is paid for taking a product.
    #[error("the price {price} is negative; it must be zero or more")]
    NegativePrice {
        /// The price.
        price: Money,
    },
}

impl Entity for Product {
    const KIND: &'static str = "product";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Reply = Reply;
    type Rejection = Rejection;
    type Token = NoToken;

    fn schema() -> Schema {
        Schema::of::<Self>()
    }

    fn decide(state: &State, command: Command, _context: &Context) -> Result<Decision<Self>, Rejection> {
        let Command::Put { name, price } = command;
        if name.trim().is_empty() {
            return Err(Rejection::EmptyName);
        }
        if name.len() > NAME_LEN_MAX {
            return Err(Rejection::NameTooLong {
                len: name.len(),
                max: NAME_LEN_MAX,
            });
        }
        if price.minor < 0 {
            return Err(Rejection::NegativePrice { price });
        }
        let mut events = Vec::new();
        if state.exists() {
            if state.name != name {
                events.push(Event::Renamed { name });
            }
            if state.price != price {
                events.push(Event::PriceChanged { price });
            }
        } else {
            events.push(Event::Put { name, price });
        }
        Ok(Decision {
            reply: Reply {
                version: state.version + events.len() as u64,
            },
            events,
            effects: Vec::new(),
        })
    }

    fn evolve(state: &mut State, event: &Event) {
        state.version += 1;
        match event {
            Event::Put { name, price } => {
                state.name.clone_from(name);
                state.price = *price;
            }
            Event::Renamed { name } => state.name.clone_from(name),
            Event::PriceChanged { price } => state.price = *price,
        }
    }

    fn resume(token: NoToken, _outcome: Outcome) -> Command {
        match token {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn golden_scripts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/product/golden");
        cluster::entity::script::golden::<super::Product>(folder);
    }
}
