//! One sensor: the loaded programs, the targets that have a slot, and a tick that reads them all.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, RawTracePoint, RawTracePointRunOptions, TestRun as _,
        cgroup_skb::CgroupSkbLinkId,
    },
    util::online_cpus,
};
use canary_common::{Counters, Exit, MAX_LEVELS, Settings};

use super::{
    Cpu, Histogram, Lifecycle, Network, Quality, Reclaim, Sample, Tick,
    cgroupfs::{Books, CgroupFiles, pressure_between, throttling_between},
    hooks::{self, Live, Signal},
    kernel::Layout,
    kernel_maps::{KernelMaps, SlotTotals},
    machine::MachineReader,
};
use crate::targets::{Target, cgroup::Root};

/// The kernel programs, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CANARY_EBPF_OBJECT"));

/// What the sensor may be told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Hooks to leave out, by name.
    pub disabled_hooks: Vec<String>,
    /// Whether the kernel programs' debug lines reach the log.
    pub kernel_debug: bool,
}

/// Counts per target through eBPF and cgroupfs. Dropping it detaches everything.
pub struct Sensor {
    root: Root,
    ebpf: Ebpf,
    maps: KernelMaps,
    live: Live,
    /// Kept open: it drains the kernel programs' log lines.
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    tracked: BTreeMap<Target, Tracked>,
    free_slots: Vec<u32>,
    without_slot: u64,
    generation: u32,
    lost_before: u64,
    machine: MachineReader,
    last_tick_ns: u64,
}

