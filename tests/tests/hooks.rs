//! Every hook is accepted by this kernel; leaving one out loses its signal and nothing else.

use canary_e2e::{Sandbox, bpf, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor, hooks::Signal},
};

#[test]
fn every_hook_attaches() -> anyhow::Result<()> {
    if !kernel_available("every_hook_attaches") {
        return Ok(());
    }
    let sensor = Sensor::load(Sandbox::new()?.root.clone(), &Options::default())?;
    let refused: Vec<String> = sensor.live().refused.iter().map(ToString::to_string).collect();
    assert!(refused.is_empty(), "refused hooks:\n{}", refused.join("\n"));
    Ok(())
}

#[test]
fn a_missing_hook_loses_its_signal_only() -> anyhow::Result<()> {
    if !kernel_available("a_missing_hook_loses_its_signal_only") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let options = Options { disabled_hooks: vec!["sched_switch".into(), "mark_victim".into()], ..Options::default() };
    let mut sensor = Sensor::load(sandbox.root.clone(), &options)?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    let tick = sensor.tick();
    let sample = &tick.samples[0];
    assert!(sample.cpu.is_none(), "without sched_switch there is no CPU signal, not a zero");
    assert!(sample.oom_kills.is_none());
    assert!(sample.network.is_some() && sample.lifecycle.is_some() && sample.reclaim.is_some());
    assert!(!sensor.live().has(Signal::Cpu));
    assert!(
        tick.quality.hooks_missing.iter().any(|h| h.contains("sched_switch") && h.contains("run-queue")),
        "{tick:?}"
    );
    Ok(())
}

/// As with `bpftool link detach`. One target is asked in each tick, in turns.
#[test]
fn a_program_that_somebody_takes_off_is_missing_and_not_zero() -> anyhow::Result<()> {
    if !kernel_available("a_program_that_somebody_takes_off_is_missing_and_not_zero") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let bare = sandbox.target(&sandbox.cgroup("one")?, Role::Stable)?;
    let other = sandbox.target(&sandbox.cgroup("two")?, Role::Canary)?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[bare.clone(), other.clone()]);
    assert!(sensor.tick().samples.iter().all(|s| s.network.is_some() && s.connections.is_some()));
    assert_eq!(bpf::take_off(bare.incarnation)?, 3, "ingress, egress and connections");
    let ticks = [sensor.tick(), sensor.tick()];
    // Whoever took them off wants them to be gone.
    sensor.follow(&[bare.clone(), other.clone()]);
    for tick in [&ticks[1], &sensor.tick()] {
        for sample in &tick.samples {
            let is_other = sample.target == other;
            assert_eq!((sample.network.is_some(), sample.connections.is_some()), (is_other, is_other), "{sample:#?}");
            assert!(sample.cpu.is_some() && sample.lifecycle.is_some(), "the rest works on: {sample:#?}");
        }
        for hook in ["ingress", "egress", "connections"] {
            let why = format!("{hook}: somebody took it off on {}", bare.cgroup);
            assert!(tick.quality.hooks_missing.contains(&why), "{why}: {:?}", tick.quality);
        }
    }
    Ok(())
}
