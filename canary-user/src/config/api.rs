//! `[api]`: who may command the running guard, and where.

use std::{fmt, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, check::Source};

/// Where `canary status`, `canary pause` and the other verbs find the guard.
pub const SOCKET: &str = "/run/canary/canary.sock";

/// Who may command the running guard, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// The unix socket of the verbs: root may use it, and `group`.
    pub socket: PathBuf,
    /// Name or number of a group that may use the socket too.
    pub group: Option<String>,
    /// Holds the token that commands over HTTP have to show; `None` = HTTP takes no commands.
    pub token_file: Option<PathBuf>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { socket: SOCKET.into(), group: None, token_file: None }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApi {
    pub socket: Option<Spanned<String>>,
    pub group: Option<Spanned<String>>,
    pub token_file: Option<Spanned<String>>,
}

impl Source<'_> {
    pub(super) fn api(&self, raw: RawApi) -> Result<ApiConfig, ConfigError> {
        let token_file = raw.token_file.map(|file| self.path("api.token_file", Some(file), "")).transpose()?;
        Ok(ApiConfig {
            socket: self.path("api.socket", raw.socket, SOCKET)?,
            group: raw.group.map(|group| group.into_inner().trim().to_owned()).filter(|group| !group.is_empty()),
            token_file,
        })
    }
}

impl fmt::Display for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |s: &str| toml::Value::from(s).to_string();
        writeln!(f, "\n[api]\nsocket = {}", text(&self.socket.to_string_lossy()))?;
        if let Some(group) = &self.group {
            writeln!(f, "group = {}", text(group))?;
        }
        if let Some(file) = &self.token_file {
            writeln!(f, "token_file = {}", text(&file.to_string_lossy()))?;
        }
        Ok(())
    }
}
