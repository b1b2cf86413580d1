//! Who is stable and who is canary: a target is a cgroup that belongs to a deployment, a version and a role.

pub mod cgroup;
mod containers;
pub mod discover;
pub mod located;
mod pods;
mod units;

pub use containers::follow as follow_containers;
pub use pods::follow as follow_pods;
pub use units::follow as follow_units;

use std::{cmp::Ordering, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which side of the comparison a target is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Stable,
    Canary,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Stable => "stable",
            Role::Canary => "canary",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A cgroup (with its descendants) that belongs to a deployment, a version and a role.
///
/// Two targets are the same instance exactly when deployment, cgroup, incarnation and identity agree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Target {
    #[schema(value_type = String)]
    pub deployment: Arc<str>,
    pub role: Role,
    /// Name of the version, for people and metrics labels.
    #[schema(value_type = String)]
    pub version: Arc<str>,
    /// Path relative to the cgroup2 root, with a leading slash.
    #[schema(value_type = String)]
    pub cgroup: Arc<str>,
    /// The kernel's cgroup id. A cgroup that is removed and made again under the same path gets another one. 0 is none: of an
    /// instance that its manager is about to start again, and that was never seen running.
    pub incarnation: u64,
    /// What the orchestrator calls this instance; `None` where it was found by its cgroup alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// By the fields in their order. Thousands are sorted and looked for in each window, and mostly share their names.
impl Ord for Target {
    fn cmp(&self, other: &Self) -> Ordering {
        let names = |a: &Arc<str>, b: &Arc<str>| if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) };
        names(&self.deployment, &other.deployment)
            .then_with(|| self.role.cmp(&other.role))
            .then_with(|| names(&self.version, &other.version))
            .then_with(|| names(&self.cgroup, &other.cgroup))
            .then_with(|| self.incarnation.cmp(&other.incarnation))
            .then_with(|| self.identity.cmp(&other.identity))
    }
}

impl PartialOrd for Target {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Target {
    /// Whether its cgroup is only expected.
    pub fn is_expected(&self) -> bool {
        self.incarnation == 0
    }

    /// Whether both are the same instance in different lives.
    pub fn is_in_place_of(&self, other: &Target) -> bool {
        (&self.deployment, self.role, &self.cgroup) == (&other.deployment, other.role, &other.cgroup)
    }
}

impl Target {
    /// Whether `later` is this instance, come back from its own end and started by nobody but its manager. Where the manager
    /// does not tell, it is one if it `dies` again and again.
    pub fn came_back_as(&self, later: &Target, dies: bool) -> bool {
        let of_same = (&self.deployment, self.role, &self.version) == (&later.deployment, later.role, &later.version);
        let (before, now) = (self.identity.as_ref(), later.identity.as_ref());
        // A restarted container of a pod has another cgroup, and the name of the pod stays.
        let same_name = before.zip(now).is_some_and(|(before, now)| before.name == now.name);
        if later == self || !of_same || !(same_name || self.cgroup == later.cgroup) {
            return false;
        }
        match before.zip(now).and_then(|(before, now)| before.restarts.zip(now.restarts)) {
            Some((then, now)) => now > then,
            None => dies,
        }
    }

    /// Whether `later` is of the version that this target is of. The configuration's name of it is the same for each rollout.
    pub fn is_same_version(&self, later: &Target) -> bool {
        let of_same = (&self.deployment, self.role, &self.version) == (&later.deployment, later.role, &later.version);
        let identities = self.identity.as_ref().zip(later.identity.as_ref());
        of_same && identities.is_none_or(|(then, now)| then.is_same_version(now))
    }
}

/// Those of `among` that are of the version of any of `then`.
pub fn of_version(then: &[Target], among: Vec<Target>) -> Vec<Target> {
    among.into_iter().filter(|now| then.iter().any(|then| then.is_same_version(now))).collect()
}

/// Whether two sorted lists name the same places, whichever incarnations live there.
pub fn same_places(a: &[Target], b: &[Target]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_in_place_of(b))
}

/// An instance as its orchestrator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// By which the orchestrator finds it: a unit, a container, a pod with its namespace.
    #[schema(value_type = String)]
    pub name: Arc<str>,
    /// What tells this run of it from every other: a systemd InvocationID; a container id with the time of its start;
    /// a pod's uid with its template hash.
    #[schema(value_type = String)]
    pub run: Arc<str>,
    /// How often its manager had started it again by itself before this run, without anybody's doing; `None` where that is not
    /// known. A later run with a higher number is the same version, come back from its own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
}

impl Identity {
    /// Whether the run that is there now, which has been started again by itself `restarts` times, is a later one that
    /// nobody else began: the number falls back to 0 with every start by hand.
    pub fn came_back(&self, restarts: Option<u64>) -> bool {
        self.restarts.zip(restarts).is_some_and(|(then, now)| now > then)
    }

    /// Whether `later` is of the same version, as far as orchestrators tell: the same unit, the same container, the same template
    /// of a pod.
    pub fn is_same_version(&self, later: &Identity) -> bool {
        // Neither units nor containers have a slash in their names, and the run of a unit has no second part.
        let is_pod = self.name.contains('/') && later.name.contains('/');
        match (self.run.split_once(' '), later.run.split_once(' ')) {
            (Some((_, template)), Some((_, now))) if is_pod => template.is_empty() || now.is_empty() || template == now,
            (Some((id, _)), Some((now, _))) => id == now,
            _ => self.name == later.name,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    fn identity(name: &str, run: &str) -> Identity {
        Identity { name: name.into(), run: run.into(), restarts: None }
    }

    #[test]
    fn a_unit_a_container_and_a_pods_template_are_versions() {
        let unit = identity("checkout@v2.service", "4f2a");
        assert!(unit.is_same_version(&identity("checkout@v2.service", "77")), "started again");
        assert!(!unit.is_same_version(&identity("checkout@v3.service", "77")));

        let container = identity("shop-v2", "4f2a 2026-11-27T10:00:00Z");
        assert!(container.is_same_version(&identity("shop-v2", "4f2a 2026-11-27T10:05:00Z")), "started again");
        assert!(!container.is_same_version(&identity("shop-v2", "77 2026-11-27T10:05:00Z")), "made anew");

        let pod = identity("shop/checkout-bbb-1", "uid-1 bbb");
        assert!(pod.is_same_version(&identity("shop/checkout-bbb-2", "uid-2 bbb")), "in its place");
        assert!(!pod.is_same_version(&identity("shop/checkout-ccc-1", "uid-3 ccc")));
        assert!(pod.is_same_version(&identity("shop/checkout-1", "uid-4 ")), "without a hash nobody tells");
    }
}
