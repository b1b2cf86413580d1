//! Real processes in real cgroups. They need root and a cgroup2 that can be written to; without, they say so and pass over.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::{orchestrator::decided::decision, targets::Role};

const GRACE: Duration = Duration::from_millis(400);

/// A parent cgroup of its own for one test; kills and removes everything on drop.
struct Bed {
    root: PathBuf,
    name: String,
    children: Vec<Child>,
    files: tempfile::TempDir,
}

impl Bed {
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let Some(mount) = mounts.lines().find(|l| l.contains(" - cgroup2 ")) else {
            println!("SKIP orchestrator::process: no cgroup2 is mounted");
            return None;
        };
        let root = PathBuf::from(mount.split(' ').nth(4).expect("mount point"));
        let name = format!("/canary-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let bed = Self { root, name, children: Vec::new(), files: tempfile::tempdir().expect("tempdir") };
        if let Err(e) = fs::create_dir(bed.full("")) {
            println!("SKIP orchestrator::process: {} cannot be created: {e}; run as root", bed.full("").display());
            return None;
        }
        Some(bed)
    }

    fn full(&self, below: &str) -> PathBuf {
        self.root.join(format!("{}{below}", self.name).trim_start_matches('/'))
    }

    fn cgroup(&self, below: &str, role: Role) -> Target {
        let dir = self.full(below);
        fs::create_dir_all(&dir).expect("create cgroup");
        Target {
            deployment: "shop".into(),
            role,
            version: role.name().into(),
            cgroup: format!("{}{below}", self.name).into(),
            incarnation: fs::metadata(&dir).expect("stat cgroup").ino(),
            identity: None,
        }
    }

