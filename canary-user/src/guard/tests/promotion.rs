//! The comparison with stable before a promotion, over restarts of the guard: the loop with the real judge.

use super::{SECOND_NS, busy, rig::Rig, target};
use crate::{judge::Promotion, targets::Role, telemetry::Sample};

/// Seconds of the version before, and of the one that was promoted before the guard is started again.
const BEFORE: u64 = 400;
const SINCE: u64 = 100;

/// Stable as these instances, which take so many times the usual CPU and differ a little from second to second.
fn stable(second: u64, incarnation: u64, factor: f64) -> Sample {
    let jitter = (second * 7919 % 1000) as f64 / 1000.0 - 0.5;
    let mut sample = busy(target(Role::Stable, incarnation));
    let cpu = sample.cpu.as_mut().expect("it is measured");
    cpu.on_cpu_ns = (SECOND_NS as f64 / 4.0 * factor * (1.0 + 0.04 * jitter)) as u64;
    sample
}

/// What is told after the last of so many ticks.
async fn ticks(rig: &mut Rig, n: u64, incarnation: u64, factor: f64) -> Option<Promotion> {
    let mut last = None;
    for _ in 0..n {
        let sample = stable(rig.second, incarnation, factor);
        last = rig.tick(vec![sample]).await.deployments["checkout"].verdict.promotion.clone();
    }
    last
}

/// One that watches a promoted version, equal so far, and the windows compared.
async fn promoted() -> (Rig, u64) {
    let mut rig = Rig::new("observe", &["checkout"]);
    rig.judges = true;
    assert_eq!(ticks(&mut rig, BEFORE, 1, 1.0).await, None);
    let told = ticks(&mut rig, SINCE, 2, 1.0).await.expect("it was replaced");
    assert_eq!((told.since, told.worse), (Some(BEFORE), false), "{told:?}");
    assert!(told.windows > 0 && told.windows < SINCE, "without those of its warm-up: {told:?}");
    (rig, told.windows)
}

fn is_on_record(rig: &Rig) -> bool {
    rig.journal().control("checkout").expect("usable").is_some()
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_within_its_time_the_comparison_goes_on_with_what_is_left_of_it() {
    let (mut rig, _) = promoted().await;
    rig.kill().await;
    rig.second += 50;
    let told = ticks(&mut rig, 1, 2, 1.0).await.expect("it goes on");
    // Kept when it began; what was compared since then is lost, and its time is not.
    assert_eq!((told.since, told.windows, told.of_windows), (None, SINCE + 50, 3600));
    let said =
        "stable was replaced before the guard was started and is held against what it was before: no worse so far";
    assert!(told.text.starts_with(said), "{}", told.text);
    // Nothing but the version before can tell that this is more: the judge of this life has seen no other.
    let told = ticks(&mut rig, 60, 2, 1.5).await.expect("it goes on");
    assert!(told.worse && told.text.contains("replaced before the guard was started: CPU per turnaround"), "{told:?}");
    rig.kill().await;
    let told = ticks(&mut rig, 1, 2, 1.5).await.expect("it goes on");
    assert!(told.worse, "what was found stays: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_stopped_loses_nothing_of_it() {
    let (mut rig, windows) = promoted().await;
    rig.stop().await;
    let told = ticks(&mut rig, 1, 2, 1.0).await.expect("it goes on");
    assert_eq!((told.windows, told.worse), (windows + 1, false), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn after_its_time_it_is_over_and_forgotten() {
    let (mut rig, _) = promoted().await;
    rig.stop().await;
    assert!(is_on_record(&rig));
    rig.second += 3600;
    assert_eq!(ticks(&mut rig, 1, 2, 1.5).await, None);
    assert!(!is_on_record(&rig));
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_while_the_guard_runs_is_forgotten_too() {
    let mut rig = Rig::new("observe", &["checkout"]);
    rig.judges = true;
    rig.config.deployments.iter_mut().for_each(|d| d.judge.continuous_windows = 50);
    ticks(&mut rig, BEFORE, 1, 1.0).await;
    ticks(&mut rig, SINCE, 2, 1.0).await;
    assert!(is_on_record(&rig));
    let told = ticks(&mut rig, 50, 2, 1.0).await.expect("what came of it stays told");
    assert_eq!((told.windows, is_on_record(&rig)), (50, false));
}

#[tokio::test(start_paused = true)]
async fn one_of_other_instances_is_not_used() {
    let (mut rig, _) = promoted().await;
    rig.kill().await;
    // It was replaced once more while the guard was down. Who runs where may not be known at once.
    assert_eq!(ticks(&mut rig, 60, 3, 1.5).await, None);
    assert!(is_on_record(&rig), "they may still come");
    assert_eq!(ticks(&mut rig, 60, 3, 1.5).await, None);
    assert!(!is_on_record(&rig));
    rig.kill().await;
    assert_eq!(ticks(&mut rig, 5, 2, 1.5).await, None, "nor later");
}

#[tokio::test(start_paused = true)]
async fn one_of_another_format_is_not_used() {
    let (mut rig, _) = promoted().await;
    rig.kill().await;
    let db = rusqlite::Connection::open(rig.journal_path()).expect("a journal");
    db.execute("UPDATE promotion SET format = 99", []).expect("changed");
    assert_eq!(ticks(&mut rig, 5, 2, 1.5).await, None);
    assert!(!is_on_record(&rig));
}

#[tokio::test(start_paused = true)]
async fn one_of_windows_of_another_length_is_not_used() {
    let (mut rig, _) = promoted().await;
    rig.kill().await;
    let db = rusqlite::Connection::open(rig.journal_path()).expect("a journal");
    db.execute("UPDATE promotion SET span_ns = 10000000000", []).expect("changed");
    assert_eq!(ticks(&mut rig, 61, 2, 1.5).await, None);
    assert!(!is_on_record(&rig));
}
