//! Steps of the wall clock and sleep, made for real: in a guest of `cargo xtask vm`, for the machine belongs to others.

use std::{fs, path::Path, thread::sleep, time::Duration};

use canary_e2e::{Sandbox, in_guest, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor, Tick},
};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const HOUR_S: i64 = 3600;
/// Between setting the clock and the readings around it an emulated machine may take its time.
const SLACK_MS: i64 = 1000;

/// A sensor with one target that has ticked already.
fn sensor(sandbox: &Sandbox) -> anyhow::Result<Sensor> {
    let path = sandbox.cgroup("one")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    sensor.tick();
    Ok(sensor)
}

/// Sets the wall clock forward, or back where `seconds` is below zero, and ticks.
fn step(sensor: &mut Sensor, seconds: i64) -> anyhow::Result<Tick> {
    let now = clock_gettime(ClockId::Realtime);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: now.tv_sec + seconds, tv_nsec: now.tv_nsec })?;
    Ok(sensor.tick())
}

#[test]
fn a_wall_clock_that_is_set_is_told_and_changes_no_span() -> anyhow::Result<()> {
    let test = "a_wall_clock_that_is_set_is_told_and_changes_no_span";
    if !in_guest(test) || !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let mut sensor = sensor(&sandbox)?;
    for seconds in [HOUR_S, -HOUR_S] {
        let tick = step(&mut sensor, seconds)?;
        let told_ms = tick.quality.wall_clock_step_ms;
        assert!((told_ms - seconds * 1000).abs() < SLACK_MS, "set by {seconds} s, told {told_ms} ms");
        assert_eq!(tick.quality.suspended_ns, 0, "nobody slept");
        assert!(tick.span_ns < 60_000_000_000 && tick.samples[0].span_ns < 60_000_000_000, "{tick:?}");
        assert!(tick.quality.is_clean(), "nothing is computed by that clock: {:?}", tick.quality);
        sleep(Duration::from_millis(200));
        assert_eq!(sensor.tick().quality.wall_clock_step_ms, 0, "told once");
    }
    Ok(())
}

/// By how much the machine has slept since it was started.
fn slept_ns() -> i128 {
    let ns = |clock| {
        let now = clock_gettime(clock);
        i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
    };
    ns(ClockId::Boottime) - ns(ClockId::Monotonic)
}

/// Why this kernel cannot be sent to sleep and woken up; `None` where it can. Its own test of all but the last step does: it
/// stops the clocks, waits for some seconds, and needs nobody to wake it up.
fn sleepless() -> Option<String> {
    let has = |file: &str, word: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.split_whitespace().any(|w| w.trim_matches(['[', ']']) == word)
    };
    if !has("/sys/power/state", "mem") {
        return Some("this kernel has no sleep (no mem in /sys/power/state)".into());
    }
    let test = Path::new("/sys/power/pm_test");
    if !has("/sys/power/pm_test", "core") {
        return Some(format!("this kernel cannot try it (no core in {})", test.display()));
    }
    None
}

#[test]
fn sleep_of_the_machine_is_told_and_is_in_no_span() -> anyhow::Result<()> {
    let test = "sleep_of_the_machine_is_told_and_is_in_no_span";
    if !in_guest(test) || !kernel_available(test) {
        return Ok(());
    }
    if let Some(why) = sleepless() {
        println!("SKIP {test}: {why}");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let mut sensor = sensor(&sandbox)?;
    let before_ns = slept_ns();
    fs::write("/sys/power/pm_test", "core")?;
    if let Err(error) = fs::write("/sys/power/state", "mem") {
        println!("SKIP {test}: the guest does not go to sleep: {error}");
        return Ok(());
    }
    let tick = sensor.tick();
    let slept_ns = slept_ns() - before_ns;
    if slept_ns < 1_000_000_000 {
        println!("SKIP {test}: this kernel's clocks ran on while it slept");
        return Ok(());
    }
    let told_ns = i128::from(tick.quality.suspended_ns);
    println!("{test}: slept {slept_ns} ns, told {told_ns} ns");
    assert!((told_ns - slept_ns).abs() < 100_000_000, "slept {slept_ns} ns, told {told_ns} ns");
    assert!(i128::from(tick.span_ns) < slept_ns + 60_000_000_000, "{tick:?}");
    assert!(!tick.quality.is_clean(), "it is not judged: {:?}", tick.quality);
    assert_eq!(sensor.tick().quality.suspended_ns, 0, "told once");
    Ok(())
}
