//! From verdict to decision: pure rules, and the loop that drives them.

mod decision;
pub mod facts;
pub mod gates;
pub mod rules;
pub mod verify;

pub use decision::*;
pub use facts::{Facts, StableShift};
pub use rules::Guard;
