//! Between protobuf and the domain. Pure; what cannot be converted is said with the field's path.

use std::collections::BTreeMap;

use actors::{
    Currency, CustomerId, IdError, Money, OrderId, QUANTITY_MAX, ReturnId, Sku,
    order::{self, ORDER_LINES_MAX},
    payment::{self, CARD_LEN_MAX},
    product,
    stock::{self, Levels},
};
use cluster::cluster::EventRecord;
use proto::{catalog::v1 as catalog, common::v1 as common, order::v1 as pb, payment::v1 as payment_pb};

use super::status::Fault;

/// The test card that providers always accept.
const CARD_DEFAULT: &str = "4242424242424242";

/// An order as it is wanted, before its prices are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) order: Option<OrderId>,
    pub(super) customer: Option<CustomerId>,
    pub(super) lines: Vec<WantedLine>,
    pub(super) currency: Currency,
    pub(super) card: String,
}

/// A line as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedLine {
    pub(super) sku: Sku,
    pub(super) quantity: u64,
    /// Absent: the product's price is taken.
    pub(super) unit_price: Option<Money>,
}

/// Goods that are to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BroughtBack {
    pub(super) return_id: Option<ReturnId>,
    pub(super) customer: CustomerId,
    /// Each product once.
    pub(super) lines: BTreeMap<Sku, u64>,
}

/// An id out of a field.
pub(super) fn id<T>(field: &str, text: String, new: impl FnOnce(String) -> Result<T, IdError>) -> Result<T, Fault> {
    new(text).map_err(|error| Fault::invalid(field, error))
}

/// An id out of a field that may be empty.
fn optional_id<T>(
    field: &str,
    text: String,
    new: impl FnOnce(String) -> Result<T, IdError>,
) -> Result<Option<T>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    id(field, text, new).map(Some)
}

/// An order as it is wanted.
pub(super) fn wanted(request: pb::PlaceOrderRequest) -> Result<Wanted, Fault> {
    let currency = match request.currency.as_str() {
        "" => Currency::GBP,
        text => currency("currency", text)?,
    };
    if request.card.len() > CARD_LEN_MAX {
        return Err(Fault::invalid("card", format!("is longer than {CARD_LEN_MAX} bytes")));
    }
    let card = match request.card {
        empty if empty.is_empty() => CARD_DEFAULT.to_owned(),
        card => card,
    };
    check_line_count(request.lines.len())?;
    let lines = request.lines.into_iter().enumerate();
    Ok(Wanted {
        order: optional_id("order_id", request.order_id, OrderId::new)?,
        customer: optional_id("customer_id", request.customer_id, CustomerId::new)?,
        lines: lines
            .map(|(number, line)| wanted_line(number, line))
            .collect::<Result<_, _>>()?,
        currency,
        card,
    })
}

fn wanted_line(number: usize, line: pb::OrderLine) -> Result<WantedLine, Fault> {
    let field = |name: &str| format!("lines[{number}].{name}");
    let unit_price = line
        .unit_price
        .map(|price| amount(&field("unit_price"), &price))
        .transpose()?;
    Ok(WantedLine {
        sku: id(&field("sku"), line.sku, Sku::new)?,
        quantity: quantity(&field("quantity"), line.quantity.into())?,
        unit_price,
    })
}

/// Goods that are to be taken back.
pub(super) fn brought_back(request: pb::ReturnItemsRequest) -> Result<BroughtBack, Fault> {
    check_line_count(request.lines.len())?;
    let mut lines = BTreeMap::new();
    for (number, line) in request.lines.into_iter().enumerate() {
        let sku = id(&format!("lines[{number}].sku"), line.sku, Sku::new)?;
        let field = format!("lines[{number}].quantity");
        let sum = lines.entry(sku).or_insert(0);
        *sum = quantity(&field, *sum + quantity(&field, line.quantity.into())?)?;
    }
    Ok(BroughtBack {
        return_id: optional_id("return_id", request.return_id, ReturnId::new)?,
        customer: id("customer_id", request.customer_id, CustomerId::new)?,
        lines,
    })
}

fn check_line_count(count: usize) -> Result<(), Fault> {
    match count {
        0 => Err(Fault::invalid("lines", "is empty; there must be at least one line")),
        1..=ORDER_LINES_MAX => Ok(()),
        _ => Err(Fault::invalid(
            "lines",
            format!("has {count} lines; at most {ORDER_LINES_MAX} are allowed"),
        )),
    }
}

