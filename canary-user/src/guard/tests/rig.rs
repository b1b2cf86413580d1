//! The real loop with a real journal on disk, ticks by hand and an orchestrator that can misbehave.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, anyhow};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{hard, tick, verdict, window};
use crate::{
    config::Config,
    control::{self, Answer, Command, Control},
    daemon,
    guard::{Action, Decision, Judging, Setup, Stage, Summary, Watched, run},
    journal::Journal,
    judge::{Earlier, HardFact, KeptControl, Learned, Outcome, Resumed, Verdict},
    orchestrator::{BoxFuture, Error, Found, Orchestrator, Plan, State, pause::Paused},
    targets::{Role, Target},
    telemetry::{Sample, Tick},
    watch::{DecisionView, Snapshot},
    window::{Indicator, Window},
};

/// How long the fake's quarantines last.
pub const QUARANTINE_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Succeeds,
    Refuses,
    Fails,
    Hangs,
    Panics,
    DoesItLate,
    DoesItAndFails,
    DoesItAndHangs,
}

/// Counts its calls, and notes calls that should not have been made.
pub struct Fake {
    pub behaviour: Mutex<Behaviour>,
    pub state: Mutex<State>,
    pub applied: Mutex<Vec<Vec<Target>>>,
    pub while_paused: Mutex<u32>,
    /// Until which second a person has paused the guard.
    pub paused_until: Mutex<u64>,
    /// Calls without their intent on disk, and calls that left too few of stable.
    pub unrecorded: Mutex<u32>,
    pub below_minimum: Mutex<u32>,
    /// Calls while another one leads.
    pub without_lead: Mutex<u32>,
    /// Calls for a canary that was replaced by then.
    pub while_replaced: Mutex<u32>,
    /// IDs of the decisions that it was called for, and of those that are in effect.
    pub called: Mutex<Vec<String>>,
    pub in_effect: Mutex<BTreeSet<String>>,
    /// Whether it says what is, and not `state`.
    pub is_honest: Mutex<bool>,
    /// IDs of which it says that they are gone, whatever `state` is, because it was asked to take them back.
    pub taken_back: Mutex<BTreeSet<String>>,
    /// The second of the latest tick, and the instances of stable in it.
    pub latest: Mutex<(u64, usize)>,
    /// Someone pauses the guard between the plan and the call.
    pub pauses_in_plan: Mutex<bool>,
    /// What it is asked to take back, each time.
    pub undone: Mutex<Vec<String>>,
    /// How many times taking back fails first.
    pub undo_fails: Mutex<u32>,
    /// How long taking back lasts.
    pub undo_takes: Mutex<Duration>,
    /// Whether it follows instances over the restarts that their manager makes.
    pub knows_runs: Mutex<bool>,
    /// Whether its plans can be taken back by the guard.
    pub can_undo: Mutex<bool>,
    pub leads: Mutex<bool>,
    /// What a last look finds; `None` = the incarnation that was decided on.
    pub found_now: Arc<Mutex<Option<u64>>>,
    /// How often somebody who means to act asked whether it leads.
    pub asked_lead: Mutex<u32>,
    /// Why it will not do anything, said when it is asked for its plan.
    pub will_not: Mutex<Option<String>>,
    /// How it was told to ask for pauses.
    pub asks_for_pauses: Mutex<Option<Paused>>,
    pause_file: PathBuf,
    journal: PathBuf,
}

/// What the fake says that it would do.
pub fn plan(d: &Decision) -> Plan {
    let steps = d.canary.iter().map(|t| format!("stop {}, if it is still {}", t.cgroup, t.incarnation)).collect();
    let plan = Plan { orchestrator: "fake".into(), steps, inverse: Some("start".into()), ..Plan::default() };
    match d.action {
        Action::Quarantine => Plan { undo: Some("weights".into()), ends_after_ms: Some(QUARANTINE_MS), ..plan },
        _ => plan,
    }
}

