//! Who asked the guard to keep its hands off what, and until when. Pure: time is an argument.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Moment;

/// One pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PauseInForce)]
pub struct Pause {
    /// `None` = every deployment.
    #[schema(value_type = Option<String>)]
    pub deployment: Option<Arc<str>>,
    /// In the words of who asked; may be empty.
    pub reason: String,
    pub by: String,
    pub since_unix_ms: u64,
    /// When it ends by itself; `None` = when it is resumed.
    pub until: Option<Moment>,
}

impl Pause {
    /// By the clock that only runs on: setting the wall clock neither ends a pause nor draws it out.
    pub fn is_over(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| now.t_ns >= until.t_ns)
    }
}

/// "by root until 2026-11-24T22:10:00Z: incident 12".
impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {} ", self.by)?;
        match self.until {
            Some(until) => write!(f, "until {}", until.wall_clock())?,
            None => f.write_str("until it is resumed")?,
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// All pauses, at most one of each deployment and one of all.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Vec<Pause>);

impl Pauses {
    pub fn new(pauses: Vec<Pause>) -> Self {
        Self(pauses)
    }

    /// Begins a pause, in place of the one that was there.
    pub fn begin(&mut self, pause: Pause) {
        self.end(pause.deployment.as_deref());
        self.0.push(pause);
    }

    /// Ends the pause of a deployment, or the one of all.
    pub fn end(&mut self, deployment: Option<&str>) -> Option<Pause> {
        let at = self.0.iter().position(|p| p.deployment.as_deref() == deployment)?;
        Some(self.0.remove(at))
    }

    /// Takes out those whose time is over.
    pub fn expire(&mut self, now: Moment) -> Vec<Pause> {
        let (over, on) = std::mem::take(&mut self.0).into_iter().partition(|p| p.is_over(now));
        self.0 = on;
        over
    }

    /// The pause of exactly this deployment, or the one of all for `None`.
    pub fn of(&self, deployment: Option<&str>) -> Option<&Pause> {
        self.0.iter().find(|p| p.deployment.as_deref() == deployment)
    }
}
