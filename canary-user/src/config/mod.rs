//! The configuration: what is written (serde, unknown keys refused) becomes what needs no further checks.
//!
//! Goes in: TOML. Comes out: a [`Config`], or the first mistake with file, line, column, key and what to do about it.
//! Whether the patterns fit the cgroups that exist is asked separately, with the list of them:
//! [`Config::overlap`] and [`Config::unmatched`].

mod check;
mod error;
mod raw;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use globset::GlobMatcher;

pub use error::{ConfigError, Mistake, Place};

use crate::{guard::Mode, targets::Role};

const WINDOW: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(10);
const JOURNAL: &str = "/var/lib/canary/journal.db";
const PAUSE_FILE: &str = "/run/canary/pause";

/// A configuration that needs no further checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Length of one tick.
    pub window: Duration,
    /// Where the HTTP server listens; `None` = no server.
    pub listen: Option<SocketAddr>,
    pub journal: PathBuf,
    /// While this file exists, nothing is done to any canary.
    pub pause_file: PathBuf,
    pub judge: JudgeConfig,
    pub deployments: Vec<DeploymentConfig>,
}

/// What the configuration says about the judge; `None` = the judge's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JudgeConfig {
    /// Probability of condemning a canary that is no worse, over its whole life.
    pub alpha: Option<f64>,
    pub baseline_windows: Option<u64>,
    pub warmup_windows: Option<u64>,
}

/// One service with its two versions.
#[derive(Clone, Debug)]
pub struct DeploymentConfig {
    pub name: Arc<str>,
    pub mode: Mode,
    pub orchestrator: OrchestratorKind,
    /// How long in-flight work may take to finish once the canary is told to stop.
    pub grace: Duration,
    /// A canary older than this is left alone; `None` = no limit.
    pub max_age: Option<Duration>,
    /// Stable instances that must be healthy before the canary may be taken away.
    pub minimum_healthy: usize,
    pub stable: RoleConfig,
    pub canary: RoleConfig,
    pub budget: Budget,
}

/// Which cgroups are this role's.
#[derive(Clone, Debug)]
pub struct RoleConfig {
    /// Glob over paths from the cgroup2 root; `*` does not cross `/`.
    pub pattern: String,
    pub version: Option<Arc<str>>,
    /// Where the pattern is written.
    pub place: Place,
    matcher: GlobMatcher,
}

impl RoleConfig {
    pub fn matches(&self, cgroup: &str) -> bool {
        self.matcher.is_match(cgroup)
    }
}

/// How often the guard may act on one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub per_hour: usize,
    /// Least time between two actions.
    pub cooldown: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { per_hour: 2, cooldown: Duration::from_secs(15 * 60) }
    }
}

/// Which backend carries decisions out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrchestratorKind {
    #[default]
    DryRun,
    Process,
}

impl OrchestratorKind {
    pub const ALL: [OrchestratorKind; 2] = [OrchestratorKind::DryRun, OrchestratorKind::Process];

    pub fn name(self) -> &'static str {
        match self {
            OrchestratorKind::DryRun => "dry-run",
            OrchestratorKind::Process => "process",
        }
    }
}

impl DeploymentConfig {
    /// The role of the cgroup at this path (from the cgroup2 root, with a leading slash), if it has one here.
    pub fn matches(&self, cgroup: &str) -> Option<Role> {
        [Role::Stable, Role::Canary].into_iter().find(|r| self.role(*r).matches(cgroup))
    }

