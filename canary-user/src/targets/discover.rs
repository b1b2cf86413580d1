//! Which cgroups are targets right now.

use std::{collections::BTreeSet, sync::Arc};

use super::{Role, Target, cgroup::Root, located::Located};
use crate::config::{Config, DeploymentConfig};

/// Finds the targets of all deployments among the cgroups that exist.
///
/// A cgroup that two roles match is taken by neither: which of them it is cannot be known. [`Config::overlap`] says
/// which they are.
pub fn targets(config: &Config, root: &Root, located: &Located) -> Vec<Target> {
    among(config, existing(config, root), root, located)
}

/// The same for a caller that knows which cgroups exist.
pub fn among(config: &Config, existing: Vec<(String, u64)>, root: &Root, located: &Located) -> Vec<Target> {
    let mut found = located.targets(config, root);
    // One name for all that have it.
    let versions = |d| (version(d, Role::Stable), version(d, Role::Canary));
    let deployments: Vec<_> = config.deployments.iter().map(|d| (d, versions(d))).collect();
    for (path, incarnation) in existing {
        let mut roles = deployments.iter().filter_map(|(d, versions)| Some((*d, versions, d.matches(&path)?)));
        let Some((deployment, (stable, canary), role)) = roles.next() else { continue };
        let both = deployment.stable.matches(&path) && deployment.canary.matches(&path);
        if roles.next().is_some() || both {
            continue;
        }
        found.push(Target {
            deployment: deployment.name.clone(),
            role,
            version: if role == Role::Stable { stable } else { canary }.clone(),
            cgroup: path.into(),
            incarnation,
            identity: None,
        });
    }
    found.sort();
    found
}

/// Every cgroup that a pattern could mean, with its id, sorted and without repetition.
pub fn existing(config: &Config, root: &Root) -> Vec<(String, u64)> {
    // Two roles mostly lie below the same directory.
    let roles = config.deployments.iter().flat_map(|d| [&d.stable, &d.canary]);
    let places: BTreeSet<(String, usize)> =
        roles.filter_map(|role| role.cgroups()).map(|pattern| reach(&pattern.text)).collect();
    let mut all: Vec<(String, u64)> = places.iter().flat_map(|(base, depth)| root.list(base, *depth)).collect();
    all.sort();
    all.dedup();
    all
}

fn version(deployment: &DeploymentConfig, role: Role) -> Arc<str> {
    deployment.role(role).version.clone().unwrap_or_else(|| role.name().into())
}

/// Where a pattern's matches can lie: below the directory that it names without wildcards, at its own depth, or at
/// any depth where it has `**`.
fn reach(pattern: &str) -> (String, usize) {
    let parts: Vec<&str> = pattern.split('/').filter(|p| !p.is_empty()).collect();
    let literal = parts.iter().take_while(|p| !p.contains(['*', '?', '[', '{', '\\'])).count();
    // A pattern without wildcards names one cgroup: look from its parent, so that it is listed itself.
    let base = literal.min(parts.len().saturating_sub(1));
    let depth = if pattern.contains("**") || pattern.contains('{') { usize::MAX } else { parts.len() };
    (format!("/{}", parts[..base].join("/")), depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_looked_for_no_wider_than_it_reaches() {
        assert_eq!(reach("/checkout/v1*"), ("/checkout".into(), 2));
        assert_eq!(reach("/a/b/c"), ("/a/b".into(), 3));
        assert_eq!(reach("/*/v2"), ("/".into(), 2));
        assert_eq!(reach("/kubepods/**/pod*"), ("/kubepods".into(), usize::MAX));
    }
}
