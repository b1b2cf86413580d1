//! Who serves on a socket, and the turnarounds of its conversation.
//!
//! A turnaround runs from the last payload byte of a request to the first payload byte of its response. On a socket
//! whose local port is listened on (other than TCP: that was spoken to first) requests come in; on the others they go
//! out, and what is waited for is a dependency. Only the first bytes of a response are looked at, for a plain HTTP status;
//! encryption changes nothing else. Requests that are pipelined or multiplexed on one connection fold into one
//! turnaround, which is why it is not called a request. What TCP sends again is neither request nor response.

use core::{mem::MaybeUninit, ptr::null_mut};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock, bpf_tcp_sock},
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_lookup_tcp, bpf_sk_release, bpf_skb_load_bytes, bpf_tcp_sock},
};

use crate::{
    maps::EARLY,
    network::{Direction, Packet},
    socket::{CLIENT, SERVER, Socket, UNKNOWN, Way, field},
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// `bpf_sock::state`.
const LISTEN: u32 = 10;

/// For so long a listening socket's payload waits for the connection's own socket to answer it. What is older was of a connection
/// that was never answered; another one may have the same addresses and ports by now.
const EARLY_NS: u64 = 60_000_000_000;

/// What a packet with payload is to its conversation. Numbers and no enum: what an enum leaves open is garbage to the verifier.
#[derive(Clone, Copy)]
pub struct Turn {
    /// Whether the target asks on this socket, and others answer.
    pub depends: bool,
    /// Whether it belongs to a request, whose last byte it may hold: then [`note_request`] comes next.
    pub asks: bool,
    /// The time from a request to this response, which begins here; 0 where none does.
    pub took_ns: u64,
    /// TCP's smoothed round-trip time then; 0 where it has none.
    pub rtt_ns: u64,
    /// Class of the HTTP status that it begins with, 1 to 5; 0 where it does not.
    pub status_class: u32,
}

impl Turn {
    pub const NONE: Self = Self { depends: false, asks: false, took_ns: 0, rtt_ns: 0, status_class: 0 };
}

/// Whether this is a listening socket: it sees the payload that comes with the last packet of a handshake (the client
/// delayed its ACK, the listener defers accepting, or two CPUs took the ACK and the request at once) or with the first
/// (TCP Fast Open), before the connection's own socket exists.
#[inline(always)]
pub fn listens(sk: *mut bpf_sock) -> bool {
    // SAFETY: the caller passes a full socket.
    unsafe { field!(sk.state) == LISTEN }
}

/// Notes payload that reached the listening socket, until the connection's own socket answers it.
#[inline(always)]
pub fn early(skb: *mut __sk_buff) {
    // SAFETY: reads the clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(connection) = connection(skb, Direction::In) {
        // The table drops its oldest entry where it is full.
        let _ = EARLY.insert(connection, now_ns, 0);
    }
}

/// Advances the conversation on a socket by one packet with payload.
///
/// # Safety
/// `skb` is the program's context, `sk` its full socket, `socket` a live element.
#[inline(always)]
pub unsafe fn turn(
    skb: *mut __sk_buff,
    (sk, socket): (*mut bpf_sock, *mut Socket),
    direction: Direction,
    packet: &Packet,
) -> Turn {
    // SAFETY: as the caller promises.
    unsafe {
        let way = Socket::way(socket, direction);
        if (*socket).spoken == 0 {
            begin(skb, sk, socket, direction, packet);
        }
        let serves = (*socket).side == SERVER;
        let mut turn = Turn { depends: !serves, ..Turn::NONE };
        let is_new = packet.is_tcp && is_beyond(way, packet);
        if serves == (direction == Direction::In) {
            if !is_new && packet.is_tcp {
                let tcp = bpf_tcp_sock(sk);
                if !tcp.is_null() && is_repeated(tcp, way, packet, direction) {
                    return turn;
                }
            }
            turn.asks = true;
            return turn;
        }
        let asked_ns = (*way).asked_ns;
        if asked_ns == (*way).answered_ns {
            return turn;
        }
        let tcp = if packet.is_tcp { bpf_tcp_sock(sk) } else { null_mut() };
        if !is_new && !tcp.is_null() && is_repeated(tcp, way, packet, direction) {
            return turn;
        }
        if serves && !tcp.is_null() {
            let status = status(skb, packet);
            turn.status_class = status.class;
            if status.is_interim {
                return turn;
            }
        }
        (*way).answered_ns = asked_ns;
        turn.took_ns = time_ns(skb, packet, direction).saturating_sub(asked_ns).max(1);
        if !tcp.is_null() {
            // In microseconds, times 8.
            turn.rtt_ns = u64::from(field!(tcp.srtt_us)) * 125;
        }
        turn
    }
}

