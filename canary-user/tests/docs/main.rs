//! What the pages say, held against the code: configurations, command lines, keys, gates, metrics, hooks, memory and the recording.

mod commands;
mod configuration;
mod hooks;
mod markdown;
mod memory;
mod metrics;
mod recording;
