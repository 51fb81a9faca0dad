//! Reads a file of invoices, one row a product, as messy as it is: plain or gzip, UTF-8 or Latin-1, rows that are
//! short or do not make sense. A row that cannot be used is kept with its fault, so that it can be accounted for.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use csv::{ByteRecord, ReaderBuilder, Trim};
use flate2::read::MultiGzDecoder;

use crate::cli::{
    failure::Failure,
    price::{PriceError, parse_minor},
};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file that was read.
#[derive(Debug)]
pub(super) struct File {
    /// Of the content, after unpacking.
    pub(super) hash: u64,
    pub(super) rows: Vec<Row>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its place among the data rows, from 1.
    pub(super) number: usize,
    pub(super) invoice: String,
    pub(super) sku: String,
    pub(super) description: String,
    pub(super) quantity: i64,
    /// In minor units. Rows of returns and write-offs do not need one.
    pub(super) price: Result<i64, PriceError>,
    /// Empty for a guest.
    pub(super) customer: String,
    /// Why the row cannot be used.
    pub(super) fault: Option<String>,
}

/// Where each column stands.
struct Columns {
    invoice: usize,
    sku: usize,
    quantity: usize,
    price: usize,
    description: Option<usize>,
    customer: Option<usize>,
    count: usize,
}

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<File, Failure> {
    let unreadable = |error: io::Error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    let packed = fs::read(path).map_err(unreadable)?;
    let content = unpack(packed).map_err(unreadable)?;
    parse(&content).map_err(|reason| {
        Failure::usage(format!("{} is not a file of invoices: {reason}", path.display()))
            .help("it needs a header with InvoiceNo, StockCode, Quantity and UnitPrice")
    })
}

fn unpack(packed: Vec<u8>) -> io::Result<Vec<u8>> {
    if !packed.starts_with(&GZIP_MAGIC) {
        return Ok(packed);
    }
    let mut content = Vec::new();
    MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut content)?;
    Ok(content)
}

fn parse(content: &[u8]) -> Result<File, String> {
    let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut reader = ReaderBuilder::new().flexible(true).trim(Trim::All).from_reader(text);
    let header = reader.byte_headers().map_err(|error| error.to_string())?.clone();
    let columns = Columns::of(&header)?;
    let mut rows = Vec::new();
    let mut record = ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| error.to_string())?
    {
        rows.push(columns.row(rows.len() + 1, &record));
    }
    Ok(File {
        hash: fnv1a(content),
        rows,
    })
}

impl Columns {
    fn of(header: &ByteRecord) -> Result<Self, String> {
        let names: Vec<String> = header
            .iter()
            .map(|name| decode(name).to_ascii_lowercase().replace([' ', '_'], ""))
            .collect();
        let find = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
        let need = |wanted: &[&str], shown: &str| find(wanted).ok_or_else(|| format!("it has no column {shown}"));
        Ok(Self {
            invoice: need(&["invoiceno", "invoice"], "InvoiceNo")?,
            sku: need(&["stockcode", "sku"], "StockCode")?,
            quantity: need(&["quantity"], "Quantity")?,
            price: need(&["unitprice", "price"], "UnitPrice")?,
            description: find(&["description"]),
            customer: find(&["customerid", "customer"]),
            count: names.len(),
        })
    }

    fn row(&self, number: usize, record: &ByteRecord) -> Row {
        let text = |column: usize| record.get(column).map(decode).unwrap_or_default();
        let quantity = whole(&text(self.quantity));
        let price = parse_minor(&text(self.price));
        let mut row = Row {
            number,
            invoice: text(self.invoice),
            sku: text(self.sku),
            description: self.description.map(text).unwrap_or_default(),
            quantity: quantity.unwrap_or_default(),
            price,
            customer: self.customer.map(text).unwrap_or_default(),
            fault: None,
        };
        if let Some(id) = row.customer.strip_suffix(".0") {
            row.customer = id.to_owned(); // A number that has been through a spreadsheet.
        }
        let fault = if record.len() != self.count {
            Some(format!("has {} columns of {}", record.len(), self.count))
        } else if row.sku.is_empty() {
            Some("no stock code".to_owned())
        } else if quantity.is_none() {
            Some(format!("quantity is not a whole number: {:?}", text(self.quantity)))
        } else if matches!(row.price, Err(PriceError::NotDecimal | PriceError::TooLarge)) {
            Some(format!("price is not an amount: {:?}", text(self.price)))
        } else {
            None
        };
        row.fault = fault;
        row
    }
}

