//! Connections that are opened: by others, by the target, and those that fail.
//!
//! A `sock_ops` program of the watched cgroup, called a few times in a connection's life and never per packet: it asks for the state
//! changes of those that the target opens, because one that fails is told by them only.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT, bpf_sock,
    },
    helpers::generated::bpf_ktime_get_ns,
    macros::sock_ops,
    programs::SockOpsContext,
};

use crate::{
    lookup::counters,
    maps::add,
    socket::{self, CLIENT, SERVER, Socket, remembered_slot},
};

#[sock_ops]
pub fn connections(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => asked(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => opened(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(0) == BPF_TCP_SYN_SENT && ctx.arg(1) == BPF_TCP_CLOSE => failed(&ctx),
        _ => {}
    }
    1
}

/// Before the SYN is sent, which will say whose socket it is.
#[inline(always)]
fn asked(ctx: &SockOpsContext) {
    let Some(socket) = state(ctx, true) else { return };
    // SAFETY: a live element, under the socket's lock.
    unsafe {
        (*socket).side = CLIENT;
        (*socket).refused = 0;
        (*socket).since_ns = bpf_ktime_get_ns();
    }
    // Never taken back, though after the answer it is not needed: a socket has one such flag for the programs of all who are
    // attached to its cgroup, and who of them asked, before or after this, cannot be told. The few calls more do nothing.
    let _ = ctx.set_cb_flags(ctx.cb_flags() as i32 | BPF_SOCK_OPS_STATE_CB_FLAG as i32);
}

#[inline(always)]
fn opened(ctx: &SockOpsContext) {
    let Some(socket) = state(ctx, false) else { return };
    // SAFETY: as in `asked`. Atomic: a connection may be given up by a process, which softirqs interrupt.
    unsafe {
        let since_ns = (*socket).since_ns;
        if since_ns != 0
            && let Some(counters) = counters(remembered_slot(socket))
        {
            add(&raw mut (*counters).connects, 1);
            add(&raw mut (*counters).connect_ns, bpf_ktime_get_ns().saturating_sub(since_ns));
        }
    }
}

/// Its state is a copy of the listening socket's, which was looked up when the last packet of the handshake came.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let Some(socket) = state(ctx, true) else { return };
    // SAFETY: as in `opened`.
    unsafe {
        (*socket).side = SERVER;
        if let Some(counters) = counters(remembered_slot(socket)) {
            add(&raw mut (*counters).accepts, 1);
        }
    }
}

#[inline(always)]
fn failed(ctx: &SockOpsContext) {
    let Some(socket) = state(ctx, false) else { return };
    // SAFETY: as in `opened`.
    unsafe {
        if let Some(counters) = counters(remembered_slot(socket)) {
            add(&raw mut (*counters).connects_failed, 1);
            add(&raw mut (*counters).connects_refused, (*socket).refused.into());
        }
    }
}

#[inline(always)]
fn state(ctx: &SockOpsContext, create: bool) -> Option<*mut Socket> {
    // SAFETY: the context is the kernel's; what it has for a socket is null or a full one.
    unsafe {
        let sk: *mut bpf_sock = (&raw const (*ctx.ops).__bindgen_anon_2.sk).read_volatile();
        if sk.is_null() {
            return None;
        }
        let socket = socket::state(sk.cast(), create);
        if socket.is_null() { None } else { Some(socket) }
    }
}
