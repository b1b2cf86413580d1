//! What people and machines see. One [`Snapshot`] behind all of it; it may lag and never blocks the line.

mod snapshot;

pub use snapshot::*;
