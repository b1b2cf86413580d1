//! An orchestrator that can misbehave, counts its calls, and notes those that should not have been made.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, anyhow};

use crate::{
    guard::{Action, Decision, Stage},
    journal::Journal,
    judge::Outcome,
    orchestrator::{BoxFuture, Error, Found, Orchestrator, Plan, State, TakesAway, pause::Paused},
    targets::Target,
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
    /// Of which rollouts it was asked to hold, which takes nothing away.
    pub held: Mutex<Vec<Vec<Target>>>,
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
    /// IDs of the decisions that it was called for, to carry them out or to take them back, and has not answered, and whether that is a
    /// hold.
    pub out: Mutex<Vec<(String, bool)>>,
    /// Calls while another one was out, where one of the two is for a hold: both change the same object.
    pub at_once: Mutex<u32>,
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
    /// The changes of verdict that it was told of.
    pub noted: Mutex<Vec<(Outcome, Outcome)>>,
    /// What its plans say that they take away.
    pub takes_away: Mutex<Option<TakesAway>>,
    /// How it was told to ask for pauses.
    pub asks_for_pauses: Mutex<Option<Paused>>,
    pause_file: PathBuf,
    journal: PathBuf,
}

impl Fake {
    pub fn new(dir: &Path) -> Self {
        Self {
            behaviour: Mutex::new(Behaviour::Succeeds),
            state: Mutex::new(State::InEffect),
            applied: Mutex::default(),
            held: Mutex::default(),
            while_paused: Mutex::default(),
            paused_until: Mutex::default(),
            unrecorded: Mutex::default(),
            below_minimum: Mutex::default(),
            while_replaced: Mutex::default(),
            out: Mutex::default(),
            at_once: Mutex::default(),
            without_lead: Mutex::default(),
            found_now: Arc::default(),
            called: Mutex::default(),
            in_effect: Mutex::default(),
            is_honest: Mutex::default(),
            taken_back: Mutex::default(),
            latest: Mutex::default(),
            journal: dir.join("journal.db"),
            pauses_in_plan: Mutex::default(),
            will_not: Mutex::default(),
            noted: Mutex::default(),
            takes_away: Mutex::default(),
            asks_for_pauses: Mutex::default(),
            undone: Mutex::default(),
            undo_fails: Mutex::default(),
            can_undo: Mutex::default(),
            knows_runs: Mutex::default(),
            undo_takes: Mutex::default(),
            leads: Mutex::new(true),
            asked_lead: Mutex::default(),
            pause_file: dir.join("pause"),
        }
    }
}

/// A call that is out, until it ends in whatever way.
struct Out<'a>(&'a Fake, &'a str);

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.out.lock().unwrap().retain(|(id, _)| id != self.1);
    }
}

impl Fake {
    fn goes_out<'a>(&'a self, id: &'a str, holds: bool) -> Out<'a> {
        let mut out = self.out.lock().unwrap();
        *self.at_once.lock().unwrap() += u32::from(out.iter().any(|(_, other)| holds || *other));
        out.push((id.to_owned(), holds));
        Out(self, id)
    }
}

/// What the fake says that it would do.
pub fn plan(d: &Decision) -> Plan {
    let does = if d.action == Action::Hold { "hold" } else { "stop" };
    let steps = d.canary.iter().map(|t| format!("{does} {}, if it is still {}", t.cgroup, t.incarnation)).collect();
    let plan = Plan { orchestrator: "fake".into(), steps, inverse: Some("start".into()), ..Plan::default() };
    match d.action {
        Action::Quarantine => Plan { undo: Some("weights".into()), ends_after_ms: Some(QUARANTINE_MS), ..plan },
        Action::Hold => Plan { inverse: Some("resume".into()), undo: Some("resume".into()), ..plan },
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
                None => Ok(Plan { takes_away: *self.takes_away.lock().unwrap(), ..plan(d) }),
            }
        })
    }

    fn apply<'a>(&'a self, decision: &'a Decision, planned: &'a Plan) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let holds = decision.action == Action::Hold;
            let _out = self.goes_out(&decision.id, holds);
            let acted_on = if holds { &self.held } else { &self.applied };
            acted_on.lock().unwrap().push(decision.canary.clone());
            self.called.lock().unwrap().push(decision.id.clone());
            let (second, stable) = *self.latest.lock().unwrap();
            let paused = self.pause_file.exists() || second < *self.paused_until.lock().unwrap();
            *self.while_paused.lock().unwrap() += u32::from(paused);
            *self.below_minimum.lock().unwrap() += u32::from(stable == 0 && !holds);
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
            let _out = self.goes_out(&d.id, d.action == Action::Hold);
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

    fn cannot_hold(&self) -> Option<String> {
        None
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

    fn keeps_notes(&self) -> bool {
        true
    }

    fn note_verdict<'a>(&'a self, _: &'a [Target], before: Outcome, now: Outcome, _: &'a str) -> BoxFuture<'a, ()> {
        self.noted.lock().unwrap().push((before, now));
        Box::pin(async {})
    }

    fn heed_pauses(&self, paused: Paused) {
        *self.asks_for_pauses.lock().unwrap() = Some(paused);
    }
}
