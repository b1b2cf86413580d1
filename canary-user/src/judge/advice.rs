//! What to do about a verdict: recommendations, the most urgent first. Nothing here acts; the guard's mode decides what is done.

use super::verdict::{
    Cause, Environment, Forecast, Grade, HardFact, Outcome, Promotion, Recommendation, SignKind, Step, Stretch,
};
use crate::window::{Event, Indicator, Window};

/// What recommendations are made from.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub outcome: Outcome,
    pub hard: Option<HardFact>,
    pub causes: &'a [Cause],
    pub environment: &'a Environment,
    pub forecast: Option<&'a Forecast>,
    pub stretches: &'a [Stretch],
    pub promotion: Option<&'a Promotion>,
    pub reasons: &'a [String],
    /// Evidence over what is needed, as logarithms: above 1 it is proven.
    pub evidence_share: f64,
    pub window: &'a Window,
    /// Where cgroup2 is mounted.
    pub mount: &'a str,
}

/// The recommendations, numbered by priority from 1.
pub fn recommend(case: Case) -> Vec<Recommendation> {
    let mut steps = match case.outcome {
        Outcome::Healthy => healthy(case),
        Outcome::InsufficientData => insufficient(case),
        Outcome::Inconclusive if case.environment.holds => environment(case),
        Outcome::Inconclusive => undecided(case),
        Outcome::Regressed => regressed(case),
    };
    for (i, step) in steps.iter_mut().enumerate() {
        step.priority = i as u8 + 1;
    }
    steps
}

fn step(step: Step, because: impl Into<String>) -> Recommendation {
    let (risk, undo) = match step {
        Step::Wait => (Grade::Low, "nothing is done"),
        Step::RaiseLimit => (Grade::Low, "set the old limit again"),
        Step::Throttle => (Grade::Medium, "lift the limit again"),
        Step::Drain => (Grade::Medium, "start the canary again: it takes work as soon as it runs"),
        Step::RollBack => (Grade::Medium, "deploy the canary again"),
        Step::Restart => (Grade::Medium, "none is needed; what it held in memory is lost"),
        Step::MoveOffNode => (Grade::Medium, "start it on this machine again"),
        Step::Upgrade => (Grade::High, "roll the old version out again"),
        Step::Stop => (Grade::Medium, "start it again"),
    };
    Recommendation {
        priority: 0,
        step,
        because: because.into(),
        risk,
        undo: undo.to_owned(),
        confidence: Grade::Medium,
        command: None,
        would_change: String::new(),
    }
}

impl Recommendation {
    fn sure(mut self, confidence: Grade) -> Self {
        self.confidence = confidence;
        self
    }

    fn run(mut self, command: Option<String>) -> Self {
        self.command = command;
        self
    }

    fn unless(mut self, would_change: impl Into<String>) -> Self {
        self.would_change = would_change.into();
        self
    }
}

fn wait(case: Case, until: &str) -> Recommendation {
    let because = case.reasons.first().cloned().unwrap_or_default();
    step(Step::Wait, because).sure(Grade::High).unless(format!("there is a verdict {until}"))
}

fn insufficient(case: Case) -> Vec<Recommendation> {
    let worse = case.promotion.filter(|promotion| promotion.worse);
    let back = worse.map(|promotion| {
        step(Step::RollBack, promotion.text.clone())
            .unless("it is as high at this time on other days: a profile cannot tell the version from the time")
    });
    back.into_iter().chain([wait(case, "once both sides have reported for long enough")]).collect()
}

fn healthy(case: Case) -> Vec<Recommendation> {
    // What left its own usual band a while ago and is still out of it is not over, even where both sides do it alike.
    let goes_on = case.stretches.iter().rev().find(|s| s.end.is_none());
    let because = goes_on.map_or("what happens rarely, or under another load, was not seen yet".to_owned(), |s| {
        format!("out of its own usual band, {}", s.text)
    });
    vec![
        step(Step::Upgrade, case.reasons.first().cloned().unwrap_or_default())
            .unless("the verdict is taken back as soon as later windows no longer support it"),
        step(Step::Wait, because).unless("enough was seen: a day, a peak, the jobs of the night"),
    ]
}

fn undecided(case: Case) -> Vec<Recommendation> {
    let mut steps =
        vec![wait(case, "once the evidence reaches what is needed, or every indicator is shown to be healthy")];
    if case.evidence_share > 0.5 {
        steps.push(
            step(
                Step::Throttle,
                "evidence of a regression is growing, and less work for the canary limits what it can do",
            )
            .sure(Grade::Low)
            .run(Place::of(case).and_then(|p| p.throttle()))
            .unless("the evidence falls again"),
        );
    }
    steps.extend(memory(case));
    steps
}

