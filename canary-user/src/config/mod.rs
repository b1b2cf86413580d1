//! The configuration: what is written (serde, unknown keys refused) becomes what needs no further checks.
//!
//! Goes in: TOML. Comes out: a [`Config`], or the first mistake with file, line, column, key and what to do about it.
//! Whether the patterns fit the cgroups that exist is asked separately, with the list of them:
//! [`Config::overlap`] and [`Config::unmatched`].

mod api;
mod check;
mod command;
mod error;
mod judge;
mod kubernetes;
mod notify;
mod policy;
mod quarantine;
mod raw;
mod select;
#[cfg(test)]
mod tests;
mod tls;
mod webhook;

use std::{collections::HashMap, fmt, net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
pub use api::{ApiConfig, SOCKET};
pub use command::CommandConfig;
pub use error::{ConfigError, Mistake, Place};
pub use judge::what_if;
pub use kubernetes::{HttpRouteConfig, KubernetesConfig, Pods};
pub use notify::{NotifyConfig, NotifyKind, Occasion, Url};
pub use quarantine::QuarantineConfig;
pub use select::{Pattern, Selector};
pub use tls::TlsConfig;
pub use webhook::WebhookConfig;

use crate::{
    guard::{Mode, Policy},
    judge::Parameters,
    targets::Role,
};

const WINDOW: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(10);
const BLAST_RADIUS: f64 = 0.5;
const APPROVAL_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const SETTLE: Duration = Duration::from_secs(5);
const JOURNAL: &str = "/var/lib/canary/journal.db";
const PAUSE_FILE: &str = "/run/canary/pause";
/// Directory of the reports, beside the journal.
const REPORTS: &str = "reports";
/// The bus of this machine's systemd.
pub const SYSTEMD_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// The socket of this machine's Docker.
pub const DOCKER_SOCKET: &str = "/run/docker.sock";

/// A configuration that needs no further checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Length of one tick.
    pub window: Duration,
    /// Where the HTTP server listens; `None` = no server.
    pub listen: Option<SocketAddr>,
    /// Where people reach that server, without a slash at the end; `None` = messages have no links to it.
    pub external_url: Option<String>,
    pub journal: PathBuf,
    /// While this file exists, nothing is done to any canary.
    pub pause_file: PathBuf,
    /// D-Bus address at which systemd is reached.
    pub systemd_bus: String,
    /// Unix socket of Docker, or of Podman.
    pub docker_socket: PathBuf,
    pub kubernetes: KubernetesConfig,
    /// Certificate and key of the port; `None` = plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Where a report is written after every action, as long as the journal is on disk; `None` = nowhere.
    pub reports: Option<PathBuf>,
    /// Who is told of what happens.
    pub notify: Vec<NotifyConfig>,
    pub api: ApiConfig,
    /// The judge's settings, for deployments that say nothing else.
    pub judge: Parameters,
    pub deployments: Vec<DeploymentConfig>,
}

/// One service with its two versions.
#[derive(Clone, Debug)]
pub struct DeploymentConfig {
    pub name: Arc<str>,
    pub mode: Mode,
    /// How far the guard may go about each signal, where that is less far.
    pub policy: Policy,
    pub orchestrator: OrchestratorKind,
    /// How long in-flight work may take to finish once the canary is told to stop.
    pub grace: Duration,
    /// How long stable has to stay up after the guard started it, before the canary is stopped.
    pub settle: Duration,
    /// A unit that takes the work away from the canary when it is started; `%i` is the canary's instance.
    pub drain_unit: Option<Arc<str>>,
    /// Where requests are shared out between the versions, for the orchestrator "kubernetes"; `None` = nowhere that it knows.
    pub http_route: Option<HttpRouteConfig>,
    pub quarantine: QuarantineConfig,
    /// A canary older than this is left alone; `None` = no limit.
    pub max_age: Option<Duration>,
    /// Stable instances that must be healthy before the canary may be taken away.
    pub minimum_healthy: usize,
    /// Largest share of the deployment's instances that may be taken away at once.
    pub blast_radius: f64,
    pub approval: ApprovalMode,
    /// How long a decision waits for approval; no answer is a no.
    pub approval_timeout: Duration,
    pub stable: RoleConfig,
    pub canary: RoleConfig,
    pub budget: Budget,
    /// Where the orchestrator "webhook" sends decisions; there where it is the orchestrator.
    pub webhook: Option<WebhookConfig>,
    /// What the orchestrator "command" runs; there where it is the orchestrator.
    pub command: Option<CommandConfig>,
    /// The judge's settings for this deployment.
    pub judge: Parameters,
}

