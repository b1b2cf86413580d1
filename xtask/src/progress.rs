//! One line per step, on stderr: a spinner with the latest detail on a terminal, plain lines elsewhere.

use std::{
    io::{BufRead, BufReader, IsTerminal},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Something under way that is no step of ours.
pub fn line(text: &str) {
    eprintln!("  ..   {text}");
}

/// A step under way. Ends with [`Step::done`]; dropped without it, it has failed.
pub struct Step {
    name: String,
    started: Instant,
    spinner: Option<ProgressBar>,
    done: bool,
}

impl Step {
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}");
            spinner.set_style(style.expect("the template is a constant"));
            spinner.set_prefix(name.clone());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        if spinner.is_none() {
            line(&name);
        }
        Self { name, started: Instant::now(), spinner, done: false }
    }

    /// A line that stays, also in a log.
    pub fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| line(text)),
            None => line(text),
        }
    }

    /// The latest detail; shown on a terminal only.
    pub fn detail(&self, text: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(text.trim().to_owned());
        }
    }

    pub fn done(mut self, outcome: &str) {
        self.done = true;
        self.end("ok", outcome);
    }

    /// It cannot be had this way, and another will be tried: not a failure.
    pub fn unavailable(mut self, reason: &str) {
        self.done = true;
        self.end("no", reason);
    }

    fn end(&self, mark: &str, outcome: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let separator = if outcome.is_empty() { "" } else { ": " };
        eprintln!("  {mark:<4} {}{separator}{outcome} ({:.1} s)", self.name, self.started.elapsed().as_secs_f64());
    }

    /// Runs a command to its end; its stderr feeds the detail, its stdout is dropped. On failure the error holds what it said.
    pub fn command(&self, command: &mut Command) -> Result<()> {
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stderr(writer.try_clone().context("clone a pipe")?).stdout(writer);
        let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
        // The command holds the pipe's writing ends; left open here, the pipe would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut said = Vec::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.with_context(|| format!("read the output of {shown}"))?;
            let line = String::from_utf8_lossy(&line).into_owned();
            self.detail(&line);
            said.push(line);
        }
        let status = child.wait().with_context(|| format!("wait for {shown}"))?;
        if !status.success() {
            bail!("{shown} ended with {status}:\n{}", said.join("\n"));
        }
        Ok(())
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.done {
            self.end("FAIL", "");
        }
    }
}
