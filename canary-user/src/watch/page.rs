//! The page at `/`: one look says whether a canary runs, whether it is worse, how sure that is, what was done and what to do.
//!
//! The server draws it as HTML, with or without JavaScript; the script only asks for the new part when something happened.

#[cfg(test)]
mod contrast;

use maud::{DOCTYPE, Markup, html};

use super::{
    Board, Snapshot, api,
    html::{self as blocks, View, answers::Next},
    plain, units,
};
use crate::{http_client::percent_encoded, judge::Outcome};

/// The script, as a file of its own: pages may not have inline scripts.
pub const SCRIPT: &str = include_str!("page/live.js");
/// Room for charts until the browser says how wide it is, and what it may say.
pub const WIDTH: u32 = 1100;
const LEAST_WIDTH: u32 = 280;
const MOST_WIDTH: u32 = 1600;
/// Entries of the log.
const ENTRIES: usize = 30;
/// Where the report of a decision is served.
pub const REPORT: &str = "report/";

/// The whole page. `chosen` names the deployment; without it, it is the one with most evidence against its canary.
/// `commands`: whether the guard takes them over HTTP.
pub fn page(snapshot: &Snapshot, board: &Board, chosen: Option<&str>, commands: bool) -> Markup {
    let shown = choose(snapshot, chosen);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "canary guard" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="page/style.css";
                script src="page/live.js" defer {}
            }
            body {
                a.skip href="#now" { "To the state" }
                header {
                    h1 { "canary guard" }
                    nav aria-label="deployments" {
                        @for (name, view) in &snapshot.deployments {
                            span.deployment {
                                a href={ "?deployment=" (percent_encoded(name)) } aria-current=[(shown == Some(&**name)).then_some("page")] { (name) }
                                @if snapshot.deployments.len() > 1 {
                                    " " span.tag.(blocks::class(view.verdict.outcome)) data-deployment=(name) { (view.verdict.outcome.name()) }
                                }
                            }
                        }
                    }
                    span.grow {}
                    span.live id="live" role="status" { "as of the last load" }
                    @if commands { button.no-print id="pause" type="button" title="key p" { "Pause" } }
                }
                main id="now" tabindex="-1" { (now(snapshot, board, chosen, WIDTH)) }
                footer {
                    p { span id="told" role="status" {} }
                    p { a href="metrics" { "metrics" } ", " a href="api/v1/openapi.json" { "API" } ", " a href="monitor" { "monitor" }
                        ". Keys: 1 to 9 choose a deployment, c copies the first command" @if commands { ", p pauses or resumes" } ". Version " (env!("CARGO_PKG_VERSION")) "." }
                }
                @if commands {
                    dialog id="ask" aria-labelledby="ask-h" {
                        form method="dialog" {
                            h2 id="ask-h" { "The guard's token" }
                            p.note { "What is in token_file under [api]. It is kept until this tab is closed." }
                            input type="password" autocomplete="off" aria-labelledby="ask-h";
                            button value="ok" { "Go on" } " " button value="cancel" formnovalidate { "Cancel" }
                        }
                    }
                }
            }
        }
    }
}