/// Which instances are this role's.
#[derive(Clone, Debug)]
pub struct RoleConfig {
    pub selector: Selector,
    pub version: Option<Arc<str>>,
    /// Where the selector is written.
    pub place: Place,
}

impl RoleConfig {
    /// Whether a cgroup is selected by its path.
    pub fn matches(&self, cgroup: &str) -> bool {
        self.cgroups().is_some_and(|pattern| pattern.matches(cgroup))
    }

    /// The pattern of cgroup paths, where they are selected by those.
    pub fn cgroups(&self) -> Option<&Pattern> {
        match &self.selector {
            Selector::Cgroup(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// The pattern of unit names, where instances are selected by those.
    pub fn units(&self) -> Option<&Pattern> {
        match &self.selector {
            Selector::Unit(pattern) => Some(pattern),
            _ => None,
        }
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

/// Whether a person has to approve each action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApprovalMode {
    #[default]
    None,
    Required,
}

impl ApprovalMode {
    pub const ALL: [ApprovalMode; 2] = [ApprovalMode::None, ApprovalMode::Required];

    pub fn name(self) -> &'static str {
        match self {
            ApprovalMode::None => "none",
            ApprovalMode::Required => "required",
        }
    }
}

/// Which backend carries decisions out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrchestratorKind {
    #[default]
    DryRun,
    Process,
    Systemd,
    Docker,
    Kubernetes,
    Webhook,
    Command,
}

impl OrchestratorKind {
    /// Those that this program was built with.
    pub const ALL: &[OrchestratorKind] = &[
        OrchestratorKind::DryRun,
        OrchestratorKind::Process,
        OrchestratorKind::Systemd,
        OrchestratorKind::Docker,
        OrchestratorKind::Kubernetes,
        OrchestratorKind::Webhook,
        OrchestratorKind::Command,
    ];

    pub fn name(self) -> &'static str {
        match self {
            OrchestratorKind::DryRun => "dry-run",
            OrchestratorKind::Process => "process",
            OrchestratorKind::Systemd => "systemd",
            OrchestratorKind::Docker => "docker",
            OrchestratorKind::Kubernetes => "kubernetes",
            OrchestratorKind::Webhook => "webhook",
            OrchestratorKind::Command => "command",
        }
    }

    /// The keys by which it has to be told what is stable and canary; `None` = any.
    pub fn wants(self) -> Option<&'static [&'static str]> {
        match self {
            OrchestratorKind::Systemd => Some(&["systemd"]),
            OrchestratorKind::Docker => Some(&["container", "label", "image"]),
            OrchestratorKind::Kubernetes => Some(&["kubernetes"]),
            _ => None,
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
            .flat_map(|d| [Role::Stable, Role::Canary].map(|r| (d, r, d.role(r))))
            .filter(|(_, _, role)| role.cgroups().is_some())
            .map(|(d, r, role)| (format!("{}.{}.cgroup", d.name, r.name()), role))
    }

    /// Refuses patterns by which one existing cgroup, or one inside another, would be counted for two roles.
    pub fn overlap(&self, cgroup_paths: &[String]) -> Result<(), ConfigError> {
        let matched: Vec<(&str, String, &RoleConfig)> = self
            .roles()
            .flat_map(|(key, role)| {
                cgroup_paths.iter().filter(|p| role.matches(p)).map(move |p| (p.as_str(), key.clone(), role))
            })
            .collect();
        let mut by_path: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, (path, ..)) in matched.iter().enumerate() {
            by_path.entry(path).or_default().push(i);
        }
        // Looked up, not compared in pairs: the guard asks whenever a cgroup comes or goes, and there may be thousands.
        let of_another_role = |path: &str, i: usize| {
            by_path.get(path).and_then(|same| same.iter().copied().find(|&j| matched[j].1 != matched[i].1))
        };
        for (i, (path, key, role)) in matched.iter().enumerate() {
            let (j, nested) = match of_another_role(path, i) {
                // The first of the two is named as the other one.
                Some(j) if j > i => continue,
                Some(j) => (j, false),
                None => match ancestors(path).find_map(|outer| of_another_role(outer, i)) {
                    Some(j) => (j, true),
                    None => continue,
                },
            };
            let (outer, other_key, other) = (matched[j].0.to_owned(), matched[j].1.clone(), matched[j].2.place.clone());
            let mistake = if nested {
                Mistake::Nested { inner: path.to_string(), outer, other_key, other }
            } else {
                Mistake::Overlap { cgroup: outer, other_key, other }
            };
            return Err(ConfigError { place: role.place.clone(), key: key.clone(), mistake: mistake.into() });
        }
        Ok(())
    }

