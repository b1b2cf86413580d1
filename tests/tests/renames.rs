//! A cgroup keeps its path as long as it lives: cgroup v2 has no rename(2), in place or to elsewhere.

use std::{fs, thread::sleep, time::Duration};

use canary_e2e::{Booked, Sandbox, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
};

#[test]
fn a_cgroup_cannot_be_renamed_or_moved_and_is_counted_on() -> anyhow::Result<()> {
    let test = "a_cgroup_cannot_be_renamed_or_moved_and_is_counted_on";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let above = sandbox.root.dir(&sandbox.cgroup("above")?);
    let target = sandbox.target(&path, Role::Stable)?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(std::slice::from_ref(&target));
    let mut child = sandbox.run(&path, "while :; do :; done")?;
    sleep(Duration::from_millis(100));
    let (first, _) = Booked::around(&sandbox, &path, || sensor.tick())?;
    let dir = sandbox.root.dir(&path);
    for to in [dir.with_file_name("other"), above.join("one")] {
        let refused = fs::rename(&dir, &to).expect_err("the kernel takes no rename of a cgroup");
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "to {}: {refused}", to.display());
        assert!(!to.exists());
    }
    assert_eq!(sandbox.root.id(&path), Some(target.incarnation), "it is where it was");
    sleep(Duration::from_millis(500));
    let (last, tick) = Booked::around(&sandbox, &path, || sensor.tick())?;
    child.kill()?;
    child.wait()?;
    let cpu = tick.samples[0].cpu.as_ref().expect("the sched hooks are live");
    first.agrees(last, cpu.on_cpu_ns, test);
    Ok(())
}
