//! Which end-to-end programs may run beside another one, and jobs that run some at a time.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::cargo::Artifact;

/// Programs that spend their time waiting, the longest first.
///
/// Each has cgroups, directories, sockets and ports of its own, under names that no other process has; what brings a systemd, a
/// Docker or a Podman has it in namespaces of its own, with all that it writes. What decides in them is a fact (two crashes, a
/// person's word, a job that is done, a share of the load), which is waited for however long it takes: another's load makes them
/// late, not wrong.
///
/// All others have the machine to themselves, and so has a new one until somebody has looked:
///
/// - those that hold counts against the kernel's own book, or within a per cent: `agreement`, `clocks`, `connections`,
///   `controllers`, `conversations`, `cpu`, `dependencies`, `hooks`, `http`, `incarnations`, `lifecycle`, `listen_queue`, `losses`,
///   `many`, `memory`, `network`, `possible_cpus`, `quarantine_limits`, `renames`, `slots`, `starts`, `threaded`, `transfers`,
///   `waits`;
/// - `scenarios` and `systemd_load`, whose canary is told from its neighbours by its CPU time and its waits;
/// - `prometheus`, which compares the medians of waits of two moments;
/// - `package`, which compares all files of the machine before and after: those of this machine show through;
/// - `image`, which links `target/release/canary` anew while others would be starting it, with both CPUs;
/// - `journal` and `lost_signals`, which are over within a second.
const SIDE_BY_SIDE: [&str; 27] = [
    "demo",
    "kills",
    "docker",
    "churn",
    "replay",
    "systemd_actions",
    "no_data",
    "kubernetes",
    "handed_over_in_vain",
    "docker_actions",
    "unit",
    "pages",
    "systemd",
    "page",
    "states",
    "rolled_back",
    "restart",
    "handed_over",
    "api",
    "control",
    "drain",
    "kernel_log",
    "pause",
    "sigterm",
    "journald",
    "privileges",
    "top",
];

/// How many of them run at a time: two, or one where the machine has one CPU.
pub fn at_a_time() -> usize {
    thread::available_parallelism().map_or(1, |cpus| cpus.get().min(2))
}

/// Those that may run beside one another, in the order of the list, and the others as they come.
pub fn split(all: &[Artifact]) -> (Vec<&Artifact>, Vec<&Artifact>) {
    let place = |artifact: &Artifact| SIDE_BY_SIDE.iter().position(|name| *name == artifact.target);
    let (mut beside, alone): (Vec<&Artifact>, Vec<&Artifact>) =
        all.iter().partition(|artifact| place(artifact).is_some());
    beside.sort_by_key(|artifact| place(artifact));
    (beside, alone)
}

/// Does all jobs, so many at a time, begun in their order. `ended` is called here, with one after the other, as they end: with the job
/// and what came of it, an error where it panicked, which keeps none of the others back.
pub fn side_by_side<J: Sync, R: Send>(
    jobs: &[J],
    at_a_time: usize,
    run: impl Fn(&J) -> R + Sync,
    mut ended: impl FnMut(&J, thread::Result<R>),
) {
    let next = &AtomicUsize::new(0);
    let run = &run;
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_a_time.max(1) {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A job's own state goes with it, and nothing else is looked at after a panic.
                    let result = panic::catch_unwind(AssertUnwindSafe(|| run(job)));
                    if sender.send((job, result)).is_err() {
                        return;
                    }
                }
            });
        }
        // With the last worker the results end.
        drop(sender);
        for (job, result) in results {
            ended(job, result);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::PathBuf,
        sync::{Condvar, Mutex},
        time::Duration,
    };

    use super::*;
    use crate::cargo;

    fn program(target: &str) -> Artifact {
        Artifact {
            package: "canary-e2e".into(),
            target: target.into(),
            kind: "test".into(),
            executable: PathBuf::new(),
            directory: PathBuf::new(),
        }
    }

    #[test]
    fn every_program_of_the_list_exists_and_stands_there_once() {
        let mut names = BTreeSet::new();
        for name in SIDE_BY_SIDE {
            let file = cargo::repository().join(format!("tests/tests/{name}.rs"));
            assert!(file.is_file(), "there is no {}: take {name:?} off the list", file.display());
            assert!(names.insert(name), "{name:?} stands there twice");
        }
    }

    #[test]
    fn what_is_not_on_the_list_runs_alone_and_the_longest_begins() {
        let all = ["agreement", "api", "demo", "new", "kills"].map(program);
        let (beside, alone) = split(&all);
        let names = |programs: &[&Artifact]| programs.iter().map(|p| p.target.clone()).collect::<Vec<_>>();
        assert_eq!(names(&beside), ["demo", "kills", "api"]);
        assert_eq!(names(&alone), ["agreement", "new"]);
    }

    #[test]
    fn every_job_is_done_once_and_no_more_run_at_a_time_than_may() {
        let jobs: Vec<usize> = (0..20).collect();
        for at_a_time in [0, 1, 2] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut told = Vec::new();
            let run = |job: &usize| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(1));
                running.fetch_sub(1, Ordering::SeqCst);
                *job
            };
            side_by_side(&jobs, at_a_time, run, |job, result| {
                assert_eq!(*job, result.expect("no job panics"));
                told.push(*job);
            });
            told.sort_unstable();
            assert_eq!(told, jobs);
            assert!(most.into_inner() <= at_a_time.max(1));
        }
    }

    #[test]
    fn as_many_run_at_a_time_as_may() {
        /// Whoever is alone for so long has nobody beside it.
        const LONG: Duration = Duration::from_secs(60);
        for at_a_time in [2, 3] {
            let (begun, more) = (Mutex::new(0), Condvar::new());
            // Each job waits until the last of them has begun.
            let run = |_: &usize| {
                let mut count = begun.lock().expect("no job panics");
                *count += 1;
                more.notify_all();
                let waited = more.wait_timeout_while(count, LONG, |count| *count < at_a_time);
                !waited.expect("none panics").1.timed_out()
            };
            let jobs: Vec<usize> = (0..at_a_time).collect();
            let mut met = Vec::new();
            side_by_side(&jobs, at_a_time, run, |_, result| met.push(result.expect("no job panics")));
            assert_eq!(met, vec![true; at_a_time], "they did not run beside each other");
        }
    }

    #[test]
    fn a_job_that_panics_is_told_and_keeps_none_of_the_others_back() {
        let jobs: Vec<u32> = (0..6).collect();
        for at_a_time in [1, 2] {
            let run = |job: &u32| {
                assert!(!job.is_multiple_of(3), "job {job} panics on purpose");
                *job
            };
            let mut told = Vec::new();
            side_by_side(&jobs, at_a_time, run, |job, result| told.push((*job, result.ok())));
            told.sort_unstable();
            assert_eq!(told, [(0, None), (1, Some(1)), (2, Some(2)), (3, None), (4, Some(4)), (5, Some(5))]);
        }
    }

    #[test]
    fn without_a_job_nothing_is_waited_for() {
        let none: [u32; 0] = [];
        side_by_side(&none, 2, |job| *job, |job, _| panic!("there is no job {job}"));
    }
}