    /// A shell script inside a cgroup. Returns once it has printed a line: it is in, and its traps are set.
    fn spawn(&mut self, below: &str, script: &str) -> u32 {
        let procs = self.full(below).join("cgroup.procs");
        let mut child = Command::new("sh")
            .args(["-c", &format!("echo $$ > {} || exit 1\n{script}", procs.display())])
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn sh");
        let mut line = String::new();
        let out = child.stdout.take().expect("stdout");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("read");
        assert_eq!(line, "ready\n");
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// How the process with that pid ended: (exit code, signal).
    fn ended(&mut self, pid: u32) -> (Option<i32>, Option<i32>) {
        use std::os::unix::process::ExitStatusExt;
        let child = self.children.iter_mut().find(|c| c.id() == pid).expect("own child");
        let status = child.wait().expect("wait");
        (status.code(), status.signal())
    }

    fn process(&self) -> Process {
        Process::new(self.root.clone(), GRACE, None)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = fs::write(self.full("").join("cgroup.kill"), "1");
        for child in &mut self.children {
            let _ = child.wait();
        }
        remove_tree(&self.full(""));
    }
}

fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

const SLEEPER: &str = "echo ready; exec sleep 600";

#[tokio::test]
async fn a_process_that_ends_on_sigterm_is_not_killed_and_stable_is_left_alone() {
    let Some(mut bed) = Bed::new() else { return };
    let (stable, canary) = (bed.cgroup("/stable", Role::Stable), bed.cgroup("/canary", Role::Canary));
    let keep = bed.spawn("/stable", SLEEPER);
    let stop = bed.spawn("/canary", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done");
    let decision = decision(Action::Rollback, vec![canary], vec![stable]);
    let process = bed.process();
    assert_eq!(process.state(&decision).await.expect("state").state, State::NotInEffect);
    process.apply(&decision, &Plan::default()).await.expect("apply");
    assert_eq!(process.state(&decision).await.expect("state").state, State::InEffect);
    assert_eq!(bed.ended(stop), (Some(0), None));
    let status = fs::read_to_string(format!("/proc/{keep}/stat")).expect("stable still runs");
    assert!(!status.contains(") Z "), "stable is not a zombie");
}

#[tokio::test]
async fn one_that_ignores_sigterm_gets_it_once_and_is_killed_after_the_grace() {
    let Some(mut bed) = Bed::new() else { return };
    let (stable, canary) = (bed.cgroup("/stable", Role::Stable), bed.cgroup("/canary", Role::Canary));
    bed.spawn("/stable", SLEEPER);
    let log = bed.files.path().join("signals");
    let script = format!("trap 'echo TERM >> {}' TERM; echo ready; while :; do sleep 0.02; done", log.display());
    let stubborn = bed.spawn("/canary", &script);
    let decision = decision(Action::Drain, vec![canary], vec![stable]);
    let start = Instant::now();
    bed.process().apply(&decision, &Plan::default()).await.expect("apply");
    assert!(start.elapsed() >= GRACE, "not killed before the grace is over");
    assert_eq!(bed.ended(stubborn), (None, Some(9)));
    assert_eq!(fs::read_to_string(log).expect("the trap ran"), "TERM\n");
    assert_eq!(bed.process().state(&decision).await.expect("state").state, State::InEffect);
}

#[tokio::test]
async fn one_that_goes_on_forking_is_killed_after_the_grace() {
    let Some(mut bed) = Bed::new() else { return };
    let (stable, canary) = (bed.cgroup("/stable", Role::Stable), bed.cgroup("/canary", Role::Canary));
    bed.spawn("/stable", SLEEPER);
    // Each look finds processes that were sent nothing yet.
    let forks = bed.spawn("/canary", "trap '' TERM; echo ready; while :; do sleep 0.05 & done");
    let decision = decision(Action::Drain, vec![canary], vec![stable]);
    bed.process().apply(&decision, &Plan::default()).await.expect("apply");
    assert_eq!(bed.ended(forks), (None, Some(9)));
    assert_eq!(bed.process().state(&decision).await.expect("state").state, State::InEffect);
}

#[tokio::test]
async fn descendants_are_reached() {
    let Some(mut bed) = Bed::new() else { return };
    let (stable, canary) = (bed.cgroup("/stable", Role::Stable), bed.cgroup("/canary", Role::Canary));
    bed.cgroup("/canary/worker/inner", Role::Canary);
    bed.spawn("/stable", SLEEPER);
    let deep = bed.spawn("/canary/worker/inner", SLEEPER);
    let decision = decision(Action::Rollback, vec![canary], vec![stable]);
    assert_eq!(bed.process().state(&decision).await.expect("state").state, State::NotInEffect);
    bed.process().apply(&decision, &Plan::default()).await.expect("apply");
    assert_eq!(bed.ended(deep), (None, Some(15)));
}

#[tokio::test]
async fn a_replaced_cgroup_is_refused_and_a_missing_one_is_done() {
    let Some(mut bed) = Bed::new() else { return };
    let (stable, canary) = (bed.cgroup("/stable", Role::Stable), bed.cgroup("/canary", Role::Canary));
    bed.spawn("/stable", SLEEPER);
    fs::remove_dir(bed.full("/canary")).expect("remove cgroup");
    let decision = decision(Action::Rollback, vec![canary.clone()], vec![stable]);
    bed.process().apply(&decision, &Plan::default()).await.expect("nothing left to stop");
    assert_eq!(bed.process().state(&decision).await.expect("state").state, State::InEffect);

    assert_ne!(bed.cgroup("/canary", Role::Canary).incarnation, canary.incarnation);
    let newcomer = bed.spawn("/canary", SLEEPER);
    let error = bed.process().apply(&decision, &Plan::default()).await.expect_err("refused");
    assert!(error.to_string().contains("was replaced since the decision"), "{error:#}");
    assert!(Path::new(&format!("/proc/{newcomer}")).exists());
    assert!(
        fs::read_to_string(bed.full("/canary").join("cgroup.procs")).expect("procs").contains(&newcomer.to_string())
    );
    assert_eq!(bed.process().state(&decision).await.expect("state").state, State::NotInEffect);
}

#[tokio::test]
async fn without_a_running_stable_instance_nothing_is_done() {
    let Some(mut bed) = Bed::new() else { return };
    let (stable, canary) = (bed.cgroup("/stable", Role::Stable), bed.cgroup("/canary", Role::Canary));
    let pid = bed.spawn("/canary", SLEEPER);
    for stable in [vec![], vec![stable]] {
        let decision = decision(Action::Rollback, vec![canary.clone()], stable);
        let error = bed.process().apply(&decision, &Plan::default()).await.expect_err("refused");
        assert!(error.to_string().contains("no stable instance"), "{error:#}");
    }
    assert!(fs::read_to_string(bed.full("/canary").join("cgroup.procs")).expect("procs").contains(&pid.to_string()));
}

#[tokio::test]
async fn the_supervisor_is_asked_first_and_its_silence_stops_everything() {
    let Some(mut bed) = Bed::new() else { return };
    let (stable, canary) = (bed.cgroup("/stable", Role::Stable), bed.cgroup("/canary", Role::Canary));
    bed.spawn("/stable", SLEEPER);
    let pid = bed.spawn("/canary", SLEEPER);
    let decision = decision(Action::Rollback, vec![canary.clone()], vec![stable]);

    let (gone, _) = mpsc::channel(1);
    let error = Process::new(bed.root.clone(), GRACE, Some(gone))
        .apply(&decision, &Plan::default())
        .await
        .expect_err("refused");
    assert!(format!("{error:#}").contains("supervisor is gone"), "{error:#}");
    let procs = bed.full("/canary").join("cgroup.procs");
    assert!(fs::read_to_string(&procs).expect("procs").contains(&pid.to_string()));

    let (sender, mut asked) = mpsc::channel(1);
    let events = bed.full("/canary").join("cgroup.events");
    let supervisor = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(control) = asked.recv().await {
            let running = fs::read_to_string(&events).expect("events").contains("populated 1");
            let (name, cgroups, done) = match control {
                Control::RouteAway { cgroups, done } => ("route away", cgroups, done),
                Control::Retire { cgroups, done } => ("retire", cgroups, done),
            };
            seen.push((name, cgroups, running));
            done.send(()).expect("the backend waits");
        }
        seen
    });
    let process = Process::new(bed.root.clone(), GRACE, Some(sender));
    assert_eq!(process.plan(&decision).expect("plan").steps.len(), 4);
    process.apply(&decision, &Plan::default()).await.expect("apply");
    drop(process);
    let cgroups = vec![canary.cgroup];
    assert_eq!(
        supervisor.await.expect("supervisor"),
        [("route away", cgroups.clone(), true), ("retire", cgroups, true)]
    );
    assert_eq!(bed.ended(pid), (None, Some(15)));
}

