//! From verdict to decision: pure rules, and the loop that drives them.

mod calls;
mod decision;
pub mod facts;
pub mod gates;
mod ledger;
mod line;
pub mod rules;
mod run;
pub mod verify;

#[cfg(test)]
mod tests;

pub use decision::*;
pub use facts::{Facts, StableShift};
pub use rules::Guard;
pub use run::{IncarnationNow, Judgement, OnTick, Setup, Summary, Watched, incarnation_below, run};
