//! More targets than are read whole in one tick.

use std::{collections::BTreeSet, time::Duration};

use canary_e2e::{Sandbox, kernel_available, wait_until};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sample, Sensor},
};

/// Every file is read in turns of two ticks then.
const TARGETS: usize = 120;

#[test]
fn what_changes_is_told_in_the_next_tick_and_the_rest_in_turns() -> anyhow::Result<()> {
    let test = "what_changes_is_told_in_the_next_tick_and_the_rest_in_turns";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let paths: Vec<String> =
        (0..TARGETS).map(|i| sandbox.cgroup(&format!("instance-{i}"))).collect::<Result<_, _>>()?;
    let targets: Vec<_> = paths.iter().map(|path| sandbox.target(path, Role::Stable)).collect::<Result<_, _>>()?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&targets);
    let busy =
        |samples: &[Sample]| samples.iter().find(|s| s.target == targets[TARGETS / 2]).cloned().expect("sampled");
    assert_eq!(busy(&sensor.tick().samples).populated, Some(false));

    let mut child = sandbox.run(&paths[TARGETS / 2], "while :; do :; done")?;
    wait_until("the process shows", Duration::from_secs(60), || busy(&sensor.tick().samples).populated == Some(true))?;
    wait_until("its CPU time shows", Duration::from_secs(60), || {
        busy(&sensor.tick().samples).cpu.is_some_and(|cpu| cpu.on_cpu_ns > 0)
    })?;
    child.kill()?;
    child.wait()?;
    wait_until("its end shows", Duration::from_secs(60), || busy(&sensor.tick().samples).populated == Some(false))?;

    let ticks = [sensor.tick(), sensor.tick(), sensor.tick()];
    let told = |what: &dyn Fn(&Sample) -> bool| -> BTreeSet<_> {
        ticks.iter().flat_map(|t| &t.samples).filter(|s| what(s)).map(|s| s.target.cgroup.clone()).collect()
    };
    let pressure = told(&|s| s.pressure.is_some());
    if pressure.is_empty() {
        println!("SKIP {test}: this kernel tells no pressure");
        return Ok(());
    }
    assert_eq!(pressure.len(), TARGETS);
    assert_eq!(
        told(&|s| s.pressure.is_some_and(|p| p.cpu_some_usec.is_some())).len(),
        TARGETS,
        "in one of three turns"
    );
    for tick in &ticks {
        let read = tick.samples.iter().filter(|s| s.pressure.is_some_and(|p| p.cpu_some_usec.is_some())).count();
        assert_eq!(read, TARGETS / 3, "in one tick");
        assert!(tick.samples.iter().all(|s| s.pressure.is_some()), "memory pressure is known in each");
    }
    Ok(())
}
