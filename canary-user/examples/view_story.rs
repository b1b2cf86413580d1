//! Plays a made-up comparison: `cargo run --example view_story [MILLISECONDS PER WINDOW [ADDRESS:PORT]]`.
//! A development aid for the words and columns of the live view and, with an address, for dashboards over the metrics.
//! Needs no root and no kernel programs.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
// The story names its types by `crate::…`, as it does inside the library, where the tests use it.
use canary_user::{control, guard, judge, targets, telemetry, watch, window};

#[allow(dead_code)]
#[path = "../src/watch/story.rs"]
mod story;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pause_ms = match std::env::args().nth(1) {
        Some(text) => text.parse().with_context(|| format!("'{text}' is not a number of milliseconds"))?,
        None => 250,
    };
    let metrics = watch::Metrics::default();
    let board = watch::Board::default();
    let (snapshots, receiver) = tokio::sync::watch::channel(Arc::default());
    if let Some(address) = std::env::args().nth(2) {
        let address = address.parse().with_context(|| format!("'{address}' is not ADDRESS:PORT"))?;
        let listener = watch::server::bind(address).await?;
        let commands = control::routes(control::channel().0, control::Access::Nobody, None);
        let sources = watch::server::Sources {
            metrics: metrics.clone(),
            snapshots: receiver,
            board: board.clone(),
            journal: None,
            tls: None,
            commands,
            takes_commands: false,
        };
        tokio::spawn(watch::server::serve(listener, sources, std::future::pending()));
    }
    let mut view = watch::TerminalView::new("canary: more CPU per request (made up)", None);
    let mut decisions: Vec<watch::DecisionView> = Vec::new();
    let mut outcome = None;
    for index in 0..story::WINDOWS {
        let snapshot = story::snapshot(index);
        let served = watch::units::count(index * 1500);
        view.set_footer(vec![format!("requests              {served} served, 0 failed")]);
        metrics.record(&snapshot);
        board.record(&snapshot);
        let seen = &snapshot.deployments[story::DEPLOYMENT];
        if outcome.replace(seen.verdict.outcome) != Some(seen.verdict.outcome) {
            let (deployment, unix_ms) = (story::DEPLOYMENT.to_owned(), snapshot.unix_ms);
            board.tell(guard::Entry::Verdict { deployment, unix_ms, verdict: seen.verdict.clone() });
        }
        snapshots.send_replace(Arc::new(snapshot.clone()));
        view.draw(&snapshot)?;
        if index == story::ONSET {
            view.log("the made-up canary starts to need 31 % more CPU")?;
        }
        if let Some(decision) = &snapshot.deployments[story::DEPLOYMENT].decision
            && decisions.last().map(|d| d.stage) != Some(decision.stage)
        {
            view.log(&format!("{} {}: {}", decision.decision.action, decision.stage.name(), decision.detail))?;
            board.tell(entry(decision, decisions.is_empty(), snapshot.unix_ms));
            decisions.push(decision.clone());
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
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

/// What the guard would have written into its journal.
fn entry(view: &watch::DecisionView, is_new: bool, unix_ms: u64) -> guard::Entry {
    let watch::DecisionView { decision, stage, detail, .. } = view.clone();
    if !is_new {
        return guard::Entry::Stage { decision_id: decision.id, stage, detail, unix_ms };
    }
    let steps = vec!["systemctl stop checkout-canary-1.service".to_owned()];
    let inverse = Some("systemctl start checkout-canary-1.service".to_owned());
    let plan =
        canary_user::orchestrator::Plan { orchestrator: "made up".to_owned(), steps, inverse, ..Default::default() };
    guard::Entry::Decided { decision, plan, stage, detail }
}
