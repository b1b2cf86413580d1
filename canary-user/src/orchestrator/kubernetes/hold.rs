//! Whose the pause of a rollout is: the guard ends by itself only what it set, and what nobody has changed since.
//!
//! Two things say so, and both have to: the decision that the guard wrote on the object, and the API server's own book of who set
//! a field last (`managedFields`). Where the book says nothing, the pause is nobody's of the guard.

use kube::api::DynamicObject;

use super::{owner, patch::decision_of, workload::flag};

/// Where `managedFields` has it.
pub const PAUSED: &[(&str, &str)] = &[("f:spec", "f:paused")];

/// The decision by which the guard paused a workload; `None` = it is not paused, or by somebody else, or nothing says by whom.
pub fn paused_by(object: &DynamicObject) -> Option<&str> {
    let is_guards = flag(&object.data, "/spec/paused") && owner::is_guards(object, PAUSED);
    decision_of(object).filter(|_| is_guards)
}

/// Who paused a workload other than this decision, to follow "is paused"; `None` = it was this decision.
pub fn paused_by_another(object: &DynamicObject, decision: &str) -> Option<String> {
    match paused_by(object) {
        Some(paused) if paused == decision => None,
        Some(other) => Some(format!(", by decision {other} of the guard")),
        None => Some(match owner::writer(object, PAUSED) {
            by if by.is_empty() => ", and the API server does not say that this decision did it".to_owned(),
            by => by,
        }),
    }
}
