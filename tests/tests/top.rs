//! `canary top` in a real terminal: a running guard at 80 by 24, and keys that command it.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, PATIENCE, program},
    kernel_available, wait_until,
};

/// One tmux of our own, with one window.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// `command` runs in a terminal of this size, as long as it likes.
    fn open(dir: &Path, size: (u16, u16), command: &str) -> anyhow::Result<Self> {
        let terminal = Self { socket: dir.join("tmux").display().to_string() };
        let (columns, rows) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, command])?;
        Ok(terminal)
    }

    /// Without anybody's own configuration, and with UTF-8 whatever the locale.
    fn tmux(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S", &self.socket]).args(words).env_remove("TMUX");
        let output = command.output().context("start tmux")?;
        ensure!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn screen(&self) -> anyhow::Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) -> anyhow::Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Waits until all of this stands on the screen.
    fn shows(&self, words: &[&str]) -> anyhow::Result<()> {
        let all = || self.screen().is_ok_and(|screen| words.iter().all(|word| screen.contains(word)));
        wait_until(&format!("{words:?}"), PATIENCE, all).with_context(|| self.screen().unwrap_or_default())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_shows_a_running_guard_at_80_by_24_and_pauses_it() -> anyhow::Result<()> {
    let test = "top_shows_a_running_guard_at_80_by_24_and_pauses_it";
    if !kernel_available(test) {
        return Ok(());
    }
    if Command::new("tmux").arg("-V").output().is_err() {
        println!("SKIP {test}: there is no tmux here (apt-get install tmux)");
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    for cgroup in ["stable", "canary"] {
        sandbox.run(
            &sandbox.cgroup(cgroup)?,
            "while :; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 0.05; done",
        )?;
    }
    let configuration = Configuration::shop_with_token(&sandbox)?;
    let guard = Guard::start(&configuration)?;
    let dir = configuration.dir.path();
    let command =
        format!("{} top --address {} --token-file {}", program().display(), guard.pages.0, dir.join("token").display());
    let terminal = Terminal::open(dir, (80, 24), &command)?;
    terminal.shows(&["shop", "CPU per turnaround", "evidence"])?;
    let screen = terminal.screen()?;
    println!("{screen}");
    ensure!(screen.lines().all(|line| line.chars().count() <= 80), "no line is longer than the terminal: {screen}");
    terminal.press("Enter")?;
    terminal.shows(&["Reasons"])?;
    terminal.press("Escape")?;
    terminal.press("p")?;
    terminal.shows(&["Pause the guard"])?;
    terminal.press("y")?;
    terminal.shows(&["PAUSED"])?;
    let (_, state) = guard.pages.get("/api/v1/deployments")?;
    let state: serde_json::Value = serde_json::from_str(&state)?;
    ensure!(state["paused"].is_string(), "the guard is paused: {state}");
    terminal.press("q")?;
    let gone = || terminal.screen().is_err();
    wait_until("it ends, and the terminal with it", Duration::from_secs(30), gone)?;

    // Over the socket the kernel says who asks: no token is needed.
    let socket = dir.join("canary.sock");
    let command = format!("{} top --socket {}", program().display(), socket.display());
    let terminal = Terminal::open(dir, (80, 24), &command)?;
    terminal.shows(&["shop", "CPU per turnaround", "PAUSED"])?;
    terminal.press("p")?;
    terminal.shows(&["Resume the guard"])?;
    terminal.press("y")?;
    terminal.shows(&["Resumed all deployments"])?;
    terminal.press("q")?;
    wait_until("it ends, too", Duration::from_secs(30), || terminal.screen().is_err())
}
