//! The real loop with a real journal on disk, ticks by hand and an orchestrator that can misbehave.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub use super::fake::{Behaviour, Fake, QUARANTINE_MS, plan};
use super::{SECOND_NS, hard, tick, verdict, window};
use crate::{
    config::Config,
    control::{self, Answer, Command, Control},
    daemon,
    guard::{Judging, Record, Setup, Stage, Summary, Watched, run},
    journal::Journal,
    judge::{Earlier, HardFact, KeptControl, Learned, Outcome, Resumed, Verdict},
    orchestrator::Orchestrator,
    targets::Role,
    telemetry::{Sample, Tick, recording::Writer},
    watch::{DecisionView, Snapshot},
    window::{Indicator, Window},
};

struct Running {
    ticks: mpsc::Sender<Tick>,
    snapshots: mpsc::UnboundedReceiver<Arc<Snapshot>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Summary>>,
    control: Control,
}

/// What the judge is to say about a deployment.
pub type Says = (Outcome, Option<HardFact>);

/// A judge that says what the test wants.
struct Scripted {
    line: usize,
    says: Arc<Mutex<Vec<Says>>>,
    because: Arc<Mutex<Indicator>>,
    learned: Arc<Mutex<Option<Learned>>>,
    resets: Arc<Mutex<u32>>,
}

impl Judging for Scripted {
    fn observe(&mut self, window: &Window) -> Verdict {
        match self.says.lock().unwrap()[self.line] {
            (_, Some(fact)) => hard(fact, window.index),
            (outcome, None) => {
                let mut verdict = verdict(outcome, window.index);
                let because = self.because.lock().unwrap().name();
                verdict.causes.iter_mut().for_each(|cause| cause.signal = because.into());
                verdict
            }
        }
    }

    fn learned(&self) -> Option<Learned> {
        self.learned.lock().unwrap().clone()
    }

    fn control(&self) -> Option<KeptControl> {
        None
    }

    fn resume(&mut self, _: KeptControl, _: u64) -> Resumed {
        Resumed::Refused("it says what the test wants".into())
    }

    fn reset_evidence(&mut self) {
        *self.resets.lock().unwrap() += 1;
    }
}

pub struct Rig {
    dir: tempfile::TempDir,
    pub config: Config,
    pub fake: Arc<Fake>,
    /// Instead of the fake, where set.
    pub orchestrator: Option<Arc<dyn Orchestrator>>,
    pub says: Arc<Mutex<Vec<Says>>>,
    /// What leads the causes where it condemns.
    pub because: Arc<Mutex<Indicator>>,
    /// How often it was told to drop its evidence.
    pub resets: Arc<Mutex<u32>>,
    /// The real judge, on real windows of the ticks, in place of one that says what the test wants.
    pub judges: bool,
    /// Where the next life records its ticks.
    pub recording: Option<PathBuf>,
    /// What it has learned.
    pub learned: Arc<Mutex<Option<Learned>>>,
    running: Option<Running>,
    pub second: u64,
    /// How wrong the wall clock is.
    pub wall_clock_off_ms: i64,
}

impl Rig {
    /// `deployments`: names. The budget is wide, so that only the incarnation limits.
    pub fn new(mode: &str, deployments: &[&str]) -> Self {
        Self::with_budget(mode, deployments, "per_hour = 60, cooldown = \"0s\"")
    }

    /// With further keys for each deployment.
    pub fn with_keys(mode: &str, deployments: &[&str], keys: &str) -> Self {
        Self::configured(mode, deployments, &format!("budget = {{ per_hour = 60, cooldown = \"0s\" }}\n{keys}"))
    }

    pub fn with_budget(mode: &str, deployments: &[&str], budget: &str) -> Self {
        Self::configured(mode, deployments, &format!("budget = {{ {budget} }}"))
    }

    fn configured(mode: &str, deployments: &[&str], keys: &str) -> Self {
        // In memory where there is such a place: a journal syncs a lot.
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let text: String = deployments
            .iter()
            .map(|d| {
                format!(
                    "[[deployment]]\nname = \"{d}\"\nmode = \"{mode}\"\n{keys}\n\
                     stable = {{ cgroup = \"/{d}/v1\" }}\ncanary = {{ cgroup = \"/{d}/v2\" }}\n"
                )
            })
            .collect();
        let fake = Fake::new(dir.path());
        Self {
            config: Config::parse(&text, "test").unwrap(),
            fake: Arc::new(fake),
            orchestrator: None,
            says: Arc::new(Mutex::new(vec![(Outcome::Healthy, None); deployments.len()])),
            because: Arc::new(Mutex::new(Indicator::CpuPerWork)),
            resets: Arc::default(),
            judges: false,
            recording: None,
            learned: Arc::default(),
            running: None,
            second: 0,
            wall_clock_off_ms: 0,
            dir,
        }
    }

    pub fn journal_path(&self) -> PathBuf {
        self.path("journal.db")
    }

