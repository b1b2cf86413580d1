//! `canary pause` and `canary resume`: the running guard keeps its hands off, until it is told otherwise or time is up.

use std::{fs, io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde_json::json;

use super::guard::ToGuard;

pub const PAUSE_NOTES: &str = "\
A pause survives a restart of the guard, and ends by itself after --for. An
action that has begun to take a canary away is not stopped; one that still
waits for stable to settle is.
Where no guard runs, --pause-file makes a file instead: every guard that reads
it begins no action while it exists.
Exit code: 0 paused, 1 not.

Examples:
  canary pause --for 1h --reason 'incident 12'   every deployment
  canary pause shop --for 30m                    one of them
  canary pause --pause-file /run/canary/pause    also without a guard, which
                                                 has it as pause_file";

pub const RESUME_NOTES: &str = "\
Ends the pause of that deployment, or the one of all. A canary that is still
condemned may be acted on in the next window.
Exit code: 0 resumed, or it was not paused; 1 the guard cannot be reached.

Examples:
  canary resume
  canary resume shop
  canary resume --pause-file /run/canary/pause      removes the file";

/// Keep the guard from acting. Watching and judging go on all the same.
#[derive(Debug, clap::Args)]
#[command(after_help = PAUSE_NOTES)]
pub struct PauseArgs {
    /// Only this deployment [default: all]
    pub deployment: Option<String>,
    /// Resume by itself after this long, such as 30m or 1h [default: until `canary resume`]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Why, for those who look later [default: none]
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Make this file instead of asking a guard [default: ask the guard]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["deployment", "duration", "reason"])]
    pub pause_file: Option<PathBuf>,
    #[command(flatten)]
    pub guard: ToGuard,
}

/// Let the guard act again.
#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_NOTES)]
pub struct ResumeArgs {
    /// Only this deployment [default: the pause of all]
    pub deployment: Option<String>,
    /// Remove this file instead of asking a guard [default: ask the guard]
    #[arg(long, value_name = "FILE", conflicts_with = "deployment")]
    pub pause_file: Option<PathBuf>,
    #[command(flatten)]
    pub guard: ToGuard,
}

pub fn pause(args: &PauseArgs) -> anyhow::Result<ExitCode> {
    let Some(file) = &args.pause_file else {
        let duration = args.duration.map(|d| humantime::format_duration(d).to_string());
        let body = json!({ "deployment": args.deployment, "for": duration, "reason": args.reason });
        return args.guard.command("/api/v1/pause", &body);
    };
    let name = file.display();
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    fs::write(file, "").with_context(|| format!("create {name}"))?;
    args.guard
        .tell(&format!("Paused: while {name} exists, no action is begun. `canary resume --pause-file {name}` ends it."))
}

pub fn resume(args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    let Some(file) = &args.pause_file else {
        return args.guard.command("/api/v1/resume", &json!({ "deployment": args.deployment }));
    };
    let name = file.display();
    args.guard.tell(&match fs::remove_file(file) {
        Ok(()) => format!("Resumed: {name} is gone."),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("Not paused: {name} does not exist."),
        Err(error) => return Err(error).with_context(|| format!("remove {name}")),
    })
}
