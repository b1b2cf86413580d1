//! What the judge recommends: each step with why, its risk, the exact command, and what would change the advice.

use maud::{Markup, html};

use super::answers::capital;
use crate::judge::Verdict;

/// The heading of the verdict's recommendations, wherever they are told.
pub const ADVICE: &str = "Recommendations";

/// The recommendations, the most urgent first; nothing where there are none.
pub fn advice(verdict: &Verdict) -> Markup {
    html! {
        @if !verdict.recommendations.is_empty() {
            ol {
                @for step in &verdict.recommendations {
                    li {
                        strong { (capital(step.step.name())) }
                        " (risk " (step.risk.name()) ", confidence " (step.confidence.name()) ")"
                        @if !step.because.is_empty() { br; (step.because) }
                        @if let Some(command) = &step.command { pre { (command) } }
                        p.note {
                            "Undo: " (step.undo) "."
                            @if !step.would_change.is_empty() { " What would change this advice: " (step.would_change) "." }
                        }
                    }
                }
            }
            p.note { "What the guard itself does is decided by its mode, policy and gates." }
        }
    }
}
