//! `canary top` in a real terminal: a running guard at 80 by 24, and keys that command it.

use std::time::Duration;

use anyhow::ensure;
use canary_e2e::{
    Sandbox,
    guard::{Configuration, Guard, program},
    kernel_available,
    terminal::Terminal,
    wait_until,
};

#[test]
fn top_shows_a_running_guard_at_80_by_24_and_pauses_it() -> anyhow::Result<()> {
    let test = "top_shows_a_running_guard_at_80_by_24_and_pauses_it";
    if !kernel_available(test) || !Terminal::available(test) {
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
    let terminal = Terminal::of_top(dir)?;
    terminal.shows(&["shop", "CPU per turnaround", "PAUSED"])?;
    terminal.press("p")?;
    terminal.shows(&["Resume the guard"])?;
    terminal.press("y")?;
    terminal.shows(&["Resumed all deployments"])?;
    terminal.press("q")?;
    wait_until("it ends, too", Duration::from_secs(30), || terminal.screen().is_err())
}
