//! The kernel programs: count per target, decide nothing.
//!
//! One file per signal. Each hook is loaded and attached alone by the daemon; one that the kernel refuses costs only
//! its own signal. All per-target state is per CPU, so no atomics are needed: the sched hooks run with interrupts off,
//! the socket hooks with bottom halves off, and no two of them write the same counter.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod connections;
mod conversation;
mod cpu;
mod lifecycle;
mod lookup;
mod maps;
mod memory;
mod network;
mod socket;
mod task;
mod tree;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
