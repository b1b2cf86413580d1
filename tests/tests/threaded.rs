//! Threads of one process: in several cgroups (threaded mode), and one that executes a program.

use std::{fs, thread::sleep, time::Duration};

use canary_e2e::{Booked, Sandbox, kernel_available, wait_until};
use canary_user::{
    targets::Role,
    telemetry::{Options, Sensor, Starts},
};

/// Where another thread than the first one executes a program, the first one ends before; the process does not.
#[test]
fn a_program_that_a_thread_executes_is_neither_an_end_nor_a_restart() -> anyhow::Result<()> {
    if !kernel_available("a_program_that_a_thread_executes_is_neither_an_end_nor_a_restart") {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let path = sandbox.cgroup("one")?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&path, Role::Canary)?]);
    sensor.tick();
    let script = format!("exec {} sh -c 'exit 0'", env!("CARGO_BIN_EXE_exec-from-thread"));
    assert!(sandbox.run(&path, &script)?.wait()?.success());
    let sample = sensor.tick().samples.remove(0);
    // The program, and what its thread executes.
    assert_eq!(sample.starts, Some(Starts { forked: 0, executed: 2, restarts: 0 }));
    let lifecycle = sample.lifecycle.expect("the hook is live");
    assert_eq!((lifecycle.exits, lifecycle.exits_error), (1, 0), "one process, which ends once");
    assert_eq!(sample.exit_codes, Some(Vec::new()));
    Ok(())
}

#[test]
fn threads_of_one_process_count_where_each_is() -> anyhow::Result<()> {
    let test = "threads_of_one_process_count_where_each_is";
    if !kernel_available(test) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let process = sandbox.cgroup("process")?;
    let parts = [sandbox.cgroup("process/one")?, sandbox.cgroup("process/two")?];
    for part in &parts {
        if let Err(error) = fs::write(sandbox.root.dir(part).join("cgroup.type"), "threaded") {
            println!("SKIP {test}: cgroups cannot be made threaded here: {error}");
            return Ok(());
        }
    }
    let mut child = sandbox.run(&process, &format!("exec {} threads 2", env!("CARGO_BIN_EXE_victim")))?;
    let threads = || -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|tid| *tid != child.id().to_string()).collect()
    };
    wait_until("both threads are there", Duration::from_secs(60), || threads().len() == 2)?;
    for (part, thread) in parts.iter().zip(threads()) {
        fs::write(sandbox.root.dir(part).join("cgroup.threads"), thread)?;
    }
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    sensor.follow(&[sandbox.target(&parts[0], Role::Stable)?, sandbox.target(&parts[1], Role::Canary)?]);
    let mut around = || {
        Booked::around(&sandbox, &parts[0], || Booked::around(&sandbox, &parts[1], || sensor.tick()))
            .and_then(|(one, inner)| inner.map(|(two, tick)| ([one, two], tick.samples)))
    };
    let (first, _) = around()?;
    sleep(Duration::from_secs(2));
    let (last, samples) = around()?;
    child.kill()?;
    child.wait()?;
    for i in 0..2 {
        let sample = samples.iter().find(|s| *s.target.cgroup == *parts[i]).expect("both are sampled");
        let ours_ns = sample.cpu.as_ref().expect("the sched hooks are live").on_cpu_ns;
        first[i].agrees(last[i], ours_ns, &format!("{test}: {}", parts[i]));
    }
    Ok(())
}
