//! How processes end, counted exactly.

use std::{thread::sleep, time::Duration};

use canary_e2e::{Sandbox, kernel_available};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor},
};

#[test]
fn exits_are_told_apart() -> anyhow::Result<()> {
    if !kernel_available("exits_are_told_apart") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    // Six children: two fine, one with a status, one fault, one killed, one that ended by a real-time signal, which is 32 more than
    // that of the fault; and the shell itself, which ends with 3.
    let script = "sh -c 'exit 0'; sh -c 'exit 0'; sh -c 'exit 7'; sh -c 'kill -SEGV $$'; sh -c 'kill -KILL $$'; \
                  sh -c 'kill -43 $$'; exit 3";
    sandbox.run(&path, script)?.wait()?;
    sleep(Duration::from_millis(50));
    let tick = sensor.tick();
    let lifecycle = tick.samples[0].lifecycle.expect("the exit hook is live");
    assert_eq!(
        (lifecycle.exits, lifecycle.exits_error, lifecycle.crashes, lifecycle.exits_killed),
        (7, 2, 1, 2),
        "{lifecycle:?}"
    );
    let mut codes: Vec<u32> = sensor.exits().iter().map(|(_, e)| e.exit_code).collect();
    codes.sort_unstable();
    assert_eq!(codes.iter().map(|c| c & !0x80).collect::<Vec<_>>(), [9, 11, 43, 3 << 8, 7 << 8]);
    Ok(())
}

/// A memory limit of cgroup v1 or v2 that one shell and its children run under.
struct Limited {
    v1: Option<std::path::PathBuf>,
}

impl Limited {
    /// Limits `path` to `bytes`: through cgroup2 where it has a memory controller, else through a v1 cgroup.
    fn new(sandbox: &Sandbox, path: &str, bytes: u64) -> anyhow::Result<Option<Self>> {
        let dir = sandbox.root.dir(path);
        if dir.join("memory.max").exists() {
            std::fs::write(dir.join("memory.max"), bytes.to_string())?;
            return Ok(Some(Self { v1: None }));
        }
        let v1 = std::path::Path::new("/sys/fs/cgroup/memory");
        if !v1.join("memory.limit_in_bytes").exists() {
            return Ok(None);
        }
        let own = v1.join(path.trim_start_matches('/').replace('/', "-"));
        std::fs::create_dir(&own)?;
        std::fs::write(own.join("memory.limit_in_bytes"), bytes.to_string())?;
        Ok(Some(Self { v1: Some(own) }))
    }

    fn enter(&self) -> String {
        self.v1.as_ref().map_or_else(String::new, |d| format!("echo $$ > {}/cgroup.procs && ", d.display()))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Some(dir) = &self.v1 {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

#[test]
fn an_oom_kill_is_counted_for_its_victim() -> anyhow::Result<()> {
    let test = "an_oom_kill_is_counted_for_its_victim";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    // cgroup2 limits need the controller in the parent; without it the v1 hierarchy limits.
    let _ = std::fs::write(sandbox.root.dir(&sandbox.base).join("cgroup.subtree_control"), "+memory");
    let path = sandbox.cgroup("one")?;
    let Some(limited) = Limited::new(&sandbox, &path, 16 << 20)? else {
        println!("SKIP {test}: neither cgroup2 nor cgroup v1 has a memory controller here");
        return Ok(());
    };
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    // tail keeps the whole line in memory; there is no end of line.
    let script = format!("{} sh -c 'tail -n 1 /dev/zero'; sleep 0.1; exit 0", limited.enter());
    sandbox.run(&path, &script)?.wait()?;
    let sample = sensor.tick().samples.remove(0);
    assert_eq!(sample.oom_kills, Some(1));
    assert_eq!(sample.lifecycle.expect("live").crashes, 0, "an OOM kill is not a crash");
    let reclaim = sample.reclaim.expect("the reclaim hooks are live");
    assert!(reclaim.stalls > 0 && reclaim.stall_ns > 0, "reaching the limit takes reclaim: {reclaim:?}");
    Ok(())
}
