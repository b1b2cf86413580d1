//! `canary check`: what this machine can do, each thing tried for real.

use std::process::ExitCode;

use serde::Serialize;

use super::Output;
use crate::{
    targets::cgroup::Root,
    telemetry::{
        Options, Sensor,
        capabilities::{self, NEEDED},
        hooks::HOOKS,
        kernel,
    },
};

const NOTES: &str = "\
Each line is `ok`, `limited` (the guard runs; what it loses is said) or `MISSING` (the guard cannot run here).
Exit code: 0 the guard can run here, 1 it cannot.

Examples:
  canary check
  canary check --output json      an array of {what, ok, essential, detail}";

/// Tell whether this machine can run the guard, and what is lost where not. Loads every kernel program, and unloads it again.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// text: one line per finding; json: one array
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    ok: bool,
    /// Whether the guard cannot run without it.
    essential: bool,
    detail: String,
    /// What a hook is for; only hooks have one.
    signal: Option<&'static str>,
}

/// Exit code 0 when the guard can run here (perhaps with signals missing), 1 when not.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let findings = look();
    let able = findings.iter().all(|f| f.ok || !f.essential);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Text => print(&findings, able),
    }
    Ok(if able { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look() -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |what: &str, essential: bool, outcome: Result<String, String>| {
        let ok = outcome.is_ok();
        let detail = outcome.unwrap_or_else(|e| e);
        findings.push(Finding { what: what.to_owned(), ok, essential, detail, signal: None });
        ok
    };
    let uname = rustix::system::uname();
    add("kernel", false, Ok(uname.release().to_string_lossy().into_owned()));
    let held = capabilities::effective();
    for capability in NEEDED {
        add(
            capability.name,
            true,
            match &held {
                Ok(held) if held.has(capability) => Ok(capability.purpose.to_owned()),
                Ok(_) => Err(format!("needed {}: {}", capability.purpose, capabilities::HOW_TO_GET)),
                Err(error) => Err(format!("{error:#}")),
            },
        );
    }
    let layout = kernel::Layout::read().map(|_| kernel::BTF_PATH.to_owned());
    add("BTF", false, layout.map_err(|e| format!("{e:#}. Without it no tracepoint can be used")));
    let root = Root::find();
    let found = root.as_ref().map(|r| format!("mounted at {}", r.path().display())).map_err(|e| format!("{e:#}"));
    add("cgroup2", true, found);
    let Ok(root) = root else { return findings };
    add("memory controller", false, memory_controller(&root));
    add("PSI", false, psi(&root));
    let sensor = match Sensor::load(root, &Options::default()) {
        Ok(sensor) => sensor,
        Err(error) => {
            add("eBPF programs", true, Err(format!("{error:#}")));
            return findings;
        }
    };
    for hook in HOOKS.iter().filter(|h| h.is_attached_by_name()) {
        let refused = sensor.live().refused.iter().find(|r| r.hook == hook.name);
        findings.push(Finding {
            what: format!("hook {}", hook.name),
            ok: refused.is_none(),
            essential: false,
            detail: refused.map_or_else(|| hook.signal.title().to_owned(), ToString::to_string),
            signal: Some(hook.signal.title()),
        });
    }
    findings
}

/// In the root's `cgroup.controllers`; on hybrid machines it is bound to v1.
fn memory_controller(root: &Root) -> Result<String, String> {
    let file = root.path().join("cgroup.controllers");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("read {}: {e}", file.display()))?;
    if text.split_whitespace().any(|c| c == "memory") {
        Ok("memory in use from memory.current".into())
    } else {
        Err("not in cgroup2 (bound to v1?): memory in use is the sum of the processes' resident sets".into())
    }
}

fn psi(root: &Root) -> Result<String, String> {
    // The root cgroup has no pressure files on older kernels, the machine-wide one is always there.
    let file = "/proc/pressure/memory";
    match std::fs::read_to_string(file) {
        Ok(_) if root.path().join("memory.pressure").exists() => Ok("memory, CPU and I/O pressure per cgroup".into()),
        Ok(_) => Ok("on".into()),
        Err(error) => {
            Err(format!("{file}: {error}; boot with psi=1. Memory stall is taken from the reclaim hooks instead"))
        }
    }
}

fn print(findings: &[Finding], able: bool) {
    for finding in findings {
        let mark = match (finding.ok, finding.essential) {
            (true, _) => "ok     ",
            (false, true) => "MISSING",
            (false, false) => "limited",
        };
        println!("{mark}  {:<26} {}", finding.what, finding.detail);
    }
    let limited = findings.iter().filter(|f| !f.ok).count();
    match (able, limited) {
        (true, 0) => println!("\nThis machine can do everything."),
        (true, n) => println!(
            "\nThis machine can run the guard; {n} thing{} limited, see above.",
            if n == 1 { " is" } else { "s are" }
        ),
        (false, _) => println!("\nThe guard cannot run here: mend what is marked MISSING."),
    }
}
