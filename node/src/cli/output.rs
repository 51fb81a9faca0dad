//! What commands print: tables for people, one line of JSON for scripts. Nothing here is coloured, so that a pipe
//! gets the same text as a terminal.

use std::io::{self, Write as _};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use proto::common::v1::Money;
use serde_json::{Value, json};

/// Prints one line of JSON on standard output.
pub(crate) fn print_json(value: &Value) {
    print_text(&value.to_string());
}

/// Prints text and a line end on standard output. A reader that has gone away is not an error of the command.
pub(crate) fn print_text(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A table with these column heads; a head that begins with `>` has its column aligned to the right.
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(heads.iter().map(|head| Cell::new(head.trim_start_matches('>'))));
    for (index, head) in heads.iter().enumerate() {
        let column = table.column_mut(index).expect("the header made this column");
        column.set_padding((0, 2));
        if head.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table as text, without the spaces at line ends.
pub(crate) fn render(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// An amount for people, such as `7.65 GBP`.
pub(crate) fn amount(money: Option<&Money>) -> String {
    money.map_or_else(
        || "-".to_owned(),
        |m| format!("{} {}", decimal(m.minor), m.currency).trim_end().to_owned(),
    )
}

/// Minor units as a decimal with two places.
pub(crate) fn decimal(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    format!("{sign}{}.{:02}", minor / 100, minor % 100)
}

/// An amount for scripts.
pub(crate) fn amount_json(money: Option<&Money>) -> Value {
    money.map_or(Value::Null, |m| json!({"minor": m.minor, "currency": m.currency}))
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const MIB: u64 = 1 << 20;
    if count >= MIB {
        format!("{} MiB", count / MIB)
    } else {
        format!("{} KiB", count >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_two_places_and_their_sign() {
        assert_eq!(decimal(765), "7.65");
        assert_eq!(decimal(5), "0.05");
        assert_eq!(decimal(-5), "-0.05");
        assert_eq!(decimal(i64::MIN), "-92233720368547758.08");
    }

    #[test]
    fn tables_line_up_without_trailing_spaces() {
        let mut table = table(&["sku", ">on hand"]);
        table.add_row(vec!["tea", "12"]);
        table.add_row(vec!["kettle", "3"]);
        assert_eq!(render(&table), "sku     on hand\ntea          12\nkettle        3");
    }
}
