//! `canary top`: a running guard on a screen of its own, with keys. The frame is the live view's.
//!
//! Goes in: what the guard's API says, and keys. Comes out: the screen, and commands over the API.

mod client;
mod screen;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use ratatui::crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::{Terminal, backend::Backend};

use self::screen::Screen;
use super::{
    api::{DecisionLife, State, VerdictChange, WindowPoint},
    html::answers::waits_for_approval,
    terminal::{model::Model, palette::Palette},
};
use crate::http_client::percent_encoded;

pub use client::{Client, Trusted};

/// Between two looks at the guard.
const EVERY: Duration = Duration::from_millis(500);

/// What is shown below the tabs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pane {
    #[default]
    Overview,
    /// Causes, reasons, gates and plan, with the course of each indicator.
    Detail,
    Log,
    Help,
}

/// What the guard said last.
#[derive(Debug, Default)]
struct Known {
    state: State,
    windows: Vec<WindowPoint>,
    /// Newest first, of the deployment that is shown.
    decisions: Vec<Arc<DecisionLife>>,
    verdicts: Vec<Arc<VerdictChange>>,
}

#[derive(Debug)]
struct Top {
    client: Client,
    model: Model,
    palette: Palette,
    pane: Pane,
    known: Known,
    /// What to tell in the last line: an error, or what a command did.
    said: Option<String>,
    /// Looks at the guard since that was said.
    said_looks: u8,
    /// A command that waits for "y".
    asked: Option<Command>,
    scroll: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Pause,
    Resume,
    Approve(String),
}

impl Command {
    fn question(&self) -> String {
        match self {
            Command::Pause => {
                "Pause the guard: no action is begun until it is resumed?  y yes, any other key no".to_owned()
            }
            Command::Resume => "Resume the guard: it may act in the next window?  y yes, any other key no".to_owned(),
            Command::Approve(id) => format!("Approve {id}: the guard may carry it out?  y yes, any other key no"),
        }
    }
}

/// Shows the guard until "q". `deployment` is the one to begin with.
///
/// # Errors
/// Where the terminal fails. A guard that does not answer is told on the screen.
pub async fn run<B: Backend>(
    terminal: &mut Terminal<B>,
    client: Client,
    deployment: Option<String>,
) -> anyhow::Result<()>
where
    B::Error: Send + Sync + 'static,
{
    use futures_util::StreamExt as _;
    let mut top = Top::new(client, deployment);
    let mut keys = EventStream::new();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => top.look().await,
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if !top.key(key).await {
                        return Ok(());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
        top.draw(terminal)?;
    }
}

impl Top {
    fn new(client: Client, deployment: Option<String>) -> Self {
        Self {
            model: Model::new(format!("canary top: {}", client.address()), deployment),
            client,
            palette: Palette::from_env(),
            pane: Pane::default(),
            known: Known::default(),
            said: None,
            said_looks: 0,
            asked: None,
            scroll: 0,
        }
    }

    fn draw<B: Backend>(&self, terminal: &mut Terminal<B>) -> anyhow::Result<()>
    where
        B::Error: Send + Sync + 'static,
    {
        terminal.draw(|frame| frame.render_widget(Screen(self), frame.area()))?;
        Ok(())
    }

    /// Asks the guard. What it does not answer stays as it was, and the last line says so.
    async fn look(&mut self) {
        match self.ask().await {
            Ok(known) => {
                let was_lost = self.said.as_deref().is_some_and(|s| s.starts_with(LOST));
                self.said_looks = self.said_looks.saturating_add(1);
                self.said = self.said.take().filter(|_| !was_lost && self.said_looks <= SAID_LOOKS);
                self.known = known;
                self.model.update(&self.known.state);
                // The tabs name them.
                self.model.others.clear();
                let point = |w: &WindowPoint| super::terminal::model::Point {
                    window: w.window,
                    stable: w.p_stable.map(f64::from),
                    canary: w.p_canary.map(f64::from),
                };
                let since_ns = self.known.windows.first().map(|w| w.t_ns.saturating_sub(self.known.state.span_ns));
                self.model.set_history(since_ns, self.known.windows.iter().map(point));
            }
            Err(error) => self.say(format!("{LOST}: {error:#}")),
        }
    }

