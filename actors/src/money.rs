//! Money: an integer number of the currency's smallest unit. There are no floats, and no arithmetic that can wrap.

use std::{fmt, str::FromStr};

use cluster::JsonSchema;
use serde::{Deserialize, Serialize};

/// A currency by its three capital letters (ISO 4217). The default is `XXX`, which stands for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("examples" = ["GBP"]))]
pub struct Currency([u8; 3]);

impl Currency {
    /// Pound sterling.
    pub const GBP: Self = Self(*b"GBP");
    /// No currency.
    pub const NONE: Self = Self(*b"XXX");

    /// The currency as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency holds three ASCII letters, checked when it was made")
    }

    /// How many decimal digits its smallest unit has: 2 for most.
    pub fn digits(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
            | b"UYI" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }
}

impl Default for Currency {
    fn default() -> Self {
        Self::NONE
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            _ => Err(MoneyError::Currency(text.chars().take(20).collect())),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    /// Pence, cents; negative for what is owed.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

/// Why there is no such amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, JsonSchema)]
pub enum MoneyError {
    /// Beyond what 64 bits hold.
    #[error("the amount is too large")]
    Overflow,
    /// Two currencies in one sum.
    #[error("{left} and {right} cannot be added; use one currency")]
    CurrencyMismatch {
        /// The one.
        left: Currency,
        /// The other.
        right: Currency,
    },
    /// Not three capital letters.
    #[error("{0:?} is no currency; use three capital letters such as GBP")]
    Currency(String),
    /// Not a decimal number.
    #[error("{0:?} is no amount; write it like 2.55")]
    Amount(String),
    /// Smaller than the smallest unit.
    #[error("{text:?} is finer than the smallest unit; at most {digits} digits may follow the point")]
    TooFine {
        /// What was written.
        text: String,
        /// The digits that the currency has.
        digits: u32,
    },
}

impl Money {
    /// An amount in smallest units.
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Nothing, in that currency.
    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// Reads decimal text such as `2.55` or `-0.3`, exactly.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let bad = || MoneyError::Amount(text.chars().take(40).collect());
        let (negative, number) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match number.split_once('.') {
            Some((_, "")) => return Err(bad()),
            Some((whole, fraction)) => (whole, fraction),
            None => (number, ""),
        };
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let digits = currency.digits();
        let fraction = fraction.trim_end_matches('0');
        let missing = (digits as usize)
            .checked_sub(fraction.len())
            .ok_or_else(|| MoneyError::TooFine {
                text: text.chars().take(40).collect(),
                digits,
            })?;
        let sign = if negative { -1 } else { 1 };
        let minor = (whole.bytes())
            .chain(fraction.bytes())
            .chain(std::iter::repeat_n(b'0', missing))
            .try_fold(0_i64, |sum, digit| {
                sum.checked_mul(10)?.checked_add(sign * i64::from(digit - b'0'))
            })
            .ok_or(MoneyError::Overflow)?;
        Ok(Self::new(minor, currency))
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.minor == 0
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self::new(minor, self.currency))
    }

    /// The difference.
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        let minor = self.minor.checked_sub(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self::new(minor, self.currency))
    }

    /// So many times the amount.
    pub fn times(self, quantity: u64) -> Result<Self, MoneyError> {
        let minor = i64::try_from(quantity)
            .ok()
            .and_then(|quantity| self.minor.checked_mul(quantity))
            .ok_or(MoneyError::Overflow)?;
        Ok(Self::new(minor, self.currency))
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            return Ok(());
        }
        Err(MoneyError::CurrencyMismatch {
            left: self.currency,
            right: other.currency,
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.currency.digits() as usize;
        let unit = 10_u64.pow(self.currency.digits());
        let (sign, minor) = (if self.minor < 0 { "-" } else { "" }, self.minor.unsigned_abs());
        match digits {
            0 => write!(f, "{sign}{minor} {}", self.currency),
            _ => write!(f, "{sign}{}.{:0digits$} {}", minor / unit, minor % unit, self.currency),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gbp(text: &str) -> Result<i64, MoneyError> {
        Money::parse(text, Currency::GBP).map(|money| money.minor)
    }

    #[test]
    fn decimal_text_is_read_exactly() {
        for (text, minor) in [
            ("2.55", 255),
            ("2.5", 250),
            ("2", 200),
            ("0.07", 7),
            ("-11062.06", -1_106_206),
            ("2.5500", 255),
            ("92233720368547758.07", i64::MAX),
            ("-92233720368547758.08", i64::MIN),
        ] {
            assert_eq!(gbp(text), Ok(minor), "{text}");
        }
        let yen = "JPY".parse().expect("a currency");
        assert_eq!(Money::parse("300", yen), Ok(Money::new(300, yen)));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "-", ".", ".5", "5.", "1e3", "1,5", "+1", "--1", "1.2.3", "٣", "NaN"] {
            assert_eq!(gbp(text), Err(MoneyError::Amount(text.to_owned())), "{text}");
        }
        assert_eq!(gbp("92233720368547758.08"), Err(MoneyError::Overflow));
        assert!(matches!(gbp("0.001"), Err(MoneyError::TooFine { digits: 2, .. })));
    }

    #[test]
    fn arithmetic_refuses_to_wrap_or_to_mix() {
        let most = Money::new(i64::MAX, Currency::GBP);
        assert_eq!(most.plus(Money::new(1, Currency::GBP)), Err(MoneyError::Overflow));
        assert_eq!(most.times(2), Err(MoneyError::Overflow));
        assert_eq!(Money::new(1, Currency::GBP).times(u64::MAX), Err(MoneyError::Overflow));
        let other = Money::new(1, Currency::NONE);
        assert!(matches!(most.minus(other), Err(MoneyError::CurrencyMismatch { .. })));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(minor: i64, digits in prop::sample::select(vec!["GBP", "JPY", "KWD"])) {
            let currency: Currency = digits.parse().expect("a currency");
            let money = Money::new(minor, currency);
            let shown = money.to_string();
            let (amount, _) = shown.split_once(' ').expect("amount and currency");
            prop_assert_eq!(Money::parse(amount, currency), Ok(money));
        }
    }
}
