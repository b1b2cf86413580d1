//! `[tls]`: the certificate of the guard's port.

use std::{fmt, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Mistake, check::Source};

/// Two files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, with those between it and the authority after it.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub certificate: Option<Spanned<String>>,
    pub key: Option<Spanned<String>>,
}

impl Source<'_> {
    pub(super) fn tls(&self, raw: Spanned<RawTls>) -> Result<TlsConfig, ConfigError> {
        let span = raw.span();
        let RawTls { certificate, key } = raw.into_inner();
        let file = |name: &str, file: Option<Spanned<String>>, add| match file {
            None => Err(self.mistake(span.clone(), name, Mistake::MissingKey { add })),
            file => self.path(name, file, ""),
        };
        Ok(TlsConfig {
            certificate: file("tls.certificate", certificate, "certificate = \"/...\"")?,
            key: file("tls.key", key, "key = \"/...\"")?,
        })
    }
}

impl fmt::Display for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |path: &PathBuf| toml::Value::from(path.to_string_lossy().as_ref()).to_string();
        writeln!(f, "\n[tls]\ncertificate = {}\nkey = {}", text(&self.certificate), text(&self.key))
    }
}
