//! From verdict to decision: pure rules, and the loop that drives them.

mod advice;
mod calls;
mod commands;
mod decision;
mod desk;
pub mod facts;
pub mod gates;
mod ledger;
mod line;
mod moment;
mod pauses;
mod policy;
pub mod recovery;
pub mod rules;
mod run;
mod standing;
pub mod verify;

#[cfg(test)]
mod tests;

pub use advice::Advice;
pub use decision::*;
pub use facts::{Approval, Facts, FirstSeen};
pub use ledger::{Entry, OnEntry};
pub use moment::Moment;
pub use pauses::{Pause, Pauses};
pub use policy::Policy;
pub use rules::Guard;
pub use run::{IncarnationNow, Judging, OnTick, Record, Setup, Summary, Watched, incarnation_below, run};
pub use standing::Standing;
