//! More than the kernel programs have room for, between two ticks: what is lost is counted, and nothing is bet on it.

use std::fs;

use canary_e2e::{Sandbox, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
    window::Windower,
};

/// A ring buffer of 64 KiB holds some 1 600 abnormal exits of 40 bytes each. The others are counted, too: an instance that fails
/// all the time keeps no deployment from being judged.
#[test]
fn exits_beyond_the_ring_buffer_are_counted_and_told_without_their_codes() -> anyhow::Result<()> {
    let test = "exits_beyond_the_ring_buffer_are_counted_and_told_without_their_codes";
    if !kernel_available(test) {
        return Ok(());
    }
    const EXITS: u64 = 3000;
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    let script = format!("i=0; while [ $i -lt {EXITS} ]; do (exit 1); i=$((i+1)); done; exit 0");
    sandbox.run(&path, &script)?.wait()?;
    let tick = sensor.tick();
    let lost = tick.quality.lost_exits;
    let told = sensor.exits().len() as u64;
    println!("{test}: {told} of {EXITS} told, {lost} lost");
    assert!(lost > 0 && told > 0, "{told} told, {lost} lost");
    assert_eq!(told + lost, EXITS, "each is either told or counted as lost");
    let lifecycle = tick.samples[0].lifecycle.expect("the exit hook is live");
    assert_eq!(lifecycle.exits_error, EXITS, "the counters have them all");
    let codes = tick.samples[0].exit_codes.as_ref().expect("the exit hook is live");
    assert_eq!(*codes, [(1 << 8, told)]);
    assert_eq!(tick.quality.lost_events, 0, "nothing is missing in any count");
    assert!(Windower::new("test".into()).push(&tick).clean, "so that it can be judged");
    assert_eq!(sensor.tick().quality.lost_exits, 0, "what was lost is told once");
    Ok(())
}

/// One of 128 KiB holds some 5 400 cgroups of 24 bytes each.
#[test]
fn cgroups_made_again_beyond_the_ring_buffer_are_told_as_lost() -> anyhow::Result<()> {
    if !kernel_available("cgroups_made_again_beyond_the_ring_buffer_are_told_as_lost") {
        return Ok(());
    }
    const TIMES: u64 = 6000;
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let dir = sandbox.root.dir(&path);
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    for _ in 0..TIMES {
        fs::remove_dir(&dir)?;
        fs::create_dir(&dir)?;
    }
    let tick = sensor.tick();
    let lost = tick.quality.lost_events;
    let restarts = tick.samples[0].starts.expect("the hooks of starts are live").restarts;
    println!("cgroups_made_again_beyond_the_ring_buffer_are_told_as_lost: {restarts} of {TIMES} counted, {lost} lost");
    assert!(lost > 0 && restarts > 0, "{restarts} counted, {lost} lost");
    assert_eq!(restarts + lost, TIMES, "each is either a restart or counted as lost");
    let mut windower = Windower::new("test".into());
    let window = windower.push(&tick);
    assert!(!window.clean && window.canary[0].values.iter().all(|v| v.is_nan()), "nothing is bet on it: {window:?}");
    // The daemon looks, and from then on all is as it was.
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sandbox.run(&path, "exit 3")?.wait()?;
    let tick = sensor.tick();
    assert_eq!(tick.quality.lost_events, 0, "what was lost is told once");
    assert!(windower.push(&tick).clean);
    assert_eq!(tick.samples[0].lifecycle.expect("the exit hook is live").exits_error, 1);
    Ok(())
}
