//! The sensor: loads and attaches the kernel programs, reads what they counted once per tick. The only user of aya.

mod cgroupfs;
pub mod hooks;
pub mod kernel;
mod kernel_maps;
mod machine;
mod sample;
mod sensor;

pub use sample::*;
pub use sensor::{Options, Sensor, monotonic_ns};
