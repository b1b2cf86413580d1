//! What the guest does, and reading what it says about it.
//!
//! The guest brackets each step with lines that begin with `@@`; between them stands what the step printed.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use serde::Deserialize;

use crate::{
    cargo::Artifact,
    dist::Arch,
    test::libtest::{Counts, Run},
};

/// The guest's last line.
pub const FINISHED: &str = "@@finished";
/// Name of the step whose output is JSON.
const CHECK: &str = "canary check";

/// One command in the guest.
pub struct Step {
    pub name: String,
    /// The program on this machine.
    pub program: PathBuf,
    /// Path in the guest, and arguments.
    command: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Check,
    /// Prints as test executables do.
    Tests,
    /// Says by its exit code whether all was well.
    Program,
}

impl Step {
    /// Path of the program in the guest.
    pub fn inside(&self) -> &str {
        self.command.split(' ').next().unwrap_or_default()
    }

    fn new(name: String, program: &Artifact, inside: &str, arguments: &str) -> Self {
        Self { name, program: program.executable.clone(), command: format!("/bin/{inside} {arguments}") }
    }
}

/// The end-to-end tests that are about the kernel and need no program but themselves and what is on the guest's disk.
pub const TESTS: [&str; 17] = [
    "clocks",
    "connections",
    "controllers",
    "conversations",
    "cpu",
    "dependencies",
    "hooks",
    "http",
    "lifecycle",
    "losses",
    "network",
    "possible_cpus",
    "quarantine_limits",
    "renames",
    "starts",
    "transfers",
    "waits",
];

/// Not run under emulation, because …
pub const EMULATION_SKIPS: [&str; 2] = ["a_task_that_is_moved_is_split", "short_lived_processes"];
/// … of this.
pub const EMULATION_REASON: &str =
    "emulated, a switch takes so long that where in it the kernel reads its clock makes more than the 1 % allowed";

pub fn steps(built: &[Artifact], demo: bool, emulated: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for guard in built.iter().filter(|a| a.kind == "bin" && a.target == "canary" && !is_test(a)) {
        steps.push(Step::new(CHECK.into(), guard, "canary", "check --output json"));
    }
    let of_the_kernel = |a: &&Artifact| TESTS.contains(&a.target.as_str());
    let mut tests: Vec<_> =
        built.iter().filter(|a| a.package == "canary-e2e" && a.kind == "test").filter(of_the_kernel).collect();
    tests.sort_by_key(|test| &test.target);
    for test in tests {
        let skip =
            if emulated { EMULATION_SKIPS.map(|test| format!(" --skip {test}")).concat() } else { String::new() };
        let arguments = &format!("--show-output --test-threads=1{skip}");
        steps.push(Step::new(test.target.clone(), test, &format!("test-{}", test.target), arguments));
    }
    for program in built.iter().filter(|a| demo && a.kind == "bin" && a.target == "canary-demo" && !is_test(a)) {
        for scenario in ["memory", "oom", "quota"] {
            let arguments = format!("run --scenario {scenario} {DEMO_OPTIONS}");
            steps.push(Step::new(format!("demo {scenario}"), program, "canary-demo", &arguments));
        }
    }
    steps
}

/// An emulated processor has a tenth of the speed: fewer requests, fewer instances.
const DEMO_OPTIONS: &str = "--rate 40 --instances 2";

/// The unit tests of a program are executables of the same name.
fn is_test(artifact: &Artifact) -> bool {
    artifact.executable.parent().is_some_and(|directory| directory.ends_with("deps"))
}

/// CPUs that the guest can have; it has two. The maps are made for those, as on a large machine.
pub fn possible_cpus(arch: Arch) -> u32 {
    match arch {
        Arch::Amd64 => 64,
        // qemu has none to add there.
        Arch::Arm64 => 2,
    }
}

/// The guest's first and only script: mounts, enables every controller, runs the steps, and switches off.
pub fn init(steps: &[Step], arch: Arch) -> String {
    let line = match arch {
        Arch::Amd64 => "/dev/ttyS1",
        Arch::Arm64 => "/dev/ttyS0",
    };
    let mut text = String::from(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin 2>/dev/null\n\
         export PATH=/bin HOME=/ TERM=dumb RUST_BACKTRACE=0\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null\n\
         mount -t tmpfs tmp /tmp; mount -t tmpfs run /run\n\
         mount -t cgroup2 cgroup /sys/fs/cgroup; mount -t tracefs trace /sys/kernel/tracing; mount -t bpf bpf /sys/fs/bpf\n\
         ip link set lo up\n\
         for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$controller > /sys/fs/cgroup/cgroup.subtree_control; done\n\
",
    );
    let _ = writeln!(text, "exec < /dev/null > {line} 2>&1");
    let _ = writeln!(text, "export CANARY_GUEST=1 CANARY_GUEST_CPUS={}", possible_cpus(arch));
    for step in steps {
        let _ = writeln!(text, "echo '@@begin {}'\n{}\necho \"@@end $?\"", step.name, step.command);
    }
    let _ = writeln!(text, "echo '{FINISHED}'\npoweroff -f");
    text
}

