//! `kill -9` at random moments of a rollback, on real cgroups with the real binary, and the next life on the same journal.
//! However often and whenever it is killed: the canary's process gets at most one SIGTERM, no decision is called for twice, the
//! journal loses nothing, and in the end every action has an end.
//!
//! `CANARY_KILL_ROUNDS=200` runs as many rounds; without it a few, for they take some seconds each.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use canary_e2e::{guarded::Guarded, kernel_available};
use canary_user::{guard::Stage::*, journal::HistoryEntry};

/// Rounds where nothing else is said.
const ROUNDS: u32 = 20;
/// A rollback of the victim takes about as long from the first window on.
const SPAN_MS: u64 = 1000;
/// Kills in one round.
const KILLS: u32 = 3;

/// xorshift64*: the seed is printed, and gives the same moments again.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % below
    }
}

/// What was in the journal is there still, as it was.
fn nothing_is_lost(before: &[HistoryEntry], after: &[HistoryEntry]) {
    for old in before {
        let new = after.iter().find(|e| e.decision.id == old.decision.id);
        let new = new.unwrap_or_else(|| panic!("{} is lost", old.decision.id));
        assert_eq!(new.decision, old.decision);
        assert_eq!(new.plan, old.plan);
        assert_eq!(new.stages[..old.stages.len()], old.stages, "stages are only added");
    }
}

/// `met`: where the kills met the action.
fn round(moments: &mut Moments, met: &mut BTreeMap<&'static str, u32>) -> anyhow::Result<[usize; 3]> {
    // "end": the victim ends at its first SIGTERM. "stay": it counts them.
    let on_term = if moments.next(2) == 0 { "end" } else { "stay" };
    let guarded = Guarded::new(env!("CARGO_BIN_EXE_victim"), on_term)?;
    guarded.crash()?;
    let mut known = Vec::new();
    for kill in 0..KILLS {
        let life = guarded.start()?;
        if kill == 0 || moments.next(2) == 0 {
            // Not while it still loads its programs: that is no moment of a rollback.
            life.sees(1)?;
        }
        std::thread::sleep(Duration::from_millis(moments.next(SPAN_MS)));
        drop(life);
        let now = guarded.history();
        nothing_is_lost(&known, &now);
        let stage = now.first().and_then(|e| e.stages.last()).map_or("no decision", |s| s.stage.name());
        *met.entry(stage).or_default() += 1;
        assert!(guarded.terms() <= 1, "{} SIGTERMs", guarded.terms());
        known = now;
    }
    let last = guarded.start()?;
    last.sees(25)?;
    drop(last);
    let history = guarded.history();
    nothing_is_lost(&known, &history);
    let called: Vec<&HistoryEntry> = history.iter().filter(|e| e.stages.iter().any(|s| s.stage == Applying)).collect();
    assert!(called.len() <= 1, "one canary, one call: {:?}", guarded.stages());
    assert!(guarded.terms() <= called.len(), "a SIGTERM without a record of the call");
    for entry in &history {
        let calls = entry.stages.iter().filter(|s| s.stage == Applying).count();
        assert!(calls <= 1, "{:?}", guarded.stages());
        // The last life had time for what it found; "stay" is still within its grace.
        let end = entry.stages.last().map(|s| s.stage);
        assert!(!matches!(end, Some(Planned | Approved)), "left open: {:?}", guarded.stages());
    }
    let verified = called.iter().filter(|e| e.stages.iter().any(|s| s.stage == Verified)).count();
    Ok([called.len(), verified, guarded.terms()])
}

#[test]
fn killed_at_random_moments_it_loses_nothing_and_never_acts_twice() -> anyhow::Result<()> {
    if !kernel_available("killed_at_random_moments_it_loses_nothing_and_never_acts_twice") {
        return Ok(());
    }
    let rounds = std::env::var("CANARY_KILL_ROUNDS").ok().map_or(Ok(ROUNDS), |n| n.parse())?;
    let seed = std::env::var("CANARY_KILL_SEED").ok().map_or_else(
        || Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64) | 1),
        |n| n.parse(),
    )?;
    println!("{rounds} rounds; CANARY_KILL_SEED={seed} gives the same moments again");
    let mut moments = Moments(seed);
    let (mut sums, mut met) = ([0; 3], BTreeMap::new());
    for _ in 0..rounds {
        let round = round(&mut moments, &mut met)?;
        sums.iter_mut().zip(round).for_each(|(sum, n)| *sum += n);
    }
    let [called, verified, terms] = sums;
    println!("{} kills: {called} calls, {verified} of them verified, {terms} SIGTERMs; at {met:?}", rounds * KILLS);
    assert!(called > 0, "in no round was there a rollback to interrupt");
    Ok(())
}