/// A target that has a slot.
struct Tracked {
    slot: u32,
    since_ns: u64,
    files: CgroupFiles,
    totals: SlotTotals,
    books: Option<Books>,
    links: Vec<(&'static str, CgroupSkbLinkId)>,
    /// Why its network signal is missing although the programs are loaded.
    network_refused: Option<String>,
    gone: bool,
}

impl Sensor {
    /// Loads and attaches. Hooks that the kernel refuses are in [`Sensor::live`], they are no error.
    ///
    /// # Errors
    /// Where nothing works at all: no BTF, not enough privileges, or maps that the kernel refuses.
    pub fn load(root: Root, options: &Options) -> anyhow::Result<Self> {
        let missing = super::capabilities::effective()?.missing();
        anyhow::ensure!(missing.is_empty(), "this process lacks {}: run as root", missing.join(", "));
        let layout = Layout::read()?;
        let btf = Btf::from_sys_fs().context("read the kernel's BTF")?;
        let log_level: u8 = if options.kernel_debug { aya_log::Level::Debug as u8 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("TASK_PID", &layout.task_pid, true)
            .override_global("TASK_TGID", &layout.task_tgid, true)
            .override_global("TASK_STATE", &layout.task_state, true)
            .override_global("TASK_EXIT_CODE", &layout.task_exit_code, true)
            .override_global("SWITCH_HAS_STATE", &layout.switch_has_state, true)
            .override_global("VICTIM_IS_TASK", &layout.victim_is_task, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .load(OBJECT)
            .context("load the kernel programs")?;
        let logger = if options.kernel_debug { aya_log::EbpfLogger::init(&mut ebpf).ok() } else { None };
        let mut maps = KernelMaps::take(&mut ebpf)?;
        maps.set(Settings { generation: 1, ..Settings::default() })?;
        let live = hooks::attach(&mut ebpf, &btf, &options.disabled_hooks);
        let free_slots = (0..maps.slots()).rev().collect();
        let mut sensor = Self {
            root,
            ebpf,
            maps,
            live,
            logger,
            tracked: BTreeMap::new(),
            free_slots,
            without_slot: 0,
            generation: 1,
            lost_before: 0,
            machine: MachineReader::default(),
            last_tick_ns: monotonic_ns(),
        };
        sensor.flush();
        sensor.machine.read();
        Ok(sensor)
    }

    /// What is attached and what is not.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Tracks exactly `targets` from now on. One that cannot be tracked is counted and named in the log; the others
    /// are not disturbed.
    pub fn follow(&mut self, targets: &[Target]) {
        let vanished: Vec<Target> = self.tracked.keys().filter(|t| !targets.contains(t)).cloned().collect();
        let appeared: Vec<&Target> = targets.iter().filter(|t| !self.tracked.contains_key(t)).collect();
        self.without_slot = 0;
        if vanished.is_empty() && appeared.is_empty() {
            return;
        }
        for target in vanished {
            self.forget(&target);
        }
        for target in appeared {
            if let Err(error) = self.track(target) {
                self.without_slot += 1;
                tracing::warn!("{} is not tracked: {error:#}", target.cgroup);
            }
        }
        if let Err(error) = self.publish() {
            tracing::error!("the kernel programs do not know the new targets: {error:#}");
        }
    }

    fn track(&mut self, target: &Target) -> anyhow::Result<()> {
        let slot = self.free_slots.pop().with_context(|| {
            format!("all {} slots are taken: narrow the patterns in the configuration", self.maps.slots())
        })?;
        match self.track_in(slot, target) {
            Ok(tracked) => {
                self.tracked.insert(target.clone(), tracked);
                Ok(())
            }
            Err(error) => {
                self.free_slots.push(slot);
                Err(error)
            }
        }
    }

    fn track_in(&mut self, slot: u32, target: &Target) -> anyhow::Result<Tracked> {
        self.maps.clear(slot)?;
        let dir = self.root.open(&target.cgroup)?;
        let mut links = Vec::new();
        let mut network_refused = None;
        if self.live.has(Signal::Network) {
            for (name, direction) in
                [("ingress", CgroupSkbAttachType::Ingress), ("egress", CgroupSkbAttachType::Egress)]
            {
                match self
                    .cgroup_program(name)
                    .and_then(|p| p.attach(&dir, direction, CgroupAttachMode::Single).context("attach to the cgroup"))
                {
                    Ok(link) => links.push((name, link)),
                    Err(error) => network_refused = Some(format!("{name}: {error:#}")),
                }
            }
        }
        self.maps.track(target.incarnation, slot)?;
        let files = CgroupFiles::open(&self.root.dir(&target.cgroup));
        Ok(Tracked {
            slot,
            since_ns: monotonic_ns(),
            books: files.books().ok(),
            files,
            totals: self.maps.read(slot)?,
            links,
            network_refused,
            gone: false,
        })
    }

    fn cgroup_program(&mut self, name: &str) -> anyhow::Result<&mut CgroupSkb> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
        Ok(program.try_into()?)
    }

    fn forget(&mut self, target: &Target) {
        let Some(tracked) = self.tracked.remove(target) else { return };
        if let Err(error) = self.maps.untrack(target.incarnation) {
            tracing::debug!("{}: {error:#}", target.cgroup);
        }
        for (name, link) in tracked.links {
            // The link of a removed cgroup is dead already.
            if let Err(error) = self.cgroup_program(name).and_then(|p| Ok(p.detach(link)?)) {
                tracing::debug!("detach {name} from {}: {error:#}", target.cgroup);
            }
        }
        self.free_slots.push(tracked.slot);
    }

    /// Tells the kernel programs at which levels targets live, and that cached look-ups are stale.
    fn publish(&mut self) -> anyhow::Result<()> {
        let mut levels: Vec<u32> = self.tracked.keys().map(|t| self.root.level(&t.cgroup)).collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.dedup();
        if levels.len() > MAX_LEVELS {
            tracing::warn!(
                "targets live at {} depths; descendants are followed at the deepest {MAX_LEVELS}",
                levels.len()
            );
            levels.truncate(MAX_LEVELS);
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        let mut settings =
            Settings { level_count: levels.len() as u32, generation: self.generation, ..Settings::default() };
        settings.levels[..levels.len()].copy_from_slice(&levels);
        self.maps.set(settings)
    }

    /// Charges what runs right now on each CPU, by running a program there.
    fn flush(&mut self) {
        let Some(program) = self.ebpf.program_mut("flush") else { return };
        let Ok(program): Result<&mut RawTracePoint, _> = program.try_into() else { return };
        for cpu in online_cpus().unwrap_or_default() {
            if let Err(error) = program.test_run(RawTracePointRunOptions { cpu: Some(cpu), ..Default::default() }) {
                tracing::debug!("flush CPU {cpu}: {error}");
            }
        }
    }

    /// Reads everything that was counted since the last tick.
    pub fn tick(&mut self) -> Tick {
        self.flush();
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let t_ns = monotonic_ns();
        let samples = self
            .tracked
            .iter_mut()
            .map(|(target, tracked)| tracked.sample(target, &self.maps, &self.live, t_ns))
            .collect();
        let lost = self.maps.lost().unwrap_or(self.lost_before);
        let tick = Tick {
            t_ns,
            unix_ms: unix_ms(),
            span_ns: t_ns.saturating_sub(self.last_tick_ns),
            samples,
            quality: Quality {
                hooks_missing: self.missing(),
                lost_events: lost.saturating_sub(self.lost_before),
                targets_without_slot: self.without_slot,
            },
            machine: self.machine.read(),
        };
        self.lost_before = lost;
        self.last_tick_ns = t_ns;
        tick
    }

    fn missing(&self) -> Vec<String> {
        let refused = self.live.refused.iter().map(|r| r.to_string());
        let per_target = self.tracked.iter().filter_map(|(target, tracked)| {
            Some(format!("{} on {}", tracked.network_refused.as_ref()?, target.cgroup))
        });
        refused.chain(per_target).collect()
    }

    /// Abnormal exits since the last call, with the target they happened in.
    pub fn exits(&mut self) -> Vec<(Target, Exit)> {
        let exits = self.maps.exits();
        exits
            .into_iter()
            .filter_map(|exit| {
                let (target, _) = self.tracked.iter().find(|(_, t)| t.slot == exit.slot)?;
                Some((target.clone(), exit))
            })
            .collect()
    }
}

impl Tracked {
    fn sample(&mut self, target: &Target, maps: &KernelMaps, live: &Live, t_ns: u64) -> Sample {
        let counted = maps.read(self.slot).ok().map(|now| {
            let difference = now.since(&self.totals);
            self.totals = now;
            difference
        });
        let books = if self.gone { None } else { self.read_books() };
        let memory = if self.gone { None } else { self.files.memory() };
        let before = std::mem::replace(&mut self.books, books);
        let both = before.zip(books);
        let span_ns = t_ns.saturating_sub(self.since_ns);
        self.since_ns = t_ns;
        let when = |signal: Signal| counted.as_ref().filter(|_| live.has(signal));
        Sample {
            target: target.clone(),
            span_ns,
            cpu: when(Signal::Cpu).map(cpu),
            reclaim: when(Signal::Reclaim)
                .map(|c| Reclaim { stall_ns: c.counters.reclaim_ns, stalls: c.counters.reclaims }),
            network: when(Signal::Network).filter(|_| self.network_refused.is_none()).map(network),
            retransmits: when(Signal::Retransmits)
                .filter(|_| live.has(Signal::Network))
                .map(|c| c.counters.retransmits),
            lifecycle: when(Signal::Lifecycle).map(|c| lifecycle(&c.counters)),
            oom_kills: when(Signal::OomKills).map(|c| c.counters.oom_kills),
            pressure: both.and_then(|(b, a)| Some(pressure_between(b.pressure?, a.pressure?))),
            throttling: both.and_then(|(b, a)| Some(throttling_between(b.throttling?, a.throttling?))),
            memory,
            kernel_cpu_usec: both.and_then(|(b, a)| Some(a.cpu_usec?.saturating_sub(b.cpu_usec?))),
            populated: if self.gone { Some(false) } else { books.and_then(|b| b.populated) },
        }
    }

    fn read_books(&mut self) -> Option<Books> {
        match self.files.books() {
            Ok(books) => Some(books),
            Err(_) => {
                self.gone = true;
                None
            }
        }
    }
}

fn cpu(c: &SlotTotals) -> Cpu {
    Cpu {
        on_cpu_ns: c.counters.on_cpu_ns,
        runq_wait_ns: c.counters.runq_wait_ns,
        runq_waits: c.counters.runq_waits,
        switches_voluntary: c.counters.switches_voluntary,
        switches_involuntary: c.counters.switches_involuntary,
        runq_wait: Histogram::from_counts(&c.runq_wait.counts),
    }
}

fn network(c: &SlotTotals) -> Network {
    Network {
        rx_bytes: c.counters.rx_bytes,
        rx_packets: c.counters.rx_packets,
        rx_payload_bytes: c.counters.rx_payload_bytes,
        tx_bytes: c.counters.tx_bytes,
        tx_packets: c.counters.tx_packets,
        tx_payload_bytes: c.counters.tx_payload_bytes,
        turnarounds: c.counters.turnarounds,
        turnaround_ns: c.counters.turnaround_ns,
        resets_in: c.counters.resets_in,
        resets_out: c.counters.resets_out,
        turnaround: Histogram::from_counts(&c.turnaround.counts),
    }
}

fn lifecycle(c: &Counters) -> Lifecycle {
    Lifecycle { exits: c.exits, exits_error: c.exits_error, crashes: c.crashes, exits_killed: c.exits_killed }
}

/// CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
