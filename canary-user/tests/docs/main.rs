//! What the pages say, held against the code: configurations, command lines, keys, gates, metrics and the recording.

mod commands;
mod configuration;
mod markdown;
mod memory;
mod metrics;
mod recording;
