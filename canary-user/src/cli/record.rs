//! `canary record`: every sample to a file, without judging.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::{config::warn_of_patterns, run::asked_to_stop, wants_kernel_debug};
use crate::{
    config::Config,
    daemon,
    targets::{cgroup::Root, discover, located::Located},
    telemetry::{Options, Sensor, capabilities, live, recording::Writer},
};

const NOTES: &str = "\
Needs what `canary run` needs: root, or the capabilities that `canary check`
lists. The file is JSON Lines, about 1 KB per window and instance;
docs/recording.md explains each field.

Examples:
  canary record --config canary.toml --file run.jsonl --duration 10m";

/// Record what the kernel counts to a file, without judging, for `canary replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The configuration file: its window and its cgroup patterns are used
    #[arg(long, default_value = "/etc/canary/canary.toml")]
    pub config: PathBuf,
    /// The file to make; one that exists is not overwritten
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Stop after this long, such as 90s or 10m [default: until interrupted]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    capabilities::ensure_held()?;
    let root = Root::find()?;
    warn_of_patterns(&config, &root)?;
    let sensor = Sensor::load(root.clone(), &Options { kernel_debug: wants_kernel_debug(), ..Options::default() })?;
    let window_ns = config.window.as_nanos() as u64;
    let mut writer = Writer::knowing(&args.file, window_ns, daemon::names(&config), BTreeMap::new())?;
    let bar = progress(args.duration, config.window)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let count = runtime.block_on(async {
        let (send, mut ticks) = mpsc::channel(8);
        let window = config.window;
        let located = Located::default();
        // They end with the runtime.
        let _followers = daemon::followers(&config, &root, &located);
        let live = live::start(sensor, window, move || discover::targets(&config, &root, &located), send)?;
        let stop = asked_to_stop()?;
        let limit = async {
            match args.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(stop, limit);
        let mut count = 0u64;
        loop {
            tokio::select! {
                tick = ticks.recv() => match tick {
                    Some(tick) => {
                        writer.tick(&tick)?;
                        count += 1;
                        bar.inc(1);
                    }
                    None => break,
                },
                () = &mut stop => break,
                () = &mut limit => break,
            }
        }
        // The thread may be waiting to send.
        drop(ticks);
        drop(live);
        anyhow::Ok(count)
    })?;
    bar.finish_and_clear();
    eprintln!("{count} windows recorded to {}", args.file.display());
    Ok(ExitCode::SUCCESS)
}

/// Drawn on a terminal only.
fn progress(duration: Option<Duration>, window: Duration) -> anyhow::Result<ProgressBar> {
    let Some(duration) = duration else {
        let style = ProgressStyle::with_template("{spinner} {pos} windows, {elapsed}")?;
        return Ok(ProgressBar::new_spinner().with_style(style));
    };
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} windows, {eta} left")?;
    let windows = duration.as_nanos() / window.as_nanos().max(1);
    Ok(ProgressBar::new(u64::try_from(windows).unwrap_or(u64::MAX)).with_style(style))
}