/// The part that changes. `width` is the room in pixels.
pub fn now(snapshot: &Snapshot, board: &Board, chosen: Option<&str>, width: u32) -> Markup {
    let state = api::State::from(snapshot);
    let Some(name) = choose(snapshot, chosen) else {
        return html! { section { p.answer { (nothing(&state, chosen)) } } };
    };
    let Some(deployment) = state.deployment(name) else { return html! {} };
    let width = width.clamp(LEAST_WIDTH, MOST_WIDTH);
    let windows = board.windows(name, 0, usize::MAX).unwrap_or_default();
    let (decisions, verdicts) = (board.decisions(Some(name), ENTRIES), board.verdicts(Some(name), ENTRIES));
    let (all, alone) = (state.paused.as_deref(), deployment.paused.as_deref());
    let paused = all.or(alone);
    let view = View { deployment, windows: &windows, decisions: &decisions, verdicts: &verdicts, paused };
    html! {
        // The button is about all deployments.
        @if let Some(why) = all { section.caution data-paused { strong { "Paused. " } "No action is begun: " (why) } }
        @else if let Some(why) = alone { section.caution { strong { (name) " is paused. " } "No action is begun on it: " (why) } }
        @if let Some(caution) = plain::caution(&state.quality) { section.caution { strong { "The data is not complete. " } (caution) } }
        (blocks::answers::answers(&view))
        (blocks::section("course", "Over time", course(&view, width)))
        (blocks::section("causes", "Likely causes", blocks::causes(&deployment.verdict)))
        // Of one that is gone there is nothing to be taken back.
        @if !deployment.verdict.recommendations.is_empty() && !blocks::answers::is_gone(&view) {
            (blocks::section("advice", blocks::ADVICE, blocks::advice(&deployment.verdict)))
        }
        (blocks::section("indicators", "What was compared", blocks::indicators(&view, width)))
        (blocks::section("log", "What happened", blocks::history::timeline(&view, Some(REPORT))))
        (blocks::section("events", "Counts", blocks::events(&deployment.verdict)))
        p.note { "Window " (units::count(deployment.window)) " of " (units::duration_ns(state.span_ns as f64)) ", ended " (units::clock(state.unix_ms)) " UTC. "
            @if let Some(own) = &state.own { (own.in_words()) } }
    }
}

/// What to do next about each deployment, as the page says it.
pub fn next(snapshot: &Snapshot, board: &Board) -> Vec<api::NextStep> {
    let state = api::State::from(snapshot);
    let step = |deployment: &api::Deployment| {
        let name = &*deployment.name;
        // They say when a condemned canary was seen last, and nothing else here. To copy an hour of them takes time, and who asks for
        // this needs no token.
        let is_condemned = deployment.verdict.outcome == Outcome::Regressed;
        let windows = is_condemned.then(|| board.windows(name, 0, usize::MAX)).flatten().unwrap_or_default();
        let (decisions, verdicts) = (board.decisions(Some(name), ENTRIES), board.verdicts(Some(name), ENTRIES));
        let paused = state.paused.as_deref().or(deployment.paused.as_deref());
        let view = View { deployment, windows: &windows, decisions: &decisions, verdicts: &verdicts, paused };
        let Next { what, why, commands } = blocks::answers::next(&view);
        api::NextStep { deployment: name.to_owned(), what, why, commands }
    };
    state.deployments.iter().map(step).collect()
}

fn course(view: &View, width: u32) -> Markup {
    // What padding and border leave of the page's width.
    let room = width.saturating_sub(34);
    let height = if room < blocks::figures::NARROW { 560 } else { 420 };
    html! {
        @match blocks::figures::course(view, room) {
            Some(chart) => { div.chart role="img" aria-label=(blocks::course_in_words(&chart)) {
                (blocks::own(super::chart::svg(&chart, room, height)))
            } }
            None => { p.note { "No window yet." } }
        }
        (blocks::stretches(&view.deployment.verdict))
    }
}

fn choose<'a>(snapshot: &'a Snapshot, chosen: Option<&str>) -> Option<&'a str> {
    match chosen {
        Some(name) => snapshot.deployments.get_key_value(name).map(|(name, _)| &**name),
        None => {
            let evidence = |v: &super::DeploymentView| v.verdict.evidence_share();
            snapshot.deployments.iter().max_by(|a, b| evidence(a.1).total_cmp(&evidence(b.1))).map(|(name, _)| &**name)
        }
    }
}

fn nothing(state: &api::State, chosen: Option<&str>) -> String {
    match chosen.filter(|_| state.sequence > 0) {
        Some(name) => format!("There is no deployment {name}: choose one above"),
        None => "Waiting for the first window …".to_owned(),
    }
}