/// A quantity: at least one.
pub(super) fn quantity(field: &str, quantity: u64) -> Result<u64, Fault> {
    match quantity {
        0 => Err(Fault::invalid(field, "is 0; it must be at least 1")),
        1..=QUANTITY_MAX => Ok(quantity),
        _ => Err(Fault::invalid(
            field,
            format!("is {quantity}; at most {QUANTITY_MAX} are allowed"),
        )),
    }
}

/// A text of limited length.
pub(super) fn text(field: &str, text: String, len_max: usize) -> Result<String, Fault> {
    if text.len() > len_max {
        let reason = format!("is {} bytes long; at most {len_max} are allowed", text.len());
        return Err(Fault::invalid(field, reason));
    }
    Ok(text)
}

/// An amount that somebody pays: zero or more.
pub(super) fn amount(field: &str, money: &common::Money) -> Result<Money, Fault> {
    if money.minor < 0 {
        let reason = format!("is {}; it must be zero or more", money.minor);
        return Err(Fault::invalid(format!("{field}.minor"), reason));
    }
    Ok(Money::new(
        money.minor,
        currency(&format!("{field}.currency"), &money.currency)?,
    ))
}

fn currency(field: &str, text: &str) -> Result<Currency, Fault> {
    // The parser's own message quotes the text; here the field says which one is meant.
    text.parse()
        .map_err(|_| Fault::invalid(field, "is no currency; use three capital letters such as GBP"))
}

/// An amount for the wire.
pub(super) fn money(money: Money) -> common::Money {
    common::Money {
        minor: money.minor,
        currency: money.currency.to_string(),
    }
}

/// An order for the wire.
pub(super) fn order(id: &str, version: u64, state: &order::State) -> pb::Order {
    let status = match state.status {
        order::Status::New => pb::OrderStatus::Unspecified,
        order::Status::Pending => pb::OrderStatus::Pending,
        order::Status::Confirmed => pb::OrderStatus::Confirmed,
        order::Status::Refused => pb::OrderStatus::Refused,
        order::Status::Cancelling => pb::OrderStatus::Cancelling,
        order::Status::Cancelled => pb::OrderStatus::Cancelled,
    };
    pb::Order {
        order_id: id.to_owned(),
        customer_id: state.customer.clone().map(String::from).unwrap_or_default(),
        status: status.into(),
        lines: state.lines.iter().map(priced_line).collect(),
        total: Some(money(state.total)),
        reason: state.reason.clone().unwrap_or_default(),
        refunded: Some(money(state.refunded)),
        version,
    }
}

fn priced_line(line: &order::OrderedLine) -> pb::PricedLine {
    pb::PricedLine {
        sku: line.sku.to_string(),
        quantity: pieces(line.quantity),
        unit_price: Some(money(line.unit_price)),
        returned: pieces(line.returned),
    }
}

/// The quantity of a line, which never exceeds [`QUANTITY_MAX`].
fn pieces(quantity: u64) -> u32 {
    u32::try_from(quantity).unwrap_or(u32::MAX)
}

/// An order's event for the wire.
pub(super) fn event(event: EventRecord) -> pb::OrderEvent {
    pb::OrderEvent {
        version: event.version,
        name: event.name,
        json: event.json.to_string(),
        at_unix_ms: event.at_ms,
    }
}

/// A product for the wire.
pub(super) fn product(sku: &str, state: &product::State) -> catalog::Product {
    catalog::Product {
        sku: sku.to_owned(),
        name: state.name.clone(),
        price: Some(money(state.price)),
        version: state.version,
    }
}

/// A stock item for the wire, after a command.
pub(super) fn stock_item(sku: &str, version: u64, levels: &Levels) -> catalog::StockItem {
    catalog::StockItem {
        sku: sku.to_owned(),
        on_hand: levels.on_hand,
        reserved: levels.reserved,
        sold: levels.sold,
        written_off: levels.written_off,
        received: levels.received,
        version,
    }
}

/// A stock item for the wire, as it was read.
pub(super) fn stock_state(sku: &str, version: u64, state: &stock::State) -> catalog::StockItem {
    let levels = Levels {
        on_hand: state.on_hand,
        reserved: state.reserved,
        sold: state.sold,
        written_off: state.written_off,
        received: state.received,
    };
    stock_item(sku, version, &levels)
}

