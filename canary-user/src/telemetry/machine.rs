//! The whole machine over a tick, from procfs.

use std::{collections::BTreeMap, fs, path::Path};

use super::Machine;

/// Where interfaces are told, and which of them have a device. Process 1 is in the machine's own network namespace, where this
/// process sees it, also from a pod that has a namespace to itself; else this process' own has to do.
const INTERFACES: [(&str, &str); 2] =
    [("/proc/1/net/dev", "/proc/1/root/sys/class/net"), ("/proc/net/dev", "/sys/class/net")];

/// Keeps the last cumulative readings, so that each call covers the time since the one before.
#[derive(Debug, Default)]
pub struct MachineReader {
    last: Option<Ticks>,
    interfaces: Interfaces,
}

/// Clock ticks of all CPUs.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// By name, as they were last read.
#[derive(Debug, Default)]
struct Interfaces(BTreeMap<String, Interface>);

#[derive(Clone, Copy, Debug)]
struct Interface {
    /// A network card, not a bridge, a tunnel or one end of a container's pair.
    has_device: bool,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl MachineReader {
    /// `None` on the first call, where procfs cannot be read, and where the CPUs' times went back, as when one is taken away.
    pub fn read(&mut self) -> Option<Machine> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let now = cpu_ticks(&stat)?;
        let told = |(dev, class): &(&str, &'static str)| Some((fs::read_to_string(dev).ok()?, *class));
        let (dev, class) = INTERFACES.iter().find_map(told)?;
        let has_device = |name: &str| Path::new(class).join(name).join("device").exists();
        let (network_rx_bytes, network_tx_bytes) = self.interfaces.bytes_since(&dev, has_device);
        let last = self.last.replace(now)?;
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        Some(Machine {
            cpu_busy: busy_share(&last, &now)?,
            cpus: stat.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count() as u32,
            memory_total_bytes: kib(&meminfo, "MemTotal:")?,
            memory_available_bytes: kib(&meminfo, "MemAvailable:")?,
            network_rx_bytes,
            network_tx_bytes,
        })
    }
}

impl Interfaces {
    /// Bytes received and sent since the last call, over the interfaces with a device: what a container sends passes its pair, a
    /// bridge and the card, and is to be counted once. Where none has one, over all but loopback.
    fn bytes_since(&mut self, dev: &str, has_device: impl Fn(&str) -> bool) -> (u64, u64) {
        let mut now = BTreeMap::new();
        for (name, rx_bytes, tx_bytes) in dev.lines().filter_map(interface).filter(|(name, ..)| *name != "lo") {
            let known = self.0.get(name).map(|before| before.has_device);
            let has_device = known.unwrap_or_else(|| has_device(name));
            now.insert(name.to_owned(), Interface { has_device, rx_bytes, tx_bytes });
        }
        let any = now.values().any(|interface| interface.has_device);
        let before = std::mem::replace(&mut self.0, now);
        // One that is new has counted what it has counted before it was seen.
        let pairs = self.0.iter().filter_map(|(name, now)| Some((now, before.get(name)?)));
        pairs.filter(|(now, _)| now.has_device || !any).fold((0, 0), |(rx, tx), (now, before)| {
            (rx + now.rx_bytes.saturating_sub(before.rx_bytes), tx + now.tx_bytes.saturating_sub(before.tx_bytes))
        })
    }
}

/// Share of the time of all CPUs from one reading to the next in which they were busy.
fn busy_share(last: &Ticks, now: &Ticks) -> Option<f64> {
    let (busy, all) = (now.busy.checked_sub(last.busy)?, now.all.checked_sub(last.all)?);
    Some(if all == 0 { 0.0 } else { busy as f64 / all as f64 })
}

/// Busy and all ticks of the first line of /proc/stat. Guest time is part of user time already.
fn cpu_ticks(stat: &str) -> Option<Ticks> {
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    let all: u64 = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(Ticks { busy: all - idle, all })
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Name, received and sent bytes of one line; `None` for the heading.
fn interface(line: &str) -> Option<(&str, u64, u64)> {
    let (name, counts) = line.split_once(':')?;
    let mut counts = counts.split_whitespace();
    Some((name.trim(), counts.next()?.parse().ok()?, counts.nth(7)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_procfs() {
        let ticks = cpu_ticks("cpu  10 0 5 80 5 0 0 0 3 0\n").expect("eight numbers");
        assert_eq!((ticks.busy, ticks.all), (15, 100));
        assert_eq!(kib("MemTotal:  2 kB\n", "MemTotal:"), Some(2048));
        assert_eq!(interface("eth0: 7 0 0 0 0 0 0 0 3 0"), Some(("eth0", 7, 3)));
        assert_eq!(interface(" face |bytes    packets errs drop"), None);
    }

    /// What /proc/net/dev says where each of these has received and sent so much.
    fn dev(interfaces: &[(&str, u64, u64)]) -> String {
        let line = |(name, rx, tx): &(&str, u64, u64)| format!("{name:>6}: {rx} 1 0 0 0 0 0 0 {tx} 1 0 0 0 0 0 0\n");
        format!("Inter-| Receive\n face |bytes\n{}", interfaces.iter().map(line).collect::<String>())
    }

    #[test]
    fn what_passes_several_interfaces_is_counted_where_there_is_a_device() {
        let is_card = |name: &str| name == "eth0";
        let mut interfaces = Interfaces::default();
        let pods = [("lo", 9, 9), ("eth0", 100, 50), ("cni0", 1000, 1000), ("veth1", 1000, 1000)];
        assert_eq!(interfaces.bytes_since(&dev(&pods), is_card), (0, 0), "nothing is known of before");
        let more = [("lo", 99, 99), ("eth0", 107, 53), ("cni0", 1007, 1003), ("veth1", 1007, 1003), ("veth2", 5, 5)];
        assert_eq!(interfaces.bytes_since(&dev(&more), is_card), (7, 3));
        let mut interfaces = Interfaces::default();
        interfaces.bytes_since(&dev(&pods), |_| false);
        assert_eq!(
            interfaces.bytes_since(&dev(&more), |_| false),
            (21, 9),
            "all but loopback, from when they were seen"
        );
    }

    #[test]
    fn times_that_went_back_are_no_idle_machine() {
        let at = |busy: u64, all: u64| Ticks { busy, all };
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
