//! What is known about a socket, and which target it belongs to.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
        bpf_sock,
    },
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
};
use canary_common::{Owner, Settings, UNTRACKED};

use crate::{
    lookup::skb_slot,
    maps::{LOST, OWNED_SINCE, SOCKETS, add},
    network::Direction,
};

/// Reads a field of a socket in one load: the verifier takes no pointer into the middle of a socket.
macro_rules! field {
    ($sk:ident . $($field:tt)+) => {
        (&raw const (*$sk).$($field)+).read_volatile()
    };
}
pub(crate) use field;

/// `Socket::side`: not decided yet.
pub const UNKNOWN: u8 = 0;
/// Requests come in, responses go out.
pub const SERVER: u8 = 1;
/// Requests go out, responses come in.
pub const CLIENT: u8 = 2;

/// What is known about a socket. All zeros at first.
///
/// Packets that come in and those that go out are often at work on two CPUs at once, and a cache line that one CPU has
/// written takes as long to reach the other as half of a program. So what both read is written rarely, and lies apart
/// from what each direction notes at each packet. In the kernel's memory, 8 bytes that both read stand before this in the
/// first line; that each direction begins in a line of its own is only a matter of speed.
#[repr(C)]
pub struct Socket {
    /// When the connection was asked for.
    pub since_ns: u64,
    /// An [`Owner`]: whose it is, as of when.
    pub owner: u64,
    pub side: u8,
    /// 1 from the first payload on.
    pub spoken: u8,
    /// 1 where the peer answered with a reset.
    pub refused: u8,
    pub unused: u8,
    /// Fills the cache line.
    pub filling: [u32; 9],
    pub incoming: Way,
    pub outgoing: Way,
}

/// What passed in one direction of a socket; a cache line.
#[repr(C)]
pub struct Way {
    /// When the last byte of a request passed the other way: written there, which does not wait for the line, and read
    /// here.
    pub asked_ns: u64,
    /// The request whose response passed last; another one waits while the two differ.
    pub answered_ns: u64,
    /// TCP's number after the last payload byte that passed: what goes beyond is new for certain.
    pub end: u32,
    /// 1 where `end` is known.
    pub end_known: u32,
    pub filling: [u64; 5],
}

impl Socket {
    /// One direction of a socket.
    ///
    /// # Safety
    /// `socket` is a live element.
    #[inline(always)]
    pub unsafe fn way(socket: *mut Self, direction: Direction) -> *mut Way {
        // SAFETY: the caller's promise.
        unsafe {
            match direction {
                Direction::In => &raw mut (*socket).incoming,
                Direction::Out => &raw mut (*socket).outgoing,
            }
        }
    }
}

/// Socket storage whose values a listening socket hands on to the connections that it accepts, so that their target is
/// known before their first packet: what aya's own type for such maps cannot be told to do.
#[repr(C)]
pub struct Sockets {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Socket,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields are placeholders that describe the map to the loader; nothing reads through them.
unsafe impl Sync for Sockets {}

impl Sockets {
    pub const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}

/// The state of a socket; null where it has none and none is made.
///
/// # Safety
/// `sk` is a full socket in a form that the calling program's kind may pass to `bpf_sk_storage_get`.
#[inline(always)]
pub unsafe fn state(sk: *mut c_void, create: bool) -> *mut Socket {
    let flags = if create { u64::from(BPF_SK_STORAGE_GET_F_CREATE) } else { 0 };
    // SAFETY: the caller's promise; the map's address is what the helper takes.
    unsafe { bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk, core::ptr::null_mut(), flags).cast() }
}

/// A packet's socket and its state; `None` where there is no full socket (handshake, time-wait). That is not asked for: only
/// full ones have a state.
#[inline(always)]
pub fn of(skb: *mut __sk_buff) -> Option<(*mut bpf_sock, *mut Socket)> {
    // SAFETY: `skb` is the program's context; the helpers check the pointers they get.
    unsafe {
        let sk: *mut bpf_sock = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let socket = state(sk.cast(), true);
        if socket.is_null() {
            if !bpf_sk_fullsock(sk).is_null()
                && let Some(lost) = LOST.get_ptr_mut(0)
            {
                // Atomic, as what goes out is interrupted by what comes in.
                add(&raw mut (*lost).socket_state, 1);
            }
            return None;
        }
        Some((sk, socket))
    }
}

/// Slot of a packet: looked up once per socket and generation, then read from the socket.
#[inline(always)]
pub fn slot(skb: *mut __sk_buff, socket: Option<(*mut bpf_sock, *mut Socket)>, settings: &Settings) -> u32 {
    let Some((_, socket)) = socket else { return skb_slot(skb, settings) };
    // SAFETY: live while the program runs. Where packets of both directions come first at once, both look it up.
    unsafe {
        let word = &raw mut (*socket).owner;
        // Before the look-up: what it finds is as old as this at least.
        let generation = (&raw const settings.generation).read_volatile();
        let known = Owner::from_word(word.read_volatile());
        if known.generation == generation {
            return known.slot;
        }
        let owner = Owner { slot: skb_slot(skb, settings), generation };
        word.write_volatile(owner.word());
        // Where its cgroup was not watched for a while, packets went by unseen.
        (*socket).incoming.end_known = 0;
        (*socket).outgoing.end_known = 0;
        owner.slot
    }
}

/// Slot of a socket where there is no packet to look it up by: as it was at the last one, if nobody else got the slot
/// since.
///
/// # Safety
/// `socket` is a live element.
#[inline(always)]
pub unsafe fn remembered_slot(socket: *mut Socket) -> u32 {
    // SAFETY: the caller's promise.
    let Owner { slot, generation } = Owner::from_word(unsafe { (&raw const (*socket).owner).read_volatile() });
    match OWNED_SINCE.get(slot) {
        Some(since) if generation != 0 && *since <= generation => slot,
        _ => UNTRACKED,
    }
}
