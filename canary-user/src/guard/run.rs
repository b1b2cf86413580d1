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
    Moment, Stage,
    calls::{Answer, Caller},
    commands,
    desk::Desk,
    gates::BREAKER,
    ledger::{Ledger, OnEntry},
    line::Line,
};
use crate::{
    config::DeploymentConfig,
    control::Request,
    journal::Journal,
    judge::{Judge, KeptControl, Learned, Resumed, Verdict},
    orchestrator::Orchestrator,
    targets::Target,
    telemetry::Tick,
    watch::Snapshot,
    window::Window,
};

/// One deployment with those who serve it.
pub struct Watched {
    pub config: DeploymentConfig,
    pub window: Box<dyn FnMut(&Tick) -> Window + Send>,
    pub judge: Box<dyn Judging>,
    pub orchestrator: Arc<dyn Orchestrator>,
}

/// What judges the windows of one deployment.
pub trait Judging: Send {
    fn observe(&mut self, window: &Window) -> Verdict;

    /// What later rollouts of the service should know; `None` while it is little.
    fn learned(&self) -> Option<Learned>;

    /// How far stable has been held against what it was before a promotion; `None` while it is not.
    fn control(&self) -> Option<KeptControl>;

    /// Goes on with what an earlier life of the guard left of that, `missed` windows later.
    fn resume(&mut self, kept: KeptControl, missed: u64) -> Resumed;

    /// Drops all that speaks for or against the canary that is there.
    fn reset_evidence(&mut self);
}

impl Judging for Judge {
    fn observe(&mut self, window: &Window) -> Verdict {
        Judge::observe(self, window)
    }

    fn learned(&self) -> Option<Learned> {
        Judge::learned(self)
    }

    fn control(&self) -> Option<KeptControl> {
        Judge::control(self)
    }

    fn resume(&mut self, kept: KeptControl, missed: u64) -> Resumed {
        Judge::resume(self, kept, missed)
    }

    fn reset_evidence(&mut self) {
        Judge::reset_evidence(self);
    }
}

/// Reads a target's incarnation at this moment; `None` = it is gone or cannot be read.
pub type IncarnationNow = Box<dyn Fn(&Target) -> Option<u64> + Send>;

/// What is called with every tick's snapshot.
pub type OnTick = Box<dyn FnMut(&Arc<Snapshot>) + Send>;

/// What is called with every tick that was judged, before anything follows from it, on the line: it must not block.
pub type Record = Box<dyn FnMut(&Tick) + Send>;

/// Everything that the loop needs besides ticks.
pub struct Setup {
    pub deployments: Vec<Watched>,
    pub journal: Journal,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// Keeps the ticks, with what the verdicts on them rest on besides.
    pub record: Option<Record>,
    /// Called after every tick.
    pub on_tick: Option<OnTick>,
    /// Called with everything that goes into the journal.
    pub on_entry: Option<OnEntry>,
    /// While this file exists, nothing is done.
    pub pause_file: PathBuf,
    /// The last look before an action; live: [`incarnation_below`].
    pub incarnation_now: IncarnationNow,
    /// What people ask of the running guard; `None` = nobody can.
    pub requests: Option<mpsc::Receiver<Request>>,
}

