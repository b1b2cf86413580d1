//! The real loop with a real journal, an orchestrator that does its worst, clocks that jump, people who ask for things,
//! a disk that fails, and a kill between any two steps. Whatever happens in whatever order:
//! - the orchestrator is called at most once for a decision and for an instance of the canary (to hold its rollout besides),
//! - never while paused or while another guard leads, never for a canary that was replaced since, never without the intent and its
//!   inverse on disk, never where stable is below its minimum,
//! - never while another call is out where one of the two is for a hold, and no hold takes the watch from an action,
//! - every quarantine ends (an orchestrator that says that one is gone is believed), and every life has an end on record,
//! - the journal tells every call, every life in an order that makes sense, and every command.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use tokio::time::sleep;

use super::{
    busy,
    rig::{Behaviour, Rig},
    stopped, target,
};
use crate::{
    control::Command,
    guard::{Action, Stage},
    journal::HistoryEntry,
    judge::{HardFact, Outcome},
    orchestrator::State,
    targets::Role,
};

/// Cases in each of the two tests, where `PROPTEST_CASES` does not say otherwise: as built for `cargo xtask test` and CI, together
/// what is promised; without optimization, where each takes ten times as long, fewer.
const CASES: u32 = if cfg!(debug_assertions) { 300 } else { 5_000 };

fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: CASES, ..config } }
}

#[derive(Clone, Debug)]
enum Step {
    Ticks(u8),
    /// The machine is busy or asleep: no tick for this many seconds.
    Gap(u64),
    /// Somebody sets the wall clock, by hours.
    WallClock(i64),
    Says(Outcome, Option<HardFact>),
    PauseFile(bool),
    /// For this many seconds; `None` = until it is resumed.
    Pause(Option<u64>),
    Resume,
    Approve,
    Rollback,
    Hold,
    /// Of the latest decision, or of the one before it.
    Undo(usize),
    Replace,
    /// Between the plan and the call, before any tick shows it.
    ReplacedSince(bool),
    CanaryStops(bool),
    Stable(u8),
    Behaves(Behaviour),
    /// `None` = it says what is.
    Finds(Option<State>),
    WillNot(bool),
    Leads(bool),
    UndoFails(u32),
    /// So many seconds.
    UndoTakes(u64),
    CanUndo(bool),
    Disk(bool),
    Stop,
    Kill,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    use Behaviour::*;
    prop_oneof![
        10 => (1..5u8).prop_map(Step::Ticks),
        5 => prop::sample::select(vec![
            Step::Says(Outcome::Regressed, None),
            Step::Says(Outcome::Regressed, None),
            Step::Says(Outcome::Healthy, None),
            Step::Says(Outcome::Inconclusive, None),
            Step::Says(Outcome::Regressed, Some(HardFact::CrashLoop)),
        ]),
        3 => prop::sample::select(vec![
            Succeeds, Succeeds, Refuses, Fails, Hangs, Panics, DoesItLate, DoesItAndFails, DoesItAndHangs,
        ]).prop_map(Step::Behaves),
        2 => prop::sample::select(vec![
            None, None, Some(State::InEffect), Some(State::NotInEffect), Some(State::InProgress),
        ]).prop_map(Step::Finds),
        5 => prop::sample::select(vec![
            Step::Approve, Step::Approve, Step::Rollback, Step::Hold, Step::Hold, Step::Undo(0), Step::Undo(1),
        ]),
        3 => prop_oneof![
            any::<bool>().prop_map(Step::PauseFile),
            prop::option::of(1..60u64).prop_map(Step::Pause),
            Just(Step::Resume),
        ],
        2 => Just(Step::Replace),
        1 => any::<bool>().prop_map(Step::ReplacedSince),
        2 => any::<bool>().prop_map(Step::CanaryStops),
        2 => (0..3u8).prop_map(Step::Stable),
        2 => prop_oneof![(1..900u64).prop_map(Step::Gap), (-48..48i64).prop_map(Step::WallClock)],
        1 => prop_oneof![
            any::<bool>().prop_map(Step::WillNot),
            any::<bool>().prop_map(Step::Leads),
            any::<bool>().prop_map(Step::CanUndo),
            any::<bool>().prop_map(Step::Disk),
            (0..3u32).prop_map(Step::UndoFails),
            (0..40u64).prop_map(Step::UndoTakes),
        ],
        2 => prop_oneof![3 => Just(Step::Kill), 1 => Just(Step::Stop), 1 => Just(Step::Wait)],
    ]
}

