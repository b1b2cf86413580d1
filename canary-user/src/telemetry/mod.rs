//! The sensor: loads and attaches the kernel programs, reads what they counted once per tick. The only user of aya.

mod above;
mod attachments;
mod btf;
pub mod capabilities;
mod cgroupfs;
mod changes;
mod clocks;
mod counted;
mod counter_memory;
pub mod hooks;
pub mod kernel;
mod kernel_file;
mod kernel_maps;
mod listen_queue;
pub mod live;
mod losses;
mod machine;
mod main_process;
mod memory_files;
mod open_files;
mod own;
mod processes;
pub mod recording;
mod returning;
mod sample;
mod sensor;
pub mod table;
mod tracked;

pub use clocks::monotonic_ns;
pub use own::{HookCost, OwnCost};
pub use sample::*;
pub use sensor::{Occupancy, Options, Sensor};
