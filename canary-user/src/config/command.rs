//! `[deployment.command]`: what the orchestrator "command" runs.

use std::{fmt, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Mistake, check::Source};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What the orchestrator "command" runs. Each is a program by its absolute path, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandConfig {
    /// Carries the decision out.
    pub run: Vec<String>,
    /// Tells by its exit code whether the decision is in effect.
    pub state: Option<Vec<String>>,
    /// Undoes what `run` did.
    pub undo: Option<Vec<String>>,
    /// For each run.
    pub timeout: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCommand {
    pub run: Option<Spanned<Vec<String>>>,
    pub state: Option<Spanned<Vec<String>>>,
    pub undo: Option<Spanned<Vec<String>>>,
    pub timeout: Option<Spanned<String>>,
}

impl Source<'_> {
    pub(super) fn command(&self, name: &str, raw: Spanned<RawCommand>) -> Result<CommandConfig, ConfigError> {
        let span = raw.span();
        let raw = raw.into_inner();
        let key = |k: &str| format!("{name}.command.{k}");
        let Some(run) = raw.run else {
            return Err(self.mistake(span, key("run"), Mistake::MissingKey { add: "run = [\"/path/of/program\"]" }));
        };
        let optional = |k: &str, raw: Option<Spanned<Vec<String>>>| raw.map(|raw| self.argv(key(k), raw)).transpose();
        Ok(CommandConfig {
            run: self.argv(key("run"), run)?,
            state: optional("state", raw.state)?,
            undo: optional("undo", raw.undo)?,
            timeout: self.duration(
                &key("timeout"),
                raw.timeout,
                TIMEOUT,
                (Duration::from_millis(100), Duration::from_secs(3600)),
            )?,
        })
    }

    fn argv(&self, key: String, raw: Spanned<Vec<String>>) -> Result<Vec<String>, ConfigError> {
        match raw.as_ref().first() {
            Some(program) if program.starts_with('/') => Ok(raw.into_inner()),
            other => {
                let value = other.cloned().unwrap_or_default();
                Err(self.mistake(raw.span(), key, Mistake::BadPath { value }))
            }
        }
    }
}

impl fmt::Display for CommandConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |argv: &[String]| toml::Value::from(argv.to_vec()).to_string();
        write!(f, "command = {{ run = {}", list(&self.run))?;
        for (key, argv) in [("state", &self.state), ("undo", &self.undo)] {
            if let Some(argv) = argv {
                write!(f, ", {key} = {}", list(argv))?;
            }
        }
        writeln!(f, ", timeout = \"{}\" }}", humantime::format_duration(self.timeout))
    }
}