/// Not the version: it is left where it is.
fn environment(case: Case) -> Vec<Recommendation> {
    // That stable got worse too says that it is the environment; the others say what of it.
    let signs = || case.environment.signs.iter();
    let sign = signs().find(|s| s.kind != SignKind::StableWorse).or(signs().next());
    let because = sign.map(|s| s.text.clone()).unwrap_or_default();
    let mut steps = vec![
        step(Step::Wait, because.clone())
            .sure(Grade::High)
            .unless("the canary is still worse once this is over, or worse in something that it does not explain"),
    ];
    match sign.map(|s| s.kind) {
        Some(SignKind::Neighbour | SignKind::CpuPressure | SignKind::MemoryPressure) => {
            steps.push(step(Step::MoveOffNode, because).unless("the others on this machine become quiet"))
        }
        Some(SignKind::Throttled) => steps.push(
            step(Step::RaiseLimit, because)
                .run(Place::of(case).and_then(|p| p.lift_cpu_limit()))
                .unless("stable works with the same limit at the same load"),
        ),
        Some(SignKind::UnequalLoad | SignKind::StableWorse) | None => {}
    }
    steps
}

fn regressed(case: Case) -> Vec<Recommendation> {
    let place = Place::of(case);
    let leading = case.causes.first();
    let because = leading.map_or_else(|| "the canary is worse".to_owned(), |c| format!("{}: {}", c.mechanism, c.text));
    let signal = leading.map(|c| c.signal.as_str()).unwrap_or_default();
    let sure = if case.hard.is_some() || case.evidence_share >= 1.0 { Grade::High } else { Grade::Medium };
    let mut steps = vec![
        step(Step::RollBack, because.clone())
            .sure(sure)
            .run(place.as_ref().and_then(|p| p.stop()))
            .unless("the rise is meant and paid for: then allow it with delta in [judge.indicator]"),
    ];
    let is = |i: Indicator| signal == i.name();
    let memory_killed = case.hard == Some(HardFact::OomKill) || signal == Event::OomKills.name();
    if case.hard == Some(HardFact::CrashLoop) || signal == Event::Crashes.name() {
        steps.push(
            step(Step::Stop, "each crash breaks the connections that it serves")
                .sure(Grade::High)
                .run(place.as_ref().and_then(|p| p.stop()))
                .unless("stable crashes too: then it is not the version"),
        );
    } else if memory_killed || is(Indicator::MemoryInUse) || is(Indicator::MemoryStall) {
        steps.extend(memory(case));
        steps.push(
            step(Step::Restart, "gives back what leaked, for a while")
                .sure(Grade::Low)
                .run(place.as_ref().and_then(|p| p.restart()))
                .unless("memory in use is as high right after a start"),
        );
    } else if case.environment.signs.iter().any(|s| s.kind == SignKind::Throttled) {
        steps.push(
            step(Step::RaiseLimit, "it needs more CPU than its limit allows, and waits for the rest")
                .run(place.as_ref().and_then(|p| p.lift_cpu_limit()))
                .unless("the machine has no CPU left for it"),
        );
    } else if is(Indicator::CpuPerWork) || is(Indicator::RunQueueWait) || is(Indicator::RunQueueWaitP95) {
        steps.push(
            step(Step::Throttle, "keeps its extra work from the others on this machine until it is gone")
                .run(place.as_ref().and_then(|p| p.throttle()))
                .unless("its users notice: a canary that is held back answers late"),
        );
    } else if is(Indicator::TurnaroundMean) || is(Indicator::TurnaroundP95) {
        steps.push(
            step(Step::Drain, "its users wait longer; stable serves them as before")
                .run(place.as_ref().and_then(|p| p.drain()))
                .unless("what it waits for recovers"),
        );
    } else if signal == Event::Retransmits.name() {
        steps.push(
            step(Step::MoveOffNode, "packets are lost on the way")
                .sure(Grade::Low)
                .unless("they are lost elsewhere too"),
        );
    } else {
        steps.push(
            step(Step::Drain, "stable serves its work as before")
                .run(place.as_ref().and_then(|p| p.drain()))
                .unless("the rise is meant"),
        );
    }
    steps
}

/// More memory, where a forecast or a kill says that it runs out.
fn memory(case: Case) -> Option<Recommendation> {
    let limit = case.window.canary.iter().filter_map(|r| r.around.memory_limit_bytes).min();
    let killed = case.hard == Some(HardFact::OomKill);
    let because = match case.forecast {
        Some(forecast) => format!("memory in use grows: {}", forecast.in_words()),
        None if killed => "it was killed at its memory limit".to_owned(),
        None => return None,
    };
    let doubled = limit.map(|bytes| bytes.saturating_mul(2));
    let command = doubled.and_then(|bytes| Place::of(case)?.memory_limit(bytes));
    Some(
        step(Step::RaiseLimit, because)
            .sure(Grade::Low)
            .run(command)
            .unless("it grows without end: a higher limit only puts the kill off"),
    )
}

/// Where the canary runs, as those who started it call it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Unit(String),
    /// The command line of the engine, and the container's short id.
    Container(&'static str, String),
    Cgroup(String),
}

