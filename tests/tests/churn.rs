//! Cgroups that come and go all the time.

use std::{
    collections::BTreeSet,
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use canary_e2e::{Sandbox, bpf::Held, kernel_available, wait_until};
use canary_user::{
    targets::{Role, Target},
    telemetry::{Occupancy, Options, Sensor},
};

/// A hundred a second, for six seconds here; a minute with `CANARY_CHURN_SECONDS=60`.
#[test]
fn cgroups_that_come_and_go_leave_nothing_behind() -> anyhow::Result<()> {
    let test = "cgroups_that_come_and_go_leave_nothing_behind";
    if !kernel_available(test) {
        return Ok(());
    }
    const ALIVE: usize = 20;
    let seconds = std::env::var("CANARY_CHURN_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(6);
    let sandbox = Sandbox::new()?;
    let mut sensor = Sensor::load(sandbox.root.clone(), &Options::default())?;
    let held = Held::by(std::process::id());
    let empty = sensor.occupancy()?;
    assert_eq!((empty.cgroups, empty.places), (0, 0));
    let mut alive: Vec<Target> = Vec::new();
    // Those in which something ran.
    let mut used: BTreeSet<u64> = BTreeSet::new();
    let mut ids: BTreeSet<u64> = BTreeSet::new();
    let began = Instant::now();
    let mut made = 0u32;
    while began.elapsed() < Duration::from_secs(seconds) {
        // The same path again and again.
        let name = format!("c-{}", made as usize % (2 * ALIVE));
        let target = sandbox.target(&sandbox.cgroup(&name)?, Role::Stable)?;
        ids.insert(target.incarnation);
        alive.push(target.clone());
        sensor.follow(&alive);
        if made.is_multiple_of(10) {
            sandbox.run(&target.cgroup, "exec true")?.wait()?;
            used.insert(target.incarnation);
        }
        if alive.len() > ALIVE {
            let oldest = alive.remove(0);
            let dir = sandbox.root.dir(&oldest.cgroup);
            wait_until("the cgroup can be removed", Duration::from_secs(30), || fs::remove_dir(&dir).is_ok())?;
        }
        made += 1;
        if made.is_multiple_of(50) {
            let tick = sensor.tick();
            assert_eq!((tick.quality.lost_events, tick.quality.targets_without_slot), (0, 0));
            for sample in &tick.samples {
                // Only how one ended whose cgroup is gone.
                let Some(cpu) = &sample.cpu else {
                    assert_eq!(sample.populated, Some(false), "the sched hooks are live");
                    continue;
                };
                let ran = cpu.on_cpu_ns > 0 || cpu.runq_waits > 0;
                assert!(!ran || used.contains(&sample.target.incarnation), "counts of another: {sample:#?}");
            }
        }
        let due = Duration::from_millis(10) * made;
        sleep(due.saturating_sub(began.elapsed()));
    }
    println!("{test}: {made} cgroups with {} ids in {:.1} s", ids.len(), began.elapsed().as_secs_f64());
    assert!(made > 100, "{made}");
    sensor.follow(&[]);
    sensor.tick();
    let tick = sensor.tick();
    assert_eq!((tick.samples.len(), tick.quality.targets_without_slot), (0, 0));
    // Those that were removed may come back: each keeps its place and its slot, and there is one for each path, however often
    // it was made.
    let waiting = Occupancy { cgroups: 0, places: ALIVE, free_slots: empty.free_slots - ALIVE };
    assert_eq!(sensor.occupancy()?, waiting);
    // They come once more, and are given up while they are there: nobody is waited for.
    let paths = (0..2 * ALIVE).map(|i| sandbox.cgroup(&format!("c-{i}"))).collect::<anyhow::Result<Vec<_>>>()?;
    let all = paths.iter().map(|p| sandbox.target(p, Role::Stable)).collect::<anyhow::Result<Vec<_>>>()?;
    sensor.follow(&all);
    let followed = Occupancy { cgroups: all.len(), places: all.len(), free_slots: empty.free_slots - all.len() };
    assert_eq!(sensor.occupancy()?, followed);
    sensor.follow(&[]);
    assert_eq!(sensor.occupancy()?, empty, "something is left for a cgroup that is not followed");
    let left = Held::by(std::process::id());
    assert_eq!(left.links.len(), held.links.len(), "a link is left for a cgroup that is gone");
    Ok(())
}
