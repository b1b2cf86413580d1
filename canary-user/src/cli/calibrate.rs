//! `canary calibrate`: the judge on the user's own service with nothing wrong: each stable instance in turn as if it were
//! the canary.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::{Output, record, replay};
use crate::{
    config::{self, Config},
    daemon,
    judge::{Earlier, Outcome, Parameters, power},
    targets::Role,
    telemetry::{Sample, Tick, recording::Reader},
    window::{self, Indicator},
};

/// What is asked of each indicator: found within so many minutes.
const MINUTES: [u64; 3] = [1, 5, 30];

const NOTES: &str = "\
The canary of a recording is left out. Needs two instances of stable; with
three or more the noise is learned from the others. With --live the cgroups of
the configuration are recorded first, which needs what `canary run` needs. The
smallest changes are computed from the noise, for a change that is there when
judging begins. Comparisons share their instances and are not independent: the
interval of what was condemned is narrower than it should be.
Exit code: 0, whatever is found; 1 where there is nothing to calibrate on.

Examples:
  canary calibrate run.jsonl
  canary calibrate monday.jsonl tuesday.jsonl --what-if alpha=0.01
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
    /// Windows of each comparison; longer recordings are cut into several [default: whole recordings]
    #[arg(long, value_name = "WINDOWS", value_parser = clap::value_parser!(u64).range(100..))]
    pub segment: Option<u64>,
    #[arg(long, value_enum, default_value_t, help = "text: a table; json: one object {deployment, ...} a line")]
    pub output: Output,
}

/// What was found about one deployment.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// Comparisons of equals: stable instances times recordings times segments.
    comparisons: u64,
    /// Stable instances that these share: they are not independent of one another.
    instances: u64,
    condemned: u64,
    healthy: u64,
    windows: u64,
    window_s: f64,
    /// Share of equals that are condemned, with Wilson's interval of 95 %.
    false_alarms: f64,
    false_alarms_low: f64,
    false_alarms_high: f64,
    indicators: Vec<IndicatorFound>,
    #[serde(skip)]
    names: BTreeSet<Arc<str>>,
    #[serde(skip)]
    samples: Vec<[Option<Noise>; Indicator::COUNT]>,
}

/// Noise of one indicator in one comparison.
#[derive(Clone, Copy, Debug)]
struct Noise {
    sigma: f64,
    long_run: f64,
    margin: f64,
    found: [Option<f64>; MINUTES.len()],
}

