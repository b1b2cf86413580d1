//! Quiet is proven by counts; missing counts prove nothing; what comes back is told.

use super::{SECOND_NS, busy, idle, stopped, target, tick};
use crate::{
    guard::verify::{Progress, Verification},
    orchestrator::Background,
    targets::{Identity, Role, Target},
    telemetry::{Cpu, Dependency, Network, Sample},
};

fn canary() -> Target {
    target(Role::Canary, 2)
}

fn watch() -> Verification {
    Verification::new(&[canary()], None, 60 * SECOND_NS)
}

/// Of a pod with two probes, one every 10 s each.
fn probes() -> Background {
    Background { whose: "the kubelet's probes".into(), burst: 2, turnarounds_per_second: 0.2 }
}

fn watch_beside_probes() -> Verification {
    Verification::new(&[canary()], Some(probes()), 60 * SECOND_NS)
}

/// An instance that does nothing but answer as many requests, and that costs it more CPU than a quiet one takes.
fn answers(turnarounds: u64) -> Sample {
    let mut sample = idle(canary());
    let bytes = turnarounds * 5_000;
    sample.network = Some(Network { turnarounds, tx_bytes: bytes, tx_payload_bytes: bytes, ..Network::default() });
    sample.cpu = Some(Cpu { on_cpu_ns: turnarounds * SECOND_NS / 20, ..Cpu::default() });
    sample
}

/// One second for each number of turnarounds.
fn seconds(turnarounds: &[u64]) -> Vec<Option<Sample>> {
    turnarounds.iter().map(|n| Some(answers(*n))).collect()
}

/// Feeds one canary sample (or none) per second, beside a stable that serves; gives the last answer.
fn feed(v: &mut Verification, from: u64, canary: Vec<Option<Sample>>) -> Progress {
    let mut last = Progress::Watching;
    for (i, sample) in canary.into_iter().enumerate() {
        let samples = [Some(busy(target(Role::Stable, 1))), sample].into_iter().flatten().collect();
        last = v.observe(&tick(from + i as u64, samples));
    }
    last
}

fn quiet(words: &str) -> Progress {
    Progress::Quiet(words.into())
}

#[test]
fn three_windows_without_a_process_are_quiet_two_are_not() {
    let mut v = watch();
    let two = vec![Some(busy(canary())), Some(stopped(canary())), Some(stopped(canary()))];
    assert_eq!(feed(&mut v, 0, two), Progress::Watching);
    let said = feed(&mut v, 3, vec![Some(stopped(canary()))]);
    assert_eq!(said, quiet("no process is left; no turnaround and 0 bytes in 3 windows"));
}

#[test]
fn a_cgroup_that_is_gone_is_quiet() {
    assert_eq!(
        feed(&mut watch(), 0, vec![None; 3]),
        quiet("no process is left; no turnaround and 0 bytes in 3 windows")
    );
}

#[test]
fn a_process_that_only_waits_is_quiet() {
    let mut sample = idle(canary());
    sample.cpu = Some(Cpu { on_cpu_ns: SECOND_NS / 500, ..Cpu::default() });
    sample.network = Some(Network { tx_bytes: 52, ..Network::default() });
    let said = feed(&mut watch(), 0, vec![Some(sample); 3]);
    assert_eq!(said, quiet("no turnaround, 156 bytes and 0.2 % of a CPU in 3 windows"));
}

#[test]
fn any_one_of_turnarounds_bytes_and_cpu_keeps_it_from_being_quiet() {
    let changes: [fn(&mut Sample); 3] = [
        |s| s.network = Some(Network { turnarounds: 1, ..Network::default() }),
        |s| s.network = Some(Network { tx_bytes: 2000, ..Network::default() }),
        |s| s.cpu = Some(Cpu { on_cpu_ns: SECOND_NS / 50, ..Cpu::default() }),
    ];
    for change in changes {
        let mut sample = idle(canary());
        change(&mut sample);
        assert_eq!(feed(&mut watch(), 0, vec![Some(sample); 10]), Progress::Watching);
    }
}

