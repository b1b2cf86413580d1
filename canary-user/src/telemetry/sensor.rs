//! One sensor: the loaded programs, the targets that have a slot, and a tick that reads them all.

mod follow;
mod slots;

pub use slots::Occupancy;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _},
    util::online_cpus,
};
use canary_common::{Exit, Settings};

use super::{
    HookCost, OwnCost, Quality, Sample, Tick,
    above::Ancestors,
    attachments,
    cgroupfs::Reads,
    changes::{Populations, Stalls},
    clocks::{Clocks, monotonic_ns},
    counter_memory::possible_cpus,
    hooks::{self, Live, Refusal, Signal},
    kernel::Layout,
    kernel_maps::{self, KernelMaps},
    listen_queue::Namespaces,
    losses::Losses,
    machine::MachineReader,
    main_process::MainProcesses,
    memory_files,
    open_files::Room,
    own::HookCosts,
    returning::Returning,
    tracked::Tracked,
};
use crate::targets::{Target, cgroup::Root};

/// The kernel programs, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CANARY_EBPF_OBJECT"));

/// With more targets than [`MANY`], so many have all of their files read in one tick: that takes some tens of microseconds for
/// each. Of the others only what is known to have changed is read.
const FILES_PER_TICK: usize = 50;

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
    /// Those whose cgroup was removed, in their slots.
    returning: Returning,
    room: Room,
    /// The lowest are taken first: only as much memory is mapped and touched as there are targets.
    free_slots: BTreeSet<u32>,
    /// Deployments by the number that the kernel programs know them by.
    deployments: Vec<Arc<str>>,
    without_slot: u64,
    /// What is not live, in words: as of the last change of what is attached.
    missing: Vec<String>,
    /// When what was refused was last tried.
    attached_ns: u64,
    generation: u32,
    losses: Losses,
    /// Cgroups that would not be noticed at once if they were made again, for which that was told.
    unplaced: BTreeSet<Arc<str>>,
    machine: MachineReader,
    main: MainProcesses,
    namespaces: Namespaces,
    ancestors: Ancestors,
    populations: Populations,
    stalls: Stalls,
    /// Where cgroup v1's memory controller is mounted.
    v1_memory: Option<PathBuf>,
    /// Abnormal exits of this tick.
    heard: Vec<Exit>,
    /// Those up to the last tick that nobody asked for yet.
    exits: Vec<(Target, Exit)>,
    costs: HookCosts,
    /// As they were at the last tick.
    clocks: Clocks,
    started_ns: u64,
    ticks: u64,
}

/// With more targets than this, the memory of each is read in every tenth tick only, a tenth of them in each: it is a
/// level that moves slowly, and where it has to be summed over processes it takes longer to read than all the rest.
const MANY: usize = 100;
const MEMORY_EVERY: u64 = 10;

