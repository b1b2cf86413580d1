//! Ways of reading what 1 000 targets have: for the choice that the sensor makes, told without a limit.

use std::{
    fs::File,
    io::Read as _,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    time::Instant,
};

use anyhow::Context as _;
use canary_mmap::Words;

use super::{Limit, Plan, Row};
use crate::{
    Sandbox,
    bpf::{call, number, own},
};

const NAMES: [&str; 5] = ["reading-each", "reading-batch", "reading-mapped", "reading-reopened", "reading-kept"];
const TARGETS: usize = 1000;
/// What the sensor has of a target on one CPU.
const WORDS: usize = 56;
/// So many readings in a round.
const TIMES: u32 = 20;

const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const MMAPABLE: u32 = 1 << 10;

/// An array map.
struct Array(OwnedFd);

impl Array {
    fn new(kind: u32, words: usize, entries: usize, flags: u32) -> anyhow::Result<Self> {
        // map_type, key_size, value_size, max_entries, map_flags.
        let mut attributes = [kind, 4, (words * 8) as u32, entries as u32, flags];
        Ok(Self(own(call(0, &mut attributes).context("make a map")?)?))
    }

    /// One entry.
    fn look_up(&self, index: u32, value: &mut [u64]) -> anyhow::Result<()> {
        let [key, value] = [(&raw const index) as u64, value.as_mut_ptr() as u64].map(halves);
        // map_fd, key, value, flags.
        let mut attributes = [number(self.0.as_fd()), 0, key[0], key[1], value[0], value[1], 0, 0];
        call(1, &mut attributes).context("look up an entry")?;
        Ok(())
    }

    /// All entries.
    fn look_up_all(&self, keys: &mut [u32], values: &mut [u64], state: &mut u32) -> anyhow::Result<()> {
        let count = keys.len() as u32;
        let addresses = [0, state as *mut u32 as u64, keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64].map(halves);
        let mut attributes = [0; 14];
        attributes[..8].copy_from_slice(addresses.as_flattened());
        // in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags.
        attributes[8..10].copy_from_slice(&[count, number(self.0.as_fd())]);
        match call(24, &mut attributes) {
            Ok(_) => {}
            // Says that these were the last.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("look up all entries"),
        }
        anyhow::ensure!(attributes[8] == count, "{} of {count} entries were read", attributes[8]);
        Ok(())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn halves(address: u64) -> [u32; 2] {
    [address as u32, (address >> 32) as u32]
}

/// Microseconds that `read` takes.
fn time_us(mut read: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    for _ in 0..TIMES {
        read()?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES))
}

pub fn all(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    if !plan.wants(&NAMES) {
        return Ok(Vec::new());
    }
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let per_cpu = Array::new(PERCPU_ARRAY, WORDS, TARGETS, 0)?;
    let flat = Array::new(ARRAY, WORDS, TARGETS * cpus, MMAPABLE)?;
    let mapped = Words::map(flat.as_fd(), TARGETS * cpus * WORDS).context("map an array")?;
    let sandbox = Sandbox::new()?;
    let mut paths = Vec::new();
    for i in 0..TARGETS {
        let cgroup = sandbox.cgroup(&format!("t{i}"))?;
        paths.push(sandbox.root.dir(&cgroup).join("cpu.stat"));
    }
    let kept = paths.iter().map(File::open).collect::<Result<Vec<_>, _>>().context("open cpu.stat")?;
    let mut values = vec![0; TARGETS * cpus * WORDS];
    let mut keys = vec![0; TARGETS];
    let mut text = [0; 4096];
    let mut rounds = [const { Vec::new() }; NAMES.len()];
    for round in 1..=plan.rounds {
        eprintln!("  ..   ways of reading {TARGETS} targets, round {round} of {}", plan.rounds);
        let figures = [
            time_us(|| {
                let mut entries = values.chunks_exact_mut(cpus * WORDS).zip(0..);
                entries.try_for_each(|(value, index)| per_cpu.look_up(index, value))
            })?,
            time_us(|| per_cpu.look_up_all(&mut keys, &mut values, &mut 0))?,
            time_us(|| {
                for (index, value) in values.iter_mut().enumerate() {
                    *value = mapped.load(index).context("inside of the map")?;
                }
                Ok(())
            })?,
            time_us(|| {
                paths.iter().try_for_each(|path| {
                    anyhow::ensure!(File::open(path)?.read(&mut text)? > 0, "{} is empty", path.display());
                    Ok(())
                })
            })?,
            time_us(|| {
                kept.iter().try_for_each(|file| {
                    anyhow::ensure!(file.read_at(&mut text, 0)? > 0, "cpu.stat is empty");
                    Ok(())
                })
            })?,
        ];
        rounds.iter_mut().zip(figures).for_each(|(rounds, figure)| rounds.push(figure));
    }
    let what = [
        "µs for the counters, a look-up for each target",
        "µs for the counters, all in one call",
        "µs for the counters, mapped",
        "µs for cpu.stat, opened each time",
        "µs for cpu.stat, kept open",
    ];
    let rows = NAMES.into_iter().zip(what).zip(&rounds);
    Ok(rows.map(|((name, what), rounds)| Row::of(name, what, rounds, Limit::None, format!("{cpus} CPUs"))).collect())
}
