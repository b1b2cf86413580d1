//! Resources taken from a unit for a time: runtime properties, and the timer unit that gives them back.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use zbus::Variant;

use super::{
    Error,
    bus::{Property, Session, UNSET, Unit},
};
use crate::config::QuarantineConfig;

/// Properties by their names on D-Bus, as in `org.freedesktop.systemd1(5)`; [`UNSET`] = no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits(Vec<(String, u64)>);

const CPU_WEIGHT: &str = "CPUWeight";
/// Microseconds of CPU time in a second.
const CPU_QUOTA: &str = "CPUQuotaPerSecUSec";
const MEMORY_HIGH: &str = "MemoryHigh";

impl Limits {
    pub fn wanted(config: &QuarantineConfig) -> Self {
        let quota = config.cpu_percent.map(|percent| percent * 10_000);
        let all = [(CPU_WEIGHT, config.cpu_weight), (CPU_QUOTA, quota), (MEMORY_HIGH, config.memory_high_bytes)];
        Self(all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
    }

    /// What the unit has of the same properties.
    pub fn those_of(&self, unit: &Unit) -> Self {
        Self(self.0.iter().map(|(key, _)| (key.clone(), unit.number(key).unwrap_or(UNSET))).collect())
    }

    /// systemd takes a limit that nothing can enforce, and says nothing. `top` is the cgroup that systemd has for its root.
    pub fn possible(&self, top: &Path) -> Result<(), String> {
        let file = top.join("cgroup.controllers");
        let there = fs::read_to_string(&file).map_err(|e| format!("read {}: {e}", file.display()))?;
        for (key, _) in &self.0 {
            let controller = if key == MEMORY_HIGH { "memory" } else { "cpu" };
            if !there.split_whitespace().any(|c| c == controller) {
                return Err(format!(
                    "there is no {controller} controller in cgroup v2 here, so that {key} would do nothing: use mode drain or rollback"
                ));
            }
        }
        Ok(())
    }

    pub async fn set(&self, session: &Session, unit: &str) -> Result<(), Error> {
        let properties: Vec<Property> =
            self.0.iter().map(|(key, value)| (key.as_str(), Variant::from(*value))).collect();
        session.manager.set_unit_properties(unit, true, &properties).await.map_err(|e| match e {
            zbus::Error::MethodError(_, Some(why), _) => {
                Error::Refused(format!("systemd does not limit {unit}: {why}"))
            }
            other => anyhow::Error::from(other).context(format!("limit {unit}")).into(),
        })
    }

    /// As `systemctl set-property` takes them; what is not set is reset.
    fn arguments(&self) -> Vec<String> {
        let text = |key: &str, value: u64| match (key, value) {
            (MEMORY_HIGH, UNSET) => "infinity".into(),
            (_, UNSET) => String::new(),
            (CPU_QUOTA, usec) => percent(usec),
            (_, value) => value.to_string(),
        };
        let name = |key: &str| if key == CPU_QUOTA { "CPUQuota" } else { key }.to_owned();
        self.0.iter().map(|(key, value)| format!("{}={}", name(key), text(key, *value))).collect()
    }
}

/// Microseconds of CPU time in a second as a share of one CPU, to the hundredth, which is as fine as systemd takes it: "12.5%".
fn percent(usec: u64) -> String {
    // 0 would be refused.
    let hundredths = (usec / 100).max(1);
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// "CPUWeight=10 CPUQuota=20%".
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arguments().join(" "))
    }
}

/// How the names of the units begin that end quarantines.
const RELEASE: &str = "canary-release-";

/// Name of the timer that ends the quarantine of a decision's canary by its number.
pub fn timer(decision: &str, number: usize) -> String {
    let plain: String =
        decision.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    format!("{RELEASE}{plain}-{number}.timer")
}

/// Name of the service that the timer starts.
pub fn service(timer: &str) -> String {
    format!("{}.service", timer.strip_suffix(".timer").unwrap_or(timer))
}

/// What the units that end a quarantine say of themselves; they are found by it again.
fn words(unit: &str) -> String {
    format!("End the canary guard's quarantine of {unit}")
}

