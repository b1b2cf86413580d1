//! What to do about a verdict: recommendations, the most urgent first. Nothing here acts; the guard's mode decides what is done.

mod limits;
mod place;

use place::Place;

use super::verdict::{
    Cause, Environment, Forecast, Grade, HardFact, Outcome, Promotion, Recommendation, SignKind, Step, Stretch,
};
use crate::window::{Event, Indicator, Window};

/// Of a CPU, more than any machine has: Linux is built for 8192 CPUs at most. Only a damaged recording tells of more.
const MOST_PERCENT: f64 = 100.0 * 8192.0;

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
    /// As in the verdict.
    pub healthy_at_load: Option<f64>,
    /// Evidence over what is needed, as logarithms: above 1 it is proven.
    pub evidence_share: f64,
    /// CPUs that an instance of the canary uses, on average; `None` where that is not known.
    pub canary_cpus: Option<f64>,
    /// The path of the cgroup whose CPU limit holds the canary back; `None` where that is not known.
    pub held_back_by: Option<&'a str>,
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
    let until = match case.healthy_at_load {
        Some(_) => "once the canary has had as much load per instance as stable for long enough",
        None => "once the evidence reaches what is needed, or every indicator is shown to be healthy",
    };
    let mut steps = vec![wait(case, until)];
    if case.evidence_share > 0.5 {
        steps.push(
            throttle(case, "evidence of a regression is growing, and less work for the canary limits what it can do")
                .sure(Grade::Low)
                .unless("the evidence falls again"),
        );
    }
    steps.extend(limits::raise_memory(case));
    steps
}

/// Not the version: it is left where it is.
fn environment(case: Case) -> Vec<Recommendation> {
    // That stable got worse too says that it is the environment; the others say what of it.
    let signs = || case.environment.signs.iter();
    let sign = signs().find(|s| s.kind != SignKind::StableWorse).or(signs().next());
    // Between two readings there may be none; the reasons say so then.
    let because = sign.map(|s| &s.text).or(case.reasons.first()).cloned().unwrap_or_default();
    let mut steps = vec![
        step(Step::Wait, because.clone())
            .sure(Grade::High)
            .unless("the canary is still worse once this is over, or worse in something that it does not explain"),
    ];
    match sign.map(|s| s.kind) {
        Some(SignKind::Neighbour | SignKind::CpuPressure | SignKind::MemoryPressure) => {
            steps.push(step(Step::MoveOffNode, because).unless("the others on this machine become quiet"))
        }
        Some(SignKind::Throttled) => {
            steps.push(limits::raise_cpu(case, &because).unless("stable works with the same limit at the same load"))
        }
        Some(SignKind::UnequalLoad | SignKind::StableWorse) | None => {}
    }
    steps
}

