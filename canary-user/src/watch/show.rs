//! A view in a thread of its own, so that a slow or stopped terminal never holds the line up.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use anyhow::Context as _;

use super::{Snapshot, TerminalView, json};

/// What may wait for the terminal; more is dropped, because a watcher may lag but nothing may wait for it.
const WAITING: usize = 256;

/// What is shown.
pub enum View {
    /// For people: a live view on a terminal, else lines.
    Terminal(Box<TerminalView>),
    /// One JSON object per deployment and window.
    Json,
}

enum Message {
    Snapshot(Arc<Snapshot>),
    Footer(Vec<String>),
    Log(String),
}

/// A running view. [`Show::finish`] waits until everything sent to it is shown.
pub struct Show {
    to: SyncSender<Message>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// A handle to a running view, for those who only tell it things. Telling never blocks.
#[derive(Clone)]
pub struct Teller(SyncSender<Message>);

impl Show {
    pub fn start(view: View) -> anyhow::Result<Self> {
        let (to, messages) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("view".into())
            .spawn(move || match view {
                View::Terminal(view) => draw(*view, &messages),
                View::Json => print(&messages),
            })
            .context("start the view's thread")?;
        Ok(Self { to, thread })
    }

    pub fn teller(&self) -> Teller {
        Teller(self.to.clone())
    }

    /// # Errors
    /// What the view met with: most often a closed pipe.
    pub fn finish(self) -> anyhow::Result<()> {
        drop(self.to);
        self.thread.join().map_err(|_| anyhow::anyhow!("the view's thread panicked"))?
    }
}

impl Teller {
    pub fn snapshot(&self, snapshot: &Arc<Snapshot>) {
        let _ = self.0.try_send(Message::Snapshot(snapshot.clone()));
    }

    /// Lines below the view, until others come.
    pub fn footer(&self, lines: Vec<String>) {
        let _ = self.0.try_send(Message::Footer(lines));
    }

    /// A line of the story, with the time in front of it.
    pub fn log(&self, line: impl Into<String>) {
        let _ = self.0.try_send(Message::Log(line.into()));
    }
}

/// Draws the newest snapshot; those that came while it drew the one before are skipped.
fn draw(mut view: TerminalView, messages: &Receiver<Message>) -> anyhow::Result<()> {
    while let Ok(first) = messages.recv() {
        let mut newest = None;
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Snapshot(snapshot) => newest = Some(snapshot),
                Message::Footer(lines) => view.set_footer(lines),
                Message::Log(line) => view.log(&line)?,
            }
        }
        if let Some(snapshot) = newest {
            view.draw(&snapshot)?;
        }
    }
    view.finish()
}

fn print(messages: &Receiver<Message>) -> anyhow::Result<()> {
    while let Ok(message) = messages.recv() {
        if let Message::Snapshot(snapshot) = message {
            json::print_windows(&snapshot)?;
        }
    }
    Ok(())
}
