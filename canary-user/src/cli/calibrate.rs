//! `canary calibrate`: the judge on the user's own service with nothing wrong: each stable instance, or each set of some, as if it
//! were the canary.

mod equals;
mod found;
mod sets;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use equals::Service;
use found::Found;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Output, record, replay};
use crate::{
    config::{self, Config},
    judge::Parameters,
    targets::Role,
    telemetry::{Tick, recording::Reader},
};

const NOTES: &str = "\
The canary of a recording is left out. Needs two instances of stable at once;
with three or more the noise is learned from the others. With --canaries 2,
each pair of them is taken as the canary in turn, which needs three at once,
better four. Of more than 64 sets of a recording 64 are taken, evenly, which
is said. With --live the cgroups of the configuration are recorded first,
which needs what `canary run` needs. A recording is read twice, and may be
larger than memory is. The smallest changes are computed from the noise, for
a change that is there when judging begins. Comparisons share their instances
and are not independent: the interval of what was condemned is narrower than
it should be.
Exit code: 0, whatever is found; 1 where there is nothing to calibrate on.

Examples:
  canary calibrate run.jsonl
  canary calibrate monday.jsonl tuesday.jsonl --what-if alpha=0.01
  canary calibrate run.jsonl --canaries 2
  canary calibrate run.jsonl --output json
  canary calibrate --config canary.toml --live 30m";

/// Ask how often the judge would be wrong on your service, and how small a change it would find.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Recordings, as `canary record` or `--record` makes them [default: none, with --live]
    #[arg(required_unless_present = "live")]
    pub files: Vec<PathBuf>,
    /// Record the service for so long first, such as 30m [default: use recordings]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "config")]
    pub live: Option<Duration>,
    /// Use the [judge] settings of this configuration, and its cgroups with --live [default: the judge's defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Calibrate as if this key of [judge] had another value; may be given several times [default: as configured]
    #[arg(long = "what-if", value_name = "KEY=VALUE")]
    pub what_if: Vec<String>,
    /// Take so many instances of stable together as if they were the canary; at least one more has to be left
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = canaries)]
    pub canaries: u64,
    /// Windows of each comparison; longer recordings are cut into several [default: whole recordings]
    #[arg(long, value_name = "WINDOWS", value_parser = clap::value_parser!(u64).range(100..))]
    pub segment: Option<u64>,
    #[arg(long, value_enum, default_value_t, help = "text: a table; json: one object {deployment, ...} a line")]
    pub output: Output,
}

