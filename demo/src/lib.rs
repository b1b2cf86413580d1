//! The demo: a small HTTP service in two versions, load on both, and the guard on top.
//!
//! ```text
//!  load ──requests──► fleet: stable-0, stable-1, … canary-0     one process, one cgroup each
//!    ▲                  ▲                                       scenario: which fault, when
//!    └──routes (watch)──┴──Control (route away, retire)──── run ◄── the guard
//! ```

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod enter;
pub mod fault;
pub mod fleet;
pub mod guard;
pub mod load;
pub mod neighbour;
pub mod observer;
pub mod report;
pub mod run;
pub mod scenario;
pub mod serve;
pub mod working_set;