impl Place {
    /// The first canary instance.
    fn of(case: Case) -> Option<Place> {
        case.window.canary.first().map(|r| Place::parse(&r.instance, case.mount))
    }

    fn parse(path: &str, mount: &str) -> Place {
        let engines =
            [("docker-", "docker"), ("libpod-", "podman"), ("cri-containerd-", "crictl"), ("crio-", "crictl")];
        let steps = || path.split('/').filter(|s| !s.is_empty());
        let short = |id: &str| id.chars().take(12).collect::<String>();
        let is_id = |id: &str| id.len() >= 12 && id.bytes().all(|b| b.is_ascii_hexdigit());
        for part in steps() {
            for (prefix, engine) in engines {
                let id = part.strip_prefix(prefix).and_then(|p| p.strip_suffix(".scope"));
                if let Some(id) = id.filter(|id| is_id(id)) {
                    return Place::Container(engine, short(id));
                }
            }
        }
        let engine = path.strip_prefix("/docker/").map(|id| id.split('/').next().unwrap_or_default());
        if let Some(id) = engine.filter(|id| is_id(id)) {
            return Place::Container("docker", short(id));
        }
        match steps().next_back().filter(|last| last.ends_with(".service")) {
            Some(unit) => Place::Unit(unit.to_owned()),
            None => Place::Cgroup(format!("{mount}{path}")),
        }
    }

    fn stop(&self) -> Option<String> {
        Some(match self {
            Place::Unit(unit) => format!("systemctl stop '{unit}'"),
            Place::Container(engine, id) => format!("{engine} stop {id}"),
            Place::Cgroup(path) => format!("xargs kill -TERM <'{path}/cgroup.procs'"),
        })
    }

    fn drain(&self) -> Option<String> {
        match self {
            Place::Unit(unit) => Some(format!("systemctl kill --signal=SIGTERM '{unit}'")),
            Place::Container("crictl", _) => None,
            Place::Container(engine, id) => Some(format!("{engine} kill --signal=TERM {id}")),
            Place::Cgroup(_) => self.stop(),
        }
    }

    fn restart(&self) -> Option<String> {
        match self {
            Place::Unit(unit) => Some(format!("systemctl restart '{unit}'")),
            // Whatever runs the pod starts it again.
            Place::Container("crictl", _) => self.stop(),
            Place::Container(engine, id) => Some(format!("{engine} restart {id}")),
            Place::Cgroup(_) => None,
        }
    }

    fn memory_limit(&self, bytes: u64) -> Option<String> {
        Some(match self {
            Place::Unit(unit) => format!("systemctl set-property --runtime '{unit}' MemoryMax={bytes}"),
            Place::Container("crictl", id) => format!("crictl update --memory {bytes} {id}"),
            Place::Container(engine, id) => format!("{engine} update --memory {bytes} --memory-swap {bytes} {id}"),
            Place::Cgroup(path) => format!("echo {bytes} >'{path}/memory.max'"),
        })
    }

    fn lift_cpu_limit(&self) -> Option<String> {
        Some(match self {
            Place::Unit(unit) => format!("systemctl set-property --runtime '{unit}' CPUQuota="),
            Place::Container("crictl", id) => format!("crictl update --cpu-quota -1 {id}"),
            Place::Container(engine, id) => format!("{engine} update --cpu-quota -1 {id}"),
            Place::Cgroup(path) => format!("echo max >'{path}/cpu.max'"),
        })
    }

    fn throttle(&self) -> Option<String> {
        Some(match self {
            Place::Unit(unit) => format!("systemctl set-property --runtime '{unit}' CPUQuota=50%"),
            Place::Container("crictl", id) => format!("crictl update --cpu-quota 50000 --cpu-period 100000 {id}"),
            Place::Container(engine, id) => format!("{engine} update --cpu-quota 50000 {id}"),
            Place::Cgroup(path) => format!("echo '50000 100000' >'{path}/cpu.max'"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Place {
        Place::parse(path, "/sys/fs/cgroup")
    }

    #[test]
    fn commands_name_what_runs_there() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let cases = [
            ("/system.slice/shop-canary@1.service".to_owned(), "systemctl stop 'shop-canary@1.service'"),
            (format!("/system.slice/docker-{id}.scope"), "docker stop 0123456789ab"),
            (format!("/docker/{id}"), "docker stop 0123456789ab"),
            (format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"), "crictl stop 0123456789ab"),
            ("/shop/canary-1".to_owned(), "xargs kill -TERM <'/sys/fs/cgroup/shop/canary-1/cgroup.procs'"),
        ];
        for (path, command) in cases {
            assert_eq!(place(&path).stop().as_deref(), Some(command), "{path}");
        }
        let unit = place("/system.slice/a.service");
        assert_eq!(
            unit.memory_limit(1024).as_deref(),
            Some("systemctl set-property --runtime 'a.service' MemoryMax=1024")
        );
        assert_eq!(place("/a/b").restart(), None, "nobody knows who started it");
    }
}