fn regressed(case: Case) -> Vec<Recommendation> {
    let place = place(case);
    let leading = case.causes.first();
    let because = leading.map_or_else(|| "the canary is worse".to_owned(), |c| format!("{}: {}", c.mechanism, c.text));
    let signal = leading.map(|c| c.signal.as_str()).unwrap_or_default();
    let sure = if case.hard.is_some() || case.evidence_share >= 1.0 { Grade::High } else { Grade::Medium };
    let is = |i: Indicator| signal == i.name();
    let mut steps = vec![step(Step::RollBack, because.clone()).sure(sure).run(place.as_ref().map(Place::stop)).unless(
        if case.hard.is_some() || Event::ALL.iter().any(|event| signal == event.name()) {
            "the same happens to stable: then it is not the version"
        } else {
            "the rise is meant and paid for: then allow it with delta in [judge.indicator]"
        },
    )];
    let memory_killed = case.hard == Some(HardFact::OomKill) || signal == Event::OomKills.name();
    if case.hard == Some(HardFact::CrashLoop) || signal == Event::Crashes.name() {
        steps.push(
            step(Step::Stop, "each crash breaks the connections that it serves")
                .sure(Grade::High)
                .run(place.as_ref().map(Place::stop))
                .unless("stable crashes too: then it is not the version"),
        );
    } else if memory_killed || is(Indicator::MemoryInUse) || is(Indicator::MemoryStall) {
        steps.extend(limits::raise_memory(case));
        steps.push(
            step(Step::Restart, "gives back what leaked, for a while")
                .sure(Grade::Low)
                .run(place.as_ref().and_then(Place::restart))
                .unless("memory in use is as high right after a start"),
        );
    } else if case.environment.signs.iter().any(|s| s.kind == SignKind::Throttled) {
        steps.push(
            limits::raise_cpu(case, "it needs more CPU than its limit allows, and waits for the rest")
                .unless("the machine has no CPU left for it"),
        );
    } else if is(Indicator::CpuPerWork) || is(Indicator::RunQueueWait) || is(Indicator::RunQueueWaitP95) {
        steps.push(
            throttle(case, "keeps its extra work from the others on this machine until it is gone")
                .unless("its users notice: a canary that is held back answers late"),
        );
    } else if is(Indicator::TurnaroundMean) || is(Indicator::TurnaroundP95) {
        steps.push(drain(
            place.as_ref(),
            "its users wait longer; stable serves them as before",
            "what it waits for recovers",
        ));
    } else if signal == Event::Retransmits.name() {
        steps.push(
            step(Step::MoveOffNode, "packets are lost on the way")
                .sure(Grade::Low)
                .unless("they are lost elsewhere too"),
        );
    } else {
        steps.push(drain(place.as_ref(), "stable serves its work as before", "the rise is meant"));
    }
    steps
}

/// Its work goes to stable. Where it may come back by itself that is said.
fn drain(place: Option<&Place>, because: &str, unless: &str) -> Recommendation {
    let undone_by = place.and_then(Place::drain_is_undone_by).map(|by| format!(". {by}")).unwrap_or_default();
    step(Step::Drain, format!("{because}{undone_by}")).run(place.map(Place::drain)).unless(unless)
}

/// To half of the CPU that it uses: any other number may be more than it needs, or leave it none to speak of. What has a limit
/// already would have to get that one back, and nobody here knows it.
fn throttle(case: Case, because: &str) -> Recommendation {
    let has_limit = case.window.canary.first().is_some_and(|r| r.around.throttled.is_some());
    let percent = case.canary_cpus.map(|cpus| (50.0 * cpus).round());
    let percent = percent.filter(|percent| (1.0..=MOST_PERCENT).contains(percent) && !has_limit);
    let command = percent.and_then(|percent| Some(place(case)?.limit_cpu(percent as u64)));
    step(Step::Throttle, because).run(command)
}

