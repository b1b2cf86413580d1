//! The canary guard: what each version of a service costs the kernel, compared, judged and acted upon.
//!
//! ```text
//!  canary-ebpf ─maps─► telemetry ─Tick─► window ─Window─► judge ─Verdict─► guard ─Decision─► orchestrator
//!  targets ──which cgroups──┘  replay ──┘ (pure)          (pure)           │ (pure rules)     (one trait)
//!                                                                          ├─► journal (intent before act)
//!                                                                          └─► watch (Snapshot: metrics, API, terminal)
//! ```
//!
//! Arrows point one way. `window`, `judge` and the rules of `guard` have no clock and no I/O: time is an argument.

#![forbid(unsafe_code)]

pub mod config;
mod http_client;
pub mod targets;
pub mod telemetry;

pub mod window;

pub mod judge;

pub mod control;
pub mod guard;
pub mod journal;
pub mod orchestrator;

pub mod watch;

pub mod cli;
pub mod daemon;