/// How many instances of stable stand for the canary; else which numbers are possible, and why. How many stable has is known
/// once a recording is read.
fn canaries(text: &str) -> Result<u64, String> {
    text.parse::<u64>().ok().filter(|k| *k > 0).ok_or_else(|| {
        "write 1 or more, but fewer than stable has instances at once: so many of them stand for the canary, and at \
         least one has to be left to compare them with"
            .to_owned()
    })
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config.as_ref().map(|path| Config::load(path)).transpose()?;
    let parameters = |deployment: &str| {
        let own = config.as_ref().and_then(|c| c.deployments.iter().find(|d| *d.name == *deployment));
        let configured = own.map(|d| &d.judge).or(config.as_ref().map(|c| &c.judge)).cloned().unwrap_or_default();
        config::what_if(&configured, &args.what_if)
    };
    parameters("")?;
    let directory = tempdir(args.live.is_some())?;
    let mut files = args.files.clone();
    if let (Some(duration), Some(directory), Some(config)) = (args.live, &directory, &args.config) {
        let file = directory.0.join("live.jsonl");
        record::run(&record::Args { config: config.clone(), file: file.clone(), duration: Some(duration) })?;
        files.push(file);
    }
    let mut found: BTreeMap<Arc<str>, Found> = BTreeMap::new();
    for file in &files {
        calibrate(file, args, &parameters, &mut found)?;
    }
    ensure!(
        found.values().any(|f| f.comparisons > 0),
        "no deployment has {} instances of stable at once, or no recording is longer than half a segment: there are no \
         equals to compare",
        args.canaries.saturating_add(1)
    );
    for (deployment, found) in &mut found {
        found.summarize();
        match args.output {
            Output::Json => {
                let mut line = json!(found);
                line["deployment"] = json!(deployment);
                println!("{line}");
            }
            Output::Text => print!("{}", found.describe(deployment)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A directory of its own, gone at the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempdir(wanted: bool) -> anyhow::Result<Option<Directory>> {
    if !wanted {
        return Ok(None);
    }
    let path = std::env::temp_dir().join(format!("canary-calibrate-{}", std::process::id()));
    std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
    Ok(Some(Directory(path)))
}

/// What a recording holds, seen before anything is compared.
#[derive(Default)]
struct Contents {
    ticks: u64,
    /// By deployment: its stable instances, and how many there were at once at most.
    stable: BTreeMap<Arc<str>, (BTreeSet<Arc<str>>, usize)>,
}

impl Contents {
    fn of(ticks: impl Iterator<Item = anyhow::Result<Tick>>) -> anyhow::Result<Self> {
        let mut contents = Self::default();
        for tick in ticks {
            let tick = tick?;
            contents.ticks += 1;
            let mut now: BTreeMap<&Arc<str>, BTreeSet<&Arc<str>>> = BTreeMap::new();
            for target in tick.samples.iter().map(|s| &s.target).filter(|t| t.role == Role::Stable) {
                now.entry(&target.deployment).or_default().insert(&target.cgroup);
            }
            for (deployment, at_once) in now {
                let (names, most) = contents.stable.entry(deployment.clone()).or_default();
                *most = at_once.len().max(*most);
                names.extend(at_once.into_iter().cloned());
            }
        }
        Ok(contents)
    }
}

/// Reads the recording twice: which instances there are is known at its end only, and it may be larger than memory is.
fn calibrate(
    file: &Path,
    args: &Args,
    parameters: &dyn Fn(&str) -> anyhow::Result<Parameters>,
    found: &mut BTreeMap<Arc<str>, Found>,
) -> anyhow::Result<()> {
    let name = file.display();
    let is_file = std::fs::metadata(file).with_context(|| format!("open recording {name}"))?.is_file();
    ensure!(is_file, "{name} is no file: a recording is read twice, write it to one first");
    let contents = Contents::of(Reader::open(file)?)?;
    let reader = Reader::open(file)?;
    let window_s = reader.header().window_ns as f64 / 1e9;
    let known = replay::earlier(&reader, file)?;
    let mut services = Vec::new();
    for (deployment, (names, most_at_once)) in &contents.stable {
        let Some(left) = (*most_at_once as u64).checked_sub(args.canaries).filter(|left| *left > 0) else {
            let k = args.canaries;
            eprintln!(
                "{name}: {deployment} is left out: {most_at_once} stable at once, and {k} as the canary takes {}, or \
                 better {}",
                k.saturating_add(1),
                k.saturating_add(2)
            );
            continue;
        };
        let sets = sets::sets(names, args.canaries as usize);
        let entry = found.entry(deployment.clone()).or_default();
        entry.window_s = window_s;
        entry.names.extend(names.iter().cloned());
        entry.canaries = args.canaries;
        entry.sets = entry.sets.saturating_add(sets.len() as u64);
        entry.sets_possible = entry.sets_possible.saturating_add(sets::possible(names.len() as u64, args.canaries));
        entry.stable_left = Some(entry.stable_left.map_or(left, |least| least.min(left)));
        let earlier = known.get(&**deployment).cloned().unwrap_or_default();
        services.push(Service { deployment: deployment.clone(), p: parameters(deployment)?, earlier, sets });
    }
    if services.is_empty() {
        return Ok(());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} windows, {eta} left")?;
    let bar = ProgressBar::new(contents.ticks).with_style(style);
    let segment = args.segment.unwrap_or(contents.ticks);
    // What a guard that is still recording adds meanwhile is left.
    let ticks = bar.wrap_iter(reader).take(contents.ticks as usize);
    equals::compare(ticks, (contents.ticks, segment), &services, found).with_context(|| name.to_string())?;
    bar.finish_and_clear();
    Ok(())
}