/// Of the first canary instance, where commands reach it.
fn place(case: Case) -> Option<Place> {
    case.window.canary.first().and_then(|r| Place::parse(&r.instance, case.mount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        telemetry::MemoryLimit,
        window::{Around, Node, Reading},
    };

    /// One canary instance.
    pub(super) fn window(instance: &str, around: Around) -> Window {
        Window {
            deployment: "shop".into(),
            index: 900,
            t_ns: 901_000_000_000,
            span_ns: 1_000_000_000,
            stable: Vec::new(),
            canary: vec![Reading {
                instance: instance.into(),
                incarnation: 1,
                values: [f64::NAN; Indicator::COUNT],
                events: [Some(0); Event::COUNT],
                turnarounds: 100,
                seconds: 1.0,
                around,
            }],
            clean: true,
            node: Node::default(),
        }
    }

    /// What is recommended about a canary that is worse in this signal, and uses so many CPUs.
    fn advised(signal: &str, canary_cpus: Option<f64>, window: &Window) -> Vec<Recommendation> {
        let causes = [Cause {
            signal: signal.to_owned(),
            text: "it is worse".to_owned(),
            mechanism: "a mechanism".to_owned(),
            ruled_out: Vec::new(),
            evidence_ln: 10.0,
        }];
        recommend(Case {
            outcome: Outcome::Regressed,
            hard: None,
            causes: &causes,
            environment: &Environment::default(),
            forecast: None,
            stretches: &[],
            promotion: None,
            reasons: &[],
            healthy_at_load: None,
            evidence_share: 1.0,
            canary_cpus,
            held_back_by: None,
            window,
            mount: "/sys/fs/cgroup",
        })
    }

    #[test]
    fn who_waits_for_the_environment_is_told_why_also_where_no_sign_is_left() {
        let window = window(UNIT, Around::default());
        let environment = Environment { holds: true, signs: Vec::new() };
        let reasons = ["environment, not the version: it is not seen any more".to_owned()];
        let advice = recommend(Case {
            outcome: Outcome::Inconclusive,
            hard: None,
            causes: &[],
            environment: &environment,
            forecast: None,
            stretches: &[],
            promotion: None,
            reasons: &reasons,
            healthy_at_load: None,
            evidence_share: 1.0,
            canary_cpus: None,
            held_back_by: None,
            window: &window,
            mount: "/sys/fs/cgroup",
        });
        assert_eq!(advice.len(), 1, "{advice:?}");
        assert_eq!((advice[0].step, advice[0].because.as_str()), (Step::Wait, reasons[0].as_str()));
    }

    #[test]
    fn what_is_counted_is_not_said_to_be_allowed_by_a_delta() {
        let would_change = |signal: &str| {
            let advice = advised(signal, None, &window(UNIT, Around::default()));
            assert_eq!(advice[0].step, Step::RollBack);
            advice[0].would_change.clone()
        };
        assert!(would_change(Indicator::CpuPerWork.name()).contains("delta"));
        for event in Event::ALL {
            assert_eq!(would_change(event.name()), "the same happens to stable: then it is not the version");
        }
    }

    const UNIT: &str = "/system.slice/shop-canary.service";

    #[test]
    fn a_throttle_is_to_half_of_what_is_used_and_never_more_than_a_limit_that_is_there() {
        let command = |cpus: Option<f64>, throttled: Option<f64>| {
            let window = window(UNIT, Around { throttled, ..Around::default() });
            let advice = advised(Indicator::CpuPerWork.name(), cpus, &window).remove(1);
            assert_eq!(advice.step, Step::Throttle);
            advice.command
        };
        let to =
            |percent: u64| Some(format!("systemctl set-property --runtime 'shop-canary.service' CPUQuota={percent}%"));
        assert_eq!(command(Some(0.12), None), to(6));
        assert_eq!(command(Some(8.0), None), to(400));
        assert_eq!(command(Some(0.001), None), None, "less than the kernel limits to");
        assert_eq!(command(Some(1e18), None), None, "more than there is");
        assert_eq!(command(None, None), None, "what it uses is not known");
        assert_eq!(command(Some(0.12), Some(0.0)), None, "it has a limit");
    }

    #[test]
    fn a_drain_says_who_may_start_it_again() {
        let because = |instance: &str| {
            let window = window(instance, Around::default());
            let advice = advised(Indicator::TurnaroundMean.name(), None, &window).remove(1);
            assert_eq!((advice.step, advice.command.is_some()), (Step::Drain, true));
            advice.because
        };
        assert!(
            because(UNIT).ends_with(". Restart= in its unit may start it again: then stop it"),
            "{}",
            because(UNIT)
        );
        // An engine does not start again what it was told to end.
        let docker = because("/system.slice/docker-0123456789abcdef.scope");
        assert!(docker.ends_with("stable serves them as before"), "{docker}");
    }

    #[test]
    fn what_a_kubelet_would_take_back_has_no_command() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4b3d2c1e_7f60.slice";
        let memory = Some(MemoryLimit { cgroup: pod.into(), limit_bytes: 1 << 30, in_use_bytes: 1 << 29 });
        let window = window(pod, Around { memory_limit_bytes: Some(1 << 30), memory, ..Around::default() });
        let signals = [Event::Crashes.name(), Indicator::MemoryInUse.name(), Indicator::TurnaroundMean.name(), "else"];
        for signal in signals {
            for advice in advised(signal, Some(1.0), &window) {
                assert_eq!(advice.command, None, "{signal}: {}", advice.in_words());
            }
        }
    }
}
