//! Instances that are found while a window is under way.

use std::{fs, thread::sleep, time::Duration};

use canary_e2e::{Sandbox, kernel_available, wait_until};
use canary_user::{
    targets::{Role, Target},
    telemetry::{Options, Sample, Sensor, live},
};
use tokio::sync::mpsc;

const WINDOW: Duration = Duration::from_secs(4);
/// Long enough for a look or two, however busy the machine is.
const LIFE_SECONDS: f64 = 1.5;

/// Under a path that nobody waited for: no place in which the kernel programs would expect it.
#[test]
fn what_lives_for_less_than_a_window_is_counted() -> anyhow::Result<()> {
    let test = "what_lives_for_less_than_a_window_is_counted";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    let (root, base) = (sandbox.root.clone(), sandbox.base.clone());
    let targets = move || {
        let below = root.list(&base, usize::MAX).into_iter().filter(|(path, _)| *path != base);
        let target = |(path, incarnation): (String, u64)| Target {
            deployment: "test".into(),
            role: Role::Canary,
            version: "canary".into(),
            cgroup: path.into(),
            incarnation,
            identity: None,
        };
        below.map(target).collect::<Vec<_>>()
    };
    let (send, mut ticks) = mpsc::channel(8);
    let live = live::start(sensor, WINDOW, targets, send)?;
    let mut next = || ticks.blocking_recv().expect("the sensor ticks");
    // A window begins with a tick.
    assert!(next().samples.is_empty());
    let path = sandbox.cgroup("short")?;
    let mut child = sandbox.run(&path, &format!("sleep {LIFE_SECONDS}; exit 3"))?;
    assert_eq!(child.wait()?.code(), Some(3));
    wait_until("the cgroup can be removed", Duration::from_secs(30), || {
        fs::remove_dir(sandbox.root.dir(&path)).is_ok()
    })?;
    // Let a look find that it is gone: what it did is told all the same.
    sleep(Duration::from_millis(500));
    let tick = next();
    let told: Vec<&Sample> = tick.samples.iter().filter(|s| *s.target.cgroup == *path).collect();
    let [sample] = told[..] else { panic!("it is in one sample, not in {}: {tick:#?}", told.len()) };
    assert_eq!(sample.populated, Some(false));
    assert_eq!(sample.lifecycle.expect("the exit hook is live").exits_error, 1);
    assert_eq!(sample.exit_codes, Some(vec![(3 << 8, 1)]));
    assert!(sample.span_ns > 0 && sample.span_ns < tick.span_ns, "from when it was found: {sample:#?}");
    assert!(sample.cpu.is_some() && sample.network.is_some(), "{sample:#?}");
    assert!(next().samples.is_empty(), "told once");
    drop(live);
    Ok(())
}
