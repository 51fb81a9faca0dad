//! What the process takes of its machine, under the names that all exporters for Prometheus use.

use std::{fs, time::Duration};

use opentelemetry::metrics::Meter;

/// What the system says of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Taken {
    /// Time on processors since it began.
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
}

/// Ticks of the system's clock in a second, in which it tells the time on processors. Fixed in Linux's interface.
const TICKS_PER_S: u64 = 100;
/// Bytes of a page where the system does not say otherwise in `status`.
const KIB: u64 = 1024;

/// Looks now; zeros where the system says nothing.
pub(super) fn taken() -> Taken {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    parse(&stat, &status)
}

fn parse(stat: &str, status: &str) -> Taken {
    // The name of the program comes before and may hold anything, even blanks and brackets.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let of_status = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let ticks = number(11) + number(12);
    Taken {
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_S),
        resident_bytes: of_status("VmRSS:") * KIB,
        threads: number(17),
    }
}

fn open_files() -> Option<u64> {
    fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64)
}

fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Shows the readers what the process takes, when they ask.
pub(super) fn observe(meter: &Meter) {
    let began_s = super::unix_ms() as f64 / 1000.0;
    meter
        .f64_observable_counter("process.cpu")
        .with_unit("s")
        .with_description("Time on processors.")
        .with_callback(|observer| observer.observe(taken().cpu.as_secs_f64(), &[]))
        .build();
    meter
        .u64_observable_gauge("process.resident.memory")
        .with_unit("By")
        .with_description("Memory that the process holds.")
        .with_callback(|observer| observer.observe(taken().resident_bytes, &[]))
        .build();
    meter
        .u64_observable_gauge("process.threads")
        .with_description("Threads.")
        .with_callback(|observer| observer.observe(taken().threads, &[]))
        .build();
    meter
        .u64_observable_gauge("process.open.fds")
        .with_description("Open files and sockets.")
        .with_callback(|observer| {
            if let Some(count) = open_files() {
                observer.observe(count, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process.max.fds")
        .with_description("How many of them there may be.")
        .with_callback(|observer| {
            if let Some(count) = open_files_max() {
                observer.observe(count, &[]);
            }
        })
        .build();
    meter
        .f64_observable_gauge("process.start.time")
        .with_unit("s")
        .with_description("When the process began, in seconds since 1970.")
        .with_callback(move |observer| observer.observe(began_s, &[]))
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read_whatever_the_program_is_called() {
        let stat =
            "12 (a ) b) S 1 12 12 0 -1 4194560 2050 0 0 0 250 50 0 0 20 0 9 0 100 1000000 500 18446744073709551615";
        let status = "Name:\ta ) b\nVmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n";
        let expected = Taken {
            cpu: Duration::from_secs(3),
            resident_bytes: 2 << 20,
            threads: 9,
        };
        assert_eq!(parse(stat, status), expected);
        assert_eq!(parse("", ""), Taken::default());
    }

    #[test]
    fn this_process_takes_something() {
        let taken = taken();
        assert!(taken.resident_bytes > 0 && taken.threads > 0, "{taken:?}");
        assert!(open_files().is_some_and(|count| count > 0));
        assert!(open_files_max() >= open_files());
    }
}
