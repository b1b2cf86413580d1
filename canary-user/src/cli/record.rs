//! `canary record`: every sample to a file, without judging.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{config::warn_of_patterns, run::asked_to_stop, wants_kernel_debug};
use crate::{
    config::Config,
    targets::{cgroup::Root, discover},
    telemetry::{Options, Sensor, live, recording::Writer},
};

/// Record every sample to a file, without judging, for `canary replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file: its window and its patterns are used
    #[arg(long, default_value = "/etc/canary/canary.toml")]
    pub config: PathBuf,
    /// The file to make; one that exists is not overwritten
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Stop after this long [default: until interrupted]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let root = Root::find()?;
    warn_of_patterns(&config, &root)?;
    let sensor = Sensor::load(root.clone(), &Options { kernel_debug: wants_kernel_debug(), ..Options::default() })?;
    let mut writer = Writer::create(&args.out, config.window.as_nanos() as u64)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let count = runtime.block_on(async {
        let (send, mut ticks) = mpsc::channel(8);
        let window = config.window;
        let live = live::start(sensor, window, move || discover::targets(&config, &root), None, send)?;
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
    eprintln!("{count} windows recorded to {}", args.out.display());
    Ok(ExitCode::SUCCESS)
}
