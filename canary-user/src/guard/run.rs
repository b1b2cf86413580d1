//! The loop: ticks in, decisions carried out, snapshots out. The caller owns the outside world.
//!
//! Goes in: [`Tick`]s, a [`Setup`], the moment to stop. Comes out: a [`Summary`]. Refuses to run where the journal cannot
//! say what was left unfinished. Wall-clock time comes with the ticks; calls to orchestrators never hold the line up.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};

use super::{
    StableShift, Stage,
    calls::{Answer, Caller},
    gates::BREAKER,
    ledger::Ledger,
    line::Line,
};
use crate::{
    config::DeploymentConfig, journal::Journal, judge::Verdict, orchestrator::Orchestrator, targets::Target,
    telemetry::Tick, watch::Snapshot, window::Window,
};

/// What the judge says about one window.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub verdict: Verdict,
    /// By [`Indicator`](crate::window::Indicator) as index.
    pub stable_shift: StableShift,
}

/// One deployment with those who serve it.
pub struct Watched {
    pub config: DeploymentConfig,
    pub window: Box<dyn FnMut(&Tick) -> Window + Send>,
    pub judge: Box<dyn FnMut(&Window) -> Judgement + Send>,
    pub orchestrator: Arc<dyn Orchestrator>,
}

/// Reads a target's incarnation at this moment; `None` = it is gone or cannot be read.
pub type IncarnationNow = Box<dyn Fn(&Target) -> Option<u64> + Send>;

/// What is called with every tick's snapshot.
pub type OnTick = Box<dyn FnMut(&Arc<Snapshot>) + Send>;

/// Everything that the loop needs besides ticks.
pub struct Setup {
    pub deployments: Vec<Watched>,
    pub journal: Journal,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// Called after every tick.
    pub on_tick: Option<OnTick>,
    /// While this file exists, nothing is done.
    pub pause_file: PathBuf,
    /// The last look before an action; live: [`incarnation_below`].
    pub incarnation_now: IncarnationNow,
}

/// How a run went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub ticks: u64,
    /// The last verdict on each deployment.
    pub verdicts: BTreeMap<Arc<str>, Verdict>,
}

/// What all deployments share.
pub(super) struct Desk {
    pub ledger: Ledger,
    pub pause_file: PathBuf,
    pub incarnation_now: IncarnationNow,
}

impl Desk {
    /// Why the guard is paused, in words. What cannot be told counts as paused.
    pub fn paused(&self) -> Option<String> {
        let name = self.pause_file.display();
        match self.pause_file.try_exists() {
            Ok(false) => None,
            Ok(true) => Some(format!("{name} exists; `canary resume` or removing it resumes")),
            Err(e) => Some(format!("cannot tell whether {name} exists: {e}")),
        }
    }
}

/// Looks incarnations up below a cgroup2 mount: the cgroup id is the inode number of the cgroup's directory.
pub fn incarnation_below(root: &Path) -> IncarnationNow {
    let root = root.to_owned();
    Box::new(move |target| {
        let metadata = fs::metadata(root.join(target.cgroup.trim_start_matches('/')));
        if let Err(e) = &metadata
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("look at {} once more: {e}", target.cgroup);
        }
        metadata.ok().map(|m| m.ino())
    })
}

/// Runs until the ticks end or `shutdown` completes. Orchestrator calls that are under way are waited for (each has a
/// deadline) so that their end reaches the journal.
pub async fn run(mut ticks: mpsc::Receiver<Tick>, setup: Setup, shutdown: impl Future<Output = ()>) -> Result<Summary> {
    let (answer_to, mut answers) = mpsc::channel(64);
    let Setup { deployments, journal, snapshots, mut on_tick, pause_file, incarnation_now } = setup;
    let mut lines: Vec<Line> = deployments
        .into_iter()
        .enumerate()
        .map(|(line, watched)| {
            let orchestrator = watched.orchestrator.clone();
            Line::new(watched, Caller { line, orchestrator, answers: answer_to.clone() })
        })
        .collect();
    let mut desk = Desk { ledger: Ledger::new(journal), pause_file, incarnation_now };
    let mut sequence = 0;
    tokio::pin!(shutdown);
    loop {
        let tick = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(answer) = answers.recv() => {
                answered(&mut lines, answer, &mut desk.ledger);
                continue;
            }
            tick = ticks.recv() => match tick {
                Some(tick) => tick,
                None => break,
            },
        };
        lines.iter_mut().for_each(|l| l.clock(&tick));
        if sequence == 0 {
            reconcile(&mut lines, &mut desk.ledger, &tick).await?;
        }
        sequence += 1;
        take(&mut lines, &mut desk, &tick);
        let snapshot = Arc::new(snapshot(&lines, &tick, sequence));
        if let Some(on_tick) = &mut on_tick {
            on_tick(&snapshot);
        }
        snapshots.send_replace(snapshot);
    }
    while lines.iter().any(Line::is_applying) {
        let Some(answer) = answers.recv().await else { break };
        answered(&mut lines, answer, &mut desk.ledger);
    }
    let verdicts = lines.iter().filter_map(|l| Some((l.name().clone(), l.verdict()?.clone()))).collect();
    Ok(Summary { ticks: sequence, verdicts })
}

fn answered(lines: &mut [Line], answer: Answer, ledger: &mut Ledger) {
    if let Some(line) = lines.get_mut(answer.line) {
        line.answered(answer, ledger);
    }
}

/// One tick: all deployments are judged before any is acted on, so that none acts while another is condemned with it.
fn take(lines: &mut [Line], desk: &mut Desk, tick: &Tick) {
    lines.iter_mut().for_each(|l| l.judge(tick, &mut desk.ledger));
    let condemned: Vec<(Arc<str>, u64)> =
        lines.iter().filter_map(|l| Some((l.name().clone(), l.condemned_t_ns()?))).collect();
    for line in lines {
        let near = |t: u64| line.condemned_t_ns().is_some_and(|own| own.abs_diff(t) <= BREAKER.as_nanos() as u64);
        let others = condemned.iter().filter(|(name, t)| name != line.name() && near(*t));
        let elsewhere = others.map(|(name, _)| name.clone()).collect();
        line.act(tick, desk, elsewhere);
    }
}

/// Takes up what an earlier run left unfinished: asks, never sends again.
async fn reconcile(lines: &mut [Line], ledger: &mut Ledger, tick: &Tick) -> Result<()> {
    let unfinished = ledger.unfinished().context("the guard does not run without knowing what it left unfinished")?;
    for (decision, was, _plan) in unfinished {
        match lines.iter_mut().find(|l| *l.name() == decision.deployment) {
            Some(line) => line.reconcile(decision, was, ledger).await,
            None => {
                let detail = format!("left unfinished; {} is no longer configured", decision.deployment);
                tracing::warn!(decision = %decision.id, "{detail}");
                let _ = ledger.stage(&decision.id, Stage::Failed, &detail, tick.unix_ms);
            }
        }
    }
    Ok(())
}

fn snapshot(lines: &[Line], tick: &Tick, sequence: u64) -> Snapshot {
    Snapshot {
        sequence,
        t_ns: tick.t_ns,
        unix_ms: tick.unix_ms,
        span_ns: tick.span_ns,
        machine: tick.machine,
        quality: tick.quality.clone(),
        deployments: lines.iter().filter_map(|l| Some((l.name().clone(), l.view(tick)?))).collect(),
    }
}
