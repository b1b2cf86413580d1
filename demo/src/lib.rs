//! The demo: a small HTTP service in two versions, load on both, and the guard on top.
//!
//! ```text
//!  load ──requests──► instances: stable-0, … canary-0           processes of the fleet, units of systemd or containers
//!    ▲                  ▲                                       scenario: which fault, when
//!    └──routes (watch)──┴──the orchestrator ◄── the guard
//! ```

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod cpu_limit;
pub mod enter;
pub mod fault;
pub mod fleet;
pub mod guard;
pub mod helper;
pub mod instances;
pub mod load;
pub mod log_thread;
pub mod managed;
pub mod neighbour;
pub mod observer;
pub mod orchestrator;
pub mod registry;
pub mod report;
pub mod run;
pub mod scenario;
pub mod serve;
pub mod service;
pub mod upstream;
pub mod working_set;
