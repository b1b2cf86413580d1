//! The counters of one target on one CPU, and their form as words, in which the daemon reads and subtracts them.

/// Defines the counters together with everything that has to know all of them.
macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        /// What the kernel programs count for one target on one CPU.
        ///
        /// Begins on a cache line of its own, so that CPUs that count for the same target do not slow each other down.
        #[repr(C, align(64))]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$meta])* pub $name: u64,)*
        }

        impl Counters {
            /// How many there are.
            pub const WORDS: usize = [$(stringify!($name)),*].len();

            /// From words in the order of the layout.
            pub fn from_words(words: &[u64; Self::WORDS]) -> Self {
                let [$($name),*] = *words;
                Self { $($name),* }
            }
        }
    };
}

counters! {
    // A line of the cache: a switch of the scheduler.
    /// Time on a CPU, as the scheduler itself booked it (`task_struct.se.sum_exec_runtime`).
    on_cpu_ns,
    /// Time between becoming runnable (woken, new or preempted) and getting a CPU, as the scheduler booked it
    /// (`task_struct.sched_info.run_delay`), while the CPU was in the hands of an instance of the same version. Each wait
    /// is charged whole to whoever had the CPU last before the task got it.
    wait_own_ns,
    /// The same, while an instance of the deployment's other role had the CPU.
    wait_other_role_ns,
    /// The same, while a process of any other cgroup had the CPU.
    wait_other_ns,
    /// The same, while a kernel thread had the CPU.
    wait_kernel_ns,
    /// The same, on a CPU that was idle: the time to wake it up.
    wait_idle_ns,
    /// How many waits these sum.
    runq_waits,
    /// Context switches away because the task blocked.
    switches_voluntary,

    // The next one: a packet that comes in.
    /// Context switches away while the task could have gone on.
    switches_involuntary,
    /// Bytes received, IP header and up, as `skb->len` counts them at the cgroup hook.
    rx_bytes,
    /// Packets received; a GRO/GSO super-packet counts its segments.
    rx_packets,
    /// TCP and UDP payload bytes received.
    rx_payload_bytes,
    /// Payload bytes received on connections that the target opened; part of `rx_payload_bytes`.
    dependency_rx_payload_bytes,
    /// Turnarounds of others: last request byte out to first response byte in, on such connections.
    dependency_turnarounds,
    /// Sum of the time those took.
    dependency_turnaround_ns,
    /// Sum of the smoothed round-trip time to dependencies, one sample at the end of each TCP turnaround.
    dependency_rtt_ns,

    // The next one: a packet that goes out.
    /// No count: how many packets that go out are being counted here right now. It goes up and down, is for the kernel programs
    /// only, and is left out of what the daemon subtracts ([`Counters::EGRESS_UNDER_WAY`]).
    egress_under_way,
    /// Bytes sent, IP header and up.
    tx_bytes,
    /// Packets sent; a GSO super-packet counts its segments.
    tx_packets,
    /// TCP and UDP payload bytes sent.
    tx_payload_bytes,
    /// Turnarounds: last request byte in to first response byte out, on sockets that were spoken to first.
    turnarounds,
    /// Sum of the time those turnarounds took.
    turnaround_ns,
    /// Sum of the smoothed round-trip time to the client, one sample at the end of each TCP turnaround.
    rtt_ns,
    /// How many samples `rtt_ns` sums.
    rtt_samples,

    // Everything that is rarer.
    /// Responses that begin with a plain HTTP/1 status line, by the class of the status. An interim one (1xx) is not the
    /// end of a turnaround.
    responses_1xx,
    responses_2xx,
    responses_3xx,
    responses_4xx,
    responses_5xx,
    /// Payload bytes sent on connections that the target opened; part of `tx_payload_bytes`.
    dependency_tx_payload_bytes,
    /// How many samples `dependency_rtt_ns` sums.
    dependency_rtt_samples,
    /// TCP resets received.
    resets_in,
    /// TCP resets sent.
    resets_out,
    /// TCP segments retransmitted.
    retransmits,
    /// TCP connections that others opened: the handshake was completed, whether or not the service has accepted them.
    accepts,
    /// TCP connections that the target opened.
    connects,
    /// Sum of the time from each of those SYNs to its answer.
    connect_ns,
    /// TCP connections that were asked for and never established: refused, unreachable, timed out, or given up.
    connects_failed,
    /// Of these, those that were answered by a reset.
    connects_refused,
    /// Task time spent in direct or memcg reclaim.
    reclaim_ns,
    /// How many reclaims `reclaim_ns` sums.
    reclaims,
    /// Processes that ended (thread group leaders), however they ended.
    exits,
    /// Processes that ended with a status other than 0.
    exits_error,
    /// Processes that a fault signal ended (SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS).
    crashes,
    /// Processes that any other signal ended, but for those of the OOM killer.
    exits_killed,
    /// Processes that the kernel's OOM killer chose, counted when they exit; in none of the three above.
    oom_kills,
    /// Processes that dumped core.
    core_dumps,
    /// Processes (not threads) that were forked in the target.
    forks,
    /// Programs that were executed in the target.
    execs,
    /// Ends of the main process.
    main_exits,
    /// Programs that were executed after the main process had ended, and took its place.
    main_restarts,
    /// How often the target's cgroup was made again after it had been removed, as service managers do when they restart it.
    remade,
}

impl Counters {
    /// Which word is the one that is no count: `egress_under_way`.
    pub const EGRESS_UNDER_WAY: usize = core::mem::offset_of!(Counters, egress_under_way) / size_of::<u64>();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_in_the_order_of_the_layout() {
        let mut words = [0; Counters::WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            *word = i as u64;
        }
        let counters = Counters::from_words(&words);
        assert_eq!(counters.on_cpu_ns, 0);
        assert_eq!(counters.remade, Counters::WORDS as u64 - 1);
        assert_eq!(core::mem::offset_of!(Counters, remade), (Counters::WORDS - 1) * 8);
        assert_eq!(size_of::<Counters>() % 64, 0);
    }

    #[test]
    fn what_a_packet_that_goes_out_writes_is_in_one_line_of_the_cache() {
        assert_eq!(core::mem::offset_of!(Counters, egress_under_way) % 64, 0);
        assert_eq!(core::mem::offset_of!(Counters, rtt_samples) % 64, 56);
        assert!(core::mem::offset_of!(Counters, rtt_samples) - core::mem::offset_of!(Counters, egress_under_way) < 64);
    }
}