fn target(cgroup: &str, role: Role) -> Target {
    Target {
        deployment: "shop".into(),
        role,
        version: "v".into(),
        cgroup: cgroup.into(),
        incarnation: 1,
        identity: None,
    }
}

#[tokio::test]
async fn overlapping_or_strange_cgroups_and_other_actions_are_refused() {
    let process = Process::new("/nowhere".into(), GRACE, None);
    for (canary, stable) in [("/a", "/a/b"), ("/a/b", "/a"), ("/a", "/a")] {
        let d = decision(Action::Rollback, vec![target(canary, Role::Canary)], vec![target(stable, Role::Stable)]);
        let error = process.apply(&d, &Plan::default()).await.expect_err("refused");
        assert!(error.to_string().contains("overlaps"), "{error:#}");
    }
    assert!(!overlaps("/a", "/ab"));
    for canary in ["/", "", "a", "/a/../b", "/a//b"] {
        let d = decision(Action::Rollback, vec![target(canary, Role::Canary)], vec![target("/s", Role::Stable)]);
        let error = process.apply(&d, &Plan::default()).await.expect_err("refused");
        assert!(error.to_string().contains("cannot be a canary cgroup"), "{error:#}");
    }
    let d = decision(Action::Quarantine, vec![target("/c", Role::Canary)], vec![target("/s", Role::Stable)]);
    let error = process.apply(&d, &Plan::default()).await.expect_err("refused");
    assert!(error.to_string().contains("cannot quarantine"), "{error:#}");
    let refused = process.describe(&d).await.expect_err("refused");
    assert!(matches!(refused, Error::Refused(_)), "{refused}");
    let hold = Decision { action: Action::Hold, ..d };
    let refused = process.describe(&hold).await.expect_err("refused");
    assert!(matches!(&refused, Error::Refused(why) if Some(why) == process.cannot_hold().as_ref()), "{refused}");
}