/// A payment for the wire.
pub(super) fn payment(order_id: &str, version: u64, state: &payment::State) -> payment_pb::Payment {
    use payment::Status;
    use payment_pb::PaymentStatus;

    let status = match state.status {
        Status::New => PaymentStatus::Unspecified,
        Status::Authorising => PaymentStatus::Authorising,
        // Until the provider has confirmed the void, the amount is still set aside.
        Status::Authorised | Status::Voiding => PaymentStatus::Authorised,
        // To the customer both are the same: nothing was taken, and the reason says why.
        Status::Declined | Status::CaptureFailed => PaymentStatus::Declined,
        Status::Capturing => PaymentStatus::Capturing,
        Status::Captured if state.is_refunded() => PaymentStatus::Refunded,
        Status::Captured => PaymentStatus::Captured,
        Status::Voided => PaymentStatus::Voided,
    };
    payment_pb::Payment {
        order_id: order_id.to_owned(),
        status: status.into(),
        amount: Some(money(state.amount)),
        captured: Some(money(state.captured)),
        refunded: Some(money(state.refunded)),
        reason: state.reason.clone().unwrap_or_default(),
        provider_reference: state.authorisation.clone().unwrap_or_default(),
        version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str, quantity: u32) -> pb::OrderLine {
        pb::OrderLine {
            sku: sku.to_owned(),
            quantity,
            unit_price: None,
        }
    }

    fn request(lines: Vec<pb::OrderLine>) -> pb::PlaceOrderRequest {
        pb::PlaceOrderRequest {
            lines,
            ..pb::PlaceOrderRequest::default()
        }
    }

    fn field_of(request: pb::PlaceOrderRequest) -> String {
        match wanted(request) {
            Err(Fault::Invalid { field, .. }) => field,
            other => panic!("not invalid: {other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_has_a_meaning() {
        let wanted = wanted(request(vec![line("A", 2)])).expect("right");
        assert_eq!((wanted.order, wanted.customer), (None, None));
        assert_eq!((wanted.currency, wanted.card.as_str()), (Currency::GBP, CARD_DEFAULT));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let good = || request(vec![line("A", 1), line("B", 1)]);
        assert_eq!(field_of(request(Vec::new())), "lines");
        assert_eq!(field_of(request(vec![line("A", 1); 100_000])), "lines");
        assert_eq!(field_of(request(vec![line("A", 1), line("B", 0)])), "lines[1].quantity");
        assert_eq!(field_of(request(vec![line("A", u32::MAX)])), "lines[0].quantity");
        assert_eq!(field_of(request(vec![line("", 1)])), "lines[0].sku");
        assert_eq!(field_of(request(vec![line(&"x".repeat(1000), 1)])), "lines[0].sku");
        let priced = |minor, currency: &str| {
            let mut request = good();
            request.lines[1].unit_price = Some(common::Money {
                minor,
                currency: currency.to_owned(),
            });
            request
        };
        assert_eq!(field_of(priced(-1, "GBP")), "lines[1].unit_price.minor");
        assert_eq!(field_of(priced(1, "pounds")), "lines[1].unit_price.currency");
        let order_id = "o\n".to_owned();
        assert_eq!(field_of(pb::PlaceOrderRequest { order_id, ..good() }), "order_id");
        let customer_id = "c".repeat(10_000);
        assert_eq!(field_of(pb::PlaceOrderRequest { customer_id, ..good() }), "customer_id");
        let currency = "£".to_owned();
        assert_eq!(field_of(pb::PlaceOrderRequest { currency, ..good() }), "currency");
        let card = "4".repeat(10_000_000);
        assert_eq!(field_of(pb::PlaceOrderRequest { card, ..good() }), "card");
    }

    #[test]
    fn lines_of_a_return_are_summed_within_the_limit() {
        let back = |quantities: &[u32]| {
            brought_back(pb::ReturnItemsRequest {
                customer_id: "c".to_owned(),
                lines: (quantities.iter())
                    .map(|quantity| pb::ReturnLine {
                        sku: "A".to_owned(),
                        quantity: *quantity,
                    })
                    .collect(),
                ..pb::ReturnItemsRequest::default()
            })
        };
        let sums: Vec<_> = back(&[1, 2]).expect("right").lines.into_values().collect();
        assert_eq!(sums, [3]);
        assert!(matches!(
            back(&[1_000_000_000, 1]),
            Err(Fault::Invalid { field, .. }) if field == "lines[1].quantity"
        ));
    }
}
