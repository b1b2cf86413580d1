//! `quarantine`: what a canary is left with, and for how long.

use std::{fmt, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{
    ConfigError,
    check::{DAY, Source},
};

/// What a canary in quarantine is left with; `None` = not limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineConfig {
    /// After this time it ends by itself.
    pub lasts: Duration,
    /// Share of the CPU where it is contended: 100 is usual.
    pub cpu_weight: Option<u64>,
    /// Of one CPU.
    pub cpu_percent: Option<u64>,
    /// Above it the canary is slowed down and its memory reclaimed.
    pub memory_high_bytes: Option<u64>,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        let lasts = Duration::from_secs(15 * 60);
        Self { lasts, cpu_weight: Some(10), cpu_percent: None, memory_high_bytes: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuarantine {
    pub lasts: Option<Spanned<String>>,
    pub cpu_weight: Option<Spanned<i64>>,
    pub cpu_percent: Option<Spanned<i64>>,
    pub memory_high_bytes: Option<Spanned<i64>>,
}

impl Source<'_> {
    pub(super) fn quarantine(&self, name: &str, raw: RawQuarantine) -> Result<QuarantineConfig, ConfigError> {
        let default = QuarantineConfig::default();
        let key = |k: &str| format!("{name}.quarantine.{k}");
        let number = |k: &str, raw, least, most| Ok(self.number(&key(k), raw, least, most)?.map(|n: i64| n as u64));
        let limits = QuarantineConfig {
            lasts: self.duration(&key("lasts"), raw.lasts, default.lasts, (Duration::from_secs(10), DAY))?,
            cpu_weight: number("cpu_weight", raw.cpu_weight, 1, 10_000)?,
            cpu_percent: number("cpu_percent", raw.cpu_percent, 1, 100_000)?,
            memory_high_bytes: number("memory_high_bytes", raw.memory_high_bytes, 1 << 20, i64::MAX)?,
        };
        let unlimited = (limits.cpu_weight, limits.cpu_percent, limits.memory_high_bytes) == (None, None, None);
        Ok(if unlimited { QuarantineConfig { lasts: limits.lasts, ..default } } else { limits })
    }
}

impl fmt::Display for QuarantineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ lasts = \"{}\"", humantime::format_duration(self.lasts))?;
        let limits = [
            ("cpu_weight", self.cpu_weight),
            ("cpu_percent", self.cpu_percent),
            ("memory_high_bytes", self.memory_high_bytes),
        ];
        for (key, value) in limits.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
            write!(f, ", {key} = {value}")?;
        }
        write!(f, " }}")
    }
}
