//! The judge: windows in, a verdict out. Pure, streaming, deterministic, constant memory.

pub mod pace;

mod parameters;
mod verdict;

pub use parameters::*;
pub use verdict::*;
