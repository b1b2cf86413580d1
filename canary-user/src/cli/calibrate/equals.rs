//! Stable instances as if they were the canary of the others: all sets of them side by side, so that each tick is read once and
//! let go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::found::{Compared, Found};
use crate::{
    daemon,
    judge::{Earlier, Judge, Outcome, Parameters, Verdict},
    targets::Role,
    telemetry::{Sample, Tick},
    window::{self, Windower},
};

/// One deployment, and which of its stable instances are taken together.
#[derive(Debug)]
pub struct Service {
    pub deployment: Arc<str>,
    pub p: Parameters,
    pub earlier: Earlier,
    pub sets: Vec<BTreeSet<Arc<str>>>,
}

/// One comparison of equals that is under way.
struct Comparison {
    windower: Windower,
    judge: Judge,
    verdict: Option<Verdict>,
    condemned: bool,
    windows: u64,
}

/// Compares equals over the ticks of a recording, which holds `ticks` of them, in segments of so many. What is kept is the same
/// however long it is.
///
/// # Errors
/// Those of the ticks, and where there are fewer.
pub fn compare(
    mut recording: impl Iterator<Item = anyhow::Result<Tick>>,
    (ticks, segment): (u64, u64),
    services: &[Service],
    found: &mut BTreeMap<Arc<str>, Found>,
) -> anyhow::Result<()> {
    let mut begins = 0;
    while begins < ticks {
        let length = segment.min(ticks - begins);
        // A rest that is much shorter than the others says little.
        if 2 * length <= segment {
            break;
        }
        let mut under_way: Vec<Vec<Comparison>> = services.iter().map(Service::begin).collect();
        for _ in 0..length {
            let Some(tick) = recording.next() else { anyhow::bail!("it got shorter while it was read") };
            let tick = tick?;
            for (service, comparisons) in services.iter().zip(&mut under_way) {
                service.push(&tick, comparisons);
            }
        }
        for (service, comparisons) in services.iter().zip(under_way) {
            let found = found.entry(service.deployment.clone()).or_default();
            comparisons.into_iter().for_each(|comparison| comparison.end(&service.p, found));
        }
        begins += length;
    }
    Ok(())
}

impl Service {
    fn begin(&self) -> Vec<Comparison> {
        let begun = self.sets.iter().map(|_| {
            let (windower, judge) = daemon::line(self.deployment.clone(), self.p.clone(), &self.earlier);
            Comparison { windower, judge, verdict: None, condemned: false, windows: 0 }
        });
        begun.collect()
    }

    fn push(&self, tick: &Tick, comparisons: &mut [Comparison]) {
        let mut equals = equals(tick, &self.deployment);
        for (set, comparison) in self.sets.iter().zip(comparisons) {
            cast(&mut equals, set);
            comparison.push(&equals);
        }
    }
}

impl Comparison {
    fn push(&mut self, tick: &Tick) {
        let now = self.judge.observe(&self.windower.push(tick));
        self.condemned |= now.outcome == Outcome::Regressed;
        self.verdict = Some(now);
        self.windows += 1;
    }

    fn end(self, p: &Parameters, found: &mut Found) {
        let Some(verdict) = self.verdict else { return };
        found.add(Compared {
            condemned: self.condemned,
            healthy: verdict.outcome == Outcome::Healthy,
            windows: self.windows,
            events: verdict.events.iter().filter(|event| !event.missing).count(),
            tracks: self.judge.tracks(),
            p,
        });
    }
}

/// The tick with the deployment's stable instances alone, as if the real canary had not been there.
fn equals(tick: &Tick, deployment: &Arc<str>) -> Tick {
    let of_role =
        |role: Role| tick.samples.iter().filter(move |s| s.target.deployment == *deployment && s.target.role == role);
    let mut machine = tick.machine;
    if let Some(machine) = &mut machine {
        // Live it is the deployment's own. Left in, it would be others' doing, which excuses waits.
        let used_ns: Option<f64> = of_role(Role::Canary).map(window::cpu_ns).sum();
        let capacity_ns = f64::from(machine.cpus) * tick.span_ns as f64;
        match used_ns {
            Some(used_ns) if capacity_ns > 0.0 => machine.cpu_busy -= used_ns / capacity_ns,
            Some(_) => {}
            // Then nobody knows what others used: of no CPUs there is no share.
            None => machine.cpus = 0,
        }
    }
    let samples: Vec<Sample> = of_role(Role::Stable).cloned().collect();
    let (t_ns, unix_ms, span_ns, quality) = (tick.t_ns, tick.unix_ms, tick.span_ns, tick.quality.clone());
    Tick { t_ns, unix_ms, span_ns, samples, quality, machine, ..Tick::default() }
}

