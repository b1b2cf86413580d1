//! The judge: windows in, a verdict out. Pure, streaming, deterministic, constant memory.
//!
//! Goes in: [`Window`](crate::window::Window)s of one deployment, in order. Comes out: one [`Verdict`] each.
//! [`pace`] compares log differences, [`Judge`] decides who takes part and what follows.
//! It refuses to guess: what is missing is not bet on, and is never a pass.

pub mod columns;
pub mod pace;
pub mod power;
pub mod settings;
pub mod stretch;

mod advice;
mod clumping;
mod counts;
mod earlier;
mod environment;
mod explain;
mod exposure;
mod forecast;
mod hard;
mod instances;
mod level;
mod load;
mod observe;
mod pairing;
mod parameters;
mod promotion;
mod report;
mod traffic;
mod verdict;

pub use counts::Counts;
pub use earlier::{Earlier, Known, Learned};
pub use observe::Judge;
pub use parameters::*;
pub use promotion::{CONTROL_FORMAT, KeptControl, Resumed};
pub use verdict::*;

#[cfg(test)]
mod tests;
