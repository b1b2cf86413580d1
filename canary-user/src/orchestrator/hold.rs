//! Why most backends hold no rollout, and what a person does instead.

/// For those that start and stop what they are told to: there a version runs or does not.
pub fn no_rollout(name: &str) -> String {
    format!(
        "a canary of {name} has no rollout to hold; `canary pause` keeps the guard from acting, `canary rollback` takes it away"
    )
}

/// For those that hand decisions to somebody else, who was only ever asked to take canaries away: one that does not look at the
/// decision's action would do that.
pub fn not_handed_over(name: &str) -> String {
    format!(
        "what {name} hands a decision to takes canaries away, and is not asked to hold a rollout: hold it where it is made; \
         `canary pause` keeps the guard from acting, `canary rollback` takes the canary away"
    )
}
