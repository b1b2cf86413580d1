//! Counting what goes out.
//!
//! Processes send, and not softirqs only: a softirq that interrupts one while its packet is counted, or another process that gets
//! its CPU meanwhile, may send for the same target. An addition that reads, adds and writes would take back what was counted
//! between its read and its write. An atomic addition would not, but takes several times as long, and a response has eight. So
//! each packet says by one that it comes, and by another one that it is gone. Whoever finds itself alone after the first has the
//! counters of this CPU to itself until the second: those that come meanwhile see that they are not alone, and count elsewhere,
//! atomically.

use canary_common::Counters;

use crate::{
    conversation::Turn,
    maps::{CONTENDED, TURNAROUND, add, observe},
    network::Size,
};

/// Counters that a packet goes into.
#[derive(Clone, Copy)]
struct Tally {
    counters: *mut Counters,
    /// Whether nobody else writes them before this packet is counted.
    is_own: bool,
}

/// # Safety
/// `counters` is this CPU's live element of `slot`.
#[inline(always)]
pub unsafe fn sent(slot: u32, counters: *mut Counters, size: Size, turn: Turn) {
    // SAFETY: the caller's promise. A program stays on its CPU, whoever interrupts it.
    unsafe {
        let under_way = &raw mut (*counters).egress_under_way;
        add(under_way, 1);
        if under_way.read_volatile() == 1 {
            count(Tally { counters, is_own: true }, size, turn);
        } else if let Some(contended) = CONTENDED.get_ptr_mut(slot) {
            count(Tally { counters: contended, is_own: false }, size, turn);
        }
        // Less one.
        add(under_way, u64::MAX);
        // What goes out as a response is the target's own. The histogram is atomic in any case.
        if turn.took_ns != 0 {
            observe(&TURNAROUND, slot, turn.took_ns);
        }
    }
}

/// # Safety
/// The tally's counters are a live element, and its own where it says so.
#[inline(always)]
unsafe fn count(tally: Tally, size: Size, turn: Turn) {
    let counters = tally.counters;
    // SAFETY: the caller's promise.
    unsafe {
        tally.add(&raw mut (*counters).tx_bytes, size.bytes);
        tally.add(&raw mut (*counters).tx_packets, size.packets);
        tally.add(&raw mut (*counters).tx_payload_bytes, size.payload_bytes);
        if size.is_reset {
            tally.add(&raw mut (*counters).resets_out, 1);
        }
        if turn.depends {
            tally.add(&raw mut (*counters).dependency_tx_payload_bytes, size.payload_bytes);
        }
        match turn.status_class {
            1 => tally.add(&raw mut (*counters).responses_1xx, 1),
            2 => tally.add(&raw mut (*counters).responses_2xx, 1),
            3 => tally.add(&raw mut (*counters).responses_3xx, 1),
            4 => tally.add(&raw mut (*counters).responses_4xx, 1),
            5 => tally.add(&raw mut (*counters).responses_5xx, 1),
            _ => {}
        }
        if turn.took_ns != 0 {
            tally.add(&raw mut (*counters).turnarounds, 1);
            tally.add(&raw mut (*counters).turnaround_ns, turn.took_ns);
            if turn.rtt_ns != 0 {
                tally.add(&raw mut (*counters).rtt_ns, turn.rtt_ns);
                tally.add(&raw mut (*counters).rtt_samples, 1);
            }
        }
    }
}

impl Tally {
    /// # Safety
    /// As for [`count`]; `word` points into the counters.
    #[inline(always)]
    unsafe fn add(self, word: *mut u64, n: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.is_own {
                *word += n;
            } else {
                add(word, n);
            }
        }
    }
}