/// Medians over the comparisons, as ratios minus one.
#[derive(Debug, Serialize)]
struct IndicatorFound {
    indicator: &'static str,
    #[serde(skip)]
    title: &'static str,
    /// Standard deviation of one window, and of a window's part in a long mean.
    noise: f64,
    long_run_noise: f64,
    margin: f64,
    /// Smallest rise found within 1, 5 and 30 minutes; `None`: none, however large.
    found_in_1_min: Option<f64>,
    found_in_5_min: Option<f64>,
    found_in_30_min: Option<f64>,
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
        "no deployment has two instances of stable at once: there are no equals to compare"
    );
    for (deployment, found) in &mut found {
        summarize(found);
        match args.output {
            Output::Json => {
                let mut line = json!(found);
                line["deployment"] = json!(deployment);
                println!("{line}");
            }
            Output::Text => print!("{}", describe(deployment, found)),
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

fn calibrate(
    file: &Path,
    args: &Args,
    parameters: &dyn Fn(&str) -> anyhow::Result<Parameters>,
    found: &mut BTreeMap<Arc<str>, Found>,
) -> anyhow::Result<()> {
    let reader = Reader::open(file)?;
    let window_s = reader.header().window_ns as f64 / 1e9;
    let known = replay::earlier(&reader, file)?;
    let ticks: Vec<Tick> = reader.collect::<anyhow::Result<_>>()?;
    let segment = args.segment.map_or(ticks.len(), |n| n as usize).max(1);
    let mut stable: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for sample in ticks.iter().flat_map(|t| &t.samples).filter(|s| s.target.role == Role::Stable) {
        stable.entry(sample.target.deployment.clone()).or_default().insert(sample.target.cgroup.clone());
    }
    // A rest that is much shorter than the others says little.
    let segments: Vec<&[Tick]> = ticks.chunks(segment).filter(|s| s.len() * 2 > segment).collect();
    let total: usize = stable.values().filter(|i| i.len() > 1).map(|i| i.len() * segments.len()).sum();
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} comparisons, {eta} left")?;
    let bar = ProgressBar::new(total as u64).with_style(style);
    for (deployment, instances) in stable.iter().filter(|(_, instances)| instances.len() > 1) {
        let p = parameters(deployment)?;
        let entry = found.entry(deployment.clone()).or_default();
        entry.window_s = window_s;
        entry.names.extend(instances.iter().cloned());
        for segment in &segments {
            for instance in instances {
                let earlier = known.get(&**deployment).cloned().unwrap_or_default();
                compare(segment, (deployment, &earlier), instance, &p, entry);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// One stable instance as the canary of the others.
fn compare(
    ticks: &[Tick],
    (deployment, earlier): (&Arc<str>, &Earlier),
    instance: &Arc<str>,
    p: &Parameters,
    found: &mut Found,
) {
    let (mut windower, mut judge) = daemon::line(deployment.clone(), p.clone(), earlier);
    let mut verdict = None;
    let mut condemned = false;
    for tick in ticks {
        let now = judge.observe(&windower.push(&equals(tick, deployment, instance)));
        condemned |= now.outcome == Outcome::Regressed;
        verdict = Some(now);
        found.windows += 1;
    }
    let Some(verdict) = verdict else { return };
    found.comparisons += 1;
    found.condemned += u64::from(condemned);
    found.healthy += u64::from(verdict.outcome == Outcome::Healthy);
    let tracks = judge.tracks();
    let signals = tracks.iter().filter(|t| t.has_data()).count() + verdict.events.iter().filter(|e| !e.missing).count();
    found.samples.push(std::array::from_fn(|i| {
        let track = &tracks[i];
        track.has_baseline(p).then(|| Noise {
            sigma: track.noise.sigma,
            long_run: track.derived.long_run_variance.sqrt(),
            margin: track.margin,
            found: MINUTES.map(|minutes| {
                let windows = (60.0 * minutes as f64 / found.window_s) as u64;
                power::smallest_change(track, signals as f64, windows, p)
            }),
        })
    }));
}

/// The tick as if one stable instance were the canary, and the real canary had not been there.
fn equals(tick: &Tick, deployment: &Arc<str>, instance: &Arc<str>) -> Tick {
    let mut equals = tick.clone();
    if let Some(machine) = &mut equals.machine {
        // Live it is the deployment's own. Left in, it would be others' doing, which excuses waits.
        let left_out = |s: &&Sample| s.target.deployment == *deployment && s.target.role == Role::Canary;
        let used_ns: Option<f64> = tick.samples.iter().filter(left_out).map(window::cpu_ns).sum();
        let capacity_ns = f64::from(machine.cpus) * tick.span_ns as f64;
        match used_ns {
            Some(used_ns) if capacity_ns > 0.0 => machine.cpu_busy -= used_ns / capacity_ns,
            Some(_) => {}
            // Then nobody knows what others used: of no CPUs there is no share.
            None => machine.cpus = 0,
        }
    }
    equals.samples.retain(|s| s.target.deployment == *deployment && s.target.role == Role::Stable);
    for sample in equals.samples.iter_mut().filter(|s| s.target.cgroup == *instance) {
        sample.target.role = Role::Canary;
    }
    equals
}

fn summarize(found: &mut Found) {
    found.instances = found.names.len() as u64;
    let n = found.comparisons as f64;
    (found.false_alarms_low, found.false_alarms_high) = wilson(found.condemned as f64, n);
    found.false_alarms = if n > 0.0 { found.condemned as f64 / n } else { f64::NAN };
    for indicator in Indicator::ALL {
        let noises: Vec<Noise> = found.samples.iter().filter_map(|s| s[indicator as usize]).collect();
        if noises.is_empty() {
            continue;
        }
        let of = |read: &dyn Fn(&Noise) -> f64| median(noises.iter().map(read).collect());
        // "Never" counts as more than any change.
        let in_minutes = |k: usize| {
            let change = median(noises.iter().map(|n| n.found[k].unwrap_or(f64::INFINITY)).collect());
            change.is_finite().then_some(change)
        };
        found.indicators.push(IndicatorFound {
            indicator: indicator.name(),
            title: indicator.title(),
            noise: libm::expm1(of(&|n| n.sigma)),
            long_run_noise: libm::expm1(of(&|n| n.long_run)),
            margin: libm::expm1(of(&|n| n.margin)),
            found_in_1_min: in_minutes(0),
            found_in_5_min: in_minutes(1),
            found_in_30_min: in_minutes(2),
        });
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Wilson's score interval of 95 % for a share of `k` in `n` (Wilson 1927, doi 10.1080/01621459.1927.10502953); all of 0 to 1
/// where there is nothing to tell it from.
fn wilson(k: f64, n: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    const Z: f64 = 1.959_964;
    let (share, z2) = (k / n, Z * Z);
    let centre = share + z2 / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((centre - reach) / scale).max(0.0), ((centre + reach) / scale).min(1.0))
}

fn describe(deployment: &str, found: &Found) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let change = |change: Option<f64>| change.map_or("none".to_owned(), |c| format!("+{:.1} %", 100.0 * c));
    let mut text = format!(
        "{deployment}: {} comparisons of equals among {} instances, {} windows of {} s in all\n    condemned: {} of {}, {} (95 %: {} to {}); healthy at the end: {}\n    the comparisons share these instances and are not independent: the interval is narrower than it should be\n",
        found.comparisons,
        found.instances,
        found.windows,
        found.window_s,
        found.condemned,
        found.comparisons,
        percent(found.false_alarms),
        percent(found.false_alarms_low),
        percent(found.false_alarms_high),
        found.healthy
    );
    if found.indicators.is_empty() {
        return text + "    too few windows to learn the noise from: record for longer\n";
    }
    text += &format!(
        "    {:<22} {:>9} {:>9} {:>9}   smallest rise found in {:>5} {:>9} {:>9}\n",
        "", "noise", "long-run", "margin", "1 min", "5 min", "30 min"
    );
    for i in &found.indicators {
        text += &format!(
            "    {:<22} {:>9} {:>9} {:>9}   {:>28} {:>9} {:>9}\n",
            i.title,
            percent(i.noise),
            percent(i.long_run_noise),
            percent(i.margin),
            change(i.found_in_1_min),
            change(i.found_in_5_min),
            change(i.found_in_30_min)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        targets::Target,
        telemetry::{Cpu, Machine},
        window::Windower,
    };

    const SECOND_NS: u64 = 1_000_000_000;

    fn sample(role: Role, cgroup: &str, on_cpu_ns: Option<u64>) -> Sample {
        let (deployment, version) = ("shop".into(), role.name().into());
        let target = Target { deployment, role, version, cgroup: cgroup.into(), incarnation: 1, identity: None };
        let cpu = on_cpu_ns.map(|on_cpu_ns| Cpu { on_cpu_ns, ..Cpu::default() });
        Sample { cpu, ..Sample::unmeasured(target, SECOND_NS) }
    }

    /// Four CPUs, 60 % busy.
    fn tick(of_canary_ns: Option<u64>) -> Tick {
        let stable = |cgroup: &str| sample(Role::Stable, cgroup, Some(SECOND_NS / 10));
        let samples = vec![stable("/1"), stable("/2"), sample(Role::Canary, "/3", of_canary_ns)];
        let machine = Some(Machine { cpu_busy: 0.6, cpus: 4, ..Machine::default() });
        Tick { span_ns: SECOND_NS, samples, machine, ..Tick::default() }
    }

    /// What the real canary uses is the deployment's own, as it was live.
    #[test]
    fn who_is_left_out_is_no_neighbour() {
        let others = |tick: &Tick| Windower::new("shop".into()).push(tick).node.cpu_others;
        let recorded = tick(Some(2 * SECOND_NS));
        let without = equals(&recorded, &"shop".into(), &"/2".into());
        let roles: Vec<(&str, Role)> = without.samples.iter().map(|s| (&*s.target.cgroup, s.target.role)).collect();
        assert_eq!(roles, [("/1", Role::Stable), ("/2", Role::Canary)]);
        let (live, here) = (others(&recorded).expect("known"), others(&without).expect("known"));
        assert!((live - 0.05).abs() < 1e-12 && (here - live).abs() < 1e-12, "{live} {here}");
        let unknown = tick(None);
        let without = equals(&unknown, &"shop".into(), &"/2".into());
        assert_eq!((others(&unknown), others(&without)), (None, None));
    }

    #[test]
    fn that_comparisons_share_instances_is_said() {
        let names = BTreeSet::from(["/1", "/2", "/3"].map(Arc::<str>::from));
        let mut found = Found { comparisons: 6, window_s: 1.0, names, ..Found::default() };
        summarize(&mut found);
        let text = describe("shop", &found);
        assert!(text.starts_with("shop: 6 comparisons of equals among 3 instances, "), "{text}");
        assert!(text.contains("share these instances and are not independent"), "{text}");
    }

    #[test]
    fn the_interval_is_wilsons() {
        let near = |(low, high): (f64, f64), wanted: (f64, f64)| {
            assert!((low - wanted.0).abs() < 5e-4 && (high - wanted.1).abs() < 5e-4, "{low} {high}");
        };
        // Values from Newcombe 1998, table I: 81 of 263, 0 of 20.
        near(wilson(81.0, 263.0), (0.2553, 0.3662));
        near(wilson(0.0, 20.0), (0.0, 0.1611));
        near(wilson(0.0, 0.0), (0.0, 1.0));
    }
}
