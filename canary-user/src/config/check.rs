//! From what is written to what needs no further checks.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use toml::Spanned;

use super::{
    ApprovalMode, Budget, Config, ConfigError, DeploymentConfig, Mistake, OrchestratorKind, Place, QuarantineConfig,
    raw::{Raw, RawBudget, RawDeployment},
};
use crate::{guard::Mode, judge::Parameters};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The text with its name: turns byte offsets into places.
pub(super) struct Source<'a> {
    pub text: &'a str,
    pub origin: Arc<str>,
}

impl Source<'_> {
    pub fn place(&self, at: usize) -> Place {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Place {
            origin: self.origin.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    pub fn mistake(&self, span: Range<usize>, key: impl Into<String>, mistake: Mistake) -> ConfigError {
        ConfigError { place: self.place(span.start), key: key.into(), mistake: mistake.into() }
    }

    /// What serde and the TOML parser refuse, in our words: an unknown key, a wrong type, or not TOML at all.
    pub fn refused(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let message = error.message();
        if message.starts_with("unknown field") {
            // The message quotes the unknown key first and then those that are known.
            let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
            let key = names.next().unwrap_or_default();
            let known: Vec<String> = names.collect();
            return self.unknown_key(span, &key, known);
        }
        if message.starts_with("invalid type") {
            let key = self.key_before(span.start);
            return self.mistake(span, key, Mistake::WrongType { message: message.into() });
        }
        self.mistake(span, "", Mistake::NotToml { message: message.replace('\n', ", ") })
    }

    /// The key whose value begins at `at`: the word before the equals sign.
    fn key_before(&self, at: usize) -> String {
        let before = self.text[..at].trim_end().trim_end_matches('=').trim_end();
        before.rsplit(|c: char| !(c.is_alphanumeric() || "_-\"".contains(c))).next().unwrap_or_default().to_owned()
    }

    pub(super) fn duration(
        &self,
        key: &str,
        raw: Option<Spanned<String>>,
        default: Duration,
        (least, most): (Duration, Duration),
    ) -> Result<Duration, ConfigError> {
        let Some(raw) = raw else { return Ok(default) };
        let value = humantime::parse_duration(raw.as_ref())
            .map_err(|_| self.mistake(raw.span(), key, Mistake::BadDuration { value: raw.as_ref().clone() }))?;
        if value < least || value > most {
            let quoted = |d| format!("\"{}\"", humantime::format_duration(d));
            let mistake = Mistake::OutOfRange { value: quoted(value), least: quoted(least), most: quoted(most) };
            return Err(self.mistake(raw.span(), key, mistake));
        }
        Ok(value)
    }

    pub(super) fn number<T: Copy + PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        raw: Option<Spanned<T>>,
        least: T,
        most: T,
    ) -> Result<Option<T>, ConfigError> {
        let Some(raw) = raw else { return Ok(None) };
        let value = *raw.as_ref();
        // Written so that NaN, which compares as false, is refused too.
        if value >= least && value <= most {
            return Ok(Some(value));
        }
        let mistake =
            Mistake::OutOfRange { value: value.to_string(), least: least.to_string(), most: most.to_string() };
        Err(self.mistake(raw.span(), key, mistake))
    }

    pub fn path(&self, key: &str, raw: Option<Spanned<String>>, default: &str) -> Result<PathBuf, ConfigError> {
        match raw {
            None => Ok(default.into()),
            Some(raw) if raw.as_ref().starts_with('/') => Ok(raw.into_inner().into()),
            Some(raw) => Err(self.mistake(raw.span(), key, Mistake::BadPath { value: raw.as_ref().clone() })),
        }
    }

    pub fn config(&self, raw: Raw) -> Result<Config, ConfigError> {
        let window = self.duration("window", raw.window, super::WINDOW, (Duration::from_millis(100), MINUTE))?;
        let listen = raw
            .listen
            .map(|l| {
                l.as_ref().parse().map_err(|_| {
                    self.mistake(l.span(), "listen", Mistake::BadListenAddress { value: l.as_ref().clone() })
                })
            })
            .transpose()?;
        let judge = self.judge(raw.judge.unwrap_or_default(), "judge")?;
        if raw.deployment.is_empty() {
            return Err(self.mistake(0..0, "deployment", Mistake::NoDeployment));
        }
        let mut names: BTreeMap<String, Range<usize>> = BTreeMap::new();
        let mut deployments = Vec::with_capacity(raw.deployment.len());
        for deployment in raw.deployment {
            deployments.push(self.deployment(deployment, &mut names, &judge)?);
        }
        let journal = self.path("journal", raw.journal, super::JOURNAL)?;
        Ok(Config {
            window,
            listen,
            external_url: raw.external_url.map(|url| self.external_url(url)).transpose()?,
            reports: self.reports(raw.reports, &journal)?,
            journal,
            pause_file: self.path("pause_file", raw.pause_file, super::PAUSE_FILE)?,
            systemd_bus: raw.systemd_bus.map_or(super::SYSTEMD_BUS.into(), Spanned::into_inner),
            docker_socket: self.path("docker_socket", raw.docker_socket, super::DOCKER_SOCKET)?,
            kubernetes: self.kubernetes(raw.kubernetes.unwrap_or_default())?,
            tls: raw.tls.map(|tls| self.tls(tls)).transpose()?,
            notify: raw.notify.into_iter().map(|n| self.notify(n)).collect::<Result<_, _>>()?,
            api: self.api(raw.api.unwrap_or_default())?,
            judge,
            deployments,
        })
    }

    /// Paths are put behind it: without a slash at its end.
    fn external_url(&self, raw: Spanned<String>) -> Result<String, ConfigError> {
        const WRITE: &str = "paths are put behind it: write it without '?' and '#'";
        let span = raw.span();
        let url = self.url("external_url".to_owned(), raw)?;
        if url.contains(['?', '#']) {
            let mistake = Mistake::NotAllowed { value: format!("\"{url}\""), write: WRITE.into() };
            return Err(self.mistake(span, "external_url", mistake));
        }
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// Beside the journal unless another place is written; `""` switches them off.
    fn reports(&self, raw: Option<Spanned<String>>, journal: &Path) -> Result<Option<PathBuf>, ConfigError> {
        match raw {
            None => Ok(journal.parent().map(|directory| directory.join(super::REPORTS))),
            Some(raw) if raw.as_ref().is_empty() => Ok(None),
            raw => self.path("reports", raw, "").map(Some),
        }
    }

    fn deployment(
        &self,
        raw: Spanned<RawDeployment>,
        names: &mut BTreeMap<String, Range<usize>>,
        judge: &Parameters,
    ) -> Result<DeploymentConfig, ConfigError> {
        let span = raw.span();
        let raw = raw.into_inner();
        let missing = |key: &str, add| self.mistake(span.clone(), key, Mistake::MissingKey { add });
        let name = raw.name.ok_or_else(|| missing("deployment.name", "name = \"...\""))?;
        if name.as_ref().trim().is_empty() {
            return Err(self.mistake(name.span(), "deployment.name", Mistake::EmptyName));
        }
        if let Some(first) = names.insert(name.as_ref().clone(), name.span()) {
            let mistake = Mistake::DuplicateName { name: name.as_ref().clone(), first: self.place(first.start) };
            return Err(self.mistake(name.span(), "deployment.name", mistake));
        }
        let name: Arc<str> = name.into_inner().into();
        let key = |k: &str| format!("{name}.{k}");

        let mode = raw.mode.map_or(Ok(Mode::default()), |m| {
            Mode::from_str(m.as_ref())
                .map_err(|_| self.mistake(m.span(), key("mode"), Mistake::UnknownMode { value: m.as_ref().clone() }))
        })?;
        let orchestrator = raw.orchestrator.map_or(Ok(OrchestratorKind::default()), |o| {
            OrchestratorKind::ALL.iter().copied().find(|k| k.name() == o.as_ref()).ok_or_else(|| {
                let mistake = Mistake::UnknownOrchestrator { value: o.as_ref().clone() };
                self.mistake(o.span(), key("orchestrator"), mistake)
            })
        })?;
        let stable = raw.stable.ok_or_else(|| missing(&key("stable"), "stable = { cgroup = \"/...\" }"))?;
        let canary = raw.canary.ok_or_else(|| missing(&key("canary"), "canary = { cgroup = \"/...\" }"))?;
        let (stable, canary) = (self.role(&key("stable"), stable)?, self.role(&key("canary"), canary)?);
        let (by, pattern) = canary.selector.written();
        if stable.selector.written() == (by, pattern) {
            let mistake = Mistake::SamePattern { pattern: pattern.into(), other: stable.place.clone() };
            let key = key(&format!("canary.{by}"));
            return Err(ConfigError { place: canary.place, key, mistake: mistake.into() });
        }
        for (role, config) in [("stable", &stable), ("canary", &canary)] {
            let by = config.selector.written().0;
            if orchestrator.wants().is_some_and(|wanted| !wanted.contains(&by)) {
                let mistake = Mistake::NotKnownTo { orchestrator: orchestrator.name(), by };
                return Err(ConfigError {
                    place: config.place.clone(),
                    key: key(&format!("{role}.{by}")),
                    mistake: mistake.into(),
                });
            }
        }
        let mut judge = judge.clone();
        self.indicators(raw.indicator, &name, &mut judge)?;
        let webhook = raw.webhook.map(|w| self.webhook(&name, w)).transpose()?;
        let command = raw.command.map(|c| self.command(&name, c)).transpose()?;
        match orchestrator {
            OrchestratorKind::Webhook if webhook.is_none() => {
                return Err(missing(&key("webhook"), "webhook = { url = \"https://...\" }"));
            }
            OrchestratorKind::Command if command.is_none() => {
                return Err(missing(&key("command"), "command = { run = [\"/path/of/program\"] }"));
            }
            _ => {}
        }
        let max_age = match raw.max_age {
            None => None,
            given => Some(self.duration(&key("max_age"), given, DAY, (MINUTE, 365 * DAY))?),
        };
        let blast_radius = self.number(&key("blast_radius"), raw.blast_radius, 0.01, 1.0)?;
        let approval = raw.approval.map_or(Ok(ApprovalMode::default()), |a| {
            ApprovalMode::ALL.into_iter().find(|k| k.name() == a.as_ref()).ok_or_else(|| {
                self.mistake(
                    a.span(),
                    key("approval"),
                    Mistake::UnknownWord { value: a.as_ref().clone(), known: "none or required".into() },
                )
            })
        })?;
        Ok(DeploymentConfig {
            mode,
            policy: self.policy(&name, raw.policy, mode)?,
            blast_radius: blast_radius.unwrap_or(super::BLAST_RADIUS),
            approval,
            approval_timeout: self.duration(
                &key("approval_timeout"),
                raw.approval_timeout,
                super::APPROVAL_TIMEOUT,
                (Duration::from_secs(10), DAY),
            )?,
            orchestrator,
            grace: self.duration(&key("grace"), raw.grace, super::GRACE, (Duration::ZERO, HOUR))?,
            settle: self.duration(&key("settle"), raw.settle, super::SETTLE, (Duration::ZERO, HOUR))?,
            drain_unit: raw.drain_unit.map(|unit| unit.into_inner().into()),
            http_route: raw.http_route.map(|r| self.http_route(&name, r)).transpose()?,
            quarantine: raw.quarantine.map_or(Ok(QuarantineConfig::default()), |q| self.quarantine(&name, q))?,
            max_age,
            minimum_healthy: self.number(&key("minimum_healthy"), raw.minimum_healthy, 1, 10_000)?.unwrap_or(1)
                as usize,
            stable,
            canary,
            budget: raw.budget.map_or(Ok(Budget::default()), |b| self.budget(&name, b))?,
            webhook,
            command,
            judge,
            name,
        })
    }

    fn budget(&self, name: &str, raw: RawBudget) -> Result<Budget, ConfigError> {
        let default = Budget::default();
        let per_hour = self.number(&format!("{name}.budget.per_hour"), raw.per_hour, 1, 60)?;
        Ok(Budget {
            per_hour: per_hour.map_or(default.per_hour, |n| n as usize),
            cooldown: self.duration(
                &format!("{name}.budget.cooldown"),
                raw.cooldown,
                default.cooldown,
                (Duration::ZERO, DAY),
            )?,
        })
    }
}
