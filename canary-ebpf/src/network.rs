//! Bytes, packets and resets at the cgroup's socket hooks; retransmits at the TCP tracepoint.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::__sk_buff,
    macros::{btf_tracepoint, cgroup_skb},
    programs::{BtfTracePointContext, SkBuffContext},
};
use canary_common::Counters;

use crate::{
    conversation::{self, Turn},
    lookup::{counters, settings},
    maps::{DEPENDENCY, add, observe},
    outgoing,
    socket::{self, field, remembered_slot},
};

const ALLOW: i32 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_RST: u8 = 1 << 2;
/// `bpf_sock::state`.
const SYN_SENT: u32 = 2;

/// Where in an `sk_buff` TCP keeps the number of segments of a packet that it sends; 0 where this kernel was not asked.
#[unsafe(no_mangle)]
static SKB_TCP_SEGMENTS: Global<u64> = Global::new(0);

/// 1 where `tcp_retransmit_skb` has a third argument, the error (6.17 and later): there it tells of attempts, too, that failed.
#[unsafe(no_mangle)]
static RETRANSMIT_HAS_ERROR: Global<u8> = Global::new(0);

#[derive(Clone, Copy, PartialEq)]
pub enum Direction {
    In,
    Out,
}

impl Direction {
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }
}

/// What the headers say.
#[derive(Clone, Copy)]
pub struct Packet {
    /// IP, and TCP or UDP.
    pub header_bytes: u32,
    pub payload_bytes: u32,
    pub is_tcp: bool,
    /// Number of the first payload byte; TCP only.
    pub sequence: u32,
    reset: bool,
}

#[cgroup_skb]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    count(ctx.skb.skb, Direction::In);
    ALLOW
}

#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    count(ctx.skb.skb, Direction::Out);
    ALLOW
}

/// What is counted of a packet, whatever it is to a conversation.
#[derive(Clone, Copy)]
pub struct Size {
    pub bytes: u64,
    /// As they are on the wire.
    pub packets: u64,
    pub payload_bytes: u64,
    pub is_reset: bool,
}

#[inline(always)]
fn count(skb: *mut __sk_buff, direction: Direction) {
    let Some(settings) = settings() else { return };
    let socket = socket::of(skb);
    let slot = socket::slot(skb, socket, settings);
    let Some(counters) = counters(slot) else { return };
    // SAFETY: `skb` is the program's context; the rest are live elements of this CPU or of this packet's socket.
    unsafe {
        let packet = parse(skb);
        let packets = segments(skb, &packet);
        let size = Size {
            // Each segment of a merged packet has headers of its own on the wire.
            bytes: u64::from((*skb).len) + (packets - 1) * u64::from(packet.header_bytes),
            packets,
            payload_bytes: u64::from(packet.payload_bytes),
            is_reset: packet.reset,
        };
        if size.is_reset
            && direction == Direction::In
            && let Some((sk, state)) = socket
        {
            (*state).refused = u8::from(field!(sk.state) == SYN_SENT);
        }
        if size.payload_bytes > 0
            && let Some((sk, state)) = socket
        {
            if !conversation::listens(sk) {
                let turn = conversation::turn(skb, (sk, state), direction, &packet);
                add_up(slot, counters, direction, size, turn);
                if turn.asks {
                    conversation::note_request(skb, state, direction, &packet);
                }
                return;
            }
            if direction == Direction::In {
                conversation::early(skb);
            }
        }
        add_up(slot, counters, direction, size, Turn::NONE);
    }
}

/// # Safety
/// `counters` is this CPU's live element of `slot`.
#[inline(always)]
unsafe fn add_up(slot: u32, counters: *mut Counters, direction: Direction, size: Size, turn: Turn) {
    // SAFETY: the caller's promise.
    unsafe {
        match direction {
            Direction::In => received(slot, counters, size, turn),
            Direction::Out => outgoing::sent(slot, counters, size, turn),
        }
    }
}

