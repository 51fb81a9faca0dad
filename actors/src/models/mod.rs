//! Read models of the domain: what the events of many entities add up to.
//!
//! [`sales`] counts what was sold, returned and called off, by product and by day, and the money that was taken; [`orders`] lists
//! orders by customer and by where they stand; [`levels`] counts what is under way and in stock. All are pure, like entities: the same events make the same rows.

pub mod levels;
pub mod orders;
pub mod sales;

pub use levels::Levels;
pub use orders::Orders;
pub use sales::Sales;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// The day of a time in milliseconds since 1970 (UTC), as `2026-11-21`. Texts of days are in the order of the days.
fn day(at_ms: u64) -> String {
    // Days since 1970 as a date, counted in years that begin with March, so that the day of a leap year comes last.
    let days = at_ms / DAY_MS + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_400_000), "2000-02-29");
        assert_eq!(day(951_868_800_000 - 1), "2000-02-29");
        assert_eq!(day(951_868_800_000), "2000-03-01");
        assert_eq!(day(1_795_219_200_000), "2026-11-21");
        assert_eq!(day(4_107_542_399_999), "2100-02-28");
        assert_eq!(day(4_107_542_400_000), "2100-03-01");
    }
}
