//! Bytes, packets, turnarounds and resets at the cgroup's socket hooks; retransmits at the TCP tracepoint.
//!
//! A turnaround runs from the last payload byte in to the first payload byte out, on a socket that was spoken to
//! first. No payload is read, so encryption changes nothing; requests that are pipelined or multiplexed on one
//! connection fold into one turnaround, which is why it is not called a request.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_fullsock, bpf_sk_storage_get},
    macros::{btf_tracepoint, cgroup_skb},
    programs::{BtfTracePointContext, SkBuffContext},
};
use canary_common::{Counters, Settings, UNTRACKED};

use crate::{
    lookup::{counters, settings, skb_slot},
    maps::{LOST, SOCKETS, Socket, TURNAROUND, observe},
};

const ALLOW: i32 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_RST: u8 = 1 << 2;

/// `Socket::side`: nobody has sent payload yet.
const UNKNOWN: u32 = 0;
/// The peer spoke first: requests come in, responses go out.
const SERVER: u32 = 1;
/// We spoke first.
const CLIENT: u32 = 2;

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    In,
    Out,
}

/// What the headers say.
struct Packet {
    payload_bytes: u32,
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

#[inline(always)]
fn count(skb: *mut __sk_buff, direction: Direction) {
    let Some(settings) = settings() else { return };
    let socket = socket(skb);
    let slot = slot(skb, socket, settings);
    let Some(counters) = counters(slot) else { return };
    // SAFETY: `skb` is the program's context; the rest are live elements of this CPU or of this packet's socket.
    unsafe {
        let packet = parse(skb);
        let bytes = u64::from((*skb).len);
        let packets = u64::from((*skb).gso_segs).max(1);
        let payload_bytes = u64::from(packet.payload_bytes);
        match direction {
            Direction::In => {
                (*counters).rx_bytes += bytes;
                (*counters).rx_packets += packets;
                (*counters).rx_payload_bytes += payload_bytes;
                (*counters).resets_in += u64::from(packet.reset);
            }
            Direction::Out => {
                (*counters).tx_bytes += bytes;
                (*counters).tx_packets += packets;
                (*counters).tx_payload_bytes += payload_bytes;
                (*counters).resets_out += u64::from(packet.reset);
            }
        }
        if payload_bytes > 0
            && let Some(socket) = socket
        {
            turn(socket, direction, slot, counters);
        }
    }
}

/// Advances the conversation on a socket by one packet with payload.
#[inline(always)]
unsafe fn turn(socket: *mut Socket, direction: Direction, slot: u32, counters: *mut Counters) {
    // SAFETY: the caller passes live elements.
    unsafe {
        if (*socket).side == UNKNOWN {
            (*socket).side = if direction == Direction::In { SERVER } else { CLIENT };
        }
        if (*socket).side != SERVER {
            return;
        }
        if direction == Direction::In {
            (*socket).last_in_ns = bpf_ktime_get_ns();
            (*socket).pending = 1;
        } else if (*socket).pending != 0 {
            (*socket).pending = 0;
            let took_ns = bpf_ktime_get_ns().saturating_sub((*socket).last_in_ns);
            (*counters).turnarounds += 1;
            (*counters).turnaround_ns += took_ns;
            observe(&TURNAROUND, slot, took_ns);
        }
    }
}

/// The state kept in the packet's socket; `None` where there is no full socket (handshake, time-wait).
#[inline(always)]
fn socket(skb: *mut __sk_buff) -> Option<*mut Socket> {
    // SAFETY: `skb` is the program's context; the helpers check the pointers they get.
    unsafe {
        let sk: *mut bpf_sock = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let full = bpf_sk_fullsock(sk);
        if full.is_null() {
            return None;
        }
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let socket = bpf_sk_storage_get(sockets(), full.cast(), core::ptr::null_mut(), create).cast::<Socket>();
        if socket.is_null() {
            if let Some(lost) = LOST.get_ptr_mut(0) {
                (*lost).socket_state += 1;
            }
            return None;
        }
        Some(socket)
    }
}

/// The map's address, which is what the helper takes.
#[inline(always)]
fn sockets() -> *mut c_void {
    (&raw const SOCKETS).cast_mut().cast()
}

/// Looked up once per socket and generation, then read from the socket.
#[inline(always)]
fn slot(skb: *mut __sk_buff, socket: Option<*mut Socket>, settings: &Settings) -> u32 {
    let Some(socket) = socket else { return skb_slot(skb, settings) };
    // SAFETY: live while the program runs; written only under this socket's lock or on its one softirq.
    unsafe {
        if (*socket).generation != settings.generation {
            (*socket).slot = skb_slot(skb, settings);
            (*socket).generation = settings.generation;
        }
        (*socket).slot
    }
}

/// Reads the IP and TCP or UDP header. What is not TCP or UDP, or has IPv6 extension headers, counts as bytes only.
#[inline(always)]
unsafe fn parse(skb: *mut __sk_buff) -> Packet {
    const NOTHING: Packet = Packet { payload_bytes: 0, reset: false };
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
                let headers = header as u32 + u32::from(words) * 4;
                Packet { payload_bytes: len.saturating_sub(headers), reset: flags & TCP_RST != 0 }
            }
            UDP => Packet { payload_bytes: len.saturating_sub(header as u32 + 8), reset: false },
            _ => NOTHING,
        }
    }
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    // SAFETY: a trusted socket pointer from the tracepoint; the storage is only looked up.
    let socket = unsafe { bpf_sk_storage_get(sockets(), sk, core::ptr::null_mut(), 0) }.cast::<Socket>();
    if socket.is_null() {
        return 0;
    }
    let Some(settings) = settings() else { return 0 };
    // SAFETY: not null, live while the program runs.
    let (slot, generation) = unsafe { ((*socket).slot, (*socket).generation) };
    if slot == UNTRACKED || generation != settings.generation {
        return 0;
    }
    if let Some(counters) = counters(slot) {
        // SAFETY: a live per-CPU element.
        unsafe { (*counters).retransmits += 1 };
    }
    0
}
