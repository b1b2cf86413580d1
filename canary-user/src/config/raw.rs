//! The configuration as it is written: what TOML and the types allow, nothing checked, every value with its place.

use serde::Deserialize;
use toml::Spanned;

use super::{
    api::RawApi,
    command::RawCommand,
    judge::{RawIndicators, RawJudge},
    kubernetes::{RawHttpRoute, RawKubernetes, RawPods},
    notify::RawNotify,
    policy::RawPolicy,
    quarantine::RawQuarantine,
    tls::RawTls,
    webhook::RawWebhook,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub window: Option<Spanned<String>>,
    pub listen: Option<Spanned<String>>,
    pub external_url: Option<Spanned<String>>,
    pub journal: Option<Spanned<String>>,
    pub pause_file: Option<Spanned<String>>,
    pub systemd_bus: Option<Spanned<String>>,
    pub docker_socket: Option<Spanned<String>>,
    pub kubernetes: Option<RawKubernetes>,
    pub tls: Option<Spanned<RawTls>>,
    pub reports: Option<Spanned<String>>,
    #[serde(default)]
    pub notify: Vec<Spanned<RawNotify>>,
    pub api: Option<RawApi>,
    pub judge: Option<RawJudge>,
    #[serde(default)]
    pub deployment: Vec<Spanned<RawDeployment>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDeployment {
    pub name: Option<Spanned<String>>,
    pub mode: Option<Spanned<String>>,
    #[serde(default)]
    pub policy: RawPolicy,
    pub orchestrator: Option<Spanned<String>>,
    pub grace: Option<Spanned<String>>,
    pub settle: Option<Spanned<String>>,
    pub drain_unit: Option<Spanned<String>>,
    pub http_route: Option<Spanned<RawHttpRoute>>,
    pub quarantine: Option<RawQuarantine>,
    pub max_age: Option<Spanned<String>>,
    pub minimum_healthy: Option<Spanned<i64>>,
    pub blast_radius: Option<Spanned<f64>>,
    pub approval: Option<Spanned<String>>,
    pub approval_timeout: Option<Spanned<String>>,
    pub stable: Option<Spanned<RawRole>>,
    pub canary: Option<Spanned<RawRole>>,
    pub budget: Option<RawBudget>,
    pub webhook: Option<Spanned<RawWebhook>>,
    pub command: Option<Spanned<RawCommand>>,
    #[serde(default)]
    pub indicator: RawIndicators,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRole {
    pub cgroup: Option<Spanned<String>>,
    pub systemd: Option<Spanned<String>>,
    pub container: Option<Spanned<String>>,
    pub label: Option<Spanned<String>>,
    pub image: Option<Spanned<String>>,
    pub kubernetes: Option<Spanned<RawPods>>,
    pub version: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBudget {
    pub per_hour: Option<Spanned<i64>>,
    pub cooldown: Option<Spanned<String>>,
}