fn whole(text: &str) -> Option<i64> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

/// UTF-8, or else Latin-1, in which every byte is a character.
fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// FNV-1a in 64 bits: the same on every machine and with every build, which request ids need.
fn fnv1a(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn rows(body: &str) -> Vec<Row> {
        parse(format!("{HEADER}{body}").as_bytes())
            .expect("is a file of invoices")
            .rows
    }

    #[test]
    fn a_plain_row_is_read_exactly() {
        let rows = rows("536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n");
        assert_eq!(
            rows,
            [Row {
                number: 1,
                invoice: "536365".to_owned(),
                sku: "85123A".to_owned(),
                description: "WHITE HANGING HEART".to_owned(),
                quantity: 6,
                price: Ok(255),
                customer: "17850".to_owned(),
                fault: None,
            }]
        );
    }

    #[test]
    fn quotes_commas_and_latin_1_survive() {
        let mut content = HEADER.as_bytes().to_vec();
        content.extend(b"1,A,\"SET/6 \"\"RED\"\", BOX\",1,d,1.00,,X\n2,B,CAF\xc9 SIGN,1,d,1.00,,X\n");
        let rows = parse(&content).expect("is read").rows;
        assert_eq!(rows[0].description, "SET/6 \"RED\", BOX");
        assert_eq!(rows[0].customer, "");
        assert_eq!(rows[1].description, "CAFÉ SIGN");
    }

    #[test]
    fn rows_that_make_no_sense_are_kept_with_their_fault() {
        let rows = rows("1,A,x,many,d,1.00,,X\n2,A,x,1,d,cheap,,X\n3,A,x\n4,,x,1,d,1.00,,X\n5,A,x,1,d,0.001,,X\n");
        let faults: Vec<_> = rows.iter().map(|row| row.fault.as_deref()).collect();
        assert_eq!(faults[0], Some("quantity is not a whole number: \"many\""));
        assert_eq!(faults[1], Some("price is not an amount: \"cheap\""));
        assert_eq!(faults[2], Some("has 3 columns of 8"));
        assert_eq!(faults[3], Some("no stock code"));
        assert_eq!(
            faults[4], None,
            "what a price finer than a penny means depends on the invoice"
        );
    }

    #[test]
    fn gzip_is_known_by_its_content() {
        let content = format!("{HEADER}1,A,x,1,d,1.00,,X\n");
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(content.as_bytes()).expect("packed");
        let packed = packer.finish().expect("packed");
        assert_eq!(unpack(packed).expect("unpacked"), content.as_bytes());
        assert_eq!(
            unpack(content.clone().into_bytes()).expect("as it is"),
            content.as_bytes()
        );
    }

    #[test]
    fn a_file_without_the_columns_is_refused() {
        assert!(parse(b"a,b,c\n1,2,3\n").is_err());
        assert!(parse(b"").is_err());
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    proptest::proptest! {
        /// Whatever a file holds, each of its lines is a row, if only one with a fault.
        #[test]
        fn any_file_is_read_or_refused(
            is_headed in proptest::bool::ANY,
            lines in proptest::collection::vec("[ -~\\PC\"]{0,60}|[0-9A-Z]{1,6},[0-9A-Z]{0,6},,-?[0-9]{1,22},,-?[0-9.]{1,22},[0-9.]{0,9},", 0..8),
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        ) {
            let mut content = if is_headed { HEADER.as_bytes().to_vec() } else { Vec::new() };
            content.extend(lines.join("\n").into_bytes());
            content.extend(noise);
            if let Ok(file) = parse(&content) {
                for row in file.rows {
                    proptest::prop_assert!(row.fault.is_some() || !row.sku.is_empty());
                }
            }
            let packed = [&GZIP_MAGIC[..], &content].concat();
            let _ = unpack(packed);
        }
    }
}