/// How a run went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub ticks: u64,
    /// The last verdict on each deployment.
    pub verdicts: BTreeMap<Arc<str>, Verdict>,
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
    let Setup {
        deployments,
        journal,
        snapshots,
        mut record,
        mut on_tick,
        on_entry,
        pause_file,
        incarnation_now,
        mut requests,
    } = setup;
    let mut desk = Desk::new(Ledger::new(journal, on_entry), pause_file, incarnation_now);
    let mut lines: Vec<Line> = deployments
        .into_iter()
        .enumerate()
        .map(|(line, watched)| {
            let orchestrator = watched.orchestrator.clone();
            orchestrator.heed_pauses(desk.for_orchestrators());
            Line::new(watched, Caller { line, orchestrator, answers: answer_to.clone() })
        })
        .collect();
    let mut sequence = 0;
    let mut latest: Option<Tick> = None;
    tokio::pin!(shutdown);
    loop {
        let mut tick = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(answer) = answers.recv() => {
                answered(&mut lines, answer, latest.as_ref(), &mut desk);
                continue;
            }
            // Before the first tick there is no time to answer at, and what was left unfinished is not known.
            Some(request) = next(&mut requests), if latest.is_some() => {
                let tick = latest.as_ref().expect("asked for just above");
                commands::answer(&mut lines, &mut desk, tick, request);
                continue;
            }
            tick = ticks.recv() => match tick {
                Some(tick) => tick,
                None => break,
            },
        };
        desk.now = Moment { unix_ms: tick.unix_ms, t_ns: tick.t_ns };
        lines.iter_mut().for_each(|l| l.clock(&tick));
        if sequence == 0 {
            desk.remember_pauses()?;
            reconcile(&mut lines, &mut desk.ledger, desk.now).await?;
        }
        desk.end_pauses();
        desk.ledger.forget(desk.now);
        sequence += 1;
        take(&mut lines, &mut desk, &mut tick, record.as_mut());
        let snapshot = Arc::new(snapshot(&lines, &tick, sequence, &desk));
        // First, so that what is served is never behind what is told.
        snapshots.send_replace(snapshot.clone());
        if let Some(on_tick) = &mut on_tick {
            on_tick(&snapshot);
        }
        latest = Some(tick);
    }
    desk.is_stopping = true;
    while lines.iter().any(Line::is_waiting) {
        let Some(answer) = answers.recv().await else { break };
        answered(&mut lines, answer, latest.as_ref(), &mut desk);
    }
    lines.iter_mut().for_each(|l| l.hand_down(&mut desk.ledger));
    let verdicts = lines.iter().filter_map(|l| Some((l.name().clone(), l.verdict()?.clone()))).collect();
    Ok(Summary { ticks: sequence, verdicts })
}

/// The next request; never, where nobody can ask.
async fn next(requests: &mut Option<mpsc::Receiver<Request>>) -> Option<Request> {
    match requests {
        Some(requests) => requests.recv().await,
        None => std::future::pending().await,
    }
}

fn answered(lines: &mut [Line], answer: Answer, tick: Option<&Tick>, desk: &mut Desk) {
    if let Some(line) = lines.get_mut(answer.line) {
        line.answered(answer, tick, desk);
    }
}

/// One tick: all deployments are judged before any is acted on, so that none acts while another is condemned with it. In
/// between it is recorded.
fn take(lines: &mut [Line], desk: &mut Desk, tick: &mut Tick, record: Option<&mut Record>) {
    for line in lines.iter_mut() {
        line.judge(tick, &mut desk.ledger);
    }
    tick.limits = lines.iter().filter_map(|l| Some((l.name().clone(), l.limits()?.clone()))).collect();
    let tick: &Tick = tick;
    if let Some(record) = record {
        record(tick);
    }
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
async fn reconcile(lines: &mut [Line], ledger: &mut Ledger, now: Moment) -> Result<()> {
    let past = "the guard does not run without its own past";
    for line in lines.iter_mut() {
        line.remember(ledger.past(line.name(), now).context(past)?, now, ledger);
        line.remember_control(ledger);
    }
    let unfinished = ledger.unfinished().context("the guard does not run without knowing what it left unfinished")?;
    for entry in unfinished {
        match lines.iter_mut().find(|l| *l.name() == entry.decision.deployment) {
            Some(line) => line.reconcile(entry, ledger).await,
            None => {
                let id = &entry.decision.id;
                let detail = format!("left unfinished; {} is no longer configured", entry.decision.deployment);
                tracing::warn!(decision = %id, "{detail}");
                let _ = ledger.stage(id, Stage::Failed, &detail, now);
            }
        }
    }
    Ok(())
}

fn snapshot(lines: &[Line], tick: &Tick, sequence: u64, desk: &Desk) -> Snapshot {
    Snapshot {
        sequence,
        t_ns: tick.t_ns,
        unix_ms: tick.unix_ms,
        span_ns: tick.span_ns,
        machine: tick.machine,
        own: tick.own.clone(),
        quality: tick.quality.clone(),
        paused: desk.paused(),
        journal_failure: desk.ledger.failure().cloned(),
        deployments: lines.iter().filter_map(|l| Some((l.name().clone(), l.view(tick, desk)?))).collect(),
    }
}
