//! What people and machines see. One [`Snapshot`] behind all of it; it may lag and never blocks the line.
//!
//! Goes in: Snapshots, one per tick. Comes out: metrics and the HTTP API, the live view, lines, JSON objects, the summary.
//! None of it feeds back: nothing here can change a verdict or a decision.

mod page;
mod snapshot;

pub mod api;
pub mod board;
pub mod chart;
pub mod html;
pub mod json;
pub mod metrics;
pub mod notify;
pub mod plain;
pub mod report;
pub mod server;
pub mod show;
pub mod summary;
pub mod systemd;
pub mod terminal;
mod text;
pub mod top;
pub mod units;

#[cfg(test)]
mod story;

pub use board::{Board, News};
pub use metrics::Metrics;
pub use plain::PlainView;
pub use show::{Show, Teller, View};
pub use snapshot::*;
pub use terminal::TerminalView;