#[test]
fn missing_counts_prove_nothing() {
    for change in [|s: &mut Sample| s.network = None, |s: &mut Sample| s.cpu = None, |s: &mut Sample| s.span_ns = 0] {
        let mut sample = idle(canary());
        change(&mut sample);
        assert_eq!(feed(&mut watch(), 0, vec![Some(sample); 10]), Progress::Watching);
    }
    // Nor does a sensor that brings nothing, or that lost events.
    let mut v = watch();
    for i in 0..10 {
        assert_eq!(v.observe(&tick(i, vec![])), Progress::Watching);
        let mut lossy = tick(i, vec![busy(target(Role::Stable, 1))]);
        lossy.quality.lost_events = 1;
        assert_eq!(v.observe(&lossy), Progress::Watching);
        let mut crowded = tick(i, vec![busy(target(Role::Stable, 1)), idle(canary())]);
        crowded.quality.targets_without_slot = 1;
        assert_eq!(v.observe(&crowded), Progress::Watching);
    }
}

#[test]
fn not_quiet_by_the_deadline_is_overdue_with_what_it_still_did() {
    let said = feed(&mut watch(), 59, vec![Some(busy(canary())); 2]);
    let expected =
        "the canary did not become quiet: 100 turnarounds, 50000 bytes and 25.0 % of a CPU in the last window";
    assert_eq!(said, Progress::Overdue(expected.into()));
    let mut blind = idle(canary());
    blind.network = None;
    let said = feed(&mut watch(), 60, vec![Some(blind)]);
    let expected = "the canary did not become quiet: its counts are missing or events were lost, so that it is not \
                    known to be quiet";
    assert_eq!(said, Progress::Overdue(expected.into()));
}

#[test]
fn turnarounds_after_it_was_quiet_mean_that_it_came_back() {
    let mut v = watch();
    feed(&mut v, 0, vec![Some(idle(canary())); 3]);
    let Progress::CameBack(words, who) = feed(&mut v, 3, vec![Some(busy(canary()))]) else { panic!("not seen") };
    assert_eq!(words, "the canary is back after it had been quiet: 100 turnarounds, 50000 bytes and 25.0 % of a CPU");
    assert_eq!(who, [canary()]);
}

#[test]
fn a_process_in_the_emptied_cgroup_means_that_it_came_back() {
    let mut v = watch();
    let said = feed(&mut v, 0, vec![Some(stopped(canary())), Some(idle(canary()))]);
    assert!(matches!(said, Progress::CameBack(..)), "{said:?}");
}

#[test]
fn the_same_version_as_another_instance_came_back_another_version_is_a_new_rollout() {
    let mut v = watch();
    let Progress::CameBack(words, who) = feed(&mut v, 0, vec![None, Some(busy(target(Role::Canary, 7)))]) else {
        panic!("not seen")
    };
    assert_eq!(words, "the canary is back: /checkout/v2 runs version v2 as another instance (incarnation 7)");
    assert_eq!(who, [target(Role::Canary, 7)]);
    let next = Target { version: "v3".into(), ..target(Role::Canary, 8) };
    let said = feed(&mut watch(), 0, vec![Some(busy(next)); 3]);
    assert_eq!(said, quiet("no process is left; no turnaround and 0 bytes in 3 windows"));
}

#[test]
fn a_pod_of_another_template_is_a_new_rollout_whatever_the_configuration_calls_it() {
    let pod = |incarnation, name: &str, run: &str| {
        let identity = Identity { name: name.into(), run: run.into(), restarts: None };
        Target { identity: Some(identity), ..target(Role::Canary, incarnation) }
    };
    for background in [None, Some(probes())] {
        let old = pod(2, "shop/checkout-bbb-1", "uid-1 bbb");
        let mut v = Verification::new(&[old], background.clone(), 60 * SECOND_NS);
        let next = Some(busy(pod(7, "shop/checkout-ccc-1", "uid-2 ccc")));
        assert!(matches!(feed(&mut v, 0, vec![next; 3]), Progress::Quiet(_)), "{background:?}");
        let again = Some(busy(pod(8, "shop/checkout-bbb-2", "uid-3 bbb")));
        assert!(matches!(feed(&mut v, 3, vec![again]), Progress::CameBack(..)), "{background:?}");
    }
}

