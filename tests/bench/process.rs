//! What processes have used, as the system counts it.

use std::{fs, io};

use rustix::process::{Pid, setpriority_process};

/// Linux counts processor time for other programs in hundredths of a second on every architecture it runs on.
const TICK_US: u64 = 10_000;
/// Where user and system time stand behind the name in `/proc/PID/stat`.
const STAT_UTIME: usize = 11;
const STAT_STIME: usize = 12;
/// Where idle time and waiting for the device stand in `/proc/stat`.
const IDLE: [usize; 2] = [3, 4];
/// `/proc/stat` repeats guests' time at the end; only the first eight count.
const MACHINE_FIELDS: usize = 8;

/// How far the nodes stand back behind the load generator, as `nice` counts it.
const NODES_NICENESS: i32 = 5;

/// The processes of a cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    pub(crate) nodes: Vec<u64>,
    pub(crate) provider: Option<u64>,
}

/// What was used up to a moment; two of them make a [`Usage`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time of all nodes.
    pub(crate) nodes_us: u64,
    /// Processor time of the payment provider.
    pub(crate) provider_us: u64,
    /// Processor time of the load generator.
    pub(crate) client_us: u64,
    /// Processor time of the whole machine.
    pub(crate) machine_us: u64,
    /// What the nodes made the device write.
    pub(crate) written_bytes: u64,
}

impl Processes {
    /// What has been used until now.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            nodes_us: self.nodes.iter().map(|pid| processor_us(&pid.to_string())).sum(),
            provider_us: self.provider.map_or(0, |pid| processor_us(&pid.to_string())),
            client_us: processor_us("self"),
            machine_us: machine_us(),
            written_bytes: self.nodes.iter().map(|pid| written_bytes(*pid)).sum(),
        }
    }
}

impl Processes {
    /// Lets the load generator go before the nodes where both want a core. One that waits for its turn sends less than it is meant
    /// to, and takes answers for late that came in time: on machines of its own it would not.
    pub(crate) fn yield_to_generator(&self) -> io::Result<()> {
        for pid in &self.nodes {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let task = task?.file_name().to_str().and_then(|task| task.parse().ok());
                if let Some(task) = task.and_then(Pid::from_raw) {
                    setpriority_process(Some(task), NODES_NICENESS)?;
                }
            }
        }
        Ok(())
    }

    /// Memory that the nodes hold, the largest first.
    pub(crate) fn resident_bytes(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.nodes.iter().map(|pid| resident_bytes(*pid)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all
    }
}

impl Usage {
    /// What was used since then.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            nodes_us: self.nodes_us.saturating_sub(earlier.nodes_us),
            provider_us: self.provider_us.saturating_sub(earlier.provider_us),
            client_us: self.client_us.saturating_sub(earlier.client_us),
            machine_us: self.machine_us.saturating_sub(earlier.machine_us),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        }
    }

    /// What programs used that have nothing to do with the bench.
    pub(crate) fn others_us(&self) -> u64 {
        self.machine_us
            .saturating_sub(self.nodes_us + self.provider_us + self.client_us)
    }
}

/// A process that has gone counts as 0.
fn processor_us(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces and parentheses; what follows its last one does not.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return 0;
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    [STAT_UTIME, STAT_STIME]
        .iter()
        .filter_map(|place| fields.get(*place)?.parse::<u64>().ok())
        .sum::<u64>()
        * TICK_US
}

fn machine_us() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    all.take(MACHINE_FIELDS)
        .enumerate()
        .filter(|(place, _)| !IDLE.contains(place))
        .filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * TICK_US
}

fn resident_bytes(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn written_bytes(pid: u64) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines()
        .find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
        .unwrap_or(0)
}
