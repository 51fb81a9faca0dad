//! Decimal text to minor units, exactly: no floats on the way.

/// Why a text is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PriceError {
    /// It is not a decimal number.
    #[error("not a decimal number")]
    NotDecimal,
    /// It has digits other than 0 after the second place.
    #[error("finer than a penny")]
    FinerThanPenny,
    /// It does not fit.
    #[error("too large")]
    TooLarge,
}

/// Reads `2.55` as 255. Two places; more only if they are 0.
pub(crate) fn parse_minor(text: &str) -> Result<i64, PriceError> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return Err(PriceError::NotDecimal);
    }
    let (pence, rest) = fraction.split_at(fraction.len().min(2));
    if rest.bytes().any(|b| b != b'0') {
        return Err(PriceError::FinerThanPenny);
    }
    let digits = format!("{whole}{pence:0<2}");
    let minor: i64 = digits.parse().map_err(|_| PriceError::TooLarge)?;
    Ok(if negative { -minor } else { minor })
}

/// For clap: a price of the command line, which cannot be negative.
pub(crate) fn parse_price_argument(text: &str) -> Result<i64, String> {
    match parse_minor(text) {
        Ok(minor) if minor < 0 => Err("a price cannot be negative".to_owned()),
        Ok(minor) => Ok(minor),
        Err(error) => Err(format!("{error}: write it as 2.55")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_pence_exactly() {
        for (text, minor) in [
            ("2.55", 255),
            ("2.5", 250),
            ("2", 200),
            ("0.0", 0),
            (".07", 7),
            ("887.52", 88_752),
            ("-11062.06", -1_106_206),
            (" 4.10000 ", 410),
            ("+1.00", 100),
        ] {
            assert_eq!(parse_minor(text), Ok(minor), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_says_why() {
        for (text, error) in [
            ("", PriceError::NotDecimal),
            (".", PriceError::NotDecimal),
            ("1e3", PriceError::NotDecimal),
            ("1,50", PriceError::NotDecimal),
            ("--1", PriceError::NotDecimal),
            ("NaN", PriceError::NotDecimal),
            ("0.001", PriceError::FinerThanPenny),
            ("99999999999999999999", PriceError::TooLarge),
        ] {
            assert_eq!(parse_minor(text), Err(error), "{text}");
        }
    }
}