/// What came of it.
#[derive(Debug, Default)]
struct End {
    called: Vec<String>,
    /// The incarnations that it was called for.
    instances: Vec<u64>,
    while_paused: u32,
    unrecorded: u32,
    below_minimum: u32,
    while_replaced: u32,
    without_lead: u32,
    at_once: u32,
    /// Actions whose watch ended by a hold.
    displaced: usize,
    /// Quarantines that are still in effect in the end.
    held: Vec<String>,
    lives: Vec<Life>,
    commands: (usize, usize),
}

/// What became of a decision.
#[derive(Debug)]
struct Life {
    id: String,
    action: Action,
    stages: Vec<Stage>,
}

impl From<HistoryEntry> for Life {
    fn from(entry: HistoryEntry) -> Self {
        let HistoryEntry { decision, stages, .. } = entry;
        Self { id: decision.id, action: decision.action, stages: stages.iter().map(|s| s.stage).collect() }
    }
}

/// A rig with its canary, as the steps change them.
struct Play {
    rig: Rig,
    incarnation: u64,
    canary_stopped: bool,
    stable: u8,
    asked: usize,
}

impl Play {
    async fn ticks(&mut self, n: u8) {
        for _ in 0..n {
            let canary = target(Role::Canary, self.incarnation);
            let canary = if self.canary_stopped { stopped(canary) } else { busy(canary) };
            let stable = (0..self.stable).map(|n| {
                let mut instance = target(Role::Stable, 100 + u64::from(n));
                instance.cgroup = format!("/checkout/v1-{n}").into();
                busy(instance)
            });
            self.rig.tick(stable.chain([canary]).collect()).await;
            sleep(Duration::from_millis(999)).await;
        }
    }

    async fn gap(&mut self, seconds: u64) {
        self.rig.second += seconds;
        sleep(Duration::from_secs(seconds)).await;
    }

    async fn ask(&mut self, command: impl FnOnce(&Rig) -> Option<Command>) -> bool {
        let Some(command) = self.rig.is_running().then(|| command(&self.rig)).flatten() else { return false };
        self.asked += 1;
        let granted = self.rig.ask(command).await.is_ok();
        super::rig::settle().await;
        granted
    }