/// Gives the instances of the set the canary's role, and all others stable's.
fn cast(equals: &mut Tick, set: &BTreeSet<Arc<str>>) {
    for sample in &mut equals.samples {
        sample.target.role = if set.contains(&sample.target.cgroup) { Role::Canary } else { Role::Stable };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::{
        cli::calibrate::sets::sets,
        targets::Target,
        telemetry::{Cpu, Machine},
    };

    const SECOND_NS: u64 = 1_000_000_000;

    fn sample(role: Role, cgroup: &str, on_cpu_ns: Option<u64>) -> Sample {
        let (deployment, version) = ("shop".into(), role.name().into());
        let target = Target { deployment, role, version, cgroup: cgroup.into(), incarnation: 1, identity: None };
        let cpu = on_cpu_ns.map(|on_cpu_ns| Cpu { on_cpu_ns, ..Cpu::default() });
        Sample { cpu, ..Sample::unmeasured(target, SECOND_NS) }
    }

    /// Four CPUs, 60 % busy.
    fn tick(of_canary_ns: Option<u64>) -> Tick {
        let stable = |cgroup: &str| sample(Role::Stable, cgroup, Some(SECOND_NS / 10));
        let samples = vec![stable("/1"), stable("/2"), sample(Role::Canary, "/3", of_canary_ns)];
        let machine = Some(Machine { cpu_busy: 0.6, cpus: 4, ..Machine::default() });
        Tick { span_ns: SECOND_NS, samples, machine, ..Tick::default() }
    }

    fn set(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().copied().map(Arc::from).collect()
    }

    /// What the real canary uses is the deployment's own, as it was live.
    #[test]
    fn who_is_left_out_is_no_neighbour() {
        let others = |tick: &Tick| Windower::new("shop".into()).push(tick).node.cpu_others;
        let recorded = tick(Some(2 * SECOND_NS));
        let mut without = equals(&recorded, &"shop".into());
        cast(&mut without, &set(&["/2"]));
        let roles: Vec<(&str, Role)> = without.samples.iter().map(|s| (&*s.target.cgroup, s.target.role)).collect();
        assert_eq!(roles, [("/1", Role::Stable), ("/2", Role::Canary)]);
        let (live, here) = (others(&recorded).expect("known"), others(&without).expect("known"));
        assert!((live - 0.05).abs() < 1e-12 && (here - live).abs() < 1e-12, "{live} {here}");
        let unknown = tick(None);
        let without = equals(&unknown, &"shop".into());
        assert_eq!((others(&unknown), others(&without)), (None, None));
    }

    /// So many ticks of four instances of stable, the same in every run.
    fn service(ticks: u64) -> Vec<Tick> {
        let on_cpu_ns = |t: u64, i: u64| {
            let noise = (t + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(2 * i + 3) >> 40;
            100_000_000 + noise
        };
        let one = |t: u64| {
            // A copy of the name for each tick, by which it is known whether anything of it is kept.
            let version: Arc<str> = "v1".into();
            let samples = (0..4).map(|i| {
                let mut sample = sample(Role::Stable, &format!("/{i}"), Some(on_cpu_ns(t, i)));
                sample.target.version = version.clone();
                sample
            });
            Tick { t_ns: (t + 1) * SECOND_NS, span_ns: SECOND_NS, samples: samples.collect(), ..Tick::default() }
        };
        (0..ticks).map(one).collect()
    }

    fn shop(sets: Vec<BTreeSet<Arc<str>>>) -> Service {
        Service { deployment: "shop".into(), p: Parameters::default(), earlier: Earlier::default(), sets }
    }

    fn found(ticks: &[Tick], segment: u64, services: &[Service]) -> Found {
        let mut found: BTreeMap<Arc<str>, Found> = BTreeMap::new();
        found.entry("shop".into()).or_default().window_s = 1.0;
        let recording = ticks.iter().cloned().map(anyhow::Ok);
        compare(recording, (ticks.len() as u64, segment), services, &mut found).expect("ticks enough");
        found.remove("shop").expect("compared")
    }

    #[test]
    fn side_by_side_each_set_is_compared_as_by_itself() {
        let ticks = service(700);
        let pairs = sets(&set(&["/0", "/1", "/2", "/3"]), 2);
        let together = found(&ticks, 300, &[shop(pairs.clone())]);
        // Two segments; the rest of 100 is too short.
        assert_eq!((together.comparisons, together.windows), (2 * 6, 2 * 6 * 300));
        let alone: Vec<Found> = pairs.into_iter().map(|pair| found(&ticks, 300, &[shop(vec![pair])])).collect();
        let sum = |of: fn(&Found) -> u64| alone.iter().map(of).sum::<u64>();
        assert_eq!(together.condemned, sum(|found| found.condemned));
        assert_eq!(together.healthy, sum(|found| found.healthy));
        let each: Vec<String> =
            (0..2).flat_map(|segment| alone.iter().map(move |found| found.noises()[segment].clone())).collect();
        assert!(each.iter().all(|noise| noise.contains("sigma")), "it was learned: {each:?}");
        assert_eq!(together.noises(), each);
    }

    /// What a comparison adds up for an instance keeps its names as they were when that began.
    #[test]
    fn a_tick_is_let_go_once_it_is_compared() {
        let mut alive: Vec<Weak<str>> = Vec::new();
        let mut most = 0;
        let recording = service(1000).into_iter().map(|tick| {
            alive.retain(|version| version.strong_count() > 0);
            most = most.max(alive.len());
            alive.push(Arc::downgrade(&tick.samples[0].target.version));
            anyhow::Ok(tick)
        });
        let services = [shop(sets(&set(&["/0", "/1", "/2", "/3"]), 1))];
        compare(recording, (1000, 1000), &services, &mut BTreeMap::new()).expect("ticks enough");
        assert!(most <= 4 * 4, "something of {most} ticks was kept");
    }

    #[test]
    fn a_recording_that_got_shorter_is_refused() {
        let services = [shop(sets(&set(&["/0", "/1"]), 1))];
        let recording = service(10).into_iter().map(anyhow::Ok);
        let refused = compare(recording, (11, 11), &services, &mut BTreeMap::new()).expect_err("too short");
        assert!(refused.to_string().contains("shorter"), "{refused}");
    }
}