/// Notes when a request passed, for its response. To be done after all else: this line of the cache is the responses', which
/// are often at work on another CPU. The write does not wait until it is here, but an atomic addition after it would.
///
/// # Safety
/// `skb` is the program's context, `socket` a live element.
#[inline(always)]
pub unsafe fn note_request(skb: *mut __sk_buff, socket: *mut Socket, direction: Direction, packet: &Packet) {
    // SAFETY: as the caller promises.
    unsafe { (*Socket::way(socket, direction.other())).asked_ns = time_ns(skb, packet, direction) };
}

/// When a packet passed. What TCP sends bears the time already, and a clock is among the most expensive things here.
#[inline(always)]
unsafe fn time_ns(skb: *mut __sk_buff, packet: &Packet, direction: Direction) -> u64 {
    // SAFETY: `skb` is the program's context.
    unsafe {
        if packet.is_tcp && direction == Direction::Out {
            let leaves_ns = (&raw const (*skb).tstamp).read_volatile();
            if leaves_ns != 0 {
                return leaves_ns;
            }
        }
        bpf_ktime_get_ns()
    }
}

/// Whether this payload ends beyond all that came by this way, and so is new; where not, TCP has to be asked. Notes its end.
#[inline(always)]
unsafe fn is_beyond(way: *mut Way, packet: &Packet) -> bool {
    let end = packet.sequence.wrapping_add(packet.payload_bytes);
    // SAFETY: a live element.
    unsafe {
        if (*way).end_known == 0 || (end.wrapping_sub((*way).end) as i32) <= 0 {
            return false;
        }
        (*way).end = end;
    }
    true
}

/// Whether TCP has seen all of this payload before: it is sent, or arrives, again. Payload that is sent for the first
/// time begins at `snd_nxt`, which moves on after this hook.
#[inline(always)]
unsafe fn is_repeated(tcp: *mut bpf_tcp_sock, way: *mut Way, packet: &Packet, direction: Direction) -> bool {
    // SAFETY: `tcp` is what the helper returned, and not null.
    let next = unsafe { if direction == Direction::In { field!(tcp.rcv_nxt) } else { field!(tcp.snd_nxt) } };
    let end = packet.sequence.wrapping_add(packet.payload_bytes);
    let is_repeated = (end.wrapping_sub(next) as i32) <= 0;
    // SAFETY: a live element.
    unsafe {
        if (*way).end_known == 0 {
            (*way).end = if is_repeated { next } else { end };
            (*way).end_known = 1;
        }
    }
    is_repeated
}

/// How a response begins.
struct Status {
    /// As in [`Turn::status_class`].
    class: u32,
    /// "100 Continue" and its like: the response is still to come.
    is_interim: bool,
}

/// The status that a response begins with, where it is one of HTTP/1.
#[inline(always)]
unsafe fn status(skb: *mut __sk_buff, packet: &Packet) -> Status {
    const NONE: Status = Status { class: 0, is_interim: false };
    const HTTP: u32 = u32::from_ne_bytes(*b"HTTP");
    if packet.payload_bytes < 12 {
        return NONE;
    }
    // "HTTP/1.1 200", and the rest of a word. Not cleared first: that would be a loop over its bytes.
    let mut head = MaybeUninit::<[u32; 3]>::uninit();
    // SAFETY: a buffer of 12 bytes on the stack; the payload may lie in another page, so that it has to be copied. Where that
    // fails nothing is read, else all of it is written.
    let head = unsafe {
        if bpf_skb_load_bytes(skb.cast(), packet.header_bytes, head.as_mut_ptr().cast(), 12) != 0 {
            return NONE;
        }
        head.assume_init_ref()
    };
    let [slash, one, dot, _] = head[1].to_ne_bytes();
    let [space, class, tens, units] = head[2].to_ne_bytes();
    if head[0] != HTTP || slash != b'/' || one != b'1' || dot != b'.' || space != b' ' {
        return NONE;
    }
    match class {
        // After "101 Switching Protocols" there is no other response.
        b'1' => Status { class: 1, is_interim: tens != b'0' || units != b'1' },
        b'2' => Status { class: 2, is_interim: false },
        b'3' => Status { class: 3, is_interim: false },
        b'4' => Status { class: 4, is_interim: false },
        b'5' => Status { class: 5, is_interim: false },
        _ => NONE,
    }
}

