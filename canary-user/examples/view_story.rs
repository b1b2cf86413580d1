//! Plays a made-up comparison in the live view: `cargo run --example view_story [MILLISECONDS PER WINDOW]`.
//! A development aid for looking at the words and columns; needs no root and no kernel programs.

use std::{thread::sleep, time::Duration};

use anyhow::Context;
// The story names its types by `crate::…`, as it does inside the library, where the tests use it.
use canary_user::{guard, judge, targets, telemetry, watch, window};

#[allow(dead_code)]
#[path = "../src/watch/story.rs"]
mod story;

fn main() -> anyhow::Result<()> {
    let pause_ms = match std::env::args().nth(1) {
        Some(text) => text.parse().with_context(|| format!("'{text}' is not a number of milliseconds"))?,
        None => 250,
    };
    let mut view = watch::TerminalView::new("canary: more CPU per request (made up)", None);
    let mut decisions: Vec<watch::DecisionView> = Vec::new();
    for index in 0..story::WINDOWS {
        let snapshot = story::snapshot(index);
        let served = watch::units::count(index * 1500);
        view.set_footer(vec![format!("requests              {served} served, 0 failed")]);
        view.draw(&snapshot)?;
        if index == story::ONSET {
            view.log("the made-up canary starts to need 31 % more CPU")?;
        }
        if let Some(decision) = &snapshot.deployments[story::DEPLOYMENT].decision
            && decisions.last().map(|d| d.stage) != Some(decision.stage)
        {
            view.log(&format!("{} {}: {}", decision.decision.action, decision.stage.name(), decision.detail))?;
            decisions.push(decision.clone());
        }
        sleep(Duration::from_millis(pause_ms));
    }
    view.finish()?;
    let service = Some(watch::summary::ServiceTotals {
        before: watch::summary::Traffic { served: 120_000, failed: 0 },
        during: watch::summary::Traffic { served: 6_000, failed: 0 },
        after: watch::summary::Traffic { served: 22_500, failed: 0 },
    });
    let last = story::snapshot(story::WINDOWS - 1);
    let run = watch::summary::Run { deployment: story::DEPLOYMENT, last: &last, decisions: &decisions, service };
    print!("\n{}", watch::summary::render(&run));
    Ok(())
}
