//! Whether an action that is done stays in effect, as the orchestrator finds it.

use std::time::Duration;

use super::{Moment, State};
use crate::orchestrator::Found;

/// Between two questions.
const LOOK: Duration = Duration::from_secs(30);

/// Questions whether an action that is only watched is still in effect: our counts do not see a canary that runs elsewhere.
#[derive(Debug)]
pub(super) struct Looks {
    next_t_ns: u64,
    asking: bool,
    was_gone: bool,
}

impl Looks {
    pub fn after(now: Moment) -> Self {
        Self { next_t_ns: now.after(LOOK).t_ns, asking: false, was_gone: false }
    }

    /// Whether to ask now.
    pub fn is_due(&mut self, t_ns: u64) -> bool {
        t_ns >= self.next_t_ns && !std::mem::replace(&mut self.asking, true)
    }

    pub fn is_asking(&self) -> bool {
        self.asking
    }

    /// Takes an answer in. Whether it was found gone twice in a row: once may be a moment in somebody's change.
    pub fn is_gone(&mut self, found: &Result<Found, String>, now: Moment) -> bool {
        (self.asking, self.next_t_ns) = (false, now.after(LOOK).t_ns);
        let gone = found.as_ref().is_ok_and(|found| found.state == State::NotInEffect);
        std::mem::replace(&mut self.was_gone, gone) && gone
    }
}
