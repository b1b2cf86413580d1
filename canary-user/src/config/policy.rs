//! `policy`: how far the guard may go about each signal, where that is less far than the deployment's mode.

use std::{collections::BTreeMap, str::FromStr};

use toml::Spanned;

use super::{ConfigError, Mistake, check::Source};
use crate::guard::{Mode, Policy};

/// Signal to mode, as written.
pub(super) type RawPolicy = BTreeMap<Spanned<String>, Spanned<String>>;

impl Source<'_> {
    pub(super) fn policy(&self, name: &str, raw: RawPolicy, mode: Mode) -> Result<Policy, ConfigError> {
        let mut policy = Policy::default();
        for (signal, limit) in raw {
            let Some(known) = Policy::signals().find(|known| known == signal.as_ref()) else {
                let known = Policy::signals().map(str::to_owned).collect();
                return Err(self.unknown_key(signal.span(), signal.as_ref(), known));
            };
            let key = format!("{name}.policy.{known}");
            let value = limit.as_ref().clone();
            let Ok(wanted) = Mode::from_str(&value) else {
                return Err(self.mistake(limit.span(), key, Mistake::UnknownMode { value }));
            };
            if wanted > mode {
                let write = format!("the deployment's mode is {mode}, and a policy may only go less far");
                return Err(self.mistake(limit.span(), key, Mistake::NotAllowed { value, write }));
            }
            policy.set(known, wanted);
        }
        Ok(policy)
    }
}

/// As an inline table; `None` = nothing to write.
pub(super) fn written(policy: &Policy) -> Option<String> {
    let entries: Vec<String> = policy.entries().map(|(signal, mode)| format!("{signal} = \"{mode}\"")).collect();
    (!entries.is_empty()).then(|| format!("{{ {} }}", entries.join(", ")))
}
