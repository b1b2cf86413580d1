//! The sensor: loads and attaches the kernel programs, reads what they counted once per tick. The only user of aya.

mod sample;

pub use sample::*;
