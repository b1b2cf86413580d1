//! The whole machine over a tick, from procfs.

use std::fs;

use super::Machine;

/// Keeps the last cumulative readings, so that each call covers the time since the one before.
#[derive(Debug, Default)]
pub struct MachineReader {
    last: Option<Totals>,
}

#[derive(Clone, Copy, Debug)]
struct Totals {
    busy: u64,
    all: u64,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl MachineReader {
    /// `None` on the first call, where procfs cannot be read, and where the CPUs' times went back, as when one is taken away.
    pub fn read(&mut self) -> Option<Machine> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let (busy, all) = cpu_ticks(&stat)?;
        let (rx_bytes, tx_bytes) = interface_bytes(&fs::read_to_string("/proc/net/dev").ok()?);
        let now = Totals { busy, all, rx_bytes, tx_bytes };
        let last = self.last.replace(now)?;
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        Some(Machine {
            cpu_busy: busy_share(&last, &now)?,
            cpus: stat.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count() as u32,
            memory_total_bytes: kib(&meminfo, "MemTotal:")?,
            memory_available_bytes: kib(&meminfo, "MemAvailable:")?,
            // An interface that is gone takes its bytes along, which is no reason to know nothing of the machine.
            network_rx_bytes: now.rx_bytes.saturating_sub(last.rx_bytes),
            network_tx_bytes: now.tx_bytes.saturating_sub(last.tx_bytes),
        })
    }
}

/// Share of the time of all CPUs from one reading to the next in which they were busy.
fn busy_share(last: &Totals, now: &Totals) -> Option<f64> {
    let (busy, all) = (now.busy.checked_sub(last.busy)?, now.all.checked_sub(last.all)?);
    Some(if all == 0 { 0.0 } else { busy as f64 / all as f64 })
}

/// Busy and all ticks of the first line of /proc/stat. Guest time is part of user time already.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    let all: u64 = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some((all - idle, all))
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Received and sent bytes of all interfaces but loopback.
fn interface_bytes(dev: &str) -> (u64, u64) {
    dev.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim() != "lo")
        .filter_map(|(_, rest)| {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            Some((fields.first()?.parse::<u64>().ok()?, fields.get(8)?.parse::<u64>().ok()?))
        })
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_procfs() {
        assert_eq!(cpu_ticks("cpu  10 0 5 80 5 0 0 0 3 0\n"), Some((15, 100)));
        assert_eq!(kib("MemTotal:  2 kB\n", "MemTotal:"), Some(2048));
        let dev = "Inter-| x\n face |y\n  lo: 9 0 0 0 0 0 0 0 9 0\neth0: 7 0 0 0 0 0 0 0 3 0\n";
        assert_eq!(interface_bytes(dev), (7, 3));
    }

    #[test]
    fn times_that_went_back_are_no_idle_machine() {
        let at = |busy: u64, all: u64| Totals { busy, all, rx_bytes: 0, tx_bytes: 0 };
        assert_eq!(busy_share(&at(100, 1000), &at(150, 1100)), Some(0.5));
        assert_eq!(busy_share(&at(100, 1000), &at(90, 1100)), None);
        assert_eq!(busy_share(&at(100, 1000), &at(150, 900)), None);
    }

    #[test]
    fn the_first_reading_has_no_span() {
        let mut reader = MachineReader::default();
        assert!(reader.read().is_none());
        assert!(reader.read().is_some_and(|m| m.memory_total_bytes > 0 && m.cpus > 0));
    }
}
