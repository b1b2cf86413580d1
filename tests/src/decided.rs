//! A decision that a test hands to an orchestrator itself, without a guard that took it.

use canary_user::{
    guard::{Action, Decision},
    targets::Target,
};

/// Of the deployment `shop`, on these instances.
pub fn decision(action: Action, canary: Vec<Target>, stable: Vec<Target>) -> Decision {
    Decision {
        id: "shop-1".into(),
        deployment: "shop".into(),
        unix_ms: 0,
        window: 0,
        action,
        reason: String::new(),
        recommendation: None,
        gates: Vec::new(),
        canary,
        stable,
    }
}
