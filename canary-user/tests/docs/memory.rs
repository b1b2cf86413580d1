//! What the page says of memory, and what is shipped as a limit, against the size of the maps.

use canary_common::{MAX_SLOTS, map_bytes};
use canary_user::daemon::recorder::WAITING_SAMPLES;

use crate::markdown;

const MIB: usize = 1 << 20;
/// For so many CPUs the shipped limits are made.
const CPUS: usize = 128;
/// What the guard may hold open for each instance, and what the kernel keeps for one file: mostly a page that it was read into.
const FILES: usize = 16;
const FILE_BYTES: usize = 5 << 10;
/// The most that `bench overhead` allows it with 4 000 instances.
const RESIDENT_BYTES: usize = 160_000_000;
/// A sample with all its histograms.
const SAMPLE_BYTES: usize = 3_000;

#[test]
fn the_page_has_the_memory_of_the_maps() {
    let page = markdown::read("docs/operations.md");
    let page = markdown::section(&page, "## What it costs");
    let of_a_cpu = (map_bytes(1) - map_bytes(0)) as f64 / MIB as f64;
    let formula = format!("{} MiB, and {of_a_cpu:.1} MiB for each CPU", map_bytes(0).div_ceil(MIB));
    assert!(page.contains(&formula), "docs/operations.md does not say {formula:?}");
    for cpus in [2, 64, CPUS] {
        let example = format!("{} MiB with {cpus}", map_bytes(cpus).div_ceil(MIB));
        assert!(page.contains(&example), "docs/operations.md does not say {example:?}");
    }
}

#[test]
fn the_page_has_the_memory_of_a_recording_that_waits_for_its_disk() {
    let page = markdown::read("docs/operations.md");
    let says = format!("up to {} MB", WAITING_SAMPLES * SAMPLE_BYTES / 1_000_000);
    assert!(markdown::section(&page, "## What it costs").contains(&says), "docs/operations.md does not say {says:?}");
}

#[test]
fn the_shipped_limits_hold_the_maps_and_all_instances() {
    let recording = WAITING_SAMPLES * SAMPLE_BYTES;
    let needed = map_bytes(CPUS) + MAX_SLOTS * FILES * FILE_BYTES + RESIDENT_BYTES + recording;
    let unit = markdown::read("deploy/canary-guard.service");
    let manifest = markdown::read("deploy/kubernetes/base/daemonset.yaml");
    let limits = manifest.split_once("limits:").expect("the manifest has limits").1;
    for (file, text, key) in [("the unit", unit.as_str(), "MemoryMax="), ("the DaemonSet", limits, "memory:")] {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(key)).expect(key).trim();
        let limit = bytes(value);
        assert!(limit >= needed, "{file}: {value} is less than {} MiB", needed.div_ceil(MIB));
    }
}

/// systemd writes 1G, Kubernetes 1Gi, and both mean a power of two.
fn bytes(value: &str) -> usize {
    let (number, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).expect("a unit"));
    let shift = match unit.trim_end_matches('i') {
        "M" => 20,
        "G" => 30,
        other => panic!("{value}: the unit {other} is not known here"),
    };
    number.parse::<usize>().expect("a number") << shift
}
