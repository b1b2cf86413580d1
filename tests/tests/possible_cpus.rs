//! CPUs that the machine can have, not those that it has, are what the maps are made for. A guest of `cargo xtask vm` can have
//! many, so that all that is counted there is counted with that many.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use canary_common::map_bytes;
use canary_e2e::{Sandbox, kernel_available};
use canary_user::telemetry::{Options, Sensor, kernel::version};

fn possible_cpus() -> anyhow::Result<usize> {
    aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))
}

/// Kernels from 6.9 on, which look more closely at what the firmware says, take fewer of qemu's: the other tests then show nothing
/// about many CPUs, and one of an older kernel is what does.
#[test]
fn the_guest_can_have_as_many_cpus_as_it_was_given() -> anyhow::Result<()> {
    let test = "the_guest_can_have_as_many_cpus_as_it_was_given";
    let Some(given) = std::env::var_os("CANARY_GUEST_CPUS") else {
        println!("SKIP {test}: this is no guest of `cargo xtask vm`");
        return Ok(());
    };
    let given: usize = given.to_str().context("a number")?.parse()?;
    let (release, possible) = (fs::read_to_string("/proc/sys/kernel/osrelease")?, possible_cpus()?);
    if possible != given && version(&release).is_some_and(|version| version >= (6, 9)) {
        println!("SKIP {test}: Linux {} has {possible} of them", release.trim());
        return Ok(());
    }
    assert_eq!(possible, given);
    Ok(())
}

/// Map id to the memory that the kernel says it takes, of all that this process has open.
fn maps() -> BTreeMap<u64, u64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps
}

/// The only test of this file that loads anything: what the process has open is this sensor's.
#[test]
fn the_maps_take_as_much_memory_as_is_said() -> anyhow::Result<()> {
    let test = "the_maps_take_as_much_memory_as_is_said";
    if !kernel_available(test) {
        return Ok(());
    }
    let _sensor = Sensor::load(Sandbox::new()?.root.clone(), &Options::default())?;
    let said = map_bytes(possible_cpus()?) as u64;
    let taken: u64 = maps().values().sum();
    println!("{test}: {taken} bytes with {} possible CPUs, {said} by the formula", possible_cpus()?);
    // The small ones, and a key of 8 bytes for each element that kernels before 6.4 count though an array has none.
    let others = (8 << 20) + said / 50;
    assert!(taken >= said && taken <= said + others, "{taken} bytes, {said} are said");
    Ok(())
}
