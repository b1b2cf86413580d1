//! What earlier rollouts taught: a service whose equal instances are far apart is known to be so before it shows.

use super::*;

/// Windows that one set of instances is watched for.
const WATCHED: u64 = 600;

/// As `run`, with instances that are apart by themselves: `offsets` of the stable ones and of the canary, as ln of CPU.
fn rollout(judge: &mut Judge, seed: u64, offsets: [f64; 3], canary: f64, with: u64) -> Verdict {
    let mut service = Service::new(seed, 3, 0.0);
    let mut last = None;
    for t in 0..WATCHED + with {
        service.canary = usize::from(t >= WATCHED);
        let mut window = service.next();
        let apart = |readings: &mut [Reading], offsets: &[f64]| {
            for (reading, offset) in readings.iter_mut().zip(offsets) {
                reading.values[Indicator::CpuPerWork as usize] *= offset.exp();
            }
        };
        apart(&mut window.stable, &offsets);
        apart(&mut window.canary, &[canary]);
        let verdict = judge.observe(&window);
        if verdict.outcome == Outcome::Regressed {
            return verdict;
        }
        last = Some(verdict);
    }
    last.expect("it is watched")
}

/// Five earlier sets of a service whose instances are 4 % apart.
fn earlier() -> Earlier {
    let mut random = Random(77);
    let mut sets = Vec::new();
    for seed in 0..5 {
        let mut judge = Judge::new(Parameters::default());
        rollout(&mut judge, 100 + seed, std::array::from_fn(|_| 0.04 * random.normal()), 0.0, 0);
        let learned = judge.learned().expect("six hundred windows are enough");
        assert_eq!(learned.instances.len(), 3);
        sets.push(learned.known);
    }
    Earlier::pooled(&sets)
}

#[test]
fn the_spread_of_equal_instances_is_learned_over_rollouts() {
    let earlier = earlier();
    let spread = |i: Indicator| {
        let known = earlier.of(i);
        (known.offset_squares / known.freedom).sqrt()
    };
    assert_eq!(earlier.of(Indicator::CpuPerWork).freedom, 10.0);
    let cpu = spread(Indicator::CpuPerWork);
    assert!((0.02..0.07).contains(&cpu), "4 %, seen in five times three instances: {cpu}");
    // Noise of 20 % moves means of 600 windows by almost a percent, which is not a difference of instances.
    let stall = spread(Indicator::MemoryStall);
    assert!(stall < 0.006, "these are equal: {stall}");
    assert!(earlier.of(Indicator::DependencyTurnaround).freedom == 0.0, "nothing is known of what was never measured");
}

#[test]
fn an_equal_canary_that_is_as_far_off_as_instances_are_is_left_alone_where_that_is_known() {
    // By chance the three are alike this time.
    let (alike, off) = ([0.001, -0.001, 0.0], 0.07);
    let condemned = rollout(&mut Judge::new(Parameters::default()), 5, alike, off, 1800);
    assert_eq!(condemned.outcome, Outcome::Regressed, "a judge that knows nothing of the service is misled");
    let mut knowing = Judge::knowing(Parameters::default(), &earlier());
    let verdict = rollout(&mut knowing, 5, alike, off, 1800);
    assert_ne!(verdict.outcome, Outcome::Regressed, "{:?}", verdict.reasons);
}

#[test]
fn what_is_worse_than_that_is_found_all_the_same() {
    let mut knowing = Judge::knowing(Parameters::default(), &earlier());
    let verdict = rollout(&mut knowing, 6, [0.03, -0.02, 0.0], 0.4, 300);
    assert_eq!((verdict.outcome, verdict.causes[0].signal.as_str()), (Outcome::Regressed, "cpu_per_work"));
}

/// A service whose instances jump up for eight windows now and then, by themselves.
fn bursts(random: &mut Random, left: &mut [u32; 4], window: &mut Window) {
    for (j, reading) in window.stable.iter_mut().chain(&mut window.canary).enumerate() {
        if left[j] == 0 && random.uniform() < 0.002 {
            left[j] = 8;
        }
        if left[j] > 0 {
            left[j] -= 1;
            reading.values[Indicator::CpuPerWork as usize] *= 1.6;
        }
    }
}

#[test]
fn noise_that_comes_in_bursts_is_remembered_over_rollouts() {
    let mut random = Random(78);
    let mut sets = Vec::new();
    for seed in 0..5 {
        let (mut judge, mut service, mut left) = (new_judge(), Service::new(200 + seed, 3, 0.0), [0; 4]);
        for _ in 0..3_000 {
            let mut window = service.next();
            bursts(&mut random, &mut left, &mut window);
            judge.observe(&window);
        }
        sets.push(judge.learned().expect("three thousand windows are enough").known);
    }
    let earlier = Earlier::pooled(&sets);
    let quiet = self::earlier();
    let noise = |earlier: &Earlier| earlier.of(Indicator::CpuPerWork).noise;
    assert!(noise(&earlier) > 3.0 * noise(&quiet), "{} after {}", noise(&earlier), noise(&quiet));
    // Not a burst was seen in this rollout yet, and then the canary has one.
    let evidence_ln = |earlier: &Earlier| {
        let mut judge = Judge::knowing(Parameters::default(), earlier);
        let verdict = run(&mut judge, &mut Service::new(7, 3, 0.0), 600, 208, |t, window| {
            if t >= 200 {
                scale(window, Indicator::CpuPerWork, 1.6);
            }
        });
        verdict.evidence_ln
    };
    let (knows, does_not) = (evidence_ln(&earlier), evidence_ln(&Earlier::default()));
    assert!(knows < does_not - 1.0, "it is less of a surprise: {knows} after {does_not}");
}
