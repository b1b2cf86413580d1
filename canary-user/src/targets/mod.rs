//! Who is stable and who is canary: a target is a cgroup that belongs to a deployment, a version and a role.

pub mod cgroup;
pub mod discover;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Which side of the comparison a target is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
/// Two targets are the same instance exactly when deployment, cgroup and incarnation agree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    pub deployment: Arc<str>,
    pub role: Role,
    /// Name of the version, for people and metrics labels.
    pub version: Arc<str>,
    /// Path relative to the cgroup2 root, with a leading slash.
    pub cgroup: Arc<str>,
    /// The kernel's cgroup id. A cgroup that is removed and made again under the same path gets another one.
    pub incarnation: u64,
}
