//! What people and machines see. One [`Snapshot`] behind all of it; it may lag and never blocks the line.
//!
//! Goes in: Snapshots, one per tick. Comes out: metrics and the HTTP API, the live view, lines, JSON objects, the summary.
//! None of it feeds back: nothing here can change a verdict or a decision.

mod snapshot;

pub mod json;
pub mod metrics;
pub mod plain;
pub mod server;
pub mod show;
pub mod summary;
pub mod terminal;
mod text;
pub mod units;

#[cfg(test)]
mod story;

pub use metrics::Metrics;
pub use plain::PlainView;
pub use show::{Show, Teller, View};
pub use snapshot::*;
pub use terminal::TerminalView;
