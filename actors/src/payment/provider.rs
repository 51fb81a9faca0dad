//! What is said between a payment and the payment provider: the node's client and the provider itself use these very
//! types.
//!
//! Every request carries, outside of its body, an idempotency key that the engine derives from the effect it is
//! recorded as: the provider answers a repeated key with the same answer and does nothing twice.

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::Currency;

/// The name under which the node registers the provider as a service.
pub const SERVICE: &str = "payment-provider";

/// What the provider is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Request {
    /// Sets an amount aside on a card.
    Authorise {
        /// The order that it is for.
        order: String,
        /// In the smallest unit.
        amount_minor: i64,
        /// Of that currency.
        currency: Currency,
        /// The card.
        card: String,
    },
    /// Takes an amount that was set aside.
    Capture {
        /// The provider's reference of the authorisation.
        authorisation: String,
        /// In the smallest unit.
        amount_minor: i64,
        /// Of that currency.
        currency: Currency,
    },
    /// Gives up whatever is set aside for an order, if anything is.
    Void {
        /// The order.
        order: String,
    },
    /// Gives back some of what was taken.
    Refund {
        /// The provider's reference of the authorisation.
        authorisation: String,
        /// In the smallest unit.
        amount_minor: i64,
        /// Of that currency.
        currency: Currency,
        /// Why: our name of the return or the cancellation.
        reference: String,
    },
}

/// What the provider says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Answer {
    /// The amount is set aside.
    Authorised {
        /// The provider's reference.
        authorisation: String,
    },
    /// It is not, and asking again will not help.
    Declined {
        /// Why.
        reason: String,
    },
    /// The amount is taken.
    Captured,
    /// Nothing is set aside for the order any more.
    Voided,
    /// The amount is given back.
    Refunded,
    /// The capture or the refund cannot be done.
    Refused {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_on_the_wire_are_fixed() {
        let request = Request::Authorise {
            order: "42".to_owned(),
            amount_minor: 765,
            currency: Currency::GBP,
            card: "4242".to_owned(),
        };
        let json = r#"{"operation":"authorise","order":"42","amount_minor":765,"currency":"GBP","card":"4242"}"#;
        assert_eq!(serde_json::to_string(&request).expect("json"), json);
        let answer: Answer = serde_json::from_str(r#"{"status":"captured"}"#).expect("an answer");
        assert_eq!(answer, Answer::Captured);
        let answer: Answer = serde_json::from_str(r#"{"status":"declined","reason":"card declined"}"#).expect("one");
        assert_eq!(
            answer,
            Answer::Declined {
                reason: "card declined".to_owned()
            }
        );
    }
}