/// The timers and services that have yet to end a quarantine of this unit, or failed to.
pub async fn releases(session: &Session, unit: &str) -> anyhow::Result<Vec<String>> {
    let pattern = format!("{RELEASE}*");
    let listed = session.manager.list_units_by_patterns(&[], &[pattern.as_str()]).await;
    let listed = listed.with_context(|| format!("ask systemd for earlier quarantines of {unit}"))?;
    let words = words(unit);
    // One that is done is forgotten, or inactive until it is.
    let pending = listed.into_iter().filter(|(_, said, _, active, ..)| *said == words && active != "inactive");
    Ok(pending.map(|(name, ..)| name).collect())
}

/// Why a unit that has the limits `before` is not limited again, in words; `releases` are its [`releases`].
///
/// Runtime properties stay over restarts of the unit: what it has while it is limited is not its own, and would be given back
/// for good.
pub fn obstacle(unit: &str, before: &Limits, wanted: &Limits, releases: &[String]) -> Option<String> {
    if let Some((stem, _)) = releases.first().and_then(|name| name.rsplit_once('.')) {
        return Some(format!(
            "an earlier quarantine of {unit} has not ended: undo that decision, or `systemctl start {stem}.service` gives back \
             what was taken, and then `systemctl stop {stem}.timer`"
        ));
    }
    (before == wanted).then(|| {
        format!(
            "{unit} has {before} already, and a quarantine would take nothing: set less under quarantine; where an earlier one \
             left that, `systemctl set-property --runtime {unit}` with the unit's own values gives them back"
        )
    })
}

/// First the timer that gives back, then the limits: a quarantine always ends.
pub async fn impose(
    session: &Session,
    unit: &str,
    limits: &Limits,
    before: &Limits,
    lasts: Duration,
    timer: &str,
) -> Result<(), Error> {
    let (service, words) = (service(timer), words(unit));
    let mut command = vec!["/bin/systemctl".to_owned(), "set-property".into(), "--runtime".into(), unit.into()];
    command.extend(before.arguments());
    let elapses = vec![("OnActiveSec".to_owned(), lasts.as_micros() as u64)];
    let of_timer: [Property; 4] = [
        ("Description", words.as_str().into()),
        ("TimersMonotonic", elapses.into()),
        ("AccuracyUSec", Variant::from(1_000_000_u64)),
        ("RemainAfterElapse", false.into()),
    ];
    let of_service: Vec<Property> = vec![
        ("Description", words.as_str().into()),
        ("Type", "oneshot".into()),
        ("ExecStart", vec![(command[0].clone(), command, false)].into()),
    ];
    session.manager.start_transient_unit(timer, "fail", &of_timer, &[(&service, of_service)]).await.map_err(
        |e| match e {
            zbus::Error::MethodError(_, Some(why), _) => {
                Error::Refused(format!("systemd does not start {timer}: {why}"))
            }
            other => anyhow::Error::from(other).context(format!("start {timer}")).into(),
        },
    )?;
    limits.set(session, unit).await.map_err(|e| match e {
        // The timer is there already: it gives back what was not taken.
        Error::Refused(why) => Error::Failed(anyhow::anyhow!(why)),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::{CPU_QUOTA, CPU_WEIGHT, Limits, MEMORY_HIGH, UNSET};

    fn limits(all: &[(&str, u64)]) -> Limits {
        Limits(all.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect())
    }

    #[test]
    fn a_units_own_limits_are_given_back_as_they_were() {
        for (usec, said) in [
            (200_000, "20%"),
            (125_000, "12.5%"),
            (5_000, "0.5%"),
            (123_400, "12.34%"),
            (10, "0.01%"),
            (2_500_000, "250%"),
        ] {
            assert_eq!(limits(&[(CPU_QUOTA, usec)]).arguments(), [format!("CPUQuota={said}")]);
        }
        let unset = limits(&[(CPU_WEIGHT, UNSET), (CPU_QUOTA, UNSET), (MEMORY_HIGH, UNSET)]);
        assert_eq!(unset.arguments(), ["CPUWeight=", "CPUQuota=", "MemoryHigh=infinity"]);
    }
}
