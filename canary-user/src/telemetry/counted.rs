//! What the kernel programs counted, by groups of a sample. Histograms go into the group that they belong to.

use canary_common::Counters;

use super::{
    Connections, Cpu, Dependency, Http, Lifecycle, Network, Reclaim, RoundTrip, Starts, WaitedFor, kernel_maps::Counted,
};

pub fn cpu(c: &mut Counted) -> Cpu {
    let waited_for = WaitedFor {
        own_ns: c.counters.wait_own_ns,
        other_role_ns: c.counters.wait_other_role_ns,
        other_cgroup_ns: c.counters.wait_other_ns,
        kernel_ns: c.counters.wait_kernel_ns,
        idle_ns: c.counters.wait_idle_ns,
    };
    Cpu {
        on_cpu_ns: c.counters.on_cpu_ns,
        runq_wait_ns: waited_for.sum_ns(),
        runq_waits: c.counters.runq_waits,
        switches_voluntary: c.counters.switches_voluntary,
        switches_involuntary: c.counters.switches_involuntary,
        runq_wait: std::mem::take(&mut c.runq_wait),
        waited_for: Some(waited_for),
    }
}

pub fn reclaim(c: &mut Counted) -> Reclaim {
    Reclaim { stall_ns: c.counters.reclaim_ns, stalls: c.counters.reclaims, stall: Some(std::mem::take(&mut c.stall)) }
}

pub fn network(c: &mut Counted) -> Network {
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
        turnaround: std::mem::take(&mut c.turnaround),
    }
}

pub fn lifecycle(c: &Counters) -> Lifecycle {
    Lifecycle {
        exits: c.exits,
        exits_error: c.exits_error,
        crashes: c.crashes,
        exits_killed: c.exits_killed,
        core_dumps: Some(c.core_dumps),
    }
}

pub fn starts(c: &Counters) -> Starts {
    Starts { forked: c.forks, executed: c.execs, restarts: c.main_restarts + c.remade }
}

/// What a tick has, with the ends and starts that were not told yet. `None` where a count went back: how much there was is not
/// known. Ends and starts are told in the next tick then, for those that were counted are facts.
pub fn told(mut counted: Counted, carried: &mut Counters) -> Option<Counted> {
    carry(&std::mem::take(carried), &mut counted.counters);
    if counted.went_back {
        carry(&counted.counters, carried);
        return None;
    }
    Some(counted)
}

/// Adds what one incarnation had of ends and starts to what its successor has.
pub fn carry(from: &Counters, to: &mut Counters) {
    to.exits += from.exits;
    to.exits_error += from.exits_error;
    to.crashes += from.crashes;
    to.exits_killed += from.exits_killed;
    to.oom_kills += from.oom_kills;
    to.core_dumps += from.core_dumps;
    to.forks += from.forks;
    to.execs += from.execs;
    to.main_exits += from.main_exits;
    to.main_restarts += from.main_restarts;
    to.remade += from.remade;
}

/// `None` where no response began with a status line: nothing is known about any.
pub fn http(c: &Counters) -> Option<Http> {
    let http = Http {
        responses_1xx: c.responses_1xx,
        responses_2xx: c.responses_2xx,
        responses_3xx: c.responses_3xx,
        responses_4xx: c.responses_4xx,
        responses_5xx: c.responses_5xx,
    };
    (http != Http::default()).then_some(http)
}

pub fn dependency(c: &mut Counted) -> Dependency {
    Dependency {
        turnarounds: c.counters.dependency_turnarounds,
        turnaround_ns: c.counters.dependency_turnaround_ns,
        rx_payload_bytes: c.counters.dependency_rx_payload_bytes,
        tx_payload_bytes: c.counters.dependency_tx_payload_bytes,
        turnaround: std::mem::take(&mut c.dependency),
    }
}

pub fn round_trip(c: &Counters) -> RoundTrip {
    RoundTrip {
        sum_ns: c.rtt_ns,
        samples: c.rtt_samples,
        dependency_sum_ns: c.dependency_rtt_ns,
        dependency_samples: c.dependency_rtt_samples,
    }
}

pub fn connections(c: &Counters) -> Connections {
    Connections {
        accepted: c.accepts,
        opened: c.connects,
        open_ns: c.connect_ns,
        failed: c.connects_failed,
        refused: c.connects_refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Histogram;

    #[test]
    fn a_tick_in_which_a_count_went_back_is_missing_and_its_ends_are_told_in_the_next() {
        let tick = |crashes: u64, went_back: bool| Counted {
            counters: Counters { crashes, turnarounds: 5, ..Counters::default() },
            runq_wait: Histogram::default(),
            stall: Histogram::default(),
            turnaround: Histogram::default(),
            dependency: Histogram::default(),
            went_back,
        };
        let mut carried = Counters { crashes: 1, ..Counters::default() };
        assert!(told(tick(2, true), &mut carried).is_none());
        let next = told(tick(4, false), &mut carried).expect("it went on");
        assert_eq!((next.counters.crashes, next.counters.turnarounds, carried.crashes), (7, 5, 0));
    }
}
