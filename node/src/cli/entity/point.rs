//! Versions and times on the command line.

use std::fmt;

use jiff::Timestamp;
use proto::history::v1 as pb;

/// Whole numbers from here on are times in unix milliseconds (this one is in March 1973), smaller ones are versions.
const TIMES_FROM: u64 = 100_000_000_000;

/// A point in an entity's history, as a person writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Version(u64),
    UnixMs(u64),
}

impl Point {
    pub(super) fn to_wire(self) -> pb::Point {
        pb::Point {
            at: Some(match self {
                Self::Version(version) => pb::point::At::Version(version),
                Self::UnixMs(ms) => pb::point::At::UnixMs(ms),
            }),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version}"),
            Self::UnixMs(ms) => f.write_str(&time_text(*ms)),
        }
    }
}

/// A version, a time with its offset from UTC, or unix milliseconds.
pub(super) fn parse(text: &str) -> Result<Point, String> {
    match text.parse::<u64>() {
        Ok(number) if number < TIMES_FROM => Ok(Point::Version(number)),
        _ => parse_time(text).map(Point::UnixMs).map_err(|_| {
            "write a version (12), a time (2026-11-21T10:30:00Z) or unix milliseconds (1795257000000)".to_owned()
        }),
    }
}

/// A time with its offset from UTC, or unix milliseconds; in unix milliseconds.
pub(crate) fn parse_time(text: &str) -> Result<u64, String> {
    let wrong = || "write a time (2026-11-21T10:30:00Z) or unix milliseconds (1795257000000)".to_owned();
    match text.parse::<u64>() {
        Ok(ms) if ms >= TIMES_FROM => Ok(ms),
        Ok(_) => Err(wrong()),
        Err(_) => {
            let time: Timestamp = text.parse().map_err(|_| wrong())?;
            u64::try_from(time.as_millisecond()).map_err(|_| wrong())
        }
    }
}

/// A time for people.
pub(crate) fn time_text(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{unix_ms} unix ms"), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_times_are_told_apart() {
        assert_eq!(parse("12"), Ok(Point::Version(12)));
        assert_eq!(parse("0"), Ok(Point::Version(0)));
        assert_eq!(parse("1795257000000"), Ok(Point::UnixMs(1_795_257_000_000)));
        assert_eq!(parse("2026-11-21T10:30:00Z"), Ok(Point::UnixMs(1_795_257_000_000)));
        assert_eq!(
            parse("2026-11-21T11:30:00.250+01:00"),
            Ok(Point::UnixMs(1_795_257_000_250))
        );
        for wrong in [
            "",
            "-1",
            "yesterday",
            "2026-11-21",
            "2026-11-21T10:30:00",
            "1.5",
            "99999999999999999999999",
        ] {
            assert!(
                parse(wrong).expect_err(wrong).contains("2026-11-21T10:30:00Z"),
                "{wrong}"
            );
        }
        assert_eq!(time_text(1_795_257_000_250), "2026-11-21T10:30:00.250Z");
    }
}