/// A finding of `canary check`.
#[derive(Debug, Clone, Deserialize)]
pub struct Finding {
    pub what: String,
    pub ok: bool,
    pub essential: bool,
    pub detail: String,
    /// What a hook is for.
    pub signal: Option<String>,
}

/// What one guest said.
pub struct Report {
    pub kernel: String,
    pub findings: Vec<Finding>,
    pub steps: BTreeMap<String, Counts>,
    current: Option<(String, Vec<String>, Run)>,
}

impl Report {
    pub fn new(kernel: &str) -> Self {
        Self { kernel: kernel.into(), findings: Vec::new(), steps: BTreeMap::new(), current: None }
    }

    /// Takes a line of the guest; gives back what the reader should see of it.
    pub fn line(&mut self, line: &str) -> Vec<String> {
        if let Some(name) = line.strip_prefix("@@begin ") {
            self.current = Some((name.to_owned(), Vec::new(), Run::default()));
            return Vec::new();
        }
        if let Some(status) = line.strip_prefix("@@end ") {
            return self.step_ended(status == "0");
        }
        let Some((name, said, run)) = &mut self.current else { return Vec::new() };
        said.push(line.to_owned());
        let kernel = &self.kernel;
        run.line(line).into_iter().map(|shown| format!("{kernel} {name}: {shown}")).collect()
    }

    fn step_ended(&mut self, success: bool) -> Vec<String> {
        let Some((name, said, run)) = self.current.take() else { return Vec::new() };
        let mut shown = Vec::new();
        let counts = if kind(&name) == Kind::Tests {
            let ended = run.end(success);
            shown = ended.unexplained;
            ended.counts
        } else {
            let understood = if name == CHECK {
                self.findings = serde_json::from_str(&said.join("\n")).unwrap_or_default();
                !self.findings.is_empty()
            } else {
                true
            };
            // What cannot be read, or a hook that was refused, is a failure.
            let refused: Vec<_> = self.findings.iter().filter(|f| name == CHECK && !f.ok).collect();
            shown.extend(refused.iter().map(|f| format!("FAILED {}: {}", f.what, f.detail)));
            if !success || !understood {
                shown.extend(said);
            }
            let ok = success && understood && refused.is_empty();
            Counts { passed: ok.into(), failed: (!ok).into(), skipped: 0 }
        };
        self.steps.insert(name.clone(), counts);
        shown.into_iter().map(|line| format!("{} {name}: {line}", self.kernel)).collect()
    }

    /// A step that never ended took the guest with it.
    pub fn end(&mut self) {
        if let Some((name, ..)) = self.current.take() {
            self.steps.insert(name, Counts { failed: 1, ..Counts::default() });
        }
    }

    pub fn counts(&self) -> Counts {
        self.steps.values().copied().fold(Counts::default(), Counts::and)
    }
}

fn kind(name: &str) -> Kind {
    match name {
        CHECK => Kind::Check,
        _ if name.starts_with("demo ") => Kind::Program,
        _ => Kind::Tests,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> (Report, Vec<String>) {
        let mut report = Report::new("6.1");
        let shown = lines.lines().flat_map(|line| report.line(line)).collect();
        report.end();
        (report, shown)
    }

    #[test]
    fn a_refused_hook_fails_and_is_named() {
        let finding = r#"[{"what":"hook a","ok":false,"essential":false,"detail":"no such","signal":"x"}]"#;
        let (report, shown) = read(&format!("@@begin canary check\n{finding}\n@@end 0"));
        assert_eq!(report.counts().failed, 1);
        assert_eq!(shown, ["6.1 canary check: FAILED hook a: no such"]);
    }

    #[test]
    fn tests_are_counted_and_what_never_ends_has_failed() {
        let tests = "@@begin cpu\nrunning 1 test\ntest a ... ok\n\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n@@end 0";
        assert_eq!(read(tests).0.counts(), Counts { passed: 1, ..Counts::default() });
        assert_eq!(read("@@begin cpu\nrunning 1 test").0.counts().failed, 1);
        assert_eq!(read("@@begin canary check\nnonsense\n@@end 0").0.counts().failed, 1);
    }
}
