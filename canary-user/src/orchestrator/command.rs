//! Runs a program that knows how to carry the decision out.
//!
//! Goes in: the decision as JSON on its standard input, its id, deployment and action in the environment. Comes out: exit
//! code 0, it is done; 75 (EX_TEMPFAIL of sysexits.h), it will not and changed nothing; any other, and the end of its time,
//! may mean either. Past its time it is killed with all that it started.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command as Process,
    time::timeout,
};

use super::{
    BoxFuture, Error, Found, Orchestrator, Plan, State, hold,
    pause::{LastLook, Paused},
};
use crate::{
    config::CommandConfig,
    guard::{Action, Decision},
};

const NAME: &str = "command";
/// EX_TEMPFAIL of sysexits.h: "the user is invited to try again later".
const REFUSED: i32 = 75;
/// A program that is asked for the state has to be quick.
const STATE_TIMEOUT: Duration = Duration::from_secs(8);
/// What of its output is kept, from its end.
const LONGEST_QUOTE_BYTES: usize = 400;
const LONGEST_OUTPUT_BYTES: usize = 64 * 1024;
/// How long its output is waited for once it has ended: what it left running may keep that open for as long as it lives.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Runs programs.
pub struct Command {
    config: CommandConfig,
    last_look: LastLook,
}

/// How a program ended, with the end of what it said.
struct Ended {
    status: ExitStatus,
    said: String,
}

impl Command {
    pub fn new(config: CommandConfig) -> Self {
        Self { config, last_look: LastLook::default() }
    }

    async fn run(&self, argv: &[String], decision: &Decision, limit: Duration) -> Result<Ended, Error> {
        let input = serde_json::to_vec(decision).map_err(Error::refused)?;
        let program = executable(argv).map_err(Error::refused)?;
        let mut child = Process::new(program)
            .args(&argv[1..])
            .env("CANARY_DECISION_ID", &decision.id)
            .env("CANARY_DEPLOYMENT", &*decision.deployment)
            .env("CANARY_ACTION", decision.action.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: what it started is killed with it, and the terminal's Ctrl-C does not reach it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {program}"))
            .map_err(Error::refused)?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
        let mut stdin = child.stdin.take().expect("it is piped");
        let (stdout, stderr) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ended = {
            // A program that does not read its input closes it: that is its own business.
            let write = async {
                let _ = stdin.write_all(&input).await;
                drop(stdin);
            };
            let mut talk = pin!(async { tokio::join!(write, read(stdout, &mut out), read(stderr, &mut err)) });
            let mut is_over = false;
            let exit = async {
                loop {
                    tokio::select! {
                        status = child.wait() => return status,
                        _ = &mut talk, if !is_over => is_over = true,
                    }
                }
            };
            let ended = timeout(limit, exit).await;
            if ended.is_ok() && !is_over {
                let _ = timeout(LAST_WORDS, &mut talk).await;
            }
            ended
        };
        match ended {
            Ok(status) => {
                group.0 = None;
                let status = status.with_context(|| format!("wait for {}", argv.join(" ")))?;
                Ok(Ended { status, said: tail(&[out, err].concat()) })
            }
            Err(_) => {
                let limit = humantime::format_duration(limit);
                Err(anyhow!("{program} did not end within {limit} and was killed; it may have done a part").into())
            }
        }
    }

    async fn act(&self, argv: &[String], decision: &Decision) -> Result<(), Error> {
        let ended = self.run(argv, decision, self.config.timeout).await?;
        let said = format!("{} ended with {}{}", argv[0], ended.status, ended.said);
        match ended.status.code() {
            Some(0) => Ok(()),
            Some(REFUSED) => Err(Error::refused(said)),
            _ => Err(anyhow!("{said}; it may have done a part").into()),
        }
    }

    async fn ask(&self, decision: &Decision) -> anyhow::Result<Found> {
        let Some(argv) = &self.config.state else {
            anyhow::bail!("it is not known: give command.state, a program that tells");
        };
        let ended = self.run(argv, decision, STATE_TIMEOUT.min(self.config.timeout)).await?;
        let state = match ended.status.code() {
            Some(0) => State::InEffect,
            Some(1) => State::NotInEffect,
            Some(2) => State::InProgress,
            _ => anyhow::bail!("{} ended with {}{}", argv[0], ended.status, ended.said),
        };
        Ok(Found { state, detail: format!("{} ended with {}{}", argv[0], ended.status, ended.said) })
    }
}

impl Orchestrator for Command {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cannot_hold(&self) -> Option<String> {
        Some(hold::not_handed_over(NAME))
    }

    fn heed_pauses(&self, paused: Paused) {
        self.last_look.heed(paused);
    }

    fn describe<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>> {
        Box::pin(async move {
            if decision.action == Action::Hold {
                return Err(Error::Refused(hold::not_handed_over(NAME)));
            }
            executable(&self.config.run).map_err(Error::refused)?;
            let limit = humantime::format_duration(self.config.timeout);
            let steps = vec![format!(
                "run {} with the decision on its standard input; SIGKILL to it and all it started after {limit}",
                self.config.run.join(" ")
            )];
            let inverse = match &self.config.undo {
                Some(argv) => format!("run {} with the decision on its standard input", argv.join(" ")),
                None => "whatever undoes what the program did; no command.undo is given".to_owned(),
            };
            Ok(Plan {
                orchestrator: NAME.into(),
                steps,
                inverse: Some(inverse),
                // That there is a way. Which, the configuration says when it comes to that.
                undo: self.config.undo.as_ref().map(|way| serde_json::json!(way)),
                takes_at_most_ms: Some(self.config.timeout.as_millis() as u64),
                ..Plan::default()
            })
        })
    }

    fn apply<'a>(&'a self, decision: &'a Decision, _plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.last_look.ask(&decision.deployment, None)?;
            self.act(&self.config.run, decision).await
        })
    }

    fn state<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, anyhow::Result<Found>> {
        Box::pin(self.ask(decision))
    }

    fn undo<'a>(&'a self, decision: &'a Decision, _plan: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match &self.config.undo {
                Some(argv) => self.act(argv, decision).await,
                None => Err(Error::refused("command.undo is not given: undo by hand what the program did")),
            }
        })
    }
}

/// A process group that is killed when this goes: at the end of its time, or when the call is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // Its number is not reused while a member lives or its leader has not been waited for.
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The program of a command line, if it can be run.
fn executable(argv: &[String]) -> anyhow::Result<&str> {
    let program = argv.first().context("the command is empty")?;
    let metadata = std::fs::metadata(Path::new(program)).with_context(|| format!("look at {program}"))?;
    anyhow::ensure!(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0, "{program} is not executable");
    Ok(program)
}

/// Takes all that comes, so that the program is not stopped by a full pipe, and keeps the first of it.
async fn read(mut from: impl AsyncRead + Unpin, kept: &mut Vec<u8>) {
    let mut chunk = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        let room = LONGEST_OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&chunk[..n.min(room)]);
    }
}

/// The last of what was said, as an addition to a sentence.
fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    let from = text.ceil_char_boundary(text.len().saturating_sub(LONGEST_QUOTE_BYTES));
    // It ends up in terminals, which would obey what else it holds.
    let quote = text[from..].replace('\n', " / ").replace(char::is_control, " ");
    if text.is_empty() { String::new() } else { format!(": {quote}") }
}

#[cfg(test)]
mod tests;