/// Once per socket, at its first payload: decides the side where the socket was there before the guard, and fetches a
/// request that the listening socket saw.
#[inline(always)]
unsafe fn begin(skb: *mut __sk_buff, sk: *mut bpf_sock, socket: *mut Socket, direction: Direction, packet: &Packet) {
    // SAFETY: as the caller of `turn` promises.
    unsafe {
        (*socket).spoken = 1;
        if (*socket).side == UNKNOWN {
            let serves = if packet.is_tcp { is_listened_on(skb, sk) } else { direction == Direction::In };
            (*socket).side = if serves { SERVER } else { CLIENT };
        }
        if (*socket).side == SERVER
            && direction == Direction::Out
            && let Some(connection) = connection(skb, direction)
            && let Some(at_ns) = EARLY.get(connection).copied()
        {
            let _ = EARLY.remove(connection);
            if bpf_ktime_get_ns().saturating_sub(at_ns) < EARLY_NS {
                (*socket).outgoing.asked_ns = at_ns;
            }
        }
    }
}

/// Whether there is a listening socket on the local address and port. With 0 as the peer's port no connection fits.
#[inline(always)]
unsafe fn is_listened_on(skb: *mut __sk_buff, sk: *mut bpf_sock) -> bool {
    // SAFETY: `sk` is a full socket; what the lookup returns is given back at once.
    unsafe {
        // The peer's address, the local one, the peer's port, the local one. Words and not the binding's union: what a
        // union leaves open is garbage to the verifier.
        let mut tuple = [0u32; 9];
        let ports = u32::from((field!(sk.src_port) as u16).to_be()) << 16;
        let words = match field!(sk.family) {
            AF_INET => {
                (tuple[0], tuple[1], tuple[2]) = (field!(sk.dst_ip4), field!(sk.src_ip4), ports);
                3
            }
            AF_INET6 => {
                tuple[0] = field!(sk.dst_ip6[0]);
                tuple[1] = field!(sk.dst_ip6[1]);
                tuple[2] = field!(sk.dst_ip6[2]);
                tuple[3] = field!(sk.dst_ip6[3]);
                tuple[4] = field!(sk.src_ip6[0]);
                tuple[5] = field!(sk.src_ip6[1]);
                tuple[6] = field!(sk.src_ip6[2]);
                tuple[7] = field!(sk.src_ip6[3]);
                tuple[8] = ports;
                9
            }
            _ => return false,
        };
        let netns = BPF_F_CURRENT_NETNS as i64 as u64;
        let found = bpf_sk_lookup_tcp(skb.cast(), tuple.as_mut_ptr().cast(), words * 4, netns, 0);
        if found.is_null() {
            return false;
        }
        let listens = listens(found);
        bpf_sk_release(found.cast());
        listens
    }
}

/// The peer's address and port and the local port of a TCP packet, as one number (IPv6 addresses folded).
#[inline(always)]
fn connection(skb: *mut __sk_buff, direction: Direction) -> Option<u64> {
    // SAFETY: every access is checked against `data_end` first, as the verifier demands.
    unsafe {
        let data = (*skb).data as usize;
        let end = (*skb).data_end as usize;
        if data + 40 > end {
            return None;
        }
        let first = *(data as *const u8);
        let word = |at: usize| *((data + at) as *const u32);
        let incoming = direction == Direction::In;
        let (address, header) = match first >> 4 {
            4 => (if incoming { word(12) } else { word(16) }, (first as usize & 0xf) * 4),
            6 if incoming => (word(8) ^ word(12) ^ word(16) ^ word(20), 40),
            6 => (word(24) ^ word(28) ^ word(32) ^ word(36), 40),
            _ => return None,
        };
        let ports = data + header;
        if ports + 4 > end {
            return None;
        }
        let (source, destination) = (*(ports as *const u16), *((ports + 2) as *const u16));
        let (remote, local) = if incoming { (source, destination) } else { (destination, source) };
        Some(u64::from(address) << 32 | u64::from(remote) << 16 | u64::from(local))
    }
}
