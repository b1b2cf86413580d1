//! Pauses that begin while an action is under way: asked for once more right before the canary is touched.
//!
//! A backend that starts stable first waits until that has settled, which may take an hour; others ask a cluster many things, or
//! send again what was not answered. By then the guard's own last look is past. What was begun with the canary itself is
//! finished: a canary that has lost its socket and runs on helps nobody.

use std::sync::{Arc, OnceLock};

use anyhow::anyhow;

use super::Error;

/// Why nothing may be done to a deployment's canary at this moment, in words; `None` = it is not paused.
pub type Paused = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What was done before the canary is touched, by backends that start stable.
pub const STABLE_STARTED: &str = "by then stable had been started, which stays so, and the canary was not touched";

/// Where a backend asks. As long as no guard has told it how, nothing is paused.
#[derive(Default)]
pub struct LastLook(OnceLock<Paused>);

impl LastLook {
    /// Only the first guard that takes a backend counts.
    pub fn heed(&self, paused: Paused) {
        let _ = self.0.set(paused);
    }

    /// `begun`: what was done, or may have been, before it came to the canary, in words.
    ///
    /// # Errors
    /// While the deployment is paused: [`Error::Refused`] where nothing was done at all.
    pub fn ask(&self, deployment: &str, begun: Option<&str>) -> Result<(), Error> {
        let Some(why) = self.0.get().and_then(|paused| paused(deployment)) else { return Ok(()) };
        Err(match begun {
            Some(begun) => anyhow!("paused: {why}; {begun}").into(),
            None => Error::Refused(format!("paused: {why}")),
        })
    }
}
