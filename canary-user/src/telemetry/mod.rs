//! The sensor: loads and attaches the kernel programs, reads what they counted once per tick. The only user of aya.

mod btf;
pub mod capabilities;
mod cgroupfs;
pub mod hooks;
pub mod kernel;
mod kernel_maps;
pub mod live;
mod machine;
pub mod recording;
mod sample;
mod sensor;

pub use sample::*;
pub use sensor::{Options, Sensor, monotonic_ns};