#[test]
fn what_the_kubelets_probes_make_is_quiet_once_each_has_had_its_turn() {
    let mut v = watch_beside_probes();
    assert_eq!(feed(&mut v, 0, seconds(&[100, 7, 0, 0, 2, 0, 0, 0, 0, 0, 0])), Progress::Watching, "nine seconds");
    let said = feed(&mut v, 11, seconds(&[0]));
    let explained = "no more than the kubelet's probes explain (twice 0.2 a second)";
    assert_eq!(said, quiet(&format!("2 turnarounds, 10000 bytes and 1.0 % of a CPU in 10 windows, {explained}")));
    // And for as long as it goes on like that, also where a sidecar doubles it.
    for round in 0..60 {
        let said = feed(&mut v, 12 + 10 * round, seconds(&[0, 0, 4, 0, 0, 0, 0, 0, 0, 0]));
        assert!(matches!(&said, Progress::Quiet(words) if words.ends_with(explained)), "{round}: {said:?}");
    }
}

#[test]
fn requests_of_users_beside_the_probes_are_not_quiet() {
    // One a second, five times what the probes make, and at no time more than they could make at once.
    let said = feed(&mut watch_beside_probes(), 0, seconds(&[1; 61]));
    let Progress::Overdue(words) = said else { panic!("{said:?}") };
    assert!(words.ends_with("more than the kubelet's probes explain (twice 0.2 a second)"), "{words}");

    let mut v = watch_beside_probes();
    assert!(matches!(feed(&mut v, 0, seconds(&[0; 10])), Progress::Quiet(_)));
    assert!(matches!(feed(&mut v, 10, seconds(&[4])), Progress::Quiet(_)), "a sidecar passes both probes on");
    let Progress::CameBack(words, who) = feed(&mut v, 11, seconds(&[4])) else { panic!("not seen") };
    assert!(words.contains("4 turnarounds") && words.contains("more than the kubelet's probes explain"), "{words}");
    assert_eq!(who, [canary()]);
}

#[test]
fn a_stream_on_an_old_connection_is_not_taken_for_an_answer_to_a_probe() {
    let streams = |turnarounds, bytes| {
        let mut sample = idle(canary());
        sample.network = Some(Network { turnarounds, tx_payload_bytes: bytes, ..Network::default() });
        Some(sample)
    };
    assert_eq!(feed(&mut watch_beside_probes(), 0, vec![streams(0, 2000); 30]), Progress::Watching);
    assert_eq!(feed(&mut watch_beside_probes(), 0, vec![streams(1, 200_000); 30]), Progress::Watching);
    // What it sends to a service that it asks itself, such as its traces, is no answer.
    let mut asks = streams(0, 2000).expect("a sample");
    asks.dependency = Some(Dependency { tx_payload_bytes: 2000, ..Dependency::default() });
    assert!(matches!(feed(&mut watch_beside_probes(), 0, vec![Some(asks); 30]), Progress::Quiet(_)));
}

#[test]
fn without_probes_an_instance_that_runs_on_may_use_cpu_and_answer_nobody() {
    let runs_on = || Verification::new(&[canary()], Some(Background::default()), 60 * SECOND_NS);
    let mut works = idle(canary());
    works.cpu = Some(Cpu { on_cpu_ns: SECOND_NS / 2, ..Cpu::default() });
    let said = feed(&mut runs_on(), 0, vec![Some(works); 3]);
    assert_eq!(said, quiet("no turnaround, 0 bytes and 50.0 % of a CPU in 3 windows"));
    assert_eq!(feed(&mut runs_on(), 0, seconds(&[1; 10])), Progress::Watching);
    // What is not counted proves nothing here either.
    let mut blind = idle(canary());
    blind.network = None;
    assert_eq!(feed(&mut runs_on(), 0, vec![Some(blind); 10]), Progress::Watching);
}

#[test]
fn an_instance_in_the_place_of_one_that_was_left_running_is_back_when_users_reach_it() {
    let mut v = watch_beside_probes();
    let next = |turnarounds| Some(Sample { target: target(Role::Canary, 7), ..answers(turnarounds) });
    assert!(matches!(feed(&mut v, 0, vec![next(0); 10]), Progress::Quiet(_)));
    assert!(matches!(feed(&mut v, 10, vec![next(2)]), Progress::Quiet(_)));
    assert!(matches!(feed(&mut v, 11, vec![next(100)]), Progress::CameBack(..)));
}