    /// A file of this rig's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn journal(&self) -> Journal {
        Journal::open(&self.journal_path()).unwrap()
    }

    pub fn journal_to_read(&self) -> Option<Journal> {
        Journal::open_to_read(&self.journal_path()).ok()
    }

    /// Makes the disk refuse rows of a table: SQL for a trigger's condition.
    pub fn refuse(&self, table: &str, when: &str) {
        drop(self.journal());
        let db = rusqlite::Connection::open(self.journal_path()).unwrap();
        let sql = format!(
            "CREATE TRIGGER full BEFORE INSERT ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        );
        db.execute_batch(&sql).unwrap();
    }

    /// Lets it take rows again.
    pub fn accept(&self) {
        let db = rusqlite::Connection::open(self.journal_path()).unwrap();
        db.execute_batch("DROP TRIGGER IF EXISTS full").unwrap();
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn pause(&self, paused: bool) {
        match paused {
            true => std::fs::write(self.dir.path().join("pause"), "").unwrap(),
            false => drop(std::fs::remove_file(self.dir.path().join("pause"))),
        }
    }

    pub fn says(&self, outcome: Outcome, hard: Option<HardFact>) {
        self.says.lock().unwrap().iter_mut().for_each(|s| *s = (outcome, hard));
    }

    pub fn applies(&self) -> usize {
        self.fake.applied.lock().unwrap().len()
    }

    fn start(&mut self) {
        let orchestrator = || self.orchestrator.clone().unwrap_or_else(|| self.fake.clone());
        let deployments = self.config.deployments.iter().enumerate().map(|(line, config)| {
            let (name, mut index) = (config.name.clone(), 0);
            let (mut windower, judge) = daemon::line(name.clone(), config.judge.clone(), &Earlier::default());
            let scripted = Scripted {
                line,
                says: self.says.clone(),
                because: self.because.clone(),
                learned: self.learned.clone(),
                resets: self.resets.clone(),
            };
            let of_test = move |tick: &Tick| {
                index += 1;
                window(&name, index - 1, tick)
            };
            let judge: Box<dyn Judging> = if self.judges { Box::new(judge) } else { Box::new(scripted) };
            Watched {
                config: config.clone(),
                window: if self.judges { Box::new(move |tick: &Tick| windower.push(tick)) } else { Box::new(of_test) },
                judge,
                orchestrator: orchestrator(),
            }
        });
        let (ticks, from_ticks) = mpsc::channel(1);
        let (seen, snapshots) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (control, requests) = control::channel();
        let found_now = self.fake.found_now.clone();
        let setup = Setup {
            deployments: deployments.collect(),
            journal: self.journal(),
            snapshots: watch::channel(Arc::default()).0,
            // On the line, so that all is written when a tick is over.
            record: self.recording.as_ref().map(|path| {
                let mut writer = Writer::create(path, SECOND_NS).unwrap();
                Box::new(move |tick: &Tick| writer.tick(tick).unwrap()) as Record
            }),
            on_entry: None,
            on_tick: Some(Box::new(move |s| drop(seen.send(s.clone())))),
            pause_file: self.dir.path().join("pause"),
            requests: Some(requests),
            incarnation_now: Box::new(move |t| found_now.lock().unwrap().or(Some(t.incarnation))),
        };
        let task = tokio::spawn(run(from_ticks, setup, async { drop(stopped.await) }));
        self.running = Some(Running { ticks, snapshots, stop, task, control });
    }

    /// One tick through the loop, which is started where it is not running; then everything that is ready has run.
    pub async fn tick(&mut self, samples: Vec<Sample>) -> Arc<Snapshot> {
        if self.running.is_none() {
            self.start();
        }
        let running = self.running.as_mut().unwrap();
        let stable = samples.iter().filter(|s| s.target.role == Role::Stable && s.populated == Some(true)).count();
        *self.fake.latest.lock().unwrap() = (self.second, stable);
        let mut tick = tick(self.second, samples);
        tick.unix_ms = tick.unix_ms.saturating_add_signed(self.wall_clock_off_ms);
        running.ticks.send(tick).await.unwrap();
        self.second += 1;
        let snapshot = running.snapshots.recv().await.expect("the loop runs");
        settle().await;
        snapshot
    }

    /// What a person is answered; the loop has to have seen a tick.
    pub async fn ask(&self, command: Command) -> Answer {
        let control = &self.running.as_ref().expect("the loop runs").control;
        control.ask(command, "root".into()).await
    }

    /// The latest decision as watchers see it after one more tick.
    pub async fn decision(&mut self, samples: Vec<Sample>) -> Option<DecisionView> {
        self.tick(samples).await.deployments["checkout"].decision.clone()
    }

    /// Ends the loop as a signal would, and waits for it.
    pub async fn stop(&mut self) -> Option<Summary> {
        let running = self.running.take()?;
        let _ = running.stop.send(());
        Some(running.task.await.unwrap().unwrap())
    }

    /// Ends the loop as SIGKILL would: nothing more runs.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            let _ = running.task.await;
        }
    }

    /// Each decision's stages, newest decision first.
    pub fn stages(&self) -> Vec<Vec<Stage>> {
        let history = self.journal().history(1000).unwrap();
        history.iter().map(|e| e.stages.iter().map(|s| s.stage).collect()).collect()
    }

    /// What the last stage of the newest decision says.
    pub fn last_detail(&self) -> String {
        self.journal().history(1).unwrap()[0].stages.last().unwrap().detail.clone()
    }
}

/// Time is paused: it moves on only when nothing is left to run.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
