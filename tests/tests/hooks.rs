//! Every hook is accepted by this kernel; leaving one out loses its signal and nothing else.

use canary_e2e::{Sandbox, kernel_available};
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
