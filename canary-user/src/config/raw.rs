//! The configuration as it is written: what TOML and the types allow, nothing checked, every value with its place.

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub window: Option<Spanned<String>>,
    pub listen: Option<Spanned<String>>,
    pub journal: Option<Spanned<String>>,
    pub pause_file: Option<Spanned<String>>,
    pub judge: Option<RawJudge>,
    #[serde(default)]
    pub deployment: Vec<Spanned<RawDeployment>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJudge {
    pub alpha: Option<Spanned<f64>>,
    pub baseline_windows: Option<Spanned<i64>>,
    pub warmup_windows: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDeployment {
    pub name: Option<Spanned<String>>,
    pub mode: Option<Spanned<String>>,
    pub orchestrator: Option<Spanned<String>>,
    pub grace: Option<Spanned<String>>,
    pub max_age: Option<Spanned<String>>,
    pub minimum_healthy: Option<Spanned<i64>>,
    pub stable: Option<Spanned<RawRole>>,
    pub canary: Option<Spanned<RawRole>>,
    pub budget: Option<RawBudget>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRole {
    pub cgroup: Option<Spanned<String>>,
    pub version: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBudget {
    pub per_hour: Option<Spanned<i64>>,
    pub cooldown: Option<Spanned<String>>,
}