impl Sensor {
    /// Loads and attaches. Hooks that the kernel refuses are in [`Sensor::live`], they are no error.
    ///
    /// # Errors
    /// Where nothing works at all: not enough privileges, or maps that the kernel refuses.
    pub fn load(root: Root, options: &Options) -> anyhow::Result<Self> {
        super::capabilities::ensure_held()?;
        let room = Room::make();
        let types = Layout::read().and_then(|l| Ok((l, Btf::from_sys_fs().context("read the kernel's BTF")?)));
        let (layout, btf) = match types {
            Ok((layout, btf)) => (layout, Some(btf)),
            Err(error) => {
                tracing::warn!("no tracepoint can be used, the cgroup hooks are all there is: {error:#}");
                (Layout::default(), None)
            }
        };
        let log_level: u8 = if options.kernel_debug { aya_log::Level::Debug as u8 } else { 0 };
        let cpus = possible_cpus()?;
        let mut loader = EbpfLoader::new();
        kernel_maps::size(&mut loader, cpus);
        let mut ebpf = loader
            .btf(btf.as_ref())
            .override_global("CPUS", &cpus, true)
            .override_global("TASK_PID", &layout.task_pid, true)
            .override_global("TASK_TGID", &layout.task_tgid, true)
            .override_global("TASK_STATE", &layout.task_state, true)
            .override_global("TASK_EXIT_CODE", &layout.task_exit_code, true)
            .override_global("TASK_SUM_EXEC_RUNTIME", &layout.task_sum_exec_runtime, true)
            .override_global("TASK_PREV_SUM_EXEC_RUNTIME", &layout.task_prev_sum_exec_runtime, true)
            .override_global("TASK_PRIO", &layout.task_prio, true)
            .override_global("TASK_RUN_DELAY", &layout.task_run_delay, true)
            .override_global("TASK_FLAGS", &layout.task_flags, true)
            .override_global("TASK_CPU", &layout.task_cpu, true)
            .override_global("TASK_SIGNAL", &layout.task_signal, true)
            .override_global("SIGNAL_EXEC_TASK", &layout.signal_exec_task, true)
            .override_global("TASK_CGROUPS", &layout.task_cgroups, true)
            .override_global("CSS_SET_DFL_CGRP", &layout.css_set_dfl_cgrp, true)
            .override_global("CGROUP_KN", &layout.cgroup_kn, true)
            .override_global("KERNFS_NODE_ID", &layout.kernfs_node_id, true)
            .override_global("CGROUP_ROOT", &layout.cgroup_root, true)
            .override_global("CGROUP_ROOT_HIERARCHY_ID", &layout.cgroup_root_hierarchy_id, true)
            .override_global("SWITCH_HAS_STATE", &layout.switch_has_state, true)
            .override_global("VICTIM_IS_TASK", &layout.victim_is_task, true)
            .override_global("RETRANSMIT_HAS_ERROR", &layout.retransmit_has_error, true)
            .override_global("SKB_TCP_SEGMENTS", &layout.skb_tcp_segments, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .load(OBJECT)
            .map_err(|error| super::capabilities::explained(error.into()))
            .context("load the kernel programs")?;
        let logger = match options.kernel_debug.then(|| aya_log::EbpfLogger::init(&mut ebpf)).transpose() {
            Ok(logger) => logger,
            Err(error) => {
                tracing::warn!("the kernel programs' debug lines do not reach the log: {error}");
                None
            }
        };
        let mut maps = KernelMaps::take(&mut ebpf, cpus)?;
        maps.set(Settings { generation: 1, ..Settings::default() })?;
        let live = hooks::attach(&mut ebpf, btf.as_ref(), &options.disabled_hooks, &layout.unreadable);
        let free_slots = (0..room.targets.min(maps.slots())).collect();
        let mut sensor = Self {
            root,
            ebpf,
            maps,
            live,
            logger,
            tracked: BTreeMap::new(),
            returning: Returning::default(),
            room,
            free_slots,
            deployments: Vec::new(),
            without_slot: 0,
            missing: Vec::new(),
            attached_ns: 0,
            generation: 1,
            losses: Losses::default(),
            unplaced: BTreeSet::new(),
            machine: MachineReader::default(),
            main: MainProcesses::default(),
            namespaces: Namespaces::default(),
            ancestors: Ancestors::new(room.held),
            populations: Populations::new(),
            stalls: Stalls::open(),
            v1_memory: memory_files::v1_root(),
            ticks: 0,
            heard: Vec::new(),
            exits: Vec::new(),
            costs: HookCosts::default(),
            clocks: Clocks::now(),
            started_ns: monotonic_ns(),
        };
        sensor.missing = sensor.all_missing();
        sensor.flush();
        sensor.machine.read();
        drop(btf);
        // The kernel's types, decoded, are several times what all the rest takes.
        canary_mmap::give_back_freed();
        Ok(sensor)
    }

    /// What is attached and what is not.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Attaches the programs of cgroups to this one and takes them off again: what the kernel refused.
    pub fn try_on(&mut self, cgroup: &OwnedFd) -> Vec<Refusal> {
        attachments::try_each(&mut self.ebpf, cgroup, &self.live)
    }

    /// Charges what runs right now on each CPU, by running a program there.
    fn flush(&mut self) {
        let online = online_cpus().unwrap_or_default();
        self.maps.are_online(&online);
        let Some(program) = self.ebpf.program_mut("flush") else { return };
        let Ok(program): Result<&mut RawTracePoint, _> = program.try_into() else { return };
        for cpu in online {
            if let Err(error) = program.test_run(RawTracePointRunOptions { cpu: Some(cpu), ..Default::default() }) {
                tracing::debug!("flush CPU {cpu}: {error}");
            }
        }
    }

    /// Takes up what the kernel programs tell by itself, for which they have little room. The next tick has it.
    pub fn hear(&mut self) {
        self.heard.extend(self.maps.exits());
        self.returning.hear(self.maps.remade());
    }

    /// Reads everything that was counted since the last tick.
    pub fn tick(&mut self) -> Tick {
        self.look_after_attachments();
        self.flush();
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        let clocks = Clocks::now();
        let t_ns = clocks.monotonic_ns;
        let changed = self.populations.changed();
        let memory_pressure = self.stalls.anybody();
        // Files that take longest are read in turns.
        let targets = self.tracked.len();
        let (turns, every) = if targets > MANY { (targets.div_ceil(FILES_PER_TICK), MEMORY_EVERY) } else { (1, 1) };
        self.ticks += 1;
        let turn = self.ticks as usize % turns;
        self.hear();
        let exits = std::mem::take(&mut self.heard);
        let taken_over = self.returning.taken_over();
        let mut samples: Vec<Sample> = Vec::with_capacity(self.tracked.len());
        let mut slots = BTreeMap::new();
        for (i, (target, tracked)) in self.tracked.iter_mut().enumerate() {
            if taken_over.contains(&tracked.slot) && self.root.id(&target.cgroup) != Some(target.incarnation) {
                if let Some(sample) = tracked.sample_of_an_end(target, &self.maps, &self.live, t_ns, true) {
                    slots.insert(tracked.slot, samples.len());
                    samples.push(sample);
                }
                continue;
            }
            let reads = Reads {
                all: i % turns == turn,
                // One target's takes the kernel as long as the target has siblings that ran.
                cpu: turns == 1 || !self.live.has(Signal::Cpu),
                populated: !tracked.announced || changed.contains(&tracked.slot),
                memory_pressure,
            };
            let with_memory = tracked.memory.is_none() || (self.ticks + u64::from(tracked.slot)).is_multiple_of(every);
            let mut sample = tracked.sample(target, &self.maps, &self.live, (t_ns, reads, with_memory));
            if sample.populated != Some(false) {
                sample.listen_queue = tracked.listen_queue.read(&tracked.dir, &mut self.namespaces, t_ns);
            }
            slots.insert(tracked.slot, samples.len());
            samples.push(sample);
        }
        for (target, tracked) in self.returning.waiting_mut() {
            tracked.untold &= !taken_over.contains(&tracked.slot);
            let told = exits.iter().any(|exit| exit.slot == tracked.slot);
            if let Some(sample) = tracked.sample_of_an_end(target, &self.maps, &self.live, t_ns, told) {
                slots.insert(tracked.slot, samples.len());
                samples.push(sample);
            }
        }
        self.tell_exits(exits, &slots, &mut samples);
        self.adopt_main_processes();
        let before = std::mem::replace(&mut self.clocks, clocks);
        let course = clocks.since(&before);
        let lost = self.losses.since(self.maps.lost());
        let hooks = self.costs.read(t_ns, || hook_costs(&self.ebpf));
        Tick {
            t_ns,
            unix_ms: clocks.unix_ms(),
            span_ns: t_ns.saturating_sub(before.monotonic_ns),
            samples,
            quality: Quality {
                hooks_missing: self.missing.clone(),
                lost_events: lost.events,
                lost_exits: lost.exits,
                targets_without_slot: self.without_slot,
                suspended_ns: course.suspended_ns,
                wall_clock_step_ms: course.wall_clock_step_ms,
            },
            machine: self.machine.read(),
            limits: Default::default(),
            own: Some(OwnCost::read(self.started_ns, hooks)),
        }
    }

    /// How often a cgroup was made or removed anywhere; `None` where that is not known.
    pub fn tree_changes(&self) -> Option<u64> {
        if self.live.has(Signal::Tree) { self.maps.tree_changes().ok() } else { None }
    }

    /// Abnormal exits up to the last tick that were not asked for yet, with the target they happened in.
    pub fn exits(&mut self) -> Vec<(Target, Exit)> {
        std::mem::take(&mut self.exits)
    }

    fn tell_exits(&mut self, exits: Vec<Exit>, slots: &BTreeMap<u32, usize>, samples: &mut [Sample]) {
        for exit in exits {
            let Some(sample) = slots.get(&exit.slot).map(|i| &mut samples[*i]) else { continue };
            if let Some(codes) = &mut sample.exit_codes {
                match codes.binary_search_by_key(&exit.exit_code, |(code, _)| *code) {
                    Ok(at) => codes[at].1 += 1,
                    Err(at) => codes.insert(at, (exit.exit_code, 1)),
                }
            }
            self.exits.push((sample.target.clone(), exit));
        }
    }

    /// Says which process is the main one where the kernel programs do not know: when a target is new, and when what
    /// is left after the main process's end was there before.
    fn adopt_main_processes(&mut self) {
        if !self.live.has(Signal::Starts) {
            return;
        }
        for (target, tracked) in self.tracked.iter_mut().filter(|(_, t)| t.main_unknown && t.populated) {
            let Some(tgid) = self.main.oldest(&tracked.dir) else { continue };
            match self.maps.adopt_main(tracked.slot, tgid) {
                Ok(()) => tracked.main_unknown = false,
                Err(error) => tracing::debug!("{}: {error:#}", target.cgroup),
            }
        }
    }
}

/// What each kernel program cost since it was loaded; nothing unless the kernel counts it.
fn hook_costs(ebpf: &Ebpf) -> Vec<HookCost> {
    let cost = |(hook, program): (&str, &aya::programs::Program)| {
        let info = program.info().ok()?;
        let (runs, run_ns) = (info.run_count(), info.run_time().as_nanos() as u64);
        (runs > 0).then(|| HookCost { hook: hook.to_owned(), runs, run_ns })
    };
    ebpf.programs().filter_map(cost).collect()
}
