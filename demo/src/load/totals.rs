//! What the load counted, per instance and phase of the run. Written by the load's one thread, read by anyone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use canary_common::histogram::{self, BUCKETS};
use canary_user::{targets::Role, telemetry::Histogram};
use serde::Serialize;

/// Part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before anything went wrong.
    BeforeOnset,
    /// After that, until the canary got no more requests.
    AfterOnset,
    /// The canary gets no more requests.
    AfterDrain,
}

impl Phase {
    pub const ALL: [Phase; 3] = [Phase::BeforeOnset, Phase::AfterOnset, Phase::AfterDrain];
}

/// Requests and bytes of one instance, or of one role, in one phase or in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Requests with a complete answer and status 200.
    pub served: u64,
    /// All others: refused, reset, timed out, or not sent because nothing listens or too many wait.
    pub failed: u64,
    /// Bytes written to the sockets: heads and bodies, exactly.
    pub sent_bytes: u64,
    /// Bytes read from the sockets: heads and bodies, exactly.
    pub received_bytes: u64,
    /// Sum over the served requests, from the request to the end of its answer; no request waits for an earlier one.
    pub latency_sum_ns: u64,
    pub latency: Histogram,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.served += other.served;
        self.failed += other.failed;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.latency_sum_ns += other.latency_sum_ns;
        self.latency.merge(&other.latency);
    }
}

/// One instance's totals.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceTotals {
    pub name: Arc<str>,
    pub role: Role,
    /// By [`Phase`] as index.
    pub phases: [Totals; Phase::ALL.len()],
}

/// The counters behind [`Totals`].
#[derive(Default)]
pub(super) struct Counters {
    phase: AtomicU8,
    instances: Mutex<BTreeMap<Arc<str>, Arc<InstanceCounters>>>,
}

pub(super) struct InstanceCounters {
    role: Role,
    phases: [PhaseCounters; Phase::ALL.len()],
}

pub(super) struct PhaseCounters {
    pub served: AtomicU64,
    pub failed: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
    latency_sum_ns: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Counters {
    /// Phases only go forward.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Relaxed);
    }

    pub fn phase(&self) -> Phase {
        Phase::ALL[self.phase.load(Relaxed) as usize]
    }

    pub fn instance(&self, name: &Arc<str>, role: Role) -> Arc<InstanceCounters> {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        instances.entry(name.clone()).or_insert_with(|| Arc::new(InstanceCounters::new(role))).clone()
    }

    pub fn read(&self) -> Vec<InstanceTotals> {
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        instances
            .iter()
            .map(|(name, counters)| InstanceTotals {
                name: name.clone(),
                role: counters.role,
                phases: counters.phases.each_ref().map(PhaseCounters::read),
            })
            .collect()
    }
}

impl InstanceCounters {
    fn new(role: Role) -> Self {
        Self { role, phases: std::array::from_fn(|_| PhaseCounters::new()) }
    }

    pub fn phase(&self, phase: Phase) -> &PhaseCounters {
        &self.phases[phase as usize]
    }
}

impl PhaseCounters {
    fn new() -> Self {
        Self {
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            latency_sum_ns: AtomicU64::new(0),
            latency: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub fn served(&self, latency_ns: u64) {
        self.served.fetch_add(1, Relaxed);
        self.latency_sum_ns.fetch_add(latency_ns, Relaxed);
        self.latency[histogram::bucket(latency_ns)].fetch_add(1, Relaxed);
    }

    fn read(&self) -> Totals {
        Totals {
            served: self.served.load(Relaxed),
            failed: self.failed.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            latency_sum_ns: self.latency_sum_ns.load(Relaxed),
            latency: Histogram::from_counts(&self.latency.each_ref().map(|count| count.load(Relaxed))),
        }
    }
}