    async fn take(&mut self, step: Step) {
        let fake = self.rig.fake.clone();
        // The one that waits for a person is not the newest where a rollout was held meanwhile.
        let planned = |rig: &Rig| {
            let all = rig.journal_to_read()?.history(10).ok()?;
            let waits = |e: &HistoryEntry| e.stages.last().is_some_and(|s| s.stage == Stage::Planned);
            Some(all.iter().find(|e| waits(e)).or(all.first())?.decision.id.clone())
        };
        match step {
            Step::Ticks(n) => self.ticks(n).await,
            Step::Gap(seconds) => self.gap(seconds).await,
            Step::WallClock(hours) => self.rig.wall_clock_off_ms = hours * 3_600_000,
            Step::Says(outcome, fact) => self.rig.says(outcome, fact),
            Step::PauseFile(paused) => self.rig.pause(paused),
            Step::Pause(seconds) => {
                let for_ms = seconds.map(|s| s * 1000);
                if self.ask(|_| Some(Command::Pause { deployment: None, for_ms, reason: String::new() })).await {
                    let now = fake.latest.lock().unwrap().0;
                    *fake.paused_until.lock().unwrap() = seconds.map_or(u64::MAX, |s| now + s);
                }
            }
            Step::Resume => {
                if self.ask(|_| Some(Command::Resume { deployment: None })).await {
                    *fake.paused_until.lock().unwrap() = 0;
                }
            }
            Step::Approve => drop(self.ask(|rig| planned(rig).map(|id| Command::Approve { id })).await),
            Step::Undo(n) => {
                let nth = |rig: &Rig| Some(rig.journal_to_read()?.history(n + 1).ok()?.into_iter().nth(n)?.decision.id);
                self.ask(|rig| nth(rig).map(|id| Command::Undo { id })).await;
            }
            Step::Rollback => {
                let command = Command::Rollback { deployment: "checkout".into(), reason: String::new() };
                self.ask(|_| Some(command)).await;
            }
            Step::Hold => {
                let command = Command::Hold { deployment: "checkout".into(), reason: String::new() };
                self.ask(|_| Some(command)).await;
            }
            Step::Replace => self.incarnation += 1,
            Step::ReplacedSince(replaced) => *fake.found_now.lock().unwrap() = replaced.then_some(9_999),
            Step::CanaryStops(stops) => self.canary_stopped = stops,
            Step::Stable(n) => self.stable = n,
            Step::Behaves(behaviour) => *fake.behaviour.lock().unwrap() = behaviour,
            Step::Finds(state) => {
                *fake.is_honest.lock().unwrap() = state.is_none();
                *fake.state.lock().unwrap() = state.unwrap_or(State::InEffect);
                fake.taken_back.lock().unwrap().clear();
            }
            Step::WillNot(refuses) => *fake.will_not.lock().unwrap() = refuses.then(|| "not now".into()),
            Step::Leads(leads) => *fake.leads.lock().unwrap() = leads,
            Step::UndoFails(times) => *fake.undo_fails.lock().unwrap() = times,
            Step::UndoTakes(seconds) => *fake.undo_takes.lock().unwrap() = Duration::from_secs(seconds),
            Step::CanUndo(can) => *fake.can_undo.lock().unwrap() = can,
            Step::Disk(works) => {
                self.rig.accept();
                if !works {
                    self.rig.refuse("stage", "1");
                }
            }
            Step::Stop => {
                self.rig.stop().await;
                fake.out.lock().unwrap().clear();
            }
            // What it called goes on; the next life knows nothing of that, and asks.
            Step::Kill => {
                self.rig.kill().await;
                fake.out.lock().unwrap().clear();
            }
            Step::Wait => self.gap(120).await,
        }
    }
}

/// `killed`: the guard is started again before everything is well again.
async fn play(mode: &str, approval: bool, killed: bool, steps: Vec<Step>) -> End {
    let keys = if approval {
        "approval = \"required\"\napproval_timeout = \"30s\"\nblast_radius = 1.0"
    } else {
        "blast_radius = 1.0"
    };
    let rig = Rig::with_keys(mode, &["checkout"], keys);
    // The one lie by which a quarantine could stay.
    let believed = |step: &Step| mode != "quarantine" || !matches!(step, Step::Finds(Some(State::NotInEffect)));
    let mut play = Play { rig, incarnation: 2, canary_stopped: false, stable: 1, asked: 0 };
    drop(play.rig.journal());
    // A stage that the disk refused is not on record later either: what is left open is taken up by the next life.
    let killed = killed || steps.iter().any(|step| matches!(step, Step::Disk(false)));
    for step in steps.into_iter().filter(believed) {
        play.take(step).await;
    }
    // Then everything is well again, and time goes by: for longer than any action is watched.
    if killed {
        play.take(Step::Kill).await;
    }
    for step in [
        Step::Wait,
        Step::Disk(true),
        Step::Finds(None),
        Step::Behaves(Behaviour::Succeeds),
        Step::UndoFails(0),
        Step::UndoTakes(0),
        Step::Says(Outcome::Healthy, None),
    ] {
        play.take(step).await;
    }
    for _ in 0..16 {
        play.ticks(2).await;
        play.gap(61).await;
    }
    play.rig.kill().await;
    let fake = &play.rig.fake;
    let journal = play.rig.journal();
    let history = journal.history(1000).unwrap();
    let is_held = |id: &&String| {
        let quarantine = |e: &HistoryEntry| e.decision.id == **id && e.decision.action == Action::Quarantine;
        history.iter().any(quarantine)
    };
    let held = fake.in_effect.lock().unwrap().iter().filter(is_held).cloned().collect();
    let (holds, actions): (Vec<&HistoryEntry>, Vec<&HistoryEntry>) =
        history.iter().partition(|e| e.decision.action == Action::Hold);
    let by_hold =
        |detail: &str| holds.iter().any(|hold| detail.contains(&format!("for {} is in hand", hold.decision.id)));
    let displaced = actions.iter().filter(|e| e.stages.iter().any(|s| by_hold(&s.detail))).count();
    let lives = history.into_iter().map(Life::from).collect();
    End {
        called: fake.called.lock().unwrap().clone(),
        instances: fake.applied.lock().unwrap().iter().flatten().map(|t| t.incarnation).collect(),
        while_paused: *fake.while_paused.lock().unwrap(),
        unrecorded: *fake.unrecorded.lock().unwrap(),
        below_minimum: *fake.below_minimum.lock().unwrap(),
        while_replaced: *fake.while_replaced.lock().unwrap(),
        without_lead: *fake.without_lead.lock().unwrap(),
        at_once: *fake.at_once.lock().unwrap(),
        displaced,
        held,
        lives,
        commands: (play.asked, journal.commands(1000).unwrap().len()),
    }
}

