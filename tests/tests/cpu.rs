//! On-CPU time against the kernel's own book, `cpu.stat`.

use std::{thread::sleep, time::Duration};

use canary_e2e::{Sandbox, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
};

/// Counts `script` in a tracked cgroup for two seconds and compares.
fn agrees_with_cpu_stat(test: &str, script: &str, descendant: bool) -> anyhow::Result<()> {
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("busy")?;
    let runs_in = if descendant { sandbox.cgroup("busy/below/deeper")? } else { path.clone() };
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Stable)?]);
    let mut child = sandbox.run(&runs_in, script)?;
    sleep(Duration::from_millis(100));
    sensor.tick();

    let mut ours_ns = 0;
    let mut kernel_usec = 0;
    for _ in 0..10 {
        sleep(Duration::from_millis(200));
        let tick = sensor.tick();
        let sample = &tick.samples[0];
        ours_ns += sample.cpu.as_ref().expect("the sched hooks are live").on_cpu_ns;
        kernel_usec += sample.kernel_cpu_usec.expect("cpu.stat is there");
    }
    child.kill()?;
    child.wait()?;
    let ours = ours_ns as f64 / 1e9;
    let kernel = kernel_usec as f64 / 1e6;
    println!("{test}: eBPF {ours:.4} s, cpu.stat {kernel:.4} s, difference {:+.3} %", (ours / kernel - 1.0) * 100.0);
    assert!(kernel > 0.1, "the load did nothing: {kernel} s");
    assert!((ours / kernel - 1.0).abs() < 0.01, "eBPF {ours} s, cpu.stat {kernel} s");
    Ok(())
}

#[test]
fn one_busy_loop() -> anyhow::Result<()> {
    agrees_with_cpu_stat("one_busy_loop", "while :; do :; done", false)
}

#[test]
fn a_descendant_counts_as_its_target() -> anyhow::Result<()> {
    agrees_with_cpu_stat("a_descendant_counts_as_its_target", "while :; do :; done", true)
}

#[test]
fn short_lived_processes() -> anyhow::Result<()> {
    agrees_with_cpu_stat("short_lived_processes", "while :; do /bin/true; done", false)
}
