//! The kernel programs: count per target, decide nothing.
//!
//! One file per signal. Each hook is loaded and attached alone by the daemon; one that the kernel refuses costs only
//! its own signal.
//!
//! All per-target state is per CPU. So a plain addition is enough wherever nothing else that writes the same counter can come in
//! between on that CPU: at the switches of the scheduler, which run with interrupts off; for packets that come in, in
//! softirqs, of which a CPU runs one at a time; and at the tracepoints of processes (fork, exec, exit, reclaim), where no task takes
//! the CPU and no interrupt counts the like. Not for packets that go out and for connections: processes send, too, and are
//! interrupted by softirqs that send. What these write is protected in `outgoing`, or added atomically.
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
mod outgoing;
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
