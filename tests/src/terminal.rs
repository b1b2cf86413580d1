//! A real terminal without a screen: a tmux of our own, what it shows, and that as a page that a browser can draw.

mod page;

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    guard::{PATIENCE, program},
    wait_until,
};

/// One tmux with one window. Ends with the test.
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// Whether there is one here; prints why not otherwise.
    pub fn available(test: &str) -> bool {
        let found = Command::new("tmux").arg("-V").output().is_ok();
        if !found {
            println!("SKIP {test}: there is no tmux here (apt-get install tmux)");
        }
        found
    }

    /// `command` runs in a terminal of this size, columns by rows, as long as it likes.
    ///
    /// # Errors
    /// Where tmux does not start.
    pub fn open(dir: &Path, size: (u16, u16), command: &str) -> anyhow::Result<Self> {
        let terminal = Self { socket: dir.join("tmux").display().to_string() };
        let (columns, rows) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, command])?;
        Ok(terminal)
    }

    /// `canary top` of the guard whose socket is in this directory, at 80 by 24.
    ///
    /// # Errors
    /// Where tmux does not start.
    pub fn of_top(dir: &Path) -> anyhow::Result<Self> {
        let command = format!("{} top --socket {}", program().display(), dir.join("canary.sock").display());
        Self::open(dir, (80, 24), &command)
    }

    /// Without anybody's own configuration, and with UTF-8 whatever the locale.
    fn tmux(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S", &self.socket]).args(words).env_remove("TMUX");
        let output = command.output().context("start tmux")?;
        ensure!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// # Errors
    /// Where the program has ended, and the terminal with it.
    pub fn screen(&self) -> anyhow::Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    pub fn press(&self, key: &str) -> anyhow::Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Another size, of which the program is told.
    pub fn resize(&self, (columns, rows): (u16, u16)) -> anyhow::Result<()> {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).map(drop)
    }

    /// Waits until all of this stands on the screen.
    ///
    /// # Errors
    /// Where it does not, with what stands there.
    pub fn shows(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut screen = String::new();
        let all = || {
            screen = self.screen().unwrap_or_default();
            words.iter().all(|word| screen.contains(word))
        };
        let found = wait_until(&format!("{words:?}"), PATIENCE, all);
        found.with_context(|| screen.clone())?;
        Ok(screen)
    }

    /// The screen with its colours as HTML, on the ground that the reader's scheme has.
    ///
    /// # Errors
    /// Where the program has ended, and the terminal with it.
    pub fn page(&self) -> anyhow::Result<String> {
        Ok(page::page(&self.tmux(&["capture-pane", "-p", "-e"])?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