    fn say(&mut self, text: String) {
        (self.said, self.said_looks) = (Some(text), 0);
    }

    async fn ask(&self) -> anyhow::Result<Known> {
        let state: State = self.client.get("/api/v1/deployments").await?;
        let mut known = Known { state, ..Known::default() };
        // The one that is shown, or will be.
        let mut model = Model::new("", self.model.shown.as_ref().map(|s| s.name.to_string()));
        model.update(&known.state);
        let name = self.model.wanted().map(str::to_owned).or(model.shown.map(|s| s.name.to_string()));
        if let Some(name) = name.or_else(|| known.state.deployments.first().map(|d| d.name.to_string())) {
            let name = percent_encoded(&name);
            let windows: super::api::Windows =
                self.client.get(&format!("/api/v1/windows?deployment={name}&limit=512")).await?;
            known.windows = windows.windows;
            known.decisions = self.client.get(&format!("/api/v1/decisions?deployment={name}&limit=20")).await?;
            known.verdicts = self.client.get(&format!("/api/v1/verdicts?deployment={name}&limit=20")).await?;
        }
        Ok(known)
    }

    /// False to end.
    async fn key(&mut self, key: KeyEvent) -> bool {
        if let Some(command) = self.asked.take() {
            self.said = None;
            if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                let said = self.client.command(&command).await.unwrap_or_else(|error| format!("{error:#}"));
                self.say(said);
                self.look().await;
            }
            return true;
        }
        self.said = None;
        let page = |open: Pane, now: Pane| if now == open { Pane::Overview } else { open };
        match key.code {
            KeyCode::Char('q') => return false,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
            KeyCode::Esc if self.pane == Pane::Overview => return false,
            KeyCode::Esc => self.pane = Pane::Overview,
            KeyCode::Enter | KeyCode::Char('d') => self.pane = page(Pane::Detail, self.pane),
            KeyCode::Char('l') => self.pane = page(Pane::Log, self.pane),
            KeyCode::Char('?' | 'h') => self.pane = page(Pane::Help, self.pane),
            KeyCode::Tab | KeyCode::Right => self.choose(1).await,
            KeyCode::BackTab | KeyCode::Left => self.choose(-1).await,
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Char('p') => {
                let paused = self.known.state.paused.is_some();
                self.asked = Some(if paused { Command::Resume } else { Command::Pause });
            }
            KeyCode::Char('a') => self.asked = self.waiting_for_approval(),
            _ => {}
        }
        if !matches!(key.code, KeyCode::Down | KeyCode::Up | KeyCode::Char('j' | 'k')) {
            self.scroll = 0;
        }
        true
    }

    /// The decision that waits for a person.
    fn waiting_for_approval(&mut self) -> Option<Command> {
        let decision = self.model.shown.as_ref().and_then(|s| s.decision.as_ref());
        let waits = decision.filter(|d| waits_for_approval(d)).map(|d| Command::Approve(d.decision.id.clone()));
        if waits.is_none() {
            self.say("nothing waits for approval".to_owned());
        }
        waits
    }

    async fn choose(&mut self, step: isize) {
        let names: Vec<String> = self.known.state.deployments.iter().map(|d| d.name.to_string()).collect();
        let now = self.model.shown.as_ref().and_then(|s| names.iter().position(|n| **n == *s.name)).unwrap_or(0);
        if names.len() > 1 {
            let next = (now as isize + step).rem_euclid(names.len() as isize) as usize;
            self.model.want(Some(names[next].clone()));
            self.look().await;
        }
    }
}

/// How many looks at the guard it is shown what was said: some seconds. Then the latest that happened comes back.
const SAID_LOOKS: u8 = 12;
const LOST: &str = "the guard does not answer";