/// # Safety
/// `counters` is this CPU's live element of `slot`.
#[inline(always)]
unsafe fn received(slot: u32, counters: *mut Counters, size: Size, turn: Turn) {
    // SAFETY: the caller's promise. Packets come in in softirqs only, of which a CPU runs one at a time, and nothing else
    // writes these.
    unsafe {
        (*counters).rx_bytes += size.bytes;
        (*counters).rx_packets += size.packets;
        (*counters).rx_payload_bytes += size.payload_bytes;
        if size.is_reset {
            (*counters).resets_in += 1;
        }
        if turn.depends {
            (*counters).dependency_rx_payload_bytes += size.payload_bytes;
        }
        // What comes in as a response is a dependency's.
        if turn.took_ns != 0 {
            (*counters).dependency_turnarounds += 1;
            (*counters).dependency_turnaround_ns += turn.took_ns;
            if turn.rtt_ns != 0 {
                (*counters).dependency_rtt_ns += turn.rtt_ns;
                (*counters).dependency_rtt_samples += 1;
            }
            observe(&DEPENDENCY, slot, turn.took_ns);
        }
    }
}

/// How many packets of the wire this one is: it is cut after this hook, or was merged before it.
#[inline(always)]
unsafe fn segments(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    // SAFETY: the caller passes the program's context.
    let (count, size) = unsafe { ((*skb).gso_segs, (*skb).gso_size) };
    if count == 0 && size != 0 {
        // From a guest or a tunnel, which tell the size only.
        return u64::from(packet.payload_bytes.div_ceil(size)).max(1);
    }
    u64::from(count).max(1)
}

/// Reads the IP and TCP or UDP header. What is not TCP or UDP, or has IPv6 extension headers, counts as bytes only.
#[inline(always)]
unsafe fn parse(skb: *mut __sk_buff) -> Packet {
    const NOTHING: Packet = Packet { header_bytes: 0, payload_bytes: 0, is_tcp: false, sequence: 0, reset: false };
    // SAFETY: every access is checked against `data_end` first, as the verifier demands.
    unsafe {
        let data = (*skb).data as usize;
        let end = (*skb).data_end as usize;
        let len = (*skb).len;
        if data + 20 > end {
            return NOTHING;
        }
        let first = *(data as *const u8);
        let (header, protocol) = match first >> 4 {
            4 => ((first as usize & 0xf) * 4, *((data + 9) as *const u8)),
            6 => (40, *((data + 6) as *const u8)),
            _ => return NOTHING,
        };
        let transport = data + header;
        match protocol {
            TCP => {
                if transport + 20 > end {
                    return NOTHING;
                }
                let words = *((transport + 12) as *const u8) >> 4;
                let flags = *((transport + 13) as *const u8);
                let header_bytes = header as u32 + u32::from(words) * 4;
                Packet {
                    header_bytes,
                    payload_bytes: len.saturating_sub(header_bytes),
                    is_tcp: true,
                    sequence: u32::from_be(((transport + 4) as *const u32).read_unaligned()),
                    reset: flags & TCP_RST != 0,
                }
            }
            UDP => {
                let header_bytes = header as u32 + 8;
                Packet { header_bytes, payload_bytes: len.saturating_sub(header_bytes), ..NOTHING }
            }
            _ => NOTHING,
        }
    }
}

/// Called once per packet that is sent again, which may be several segments; by later kernels also where it could not be sent,
/// because the one before is still in a queue of this host, or there is no memory or no route: that is no retransmit.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    if RETRANSMIT_HAS_ERROR.load() != 0 && ctx.arg::<u64>(2) as i32 != 0 {
        return 0;
    }
    let sk: *mut c_void = ctx.arg(0);
    let skb: *const c_void = ctx.arg(1);
    // SAFETY: trusted pointers from the tracepoint; the storage is only looked up.
    unsafe {
        let socket = socket::state(sk, false);
        if socket.is_null() {
            return 0;
        }
        if let Some(counters) = counters(remembered_slot(socket)) {
            // Atomic: a process that works off what came for its socket sends again, too, and softirqs interrupt it.
            add(&raw mut (*counters).retransmits, sent_segments(skb));
        }
    }
    0
}

/// The number that TCP keeps in the packet's control block, an array of bytes to the verifier: read byte by byte.
#[inline(always)]
unsafe fn sent_segments(skb: *const c_void) -> u64 {
    let offset = SKB_TCP_SEGMENTS.load() as usize;
    if offset == 0 {
        return 1;
    }
    // SAFETY: a trusted BTF pointer plus an offset of that struct's BTF; the verifier checks the access.
    let bytes = unsafe {
        let at = skb.cast::<u8>().add(offset);
        [at.read_volatile(), at.add(1).read_volatile()]
    };
    u64::from(u16::from_ne_bytes(bytes)).max(1)
}
