//! Limits that hold the canary back, by whoever has them: itself, or a slice or a pod that it is in.

use super::{Case, Recommendation, place::Place, step};
use crate::judge::{Grade, HardFact, Step};

const NOT_KNOWN: &str = "The limit is that of a cgroup above it; which one is not known";

/// Lifts the CPU limit that holds it back.
pub fn raise_cpu(case: Case, because: &str) -> Recommendation {
    match case.held_back_by {
        Some(cgroup) => raise(case, cgroup, because, "The limit", Place::lift_cpu_limit),
        // One of its own would be known.
        None => step(Step::RaiseLimit, format!("{because}. {NOT_KNOWN}")),
    }
}

/// More memory, where a forecast or a kill says that it runs out.
pub fn raise_memory(case: Case) -> Option<Recommendation> {
    let because = match case.forecast {
        Some(forecast) => format!("memory in use grows: {}", forecast.in_words()),
        None if case.hard == Some(HardFact::OomKill) => "it was killed at its memory limit".to_owned(),
        None => return None,
    };
    let around = case.window.canary.first().map(|reading| &reading.around);
    let is_one_unknown = around.is_some_and(|around| around.unknown_memory_limit);
    let raised = match around.and_then(|around| around.memory.as_ref()) {
        Some(limit) => {
            let because = if is_one_unknown {
                format!(
                    "{because}. A cgroup above it has a memory limit, too, of which it is not known how full it is; this \
                     is its own"
                )
            } else {
                because
            };
            let more_bytes = limit.limit_bytes.saturating_mul(2);
            raise(case, &limit.cgroup, &because, "The limit nearest to full", |place| place.memory_limit(more_bytes))
        }
        None if is_one_unknown => step(Step::RaiseLimit, format!("{because}. {NOT_KNOWN}")),
        None => step(Step::RaiseLimit, because),
    };
    Some(raised.sure(Grade::Low).unless("it grows without end: a higher limit only puts the kill off"))
}

