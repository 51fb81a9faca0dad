//! What the domain's rejections are to a caller: a wrong field, an unknown entity, or a reason.
//!
//! Each reason is a word in capitals that programs may rely on; the domain's own sentence goes with it for people.

use actors::{order, product, returns, stock};
use cluster::{AskError, Entity};

use super::status::Fault;

/// An ask of an order that was not accepted.
pub(super) fn of_order(error: AskError<order::Rejection>, id: &str) -> Fault {
    use order::Rejection as R;

    refused::<order::Order>(error, id, |rejection| match rejection {
        R::InvalidId { .. } => Kind::Field("order_id"),
        R::NotPlaced => Kind::Unknown,
        R::EmptyOrder
        | R::TooManyLines { .. }
        | R::ZeroQuantity { .. }
        | R::QuantityTooLarge { .. }
        | R::NegativePrice { .. }
        | R::CurrencyMismatch { .. }
        | R::TotalTooLarge => Kind::Field("lines"),
        R::CardTooLong { .. } => Kind::Field("card"),
        R::ReasonTooLong { .. } => Kind::Field("reason"),
        R::AlreadyPlaced => Kind::Reason("ALREADY_PLACED"),
        R::WrongStatus { .. } => Kind::Reason("WRONG_STATUS"),
        R::NotHeld { .. } => Kind::Reason("NOT_HELD"),
        R::ReturnReused => Kind::Reason("RETURN_REUSED"),
        R::TooManyReturns { .. } => Kind::Reason("TOO_MANY_RETURNS"),
    })
}

/// An ask of a product that was not accepted.
pub(super) fn of_product(error: AskError<product::Rejection>, sku: &str) -> Fault {
    use product::Rejection as R;

    refused::<product::Product>(error, sku, |rejection| match rejection {
        R::EmptyName | R::NameTooLong { .. } => Kind::Field("name"),
        R::NegativePrice { .. } => Kind::Field("price.minor"),
    })
}

/// An ask of a stock item that was not accepted.
pub(super) fn of_stock(error: AskError<stock::Rejection>, sku: &str) -> Fault {
    use stock::Rejection as R;

    refused::<stock::StockItem>(error, sku, |rejection| match rejection {
        R::ZeroQuantity | R::QuantityTooLarge { .. } => Kind::Field("quantity"),
        R::ReasonTooLong { .. } => Kind::Field("reason"),
        R::OutOfStock { .. } => Kind::Reason("OUT_OF_STOCK"),
        R::AlreadyReserved { .. } => Kind::Reason("ALREADY_RESERVED"),
        R::TooManyReservations { .. } => Kind::Reason("TOO_MANY_RESERVATIONS"),
        R::UnknownReservation => Kind::Reason("UNKNOWN_RESERVATION"),
        R::NotSold { .. } => Kind::Reason("NOT_SOLD"),
    })
}

/// A start of a return that was not accepted.
pub(super) fn of_return(error: AskError<returns::Rejection>, id: &str) -> Fault {
    use returns::Rejection as R;

    if matches!(error, AskError::Rejected(R::AlreadyStarted)) {
        return Fault::Refused {
            reason: "ALREADY_STARTED".into(),
            subject: format!("{}/{id}", returns::Return::KIND),
            message: "a return of other goods has this id; choose another id".to_owned(),
        };
    }
    refused::<returns::Return>(error, id, |rejection| match rejection {
        R::Invalid(_) => Kind::Field("lines"),
        R::NotStarted => Kind::Unknown,
        R::AlreadyStarted | R::NothingToRetry { .. } => Kind::Reason("ALREADY_STARTED"),
    })
}

/// A saga that was accepted and then refused: its reason is a word that machines know, a colon, and the detail.
pub(super) fn of_saga(subject: String, reason: &str) -> Fault {
    let word = reason.split(':').next().unwrap_or(reason);
    Fault::Refused {
        reason: word.trim().to_ascii_uppercase().into(),
        subject,
        message: reason.to_owned(),
    }
}

enum Kind {
    /// This field of the call is wrong.
    Field(&'static str),
    /// There is no such entity.
    Unknown,
    /// The domain says no for this reason.
    Reason(&'static str),
}

fn refused<E: Entity>(error: AskError<E::Rejection>, id: &str, kind_of: impl FnOnce(&E::Rejection) -> Kind) -> Fault
where
    E::Rejection: std::fmt::Display,
{
    let rejection = match error {
        AskError::Engine(error) => return Fault::Engine(error),
        AskError::Rejected(rejection) => rejection,
    };
    match kind_of(&rejection) {
        Kind::Field(field) => Fault::invalid(field, format!("is refused: {rejection}")),
        Kind::Unknown => Fault::NotFound {
            kind: E::KIND,
            id: id.to_owned(),
        },
        Kind::Reason(reason) => Fault::Refused {
            reason: reason.into(),
            subject: format!("{}/{id}", E::KIND),
            message: rejection.to_string(),
        },
    }
}