impl Orchestrator for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn describe<'a>(&'a self, d: &'a Decision) -> BoxFuture<'a, Result<Plan, Error>> {
        if *self.pauses_in_plan.lock().unwrap() {
            std::fs::write(&self.pause_file, "").unwrap();
        }
        let will_not = self.will_not.lock().unwrap().clone();
        Box::pin(async move {
            match will_not {
                Some(why) => Err(Error::Refused(why)),
                None if *self.can_undo.lock().unwrap() => Ok(Plan { undo: Some("start".into()), ..plan(d) }),
                None => Ok(plan(d)),
            }
        })
    }

    fn apply<'a>(&'a self, decision: &'a Decision, planned: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.applied.lock().unwrap().push(decision.canary.clone());
            self.called.lock().unwrap().push(decision.id.clone());
            let (second, stable) = *self.latest.lock().unwrap();
            let paused = self.pause_file.exists() || second < *self.paused_until.lock().unwrap();
            *self.while_paused.lock().unwrap() += u32::from(paused);
            *self.below_minimum.lock().unwrap() += u32::from(stable == 0);
            *self.without_lead.lock().unwrap() += u32::from(!*self.leads.lock().unwrap());
            let found = *self.found_now.lock().unwrap();
            let replaced = found.is_some_and(|now| decision.canary.iter().any(|target| target.incarnation != now));
            *self.while_replaced.lock().unwrap() += u32::from(replaced);
            let entry = Journal::open_to_read(&self.journal).unwrap().entry(&decision.id).unwrap();
            let recorded =
                entry.is_some_and(|e| e.stages.iter().any(|s| s.stage == Stage::Applying) && e.plan.inverse.is_some());
            *self.unrecorded.lock().unwrap() += u32::from(!recorded);
            if planned.steps != plan(decision).steps {
                return Err(Error::Refused("what there is to do has changed since it was planned".into()));
            }
            let behaviour = *self.behaviour.lock().unwrap();
            match behaviour {
                Behaviour::Succeeds => {
                    self.in_effect.lock().unwrap().insert(decision.id.clone());
                    Ok(())
                }
                Behaviour::DoesItLate => {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    self.in_effect.lock().unwrap().insert(decision.id.clone());
                    Ok(())
                }
                Behaviour::DoesItAndFails => {
                    self.in_effect.lock().unwrap().insert(decision.id.clone());
                    Err(anyhow!("the connection broke").into())
                }
                Behaviour::DoesItAndHangs => {
                    self.in_effect.lock().unwrap().insert(decision.id.clone());
                    std::future::pending().await
                }
                Behaviour::Refuses => Err(Error::Refused("no such unit".into())),
                Behaviour::Fails => Err(anyhow!("the connection broke").into()),
                Behaviour::Hangs => std::future::pending().await,
                // Without the hook that writes a backtrace: it happens thousands of times.
                Behaviour::Panics => std::panic::resume_unwind(Box::new("as this test wants")),
            }
        })
    }

    fn state<'a>(&'a self, d: &'a Decision) -> BoxFuture<'a, Result<Found>> {
        Box::pin(async {
            let holds = self.in_effect.lock().unwrap().contains(&d.id);
            let state = match *self.is_honest.lock().unwrap() {
                true if holds => State::InEffect,
                true => State::NotInEffect,
                false if !holds && self.taken_back.lock().unwrap().contains(&d.id) => State::NotInEffect,
                false => *self.state.lock().unwrap(),
            };
            Ok(Found { state, detail: "as the test says".into() })
        })
    }

    fn undo<'a>(&'a self, d: &'a Decision, _: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            self.undone.lock().unwrap().push(d.id.clone());
            let takes = *self.undo_takes.lock().unwrap();
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            let mut fails = self.undo_fails.lock().unwrap();
            if *fails > 0 {
                *fails -= 1;
                return Err(anyhow!("the connection broke").into());
            }
            self.taken_back.lock().unwrap().insert(d.id.clone());
            self.in_effect.lock().unwrap().remove(&d.id);
            Ok(())
        })
    }

    fn knows_runs(&self) -> bool {
        *self.knows_runs.lock().unwrap()
    }

    fn leader(&self) -> Result<String, String> {
        *self.asked_lead.lock().unwrap() += 1;
        self.standing()
    }

    fn standing(&self) -> Result<String, String> {
        let leads = *self.leads.lock().unwrap();
        if leads { Ok("it holds the lease".into()) } else { Err("another one holds the lease".into()) }
    }

    fn heed_pauses(&self, paused: Paused) {
        *self.asks_for_pauses.lock().unwrap() = Some(paused);
    }
}

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
        let fake = Fake {
            behaviour: Mutex::new(Behaviour::Succeeds),
            state: Mutex::new(State::InEffect),
            applied: Mutex::default(),
            while_paused: Mutex::default(),
            paused_until: Mutex::default(),
            unrecorded: Mutex::default(),
            below_minimum: Mutex::default(),
            while_replaced: Mutex::default(),
            without_lead: Mutex::default(),
            found_now: Arc::default(),
            called: Mutex::default(),
            in_effect: Mutex::default(),
            is_honest: Mutex::default(),
            taken_back: Mutex::default(),
            latest: Mutex::default(),
            journal: dir.path().join("journal.db"),
            pauses_in_plan: Mutex::default(),
            will_not: Mutex::default(),
            asks_for_pauses: Mutex::default(),
            undone: Mutex::default(),
            undo_fails: Mutex::default(),
            can_undo: Mutex::default(),
            knows_runs: Mutex::default(),
            undo_takes: Mutex::default(),
            leads: Mutex::new(true),
            asked_lead: Mutex::default(),
            pause_file: dir.path().join("pause"),
        };
        Self {
            config: Config::parse(&text, "test").unwrap(),
            fake: Arc::new(fake),
            orchestrator: None,
            says: Arc::new(Mutex::new(vec![(Outcome::Healthy, None); deployments.len()])),
            because: Arc::new(Mutex::new(Indicator::CpuPerWork)),
            resets: Arc::default(),
            judges: false,
            learned: Arc::default(),
            running: None,
            second: 0,
            wall_clock_off_ms: 0,
            dir,
        }
    }

    pub fn journal_path(&self) -> PathBuf {
        self.dir.path().join("journal.db")
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
