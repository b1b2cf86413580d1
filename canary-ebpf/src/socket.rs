//! What is known about a socket, and which target it belongs to.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
        bpf_sock,
    },
    helpers::generated::{bpf_sk_fullsock, bpf_sk_storage_get},
};
use canary_common::{Settings, UNTRACKED};

use crate::{
    lookup::skb_slot,
    maps::{LOST, OWNED_SINCE, SOCKETS},
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
#[repr(C)]
pub struct Socket {
    /// When the last byte of a request passed; before any did, when the connection was asked for.
    pub since_ns: u64,
    /// As it was resolved at `generation`.
    pub slot: u32,
    pub generation: u32,
    pub side: u8,
    /// 1 from the first payload on.
    pub spoken: u8,
    /// 1 while a request waits for the first byte of its response.
    pub pending: u8,
    /// 1 where the peer answered with a reset.
    pub refused: u8,
    /// Keeps the size a multiple of the alignment.
    pub unused: u32,
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

/// A packet's socket and its state; `None` where there is no full socket (handshake, time-wait).
#[inline(always)]
pub fn of(skb: *mut __sk_buff) -> Option<(*mut bpf_sock, *mut Socket)> {
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
        let socket = state(full.cast(), true);
        if socket.is_null() {
            if let Some(lost) = LOST.get_ptr_mut(0) {
                (*lost).socket_state += 1;
            }
            return None;
        }
        Some((full, socket))
    }
}

/// Slot of a packet: looked up once per socket and generation, then read from the socket.
#[inline(always)]
pub fn slot(skb: *mut __sk_buff, socket: Option<(*mut bpf_sock, *mut Socket)>, settings: &Settings) -> u32 {
    let Some((_, socket)) = socket else { return skb_slot(skb, settings) };
    // SAFETY: live while the program runs; written only under this socket's lock or on its one softirq.
    unsafe {
        if (*socket).generation != settings.generation {
            (*socket).slot = skb_slot(skb, settings);
            (*socket).generation = settings.generation;
        }
        (*socket).slot
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
    let (slot, generation) = unsafe { ((*socket).slot, (*socket).generation) };
    match OWNED_SINCE.get(slot) {
        Some(since) if generation != 0 && *since <= generation => slot,
        _ => UNTRACKED,
    }
}
