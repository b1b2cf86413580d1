//! JSON Patch that holds only for the version of an object which was read, sent again only where that was not the current one.

use json_patch::Patch;
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::{Value, json};

use super::{
    api::{Api, is_conflict, not_taken},
    workload::Object,
};
use crate::orchestrator::Error;

/// Reads and writes of one change, where others write to the same object all the time.
const TRIES: usize = 5;
/// Which decision an object was changed by.
const DECISION: &str = "canary-guard/decision";

/// The decision by which the guard changed an object last, as a whole.
pub(super) fn decision_of(object: &DynamicObject) -> Option<&str> {
    object.annotations().get(DECISION).map(String::as_str)
}

/// Reads an object, has the change worked out for what was read (`None` = there is nothing to do), and writes it for that
/// version only. Where that is no longer the current one, all of it is done again; where it still is, it was refused for another
/// reason, such as an admission policy's. Gives the generation of the object afterwards.
pub(super) async fn send(
    api: &Api,
    object: &Object,
    part: Option<&str>,
    decision: &str,
    work_out: impl Fn(&DynamicObject) -> Result<Option<Vec<Value>>, Error>,
) -> Result<i64, Error> {
    let doing = || format!("change {object}");
    let mut last: Option<(kube::Error, Option<String>)> = None;
    for _ in 0..TRIES {
        let now = api.get(object.kind, &object.namespace, &object.name).await.map_err(Error::refused)?;
        let Some(now) = now.filter(|now| now.uid().as_deref() == Some(&object.uid)) else {
            return Err(Error::refused(format!("{object} was replaced or is gone: its successor is not touched")));
        };
        let version = now.resource_version();
        if let Some((e, _)) = last.take_if(|(_, tried)| *tried == version) {
            return Err(not_taken(e, doing()));
        }
        let generation = now.metadata.generation.unwrap_or_default();
        let Some(operations) = work_out(&now)? else { return Ok(generation) };
        // Where the answer does not say: each change of the spec counts one up.
        let after = |said: Option<i64>| said.unwrap_or(generation + 1);
        match api.patch(object.kind, object.place(), part, &fenced(&now, part, decision, operations)).await {
            Ok(said) => return Ok(after(said)),
            // Argo Rollouts of old has no address for its status alone.
            Err(kube::Error::Api(status)) if status.code == 404 && part == Some("status") => {
                let whole = fenced(&now, part, decision, work_out(&now)?.unwrap_or_default());
                let said = api.patch(object.kind, object.place(), None, &whole).await;
                return said.map(after).map_err(|e| not_taken(e, doing()));
            }
            Err(e) if is_conflict(&e) => last = Some((e, version)),
            Err(e) => return Err(not_taken(e, doing())),
        }
    }
    Err(match last {
        Some((e, _)) => not_taken(e, format!("{} (tried {TRIES} times)", doing())),
        None => Error::refused(doing()),
    })
}

/// The operations, for this version of the object only, with the decision written down beside them.
fn fenced(now: &DynamicObject, part: Option<&str>, decision: &str, operations: Vec<Value>) -> Patch {
    let test = |path: &str, value: Option<String>| json!({ "op": "test", "path": path, "value": value });
    let mut all = vec![test("/metadata/uid", now.uid()), test("/metadata/resourceVersion", now.resource_version())];
    all.extend(operations);
    // A part takes no changes of what is beside it.
    if part.is_none() {
        all.push(match now.metadata.annotations {
            None => json!({ "op": "add", "path": "/metadata/annotations", "value": { DECISION: decision } }),
            Some(_) => {
                let path = format!("/metadata/annotations/{}", DECISION.replace('/', "~1"));
                json!({ "op": "add", "path": path, "value": decision })
            }
        });
    }
    serde_json::from_value(Value::Array(all)).expect("these are operations of JSON Patch")
}
