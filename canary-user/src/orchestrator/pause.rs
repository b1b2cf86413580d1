//! Pauses that begin while an action is under way: asked for once more right before the canary is touched.
//!
//! A backend that starts stable first waits until that has settled, which may take an hour. By then the guard's own last look
//! is long past. What was begun with the canary itself is finished: a canary that has lost its socket and runs on helps nobody.

use std::sync::{Arc, OnceLock};

use anyhow::anyhow;

use super::Error;

/// Why nothing may be done to a deployment's canary at this moment, in words; `None` = it is not paused.
pub type Paused = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where a backend asks. As long as no guard has told it how, nothing is paused.
#[derive(Default)]
pub struct LastLook(OnceLock<Paused>);

impl LastLook {
    /// Only the first guard that takes a backend counts.
    pub fn heed(&self, paused: Paused) {
        let _ = self.0.set(paused);
    }

    /// `begun`: something was done for stable.
    ///
    /// # Errors
    /// While the deployment is paused: [`Error::Refused`] where nothing was done at all.
    pub fn ask(&self, deployment: &str, begun: bool) -> Result<(), Error> {
        match self.0.get().and_then(|paused| paused(deployment)) {
            None => Ok(()),
            Some(why) if begun => Err(anyhow!(
                "paused: {why}; by then stable had been started, which stays so, and the canary was not touched"
            )
            .into()),
            Some(why) => Err(Error::Refused(format!("paused: {why}"))),
        }
    }
}
