//! `canary check`: what this machine can do, each thing tried for real.

mod machine;
mod trial;

use std::process::ExitCode;

use serde::Serialize;

use self::trial::Trial;
use super::Output;
use crate::{
    targets::cgroup::Root,
    telemetry::{
        Options, Sensor,
        capabilities::{self, NEEDED},
        hooks::{HOOKS, Hook, Refusal},
        kernel,
    },
};

const NOTES: &str = "\
Each line is `ok`, `limited` (the guard runs; what it loses is said) or
`MISSING` (the guard cannot run here).
Exit code: 0 the guard can run here, 1 it cannot.

Examples:
  canary check
  canary check --output json      an array of {what, ok, essential, detail}";

/// Tell whether this machine can run the guard, and what is lost where not. Attaches every kernel program, and takes it off again.
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
    add("kernel", false, machine::version(&uname.release().to_string_lossy()));
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
    for controller in machine::CONTROLLERS {
        add(&format!("{} controller", controller.0), false, machine::controller(&root, controller));
    }
    add("PSI", false, machine::psi(&root));
    let mut sensor = match Sensor::load(root.clone(), &Options::default()) {
        Ok(sensor) => sensor,
        Err(error) => {
            add("eBPF programs", true, Err(format!("{error:#}")));
            return findings;
        }
    };
    let trial = Trial::begin(&root);
    let tried = trial.open(&root).map(|cgroup| sensor.try_on(&cgroup));
    let note = trial.note();
    for hook in HOOKS.iter().filter(|h| h.is_attached_by_name()) {
        let outcome = match sensor.live().refused.iter().find(|r| r.hook == hook.name) {
            Some(refusal) => Err(refusal.to_string()),
            None if hook.is_of_cgroups() => on_a_cgroup(hook, &tried).map(|ok| ok + &note).map_err(|e| e + &note),
            None => Ok(hook.signal.title().to_owned()),
        };
        findings.push(Finding {
            what: format!("hook {}", hook.name),
            ok: outcome.is_ok(),
            essential: false,
            detail: outcome.unwrap_or_else(|e| e),
            signal: Some(hook.signal.title()),
        });
    }
    findings
}

/// That it is loaded says nothing of whether a cgroup takes it.
fn on_a_cgroup(hook: &Hook, tried: &anyhow::Result<Vec<Refusal>>) -> Result<String, String> {
    match tried {
        Ok(refused) => match refused.iter().find(|r| r.hook == hook.name) {
            Some(refusal) => Err(refusal.to_string()),
            None => Ok(hook.signal.title().to_owned()),
        },
        Err(error) => Err(format!("loaded, and there is no cgroup to try it on: {error:#}")),
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