    pub fn role(&self, role: Role) -> &RoleConfig {
        match role {
            Role::Stable => &self.stable,
            Role::Canary => &self.canary,
        }
    }
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read configuration {}: name an existing file with --config", path.display()))?;
        Ok(Self::parse(&text, &path.display().to_string())?)
    }

    /// Checks a configuration; `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let source = check::Source { text, origin: origin.into() };
        let raw = toml::from_str(text).map_err(|e| source.refused(&e))?;
        source.config(raw)
    }

    /// Every role of every deployment with the key that its pattern is written under.
    fn roles(&self) -> impl Iterator<Item = (String, &RoleConfig)> {
        self.deployments
            .iter()
            .flat_map(|d| [Role::Stable, Role::Canary].map(|r| (format!("{}.{}.cgroup", d.name, r.name()), d.role(r))))
    }

    /// Refuses patterns by which one existing cgroup, or one inside another, would be counted for two roles.
    pub fn overlap(&self, cgroup_paths: &[String]) -> Result<(), ConfigError> {
        let matched: Vec<(&str, String, &RoleConfig)> = self
            .roles()
            .flat_map(|(key, role)| {
                cgroup_paths.iter().filter(|p| role.matches(p)).map(move |p| (p.as_str(), key.clone(), role))
            })
            .collect();
        for (i, (a, key_a, role_a)) in matched.iter().enumerate() {
            for (b, key_b, role_b) in &matched[i + 1..] {
                if key_a == key_b {
                    continue;
                }
                let inside = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|r| r.starts_with('/'));
                let (other_key, other) = (key_a.clone(), role_a.place.clone());
                let mistake = if a == b {
                    Mistake::Overlap { cgroup: a.to_string(), other_key, other }
                } else if inside(b, a) {
                    Mistake::Nested { inner: b.to_string(), outer: a.to_string(), other_key, other }
                } else if inside(a, b) {
                    let mistake = Mistake::Nested {
                        inner: a.to_string(),
                        outer: b.to_string(),
                        other_key: key_b.clone(),
                        other: role_b.place.clone(),
                    };
                    return Err(ConfigError {
                        place: role_a.place.clone(),
                        key: key_a.clone(),
                        mistake: mistake.into(),
                    });
                } else {
                    continue;
                };
                return Err(ConfigError { place: role_b.place.clone(), key: key_b.clone(), mistake: mistake.into() });
            }
        }
        Ok(())
    }

    /// Warnings for patterns that match nothing yet. Not an error: a canary often comes later.
    pub fn unmatched(&self, cgroup_paths: &[String]) -> Vec<String> {
        self.roles()
            .filter(|(_, role)| !cgroup_paths.iter().any(|p| role.matches(p)))
            .map(|(key, role)| {
                format!("{}: {key}: no cgroup matches \"{}\" yet; it is watched for", role.place, role.pattern)
            })
            .collect()
    }
}

/// The checked configuration as TOML, defaults included.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |s: &str| toml::Value::from(s).to_string();
        let time = |d: Duration| format!("\"{}\"", humantime::format_duration(d));
        writeln!(f, "window = {}", time(self.window))?;
        if let Some(listen) = self.listen {
            writeln!(f, "listen = \"{listen}\"")?;
        }
        writeln!(f, "journal = {}", text(&self.journal.to_string_lossy()))?;
        writeln!(f, "pause_file = {}", text(&self.pause_file.to_string_lossy()))?;
        if self.judge != JudgeConfig::default() {
            writeln!(f, "\n[judge]")?;
            if let Some(alpha) = self.judge.alpha {
                writeln!(f, "alpha = {}", toml::Value::from(alpha))?;
            }
            if let Some(n) = self.judge.baseline_windows {
                writeln!(f, "baseline_windows = {n}")?;
            }
            if let Some(n) = self.judge.warmup_windows {
                writeln!(f, "warmup_windows = {n}")?;
            }
        }
        for d in &self.deployments {
            writeln!(f, "\n[[deployment]]\nname = {}\nmode = \"{}\"", text(&d.name), d.mode)?;
            writeln!(f, "orchestrator = \"{}\"\ngrace = {}", d.orchestrator.name(), time(d.grace))?;
            if let Some(max_age) = d.max_age {
                writeln!(f, "max_age = {}", time(max_age))?;
            }
            writeln!(f, "minimum_healthy = {}", d.minimum_healthy)?;
            for (key, role) in [("stable", &d.stable), ("canary", &d.canary)] {
                write!(f, "{key} = {{ cgroup = {}", text(&role.pattern))?;
                if let Some(version) = &role.version {
                    write!(f, ", version = {}", text(version))?;
                }
                writeln!(f, " }}")?;
            }
            writeln!(f, "budget = {{ per_hour = {}, cooldown = {} }}", d.budget.per_hour, time(d.budget.cooldown))?;
        }
        Ok(())
    }
}