fn run(mode: &str, approval: bool, killed: bool, steps: Vec<Step>) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(mode, approval, killed, steps))
}

/// The order of stages that a life may have.
fn follows(action: Action, before: Stage, after: Stage) -> bool {
    use Stage::*;
    let undoes = matches!(after, Undoing | Undone);
    // What takes the canary away ends it, also while it is not known yet whether it stands still.
    if (action, before, after) == (Action::Hold, Applied, Closed) {
        return true;
    }
    match before {
        Planned => matches!(after, Approved | Applying | Blocked | Declined | Failed),
        Approved => matches!(after, Applying | Blocked | Failed),
        Applying => matches!(after, Applied | Failed) || undoes,
        Applied => matches!(after, Applied | Verified | Reverted | Failed) || undoes,
        Verified => matches!(after, Recovered | NotRecovered | Reverted | Closed | Failed) || undoes,
        Recovered | NotRecovered => matches!(after, Reverted | Closed) || undoes,
        Failed => after == Failed || undoes,
        Undoing => matches!(after, Undoing | Undone | Failed),
        Reverted | Closed => after == Undoing,
        Blocked | Declined | Undone => false,
    }
}

fn check(end: &End) -> Result<(), TestCaseError> {
    let distinct: BTreeSet<&String> = end.called.iter().collect();
    prop_assert_eq!(distinct.len(), end.called.len(), "called twice for a decision: {:?}", end.called);
    let distinct: BTreeSet<u64> = end.instances.iter().copied().collect();
    prop_assert_eq!(distinct.len(), end.instances.len(), "acted on twice: {:?}", end.instances);
    prop_assert_eq!(end.while_paused, 0, "called while paused");
    prop_assert_eq!(end.unrecorded, 0, "called without the intent on disk");
    prop_assert_eq!(end.below_minimum, 0, "called while stable was below its minimum");
    prop_assert_eq!(end.while_replaced, 0, "called for a canary that was replaced");
    prop_assert_eq!(end.without_lead, 0, "called while another one leads");
    prop_assert_eq!(end.at_once, 0, "called, or asked to undo, while another call was out, one of them for a hold");
    prop_assert_eq!(end.displaced, 0, "a hold took the watch from an action");
    prop_assert!(end.held.is_empty(), "quarantines without an end: {:?}", end.held);
    for Life { id, action, stages } in &end.lives {
        prop_assert!(stages.last().is_some_and(|last| !last.is_open()), "without an end: {}: {:?}", id, stages);
        prop_assert!(stages.windows(2).all(|w| follows(*action, w[0], w[1])), "{}: {:?}", id, stages);
        let called = end.called.iter().filter(|c| *c == id).count();
        let recorded = stages.iter().filter(|s| **s == Stage::Applying).count();
        prop_assert_eq!(called, recorded, "{}: {:?}", id, stages);
    }
    prop_assert!(end.called.iter().all(|id| end.lives.iter().any(|life| life.id == *id)));
    prop_assert_eq!(end.commands.0, end.commands.1, "every command is in the journal");
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_it_acts_once_with_leave_and_on_record(
        mode in prop::sample::select(vec!["rollback", "drain"]),
        approval in any::<bool>(),
        killed in any::<bool>(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        check(&run(mode, approval, killed, steps))?;
    }

    #[test]
    fn whatever_happens_every_quarantine_ends(
        approval in prop::bool::weighted(0.2),
        killed in any::<bool>(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        check(&run("quarantine", approval, killed, steps))?;
    }
}

/// The call was made, the guard was killed, and a person undid it before it came into effect.
#[test]
fn a_quarantine_that_comes_into_effect_after_it_was_undone_ends() {
    let late = [Step::Behaves(Behaviour::DoesItLate), Step::Ticks(1), Step::Kill, Step::Ticks(1), Step::Undo(0)];
    let condemned = Step::Says(Outcome::Regressed, Some(HardFact::CrashLoop));
    let end = run("quarantine", false, true, [vec![condemned], late.to_vec()].concat());
    assert_eq!((end.called.len(), &*end.held), (1, &[][..]), "{end:?}");
    let undone = end.lives[0].stages.iter().filter(|s| **s == Stage::Undone).count();
    assert!(undone == 1 && end.lives[0].stages.last() == Some(&Stage::Undone), "{end:?}");
    check(&end).expect("every property holds of it");
}

/// Found in progress after a restart and for so long that its end began: then it is not told to be in effect any more.
#[test]
fn a_quarantine_whose_end_began_is_not_confirmed() {
    let condemned = Step::Says(Outcome::Regressed, Some(HardFact::CrashLoop));
    let slow = [Step::Finds(Some(State::InProgress)), Step::Ticks(1), Step::Kill, Step::Gap(61), Step::Ticks(4)];
    let steps = [vec![Step::Ticks(1), condemned], slow.to_vec(), vec![Step::Finds(None), Step::Ticks(1)]].concat();
    // Which of two answers comes first is chance.
    for _ in 0..20 {
        let end = run("quarantine", false, false, steps.clone());
        check(&end).expect("every property holds of it");
    }
}

/// What is said of one that was taken back is not said of the next.
#[test]
fn a_second_quarantine_ends_too() {
    let regressed = [Step::Says(Outcome::Regressed, None), Step::Ticks(2), Step::Gap(63)];
    let replaced = [Step::Replace, Step::Ticks(2), Step::Gap(69), Step::Ticks(1), Step::Gap(56), Step::Ticks(4)];
    let end = run("quarantine", false, true, [regressed.to_vec(), replaced.to_vec()].concat());
    assert_eq!((end.called.len(), &*end.held), (2, &[][..]), "{end:?}");
    check(&end).expect("every property holds of it");
}

/// The properties are worth something only if actions do happen in them.
#[test]
fn the_machine_does_act() {
    let regressed = || Step::Says(Outcome::Regressed, None);
    let replaced = [Step::Replace, Step::Ticks(4)];
    let end = run(
        "rollback",
        false,
        true,
        [
            vec![regressed(), Step::Ticks(4), Step::Stop, Step::Ticks(4), Step::Behaves(Behaviour::Refuses)],
            replaced.to_vec(),
            vec![Step::Kill, Step::Ticks(4)],
            replaced.to_vec(),
        ]
        .concat(),
    );
    assert_eq!(end.instances.first(), Some(&2));
    assert!(end.instances.len() >= 2, "{end:?}");
    let end = run(
        "quarantine",
        false,
        true,
        vec![regressed(), Step::Ticks(4), Step::Finds(Some(State::InEffect)), Step::Kill],
    );
    assert!(end.called.len() == 1 && end.lives[0].stages.last() == Some(&Stage::Undone), "{end:?}");
    let held = vec![Step::Ticks(2), Step::Hold, Step::Ticks(4), regressed(), Step::Ticks(4)];
    let end = run("rollback", false, true, held);
    assert!(end.called.len() == 2 && end.instances == [2], "held, and rolled back all the same: {end:?}");
    check(&end).expect("every property holds of it");
    let end = run("drain", true, true, vec![regressed(), Step::Ticks(4), Step::Approve, Step::Ticks(2)]);
    assert!(end.called.len() == 1 && end.lives[0].stages.contains(&Stage::Approved), "{end:?}");
    let held = [Step::Hold, Step::Ticks(2), Step::Approve, Step::Ticks(2)];
    let end = run("drain", true, true, [vec![regressed(), Step::Ticks(4)], held.to_vec()].concat());
    assert!(end.called.len() == 2 && end.instances == [2], "held while it waited, and approved: {end:?}");
    check(&end).expect("every property holds of it");
}
