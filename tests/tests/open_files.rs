//! No room for another open file: what could not be attached for want of it is missing, not zero, until there is.

use std::{fs::File, os::fd::AsRawFd as _, slice, thread::sleep, time::Duration};

use canary_e2e::{Sandbox, kernel_available, wait_until};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The only test of this file: the limit is that of the whole process.
#[test]
fn what_there_was_no_room_to_attach_is_missing_until_there_is() -> anyhow::Result<()> {
    let test = "what_there_was_no_room_to_attach_is_missing_until_there_is";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let target = sandbox.target(&sandbox.cgroup("one")?, Role::Stable)?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    let limits = getrlimit(Resource::Nofile);
    // The lowest number that is free: all below it are taken.
    let free = File::open("/dev/null")?.as_raw_fd();
    setrlimit(Resource::Nofile, Rlimit { current: Some(u64::try_from(free)?), ..limits })?;
    sensor.follow(slice::from_ref(&target));
    let tick = sensor.tick();
    setrlimit(Resource::Nofile, limits)?;
    let sample = &tick.samples[0];
    assert!(sample.network.is_none() && sample.connections.is_none(), "nobody counted: {sample:#?}");
    assert!(sample.cpu.is_some() && sample.lifecycle.is_some(), "the rest works on: {sample:#?}");
    let missing = tick.quality.hooks_missing.join("\n");
    for hook in ["ingress: ", "egress: ", "connections: "] {
        assert!(missing.contains(hook), "{missing}");
    }
    let mut last = None;
    wait_until("they are attached", Duration::from_secs(60), || {
        sleep(Duration::from_millis(200));
        sensor.follow(slice::from_ref(&target));
        let tick = last.insert(sensor.tick());
        tick.samples[0].network.is_some()
    })?;
    let tick = last.expect("there was one");
    assert!(tick.samples[0].connections.is_some() && tick.quality.hooks_missing.is_empty(), "{tick:#?}");
    Ok(())
}
