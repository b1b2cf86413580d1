//! One target that is counted, and its sample of a tick.

use std::path::PathBuf;

use super::{
    Memory, Reclaim, Sample, Starts,
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
    pub listen_queue: ListenQueueFile,
    pub seen: Seen,
    /// As it was last read.
    pub memory: Option<Memory>,
    pub attachments: Attachments,
    /// Whether the kernel programs do not know its main process.
    pub main_unknown: bool,
    /// Restarts that show by the cgroup being made again, until they are told in a sample.
    pub restarts: u64,
    /// Whether anybody may live there, as of the last tick.
    pub populated: bool,
    pub gone: bool,
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
        let counted = maps.read(self.slot, &mut self.seen).ok();
        let files = self.read_files(reads);
        self.populated = !self.gone && files.populated != Some(false);
        let memory = if self.gone {
            memory_files::Reading::default()
        } else if with_memory {
            let read = self.memory_files.read(reads.all, self.populated).unwrap_or_default();
            self.memory = read.memory;
            read
        } else {
            // How much it grew is known at a reading only.
            let memory = self.memory.map(|m| Memory { growth_bytes: None, ..m });
            memory_files::Reading { memory, ..Default::default() }
        };
        let span_ns = t_ns.saturating_sub(self.since_ns);
        self.since_ns = t_ns;
        if let Some(c) = &counted {
            self.main_unknown |= c.counters.main_exits > c.counters.main_restarts;
        }
        let attachments = &self.attachments;
        let when = |signal: Signal| counted.as_ref().filter(|_| live.has(signal) && attachments.has(signal));
        let restarts = std::mem::take(&mut self.restarts);
        Sample {
            target: target.clone(),
            span_ns,
            cpu: when(Signal::Cpu).map(counted::cpu),
            reclaim: when(Signal::Reclaim).map(|c| Reclaim {
                stall_ns: c.counters.reclaim_ns,
                stalls: c.counters.reclaims,
                stall: Some(c.stall.clone()),
            }),
            network: when(Signal::Network).map(counted::network),
            http: when(Signal::Network).and_then(|c| counted::http(&c.counters)),
            dependency: when(Signal::Network).map(counted::dependency),
            round_trip: when(Signal::Network).map(|c| counted::round_trip(&c.counters)),
            // Whose socket it is, the packets say.
            connections: when(Signal::Connections)
                .and(when(Signal::Network))
                .map(|c| counted::connections(&c.counters)),
            retransmits: when(Signal::Retransmits).and(when(Signal::Network)).map(|c| c.counters.retransmits),
            lifecycle: when(Signal::Lifecycle).map(|c| counted::lifecycle(&c.counters)),
            exit_codes: when(Signal::Lifecycle).map(|_| Vec::new()),
            starts: when(Signal::Starts).map(|c| Starts {
                forked: c.counters.forks,
                executed: c.counters.execs,
                restarts: c.counters.main_restarts + restarts,
            }),
            oom_kills: when(Signal::OomKills).map(|c| c.counters.oom_kills),
            pressure: files.pressure,
            throttling: files.throttling,
            memory: memory.memory,
            major_faults: memory.major_faults,
            memory_events: memory.events,
            block_io: files.block_io,
            listen_queue: None,
            kernel_cpu_usec: files.cpu_usec,
            populated: if self.gone { Some(false) } else { files.populated },
        }
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
