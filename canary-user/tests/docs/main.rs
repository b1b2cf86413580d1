//! What the pages say, held against the code: configurations, command lines, keys, gates, metrics, hooks, memory and the recording.

mod commands;
mod configuration;
mod hooks;
mod markdown;
mod memory;
mod metrics;
mod recording;

/// It is what a newcomer reads in one go; the rest is in docs/.
#[test]
fn the_readme_is_short() {
    let lines = markdown::read("README.md").lines().count();
    assert!(lines < 150, "README.md has {lines} lines: move what is not for newcomers to docs/");
}