/// More of the limit that a cgroup has. Where that one is above the canary, others get more, too.
fn raise(
    case: Case,
    cgroup: &str,
    because: &str,
    which: &str,
    command: impl FnOnce(&Place) -> String,
) -> Recommendation {
    let place = Place::of_limit(cgroup, case.mount);
    let name = place.as_ref().map_or_else(|| cgroup.to_owned(), ToString::to_string);
    let canary = &case.window.canary;
    let is_first = canary.first().is_some_and(|reading| *reading.instance == *cgroup);
    let is_above =
        canary.iter().any(|reading| reading.instance.strip_prefix(cgroup).is_some_and(|rest| rest.starts_with('/')));
    let (whose, risk) = if is_above {
        (format!(". {which} is that of {name}, above it, and holds for all that is in there"), Grade::Medium)
    } else if is_first {
        // What else is said is about the first instance, too.
        (String::new(), Grade::Low)
    } else {
        (format!(". {which} is that of {name}"), Grade::Low)
    };
    let raised = step(Step::RaiseLimit, format!("{because}{whose}")).run(place.as_ref().map(command));
    Recommendation { risk, ..raised }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::window, *};
    use crate::{
        judge::{Environment, Outcome},
        telemetry::MemoryLimit,
        window::{Around, Window},
    };

    const UNIT: &str = "/shop.slice/shop-canary.service";
    const POD: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4b3d2c1e_7f60.slice";

    /// A canary that was killed for want of memory.
    fn case<'a>(window: &'a Window, environment: &'a Environment) -> Case<'a> {
        Case {
            outcome: Outcome::Regressed,
            hard: Some(HardFact::OomKill),
            causes: &[],
            environment,
            forecast: None,
            stretches: &[],
            promotion: None,
            reasons: &[],
            evidence_share: 1.0,
            canary_cpus: None,
            healthy_at_load: None,
            held_back_by: None,
            window,
            mount: "/sys/fs/cgroup",
        }
    }

    /// What is advised about the canary at this path whose CPU limit is of this cgroup.
    fn of_cpu(instance: &str, held_back_by: Option<&str>) -> Recommendation {
        let (window, environment) = (window(instance, Around::default()), Environment::default());
        raise_cpu(Case { held_back_by, ..case(&window, &environment) }, "it is held back")
    }

    #[test]
    fn a_cpu_limit_is_lifted_by_whoever_has_it() {
        let own = of_cpu(UNIT, Some(UNIT));
        assert_eq!((own.because.as_str(), own.risk), ("it is held back", Grade::Low));
        let command = "systemctl set-property --runtime 'shop-canary.service' CPUQuota=";
        assert_eq!(own.command.as_deref(), Some(command));
        let told = |instance: &str, by: &str| {
            let advice = of_cpu(instance, Some(by));
            assert_eq!((advice.step, advice.risk), (Step::RaiseLimit, Grade::Medium), "others get more, too");
            (advice.because, advice.command)
        };
        let because = |name: &str| {
            format!("it is held back. The limit is that of {name}, above it, and holds for all that is in there")
        };
        let slice = "systemctl set-property --runtime 'shop.slice' CPUQuota=".to_owned();
        assert_eq!(told(UNIT, "/shop.slice"), (because("shop.slice"), Some(slice)));
        let file = "echo max >'/sys/fs/cgroup/shop/cpu.max'".to_owned();
        assert_eq!(told("/shop/canary-1", "/shop"), (because("/sys/fs/cgroup/shop"), Some(file)));
        assert_eq!(told(&format!("{POD}/cri-containerd-0123.scope"), POD), (because(POD), None), "the kubelet sets it");
    }

    #[test]
    fn a_cpu_limit_of_nobody_knows_whom_has_no_command() {
        let unknown = of_cpu(UNIT, None);
        assert!(unknown.because.ends_with("of a cgroup above it; which one is not known"), "{}", unknown.because);
        assert_eq!(unknown.command, None, "its own would be the wrong one");
    }

    #[test]
    fn a_memory_limit_is_raised_where_it_is_nearest_to_full() {
        let told = |instance: &str, cgroup: Option<&str>, unknown_memory_limit: bool| {
            let memory =
                cgroup.map(|cgroup| MemoryLimit { cgroup: cgroup.into(), limit_bytes: 1 << 30, in_use_bytes: 1 << 29 });
            let around =
                Around { memory_limit_bytes: Some(1 << 29), memory, unknown_memory_limit, ..Around::default() };
            let (window, environment) = (window(instance, around), Environment::default());
            let advice = raise_memory(case(&window, &environment)).expect("it was killed");
            (advice.because, advice.command.unwrap_or_default(), advice.risk)
        };
        let set = |unit: &str| format!("systemctl set-property --runtime '{unit}' MemoryMax=2147483648");
        let killed = "it was killed at its memory limit".to_owned();
        assert_eq!(told(UNIT, Some(UNIT), false), (killed.clone(), set("shop-canary.service"), Grade::Low));
        let (because, command, risk) = told(UNIT, Some("/shop.slice"), false);
        assert_eq!((command, risk), (set("shop.slice"), Grade::Medium));
        let slice = "The limit nearest to full is that of shop.slice, above it, and holds for all that is in there";
        assert_eq!(because, format!("{killed}. {slice}"));
        let file = "echo 2147483648 >'/sys/fs/cgroup/shop/memory.max'";
        assert_eq!(told("/shop/canary-1", Some("/shop"), false).1, file);
        assert_eq!(told(&format!("{POD}/cri-containerd-0123.scope"), Some(POD), false).1, "", "the kubelet sets it");

        let (because, command, _) = told(UNIT, Some(UNIT), true);
        assert_eq!(command, set("shop-canary.service"), "the one that is known");
        assert!(because.ends_with("of which it is not known how full it is; this is its own"), "{because}");
        let (because, command, _) = told(UNIT, None, true);
        assert_eq!(command, "");
        assert!(because.ends_with("of a cgroup above it; which one is not known"), "{because}");
        assert_eq!(told(UNIT, None, false), (killed, String::new(), Grade::Low), "it is not there any more");
    }
}
