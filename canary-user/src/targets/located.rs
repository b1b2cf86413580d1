//! Where orchestrators say that instances run: written by those who follow them, read whenever targets are looked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Identity, Role, Target, cgroup::Root};
use crate::config::Config;

/// An instance and its cgroup, which was read together with its identity; without one it is about to be started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Path below the cgroup2 root, with a leading slash.
    pub cgroup: String,
    /// Id of that cgroup when the orchestrator told it: another one there now is another instance. `None` = it is not there, and
    /// will be made.
    pub incarnation: Option<u64>,
    pub identity: Identity,
}

type ByRole = BTreeMap<(Arc<str>, Role), Vec<Instance>>;

/// What was told last, by deployment and role.
#[derive(Clone, Debug, Default)]
pub struct Located(Arc<Mutex<ByRole>>);

impl Located {
    /// What is known about one role from here on.
    pub fn replace(&self, deployment: &Arc<str>, role: Role, instances: Vec<Instance>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((deployment.clone(), role), instances);
    }

    /// The instances whose cgroups are still those that were told, or that are expected. One that two roles have is taken by
    /// neither.
    pub fn targets(&self, config: &Config, root: &Root) -> Vec<Target> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |cgroup: &str| all.values().flatten().filter(|i| i.cgroup == cgroup).count();
        let mut found = Vec::new();
        for ((name, role), instances) in all.iter() {
            let Some(deployment) = config.deployments.iter().find(|d| d.name == *name) else { continue };
            let version = deployment.role(*role).version.clone().unwrap_or_else(|| role.name().into());
            for instance in instances {
                let is_as_told = instance.incarnation.is_none_or(|told| root.id(&instance.cgroup) == Some(told));
                if is_as_told && times(&instance.cgroup) == 1 {
                    found.push(Target {
                        deployment: name.clone(),
                        role: *role,
                        version: version.clone(),
                        cgroup: instance.cgroup.as_str().into(),
                        incarnation: instance.incarnation.unwrap_or_default(),
                        identity: Some(instance.identity.clone()),
                    });
                }
            }
        }
        found
    }
}
