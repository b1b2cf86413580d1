//! One target that is counted, and its sample of a tick.

use std::{path::PathBuf, sync::Arc};

use canary_common::Counters;

use super::{
    Memory, Sample,
    above::Ancestor,
    attachments::Attachments,
    cgroupfs::{self, CgroupFiles, Reads},
    counted,
    hooks::{Live, Signal},
    kernel_maps::{KernelMaps, Seen},
    listen_queue::ListenQueueFile,
    memory_files::{self, MemoryFiles},
};
use crate::targets::Target;

/// A target that has a slot.
pub struct Tracked {
    pub slot: u32,
    pub since_ns: u64,
    pub dir: PathBuf,
    pub files: CgroupFiles,
    /// Whether the kernel tells when anybody comes to live there or nobody does any more.
    pub announced: bool,
    pub memory_files: MemoryFiles,
    /// The nearest cgroup above that can have limits.
    pub above: Option<Arc<Ancestor>>,
    pub listen_queue: ListenQueueFile,
    pub seen: Seen,
    /// Ends and starts of the incarnation before this one, until they are told in a sample.
    pub carried: Counters,
    /// As it was last read.
    pub memory: Option<Memory>,
    /// Whether a process may have come or gone since.
    pub processes_changed: bool,
    pub attachments: Attachments,
    /// Whether the kernel programs do not know its main process.
    pub main_unknown: bool,
    /// Whether anybody may live there, as of the last tick.
    pub populated: bool,
    pub gone: bool,
    /// The cgroup was removed, and what was counted since the last tick is not told yet.
    pub untold: bool,
}

impl Tracked {
    /// What was counted and read since the last one.
    pub fn sample(
        &mut self,
        target: &Target,
        maps: &KernelMaps,
        live: &Live,
        (t_ns, reads, with_memory): (u64, Reads, bool),
    ) -> Sample {
        let mut counted = maps.read(self.slot, &mut self.seen).ok().and_then(|c| counted::told(c, &mut self.carried));
        let processes = |c: &Counters| c.forks + c.execs + c.exits;
        let told = live.has(Signal::Lifecycle) && live.has(Signal::Starts);
        self.processes_changed |= !told || counted.as_ref().is_none_or(|c| processes(&c.counters) > 0);
        let files = self.read_files(reads);
        self.populated = !self.gone && files.populated != Some(false);
        let memory = if self.gone {
            memory_files::Reading::default()
        } else if with_memory {
            let changed = std::mem::replace(&mut self.processes_changed, false);
            let read = self.memory_files.read(reads.all, self.populated, changed).unwrap_or_default();
            self.memory = read.memory;
            read
        } else {
            // How much it grew is known at a reading only.
            let memory = self.memory.map(|m| Memory { growth_bytes: None, ..m });
            memory_files::Reading { memory, ..Default::default() }
        };
        let span_ns = t_ns.saturating_sub(self.since_ns);
        self.since_ns = t_ns;
        let counters = counted.as_ref().map(|c| c.counters);
        if let Some(c) = &counters {
            self.main_unknown |= c.main_exits > c.main_restarts;
        }
        let attachments = &self.attachments;
        let has = |signal: Signal| live.has(signal) && attachments.has(signal);
        let when = |signal: Signal| counters.as_ref().filter(|_| has(signal));
        let has_network = has(Signal::Network);
        Sample {
            target: target.clone(),
            span_ns,
            cpu: counted.as_mut().filter(|_| has(Signal::Cpu)).map(counted::cpu),
            reclaim: counted.as_mut().filter(|_| has(Signal::Reclaim)).map(counted::reclaim),
            network: counted.as_mut().filter(|_| has_network).map(counted::network),
            http: when(Signal::Network).and_then(counted::http),
            dependency: counted.as_mut().filter(|_| has_network).map(counted::dependency),
            round_trip: when(Signal::Network).map(counted::round_trip),
            // Whose socket it is, the packets say.
            connections: when(Signal::Connections).filter(|_| has_network).map(counted::connections),
            retransmits: when(Signal::Retransmits).filter(|_| has_network).map(|c| c.retransmits),
            lifecycle: when(Signal::Lifecycle).map(counted::lifecycle),
            exit_codes: when(Signal::Lifecycle).map(|_| Vec::new()),
            starts: when(Signal::Starts).map(counted::starts),
            oom_kills: when(Signal::OomKills).map(|c| c.oom_kills),
            pressure: files.pressure,
            throttling: files.throttling,
            above: self.above.as_ref().filter(|_| !self.gone).and_then(|above| above.read(t_ns, reads.all)),
            memory: memory.memory,
            major_faults: memory.major_faults,
            memory_events: memory.events,
            block_io: files.block_io,
            listen_queue: None,
            kernel_cpu_usec: files.cpu_usec,
            populated: if self.gone { Some(false) } else { files.populated },
        }
    }

    /// The cgroup was removed: there is nothing to read of it any more.
    pub fn end(&mut self) {
        (self.gone, self.untold) = (true, true);
        // An open file keeps what is left of the cgroup in the kernel.
        self.files = CgroupFiles::default();
        self.memory_files.close();
        self.above = None;
        self.listen_queue = ListenQueueFile::default();
    }

    /// Another one goes on in its slot, which tells of what ended until now, too. What else was counted is of two lives.
    pub fn hand_over(&mut self, maps: &KernelMaps) {
        if let Ok(counted) = maps.read(self.slot, &mut self.seen) {
            counted::carry(&counted.counters, &mut self.carried);
        }
    }

    /// For one whose cgroup is gone: what it did last, that it ended, or that it started and ended again before anybody looked. `None`
    /// where it did nothing, unless it was `told` that something ended.
    pub fn sample_of_an_end(
        &mut self,
        target: &Target,
        maps: &KernelMaps,
        live: &Live,
        t_ns: u64,
        told: bool,
    ) -> Option<Sample> {
        self.gone = true;
        let whole = std::mem::take(&mut self.untold);
        let nothing = Reads { all: false, cpu: false, populated: false, memory_pressure: false };
        let sample = self.sample(target, maps, live, (t_ns, nothing, false));
        let ended = sample.lifecycle.as_ref().is_some_and(|l| l.exits > 0);
        let killed = sample.oom_kills.is_some_and(|kills| kills > 0);
        let started = sample.starts.as_ref().is_some_and(|s| s.restarts > 0);
        if whole {
            let ran = sample.cpu.as_ref().is_some_and(|cpu| cpu.on_cpu_ns > 0);
            let talked = sample.network.as_ref().is_some_and(|n| n.rx_packets + n.tx_packets > 0);
            return (told || ended || killed || started || ran || talked).then_some(sample);
        }
        // What a later life used is not this one's, and the socket programs are attached at a look only.
        let of_the_end = Sample {
            cpu: None,
            reclaim: None,
            network: None,
            http: None,
            dependency: None,
            round_trip: None,
            connections: None,
            retransmits: None,
            ..sample
        };
        (told || ended || killed || started).then_some(of_the_end)
    }

    fn read_files(&mut self, reads: Reads) -> cgroupfs::Reading {
        if self.gone {
            return cgroupfs::Reading::default();
        }
        self.files.read(reads).unwrap_or_else(|_| {
            self.gone = true;
            cgroupfs::Reading::default()
        })
    }
}
