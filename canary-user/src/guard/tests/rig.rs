//! The real loop with a real journal on disk, ticks by hand and an orchestrator that can misbehave.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, bail};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{calm, hard, tick, verdict, window};
use crate::{
    config::Config,
    guard::{Decision, Judgement, Setup, Stage, Summary, Watched, run},
    journal::Journal,
    judge::{HardFact, Outcome},
    orchestrator::{BoxFuture, Orchestrator, Plan, State},
    targets::Target,
    telemetry::Sample,
    watch::{DecisionView, Snapshot},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Succeeds,
    Refuses,
    Hangs,
    Panics,
}

/// Counts its calls, and notes calls that should not have been made.
pub struct Fake {
    pub behaviour: Mutex<Behaviour>,
    pub state: Mutex<State>,
    pub applied: Mutex<Vec<Vec<Target>>>,
    pub while_paused: Mutex<u32>,
    /// Someone pauses the guard between the plan and the call.
    pub pauses_in_plan: Mutex<bool>,
    pause_file: PathBuf,
}

impl Orchestrator for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn plan(&self, d: &Decision) -> Plan {
        if *self.pauses_in_plan.lock().unwrap() {
            std::fs::write(&self.pause_file, "").unwrap();
        }
        Plan {
            orchestrator: "fake".into(),
            steps: vec![format!("stop {}", d.deployment)],
            inverse: Some("start".into()),
        }
    }

    fn apply<'a>(&'a self, decision: &'a Decision) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.applied.lock().unwrap().push(decision.canary.clone());
            *self.while_paused.lock().unwrap() += u32::from(self.pause_file.exists());
            let behaviour = *self.behaviour.lock().unwrap();
            match behaviour {
                Behaviour::Succeeds => Ok(()),
                Behaviour::Refuses => bail!("no such unit"),
                Behaviour::Hangs => std::future::pending().await,
                Behaviour::Panics => panic!("the fake orchestrator panics, as this test wants"),
            }
        })
    }

    fn state<'a>(&'a self, _: &'a Decision) -> BoxFuture<'a, Result<State>> {
        Box::pin(async { Ok(*self.state.lock().unwrap()) })
    }
}

struct Running {
    ticks: mpsc::Sender<crate::telemetry::Tick>,
    snapshots: mpsc::UnboundedReceiver<Arc<Snapshot>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Summary>>,
}

/// What the judge is to say about a deployment.
pub type Says = (Outcome, Option<HardFact>);

pub struct Rig {
    dir: tempfile::TempDir,
    config: Config,
    pub fake: Arc<Fake>,
    /// Instead of the fake, where set.
    pub orchestrator: Option<Arc<dyn Orchestrator>>,
    pub says: Arc<Mutex<Vec<Says>>>,
    /// What the last look finds; `None` = the incarnation that was decided on.
    pub found_now: Arc<Mutex<Option<u64>>>,
    running: Option<Running>,
    pub second: u64,
}

impl Rig {
    /// `deployments`: names. The budget is wide, so that only the incarnation limits.
    pub fn new(mode: &str, deployments: &[&str]) -> Self {
        Self::with_budget(mode, deployments, "per_hour = 60, cooldown = \"0s\"")
    }

    pub fn with_budget(mode: &str, deployments: &[&str], budget: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text: String = deployments
            .iter()
            .map(|d| {
                format!(
                    "[[deployment]]\nname = \"{d}\"\nmode = \"{mode}\"\nbudget = {{ {budget} }}\n\
                     stable = {{ cgroup = \"/{d}/v1\" }}\ncanary = {{ cgroup = \"/{d}/v2\" }}\n"
                )
            })
            .collect();
        let fake = Fake {
            behaviour: Mutex::new(Behaviour::Succeeds),
            state: Mutex::new(State::InEffect),
            applied: Mutex::default(),
            while_paused: Mutex::default(),
            pauses_in_plan: Mutex::default(),
            pause_file: dir.path().join("pause"),
        };
        Self {
            config: Config::parse(&text, "test").unwrap(),
            fake: Arc::new(fake),
            orchestrator: None,
            says: Arc::new(Mutex::new(vec![(Outcome::Healthy, None); deployments.len()])),
            found_now: Arc::default(),
            running: None,
            second: 0,
            dir,
        }
    }

    pub fn journal_path(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }

    pub fn journal(&self) -> Journal {
        Journal::open(&self.journal_path()).unwrap()
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
            let (name, says, mut index) = (config.name.clone(), self.says.clone(), 0);
            Watched {
                config: config.clone(),
                window: Box::new(move |tick| {
                    index += 1;
                    window(&name, index - 1, tick)
                }),
                judge: Box::new(move |w| {
                    let verdict = match says.lock().unwrap()[line] {
                        (_, Some(fact)) => hard(fact, w.index),
                        (outcome, None) => verdict(outcome, w.index),
                    };
                    Judgement { verdict, stable_shift: calm() }
                }),
                orchestrator: orchestrator(),
            }
        });
        let (ticks, from_ticks) = mpsc::channel(1);
        let (seen, snapshots) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let found_now = self.found_now.clone();
        let setup = Setup {
            deployments: deployments.collect(),
            journal: self.journal(),
            snapshots: watch::channel(Arc::default()).0,
            on_tick: Some(Box::new(move |s| drop(seen.send(s.clone())))),
            pause_file: self.dir.path().join("pause"),
            incarnation_now: Box::new(move |t| found_now.lock().unwrap().or(Some(t.incarnation))),
        };
        let task = tokio::spawn(run(from_ticks, setup, async { drop(stopped.await) }));
        self.running = Some(Running { ticks, snapshots, stop, task });
    }

    /// One tick through the loop, which is started where it is not running; then everything that is ready has run.
    pub async fn tick(&mut self, samples: Vec<Sample>) -> Arc<Snapshot> {
        if self.running.is_none() {
            self.start();
        }
        let running = self.running.as_mut().unwrap();
        running.ticks.send(tick(self.second, samples)).await.unwrap();
        self.second += 1;
        let snapshot = running.snapshots.recv().await.expect("the loop runs");
        settle().await;
        snapshot
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