    /// Warnings for patterns that match nothing yet. Not an error: a canary often comes later.
    pub fn unmatched(&self, cgroup_paths: &[String]) -> Vec<String> {
        self.roles()
            .filter(|(_, role)| !cgroup_paths.iter().any(|p| role.matches(p)))
            .map(|(key, role)| {
                format!(
                    "{}: {key}: no cgroup matches \"{}\" yet; it is watched for",
                    role.place,
                    role.selector.written().1
                )
            })
            .collect()
    }
}

/// The paths of the cgroups above one.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(at, _)| &path[..at])
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
        if let Some(url) = &self.external_url {
            writeln!(f, "external_url = {}", text(url))?;
        }
        writeln!(f, "journal = {}", text(&self.journal.to_string_lossy()))?;
        writeln!(f, "pause_file = {}", text(&self.pause_file.to_string_lossy()))?;
        writeln!(f, "systemd_bus = {}", text(&self.systemd_bus))?;
        writeln!(f, "docker_socket = {}", text(&self.docker_socket.to_string_lossy()))?;
        let reports = self.reports.as_deref().map(Path::to_string_lossy).unwrap_or_default();
        writeln!(f, "reports = {}", text(&reports))?;
        write!(f, "{}", self.api)?;
        write!(f, "{}", self.kubernetes)?;
        if let Some(tls) = &self.tls {
            write!(f, "{tls}")?;
        }
        for notify in &self.notify {
            write!(f, "{notify}")?;
        }
        judge::write_judge(f, &self.judge)?;
        for d in &self.deployments {
            writeln!(f, "\n[[deployment]]\nname = {}\nmode = \"{}\"", text(&d.name), d.mode)?;
            if let Some(policy) = policy::written(&d.policy) {
                writeln!(f, "policy = {policy}")?;
            }
            writeln!(f, "orchestrator = \"{}\"\ngrace = {}", d.orchestrator.name(), time(d.grace))?;
            writeln!(f, "settle = {}", time(d.settle))?;
            if let Some(unit) = &d.drain_unit {
                writeln!(f, "drain_unit = {}", text(unit))?;
            }
            if let Some(route) = &d.http_route {
                write!(f, "{route}")?;
            }
            writeln!(f, "quarantine = {}", d.quarantine)?;
            if let Some(max_age) = d.max_age {
                writeln!(f, "max_age = {}", time(max_age))?;
            }
            writeln!(f, "minimum_healthy = {}", d.minimum_healthy)?;
            writeln!(f, "blast_radius = {}", toml::Value::from(d.blast_radius))?;
            writeln!(f, "approval = \"{}\"\napproval_timeout = {}", d.approval.name(), time(d.approval_timeout))?;
            for (key, role) in [("stable", &d.stable), ("canary", &d.canary)] {
                let (by, written) = role.selector.written();
                let written = match &role.selector {
                    // A table already.
                    Selector::Pods(_) => written.to_owned(),
                    _ => text(written),
                };
                write!(f, "{key} = {{ {by} = {written}")?;
                if let Some(version) = &role.version {
                    write!(f, ", version = {}", text(version))?;
                }
                writeln!(f, " }}")?;
            }
            writeln!(f, "budget = {{ per_hour = {}, cooldown = {} }}", d.budget.per_hour, time(d.budget.cooldown))?;
            if let Some(webhook) = &d.webhook {
                write!(f, "{webhook}")?;
            }
            if let Some(command) = &d.command {
                write!(f, "{command}")?;
            }
            if let Some(indicators) = judge::differences(&self.judge, &d.judge) {
                writeln!(f, "indicator = {indicators}")?;
            }
        }
        Ok(())
    }
}
