//! A decision for the backends' tests.

use crate::{
    guard::{Action, Decision},
    targets::Target,
};

/// Of the deployment `shop`, on these instances.
pub(super) fn decision(action: Action, canary: Vec<Target>, stable: Vec<Target>) -> Decision {
    Decision {
        id: "shop-1795000000000-0001".into(),
        deployment: "shop".into(),
        unix_ms: 1_795_000_000_000,
        window: 7,
        action,
        reason: "CPU per turnaround +31 %".into(),
        recommendation: None,
        gates: Vec::new(),
        canary,
        stable,
    }
}
