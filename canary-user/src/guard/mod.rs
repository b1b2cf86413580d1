//! From verdict to decision: pure rules, and the loop that drives them.

mod decision;

pub use decision::*;
