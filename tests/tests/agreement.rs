//! The demo's fleet under load: what the sensor counts agrees with the kernel's own book and with the load's sockets.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use canary_demo::{
    cgroup::DemoCgroups,
    fleet::Fleet,
    load::{InstanceTotals, Load},
};
use canary_e2e::{kernel_available, program::program};
use canary_user::{
    targets::{Role, Target, cgroup::Root},
    telemetry::{Options, Sample, Sensor},
};

const SPAN: Duration = Duration::from_secs(10);

/// One instance over [`SPAN`].
struct Counted {
    cgroup: String,
    on_cpu_ns: u64,
    /// Of `cpu.stat`, read by this test: between the two ticks, and around them. The truth for the ticks lies between.
    kernel_cpu_usec: (u64, u64),
    received_payload_bytes: u64,
    sent_payload_bytes: u64,
    /// Bytes that the load wrote to and read from its sockets.
    load_sent_bytes: u64,
    load_received_bytes: u64,
}

/// Two healthy instances of stable and one canary, 900 requests a second on each.
async fn count() -> anyhow::Result<Vec<Counted>> {
    let root = Root::find()?;
    let cgroups = DemoCgroups::create(None)?;
    let mut fleet = Fleet::new(program("canary-demo")?);
    let mut targets = Vec::new();
    for (name, role) in [("stable-0", Role::Stable), ("stable-1", Role::Stable), ("canary-0", Role::Canary)] {
        let cell = cgroups.cell(name)?;
        let (cgroup, version) = (cell.cgroup.clone(), role.name().into());
        let incarnation = root.id(&cgroup).context("the cell's cgroup exists")?;
        targets.push(Target { deployment: "demo".into(), role, version, cgroup, incarnation, identity: None });
        fleet.add(role, cell, Vec::new()).await?;
    }
    let mut sensor = Sensor::load(root.clone(), &Options::default())?;
    sensor.follow(&targets);
    let load = Load::start(900.0, fleet.watch())?;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let books = |cgroup: &str| -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(root.dir(cgroup).join("cpu.stat"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("usage_usec ")).context("usage_usec")?;
        Ok(line.parse()?)
    };
    let all_books = || targets.iter().map(|t| books(&t.cgroup)).collect::<anyhow::Result<Vec<u64>>>();
    let before_first = all_books()?;
    sensor.tick();
    let (load_before, after_first) = (load.totals(), all_books()?);
    tokio::time::sleep(SPAN).await;
    let before_last = all_books()?;
    let tick = sensor.tick();
    let (load_after, after_last) = (load.totals(), all_books()?);
    load.stop()?;
    fleet.stop().await;

    ensure!(tick.quality.is_clean(), "{:?}", tick.quality);
    let bytes = |totals: &[InstanceTotals], cgroup: &str| {
        let instance = totals.iter().find(|i| *i.name == *cgroup).expect("the load knows each instance");
        instance.phases.iter().fold((0, 0), |(s, r), p| (s + p.sent_bytes, r + p.received_bytes))
    };
    let each = targets.iter().enumerate().map(|(i, target)| {
        let sample: &Sample = tick.samples.iter().find(|s| s.target == *target).context("a sample")?;
        let network = sample.network.as_ref().context("the network hooks are live")?;
        let (earlier, later) = (bytes(&load_before, &target.cgroup), bytes(&load_after, &target.cgroup));
        Ok(Counted {
            cgroup: target.cgroup.to_string(),
            on_cpu_ns: sample.cpu.as_ref().context("the sched hooks are live")?.on_cpu_ns,
            kernel_cpu_usec: (before_last[i] - after_first[i], after_last[i] - before_first[i]),
            received_payload_bytes: network.rx_payload_bytes,
            sent_payload_bytes: network.tx_payload_bytes,
            load_sent_bytes: later.0 - earlier.0,
            load_received_bytes: later.1 - earlier.1,
        })
    });
    each.collect()
}

fn assert_within(what: &str, ours: f64, theirs: f64, share: f64) {
    let difference = ours / theirs - 1.0;
    println!("{what}: {ours} against {theirs}, {:+.3} %", 100.0 * difference);
    assert!(theirs > 0.0 && difference.abs() < share, "{what}: {ours} against {theirs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_agrees_with_the_kernels_book() -> anyhow::Result<()> {
    if !kernel_available("cpu_time_agrees_with_the_kernels_book") {
        return Ok(());
    }
    for i in count().await? {
        let ours_usec = i.on_cpu_ns as f64 / 1e3;
        let (low, high) = (i.kernel_cpu_usec.0 as f64, i.kernel_cpu_usec.1 as f64);
        println!("{}: {ours_usec} us, cpu.stat {low} to {high}", i.cgroup);
        assert!(low > 100_000.0, "{} did next to nothing", i.cgroup);
        assert!(
            low * 0.99 < ours_usec && ours_usec < high * 1.01,
            "{}: {ours_usec} us, cpu.stat {low} to {high}",
            i.cgroup
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_agrees_with_the_bytes_that_the_load_moved() -> anyhow::Result<()> {
    if !kernel_available("payload_agrees_with_the_bytes_that_the_load_moved") {
        return Ok(());
    }
    for i in count().await? {
        assert!(i.load_received_bytes > 1_000_000, "{} answered next to nothing", i.cgroup);
        assert_within(&i.cgroup, i.received_payload_bytes as f64, i.load_sent_bytes as f64, 0.005);
        assert_within(&i.cgroup, i.sent_payload_bytes as f64, i.load_received_bytes as f64, 0.005);
    }
    Ok(())
}
