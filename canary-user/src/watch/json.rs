//! The story as JSON objects, one per window and deployment, for programs. What is missing is null, never NaN or zero.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{DecisionView, DeploymentView, Snapshot};
use crate::judge::Verdict;

/// One object per deployment: `{"type":"window", ...}`. Times: `t_ns` CLOCK_MONOTONIC, `unix_ms` wall clock.
/// Indicators are in their own units: nanoseconds, bytes or a share.
pub fn windows(snapshot: &Snapshot) -> Vec<Value> {
    snapshot.deployments.iter().map(|(name, view)| window(snapshot, name, view)).collect()
}

/// Prints them, one a line.
///
/// # Errors
/// Where nobody reads any more.
pub fn print_windows(snapshot: &Snapshot) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for window in windows(snapshot) {
        writeln!(out, "{window}")?;
    }
    out.flush().context("print a window")
}

/// The last object of a run: the given fields with `"type":"summary"` in front.
///
/// # Errors
/// If `fields` is not a JSON object.
pub fn summary(fields: Value) -> anyhow::Result<Value> {
    let Value::Object(fields) = fields else { anyhow::bail!("a summary must be a JSON object, not {fields}") };
    let mut object = Map::from_iter([("type".to_owned(), json!("summary"))]);
    object.extend(fields.into_iter().filter(|(key, _)| key != "type"));
    Ok(Value::Object(object))
}

fn window(snapshot: &Snapshot, deployment: &str, view: &DeploymentView) -> Value {
    let verdict = &view.verdict;
    json!({
        "type": "window",
        "t_ns": snapshot.t_ns,
        "unix_ms": snapshot.unix_ms,
        "span_ns": snapshot.span_ns,
        "window": view.window.index,
        "deployment": deployment,
        "mode": view.mode,
        "clean": view.window.clean,
        "quality": snapshot.quality,
        "p": { "stable": number(verdict.p_stable), "canary": number(verdict.p_canary) },
        "indicators": indicators(verdict),
        "events": events(verdict),
        "verdict": verdict.outcome,
        "hard_fact": verdict.hard,
        "evidence_ln": number(Some(verdict.evidence_ln)),
        "threshold_ln": number(Some(verdict.threshold_ln)),
        "onset_window": verdict.onset,
        "causes": verdict.causes,
        "reasons": verdict.reasons,
        "stretches": verdict.stretches,
        "decision": view.decision.as_ref().map(decision),
        "hold": view.hold.as_ref().map(decision),
    })
}

/// A decision with its stage, as `/monitor` shows it too.
pub fn decision(view: &DecisionView) -> Value {
    let decision = &view.decision;
    json!({
        "id": decision.id,
        "action": decision.action,
        "reason": decision.reason,
        "window": decision.window,
        "unix_ms": decision.unix_ms,
        "blocked_by": decision.held_back_by(view.stage).map(|gate| &gate.gate),
        "stage": view.stage,
        "detail": view.detail,
        "stage_t_ns": view.t_ns,
    })
}

fn indicators(verdict: &Verdict) -> Value {
    let of = |state: &crate::judge::IndicatorState| {
        json!({
            "stable": number(state.stable),
            "canary": number(state.canary),
            "effect": number(state.effect),
            "effect_low": number(state.effect_low),
            "effect_high": number(state.effect_high),
            "margin": number(state.margin),
            "p": number(state.p),
            "evidence_ln": number(Some(state.evidence_ln)),
            "confirmed": state.confirmed,
            "missing": state.missing,
        })
    };
    verdict.indicators.iter().map(|s| (s.indicator.name().to_owned(), of(s))).collect::<Map<_, _>>().into()
}

fn events(verdict: &Verdict) -> Value {
    let count = |n: u64, missing: bool| if missing { Value::Null } else { json!(n) };
    verdict
        .events
        .iter()
        .map(|e| {
            let counts = json!({
                "stable": count(e.stable, e.missing),
                "canary": count(e.canary, e.missing),
                "evidence_ln": number((!e.missing).then_some(e.evidence_ln)),
            });
            (e.event.name().to_owned(), counts)
        })
        .collect::<Map<_, _>>()
        .into()
}

/// Null where there is no finite number.
pub fn number(n: Option<f64>) -> Value {
    n.and_then(serde_json::Number::from_f64).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::story;

    #[test]
    fn a_window_tells_both_roles_by_name() {
        let objects = windows(&story::snapshot(story::DECIDED + 8));
        assert_eq!(objects.len(), 1);
        let o = &objects[0];
        assert_eq!(o["type"], "window");
        assert_eq!(o["window"], story::DECIDED + 8);
        assert_eq!(o["verdict"], "regressed");
        assert!(o["indicators"]["cpu_per_work"]["stable"].as_f64().is_some_and(|ns| ns > 70_000.0));
        assert_eq!(o["decision"]["action"], "rollback");
        assert_eq!(o["decision"]["stage"], "verified");
        assert_eq!(o["decision"]["blocked_by"], Value::Null);
        assert_eq!(o["onset_window"], story::ONSET);
    }

    #[test]
    fn the_page_names_every_field() {
        let page = include_str!("../../../docs/operations.md");
        let object = &windows(&story::snapshot(story::DECIDED + 8))[0];
        let nested = ["/decision", "/indicators/cpu_per_work", "/events/crashes", "/p"].map(|at| object.pointer(at));
        for value in nested.into_iter().flatten().chain([object]) {
            for name in value.as_object().expect("an object").keys() {
                assert!(page.contains(&format!("`{name}`")), "docs/operations.md does not name {name}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_null() {
        let mut snapshot = story::snapshot(0);
        let verdict = &mut snapshot.deployments.get_mut(story::DEPLOYMENT).expect("the story's deployment").verdict;
        verdict.evidence_ln = f64::NEG_INFINITY;
        verdict.indicators[0].canary = Some(f64::NAN);
        let o = &windows(&snapshot)[0];
        assert_eq!(o["evidence_ln"], Value::Null);
        assert_eq!(o["indicators"]["cpu_per_work"]["canary"], Value::Null);
        assert_eq!(o["indicators"]["memory_stall"]["stable"], Value::Null);
        assert_eq!(o["indicators"]["memory_stall"]["missing"], "this kernel has no memory.pressure file");
        assert_eq!(o["events"]["oom_kills"]["canary"], Value::Null, "the hook is missing: unknown, not zero");
        assert_eq!(o["events"]["crashes"]["canary"], 0);
        assert_eq!(o["p"]["canary"], Value::Null);
        assert_eq!(o["decision"], Value::Null);
        assert!(!o.to_string().contains('\n'), "one line");
    }

    #[test]
    fn a_summary_is_an_object_of_its_own_type() {
        let o = summary(json!({ "served": 7, "type": "other" })).expect("an object");
        assert_eq!(o, json!({ "type": "summary", "served": 7 }));
        assert!(summary(json!([1])).expect_err("a list").to_string().contains("must be a JSON object"));
    }
}
