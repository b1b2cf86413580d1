//! The judge: windows in, a verdict out. Pure, streaming, deterministic.

mod verdict;

pub use verdict::*;
