//! The hooks, what each is for, and attaching them one by one: a kernel that refuses one loses only its signal.

use std::fmt;

use anyhow::{Context as _, bail};
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, Program, RawTracePoint},
};

use super::kernel::Unreadable;

/// A group of counters that stands or falls together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    Cpu,
    Reclaim,
    Network,
    Retransmits,
    Lifecycle,
    OomKills,
    Connections,
    Starts,
    Tree,
}

impl Signal {
    pub const ALL: [Signal; 9] = [
        Signal::Cpu,
        Signal::Reclaim,
        Signal::Network,
        Signal::Retransmits,
        Signal::Connections,
        Signal::Lifecycle,
        Signal::Starts,
        Signal::OomKills,
        Signal::Tree,
    ];

    /// What is lost without it, in words.
    pub fn title(self) -> &'static str {
        match self {
            Signal::Cpu => "on-CPU time and run-queue wait",
            Signal::Reclaim => "memory reclaim stalls",
            Signal::Network => "bytes, packets, turnarounds and resets",
            Signal::Retransmits => "TCP retransmits",
            Signal::Lifecycle => "process exits and crashes",
            Signal::OomKills => "OOM kills",
            Signal::Tree => "cheap looks for new instances",
            Signal::Connections => "connections opened and failed",
            Signal::Starts => "process starts and restarts",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A typed tracepoint of the same name as `Hook::tracepoint`.
    Tracepoint,
    /// Loaded only; the daemon runs it.
    OnDemand,
    /// Attached to each tracked cgroup when it appears.
    Cgroup,
}

/// One hook and what depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name of the program in the object.
    pub name: &'static str,
    tracepoint: &'static str,
    kind: Kind,
    pub signal: Signal,
}

const fn hook(name: &'static str, tracepoint: &'static str, kind: Kind, signal: Signal) -> Hook {
    Hook { name, tracepoint, kind, signal }
}

pub const HOOKS: [Hook; 19] = [
    hook("sched_switch", "sched_switch", Kind::Tracepoint, Signal::Cpu),
    hook("cgroup_attach_task", "cgroup_attach_task", Kind::Tracepoint, Signal::Cpu),
    hook("flush", "", Kind::OnDemand, Signal::Cpu),
    hook("memcg_reclaim_begin", "mm_vmscan_memcg_reclaim_begin", Kind::Tracepoint, Signal::Reclaim),
    hook("memcg_reclaim_end", "mm_vmscan_memcg_reclaim_end", Kind::Tracepoint, Signal::Reclaim),
    hook("direct_reclaim_begin", "mm_vmscan_direct_reclaim_begin", Kind::Tracepoint, Signal::Reclaim),
    hook("direct_reclaim_end", "mm_vmscan_direct_reclaim_end", Kind::Tracepoint, Signal::Reclaim),
    hook("ingress", "", Kind::Cgroup, Signal::Network),
    hook("egress", "", Kind::Cgroup, Signal::Network),
    hook("tcp_retransmit_skb", "tcp_retransmit_skb", Kind::Tracepoint, Signal::Retransmits),
    hook("connections", "", Kind::Cgroup, Signal::Connections),
    hook("sched_process_exit", "sched_process_exit", Kind::Tracepoint, Signal::Lifecycle),
    hook("sched_process_fork", "sched_process_fork", Kind::Tracepoint, Signal::Starts),
    hook("sched_process_exec", "sched_process_exec", Kind::Tracepoint, Signal::Starts),
    // A restart begins with the end of the main process.
    hook("sched_process_exit", "", Kind::OnDemand, Signal::Starts),
    hook("mark_victim", "mark_victim", Kind::Tracepoint, Signal::OomKills),
    hook("cgroup_mkdir", "cgroup_mkdir", Kind::Tracepoint, Signal::Tree),
    hook("cgroup_rmdir", "cgroup_rmdir", Kind::Tracepoint, Signal::Tree),
    // An OOM kill is counted when its victim exits.
    hook("sched_process_exit", "", Kind::OnDemand, Signal::OomKills),
];

impl Hook {
    /// False for the second mention of a hook that two signals need.
    pub fn is_attached_by_name(&self) -> bool {
        self.kind != Kind::OnDemand || self.name == "flush"
    }

    /// Whether it is attached to each watched cgroup; until there is one, it is only loaded.
    pub fn is_of_cgroups(&self) -> bool {
        self.kind == Kind::Cgroup
    }
}

/// Names of the hooks, each once.
pub fn names() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().filter(|h| h.is_attached_by_name()).map(|h| h.name)
}

/// Those that are attached to each watched cgroup.
pub fn of_cgroups() -> impl Iterator<Item = Hook> {
    HOOKS.into_iter().filter(Hook::is_of_cgroups)
}

/// Why a hook is not live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub hook: &'static str,
    pub signal: Signal,
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (without it there are no {})", self.hook, self.reason, self.signal.title())
    }
}

/// Which signals are live and which hooks are not.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub refused: Vec<Refusal>,
}

impl Live {
    /// Whether everything that the signal needs is attached.
    pub fn has(&self, signal: Signal) -> bool {
        !self.refused.iter().any(|r| r.signal == signal)
    }
}

/// Loads every program and attaches those that are not per cgroup. `disabled` names hooks to leave out; those that are
/// `unreadable` here are not tried, and without the kernel's types only those of cgroups are.
pub fn attach(ebpf: &mut Ebpf, btf: Option<&Btf>, disabled: &[String], unreadable: &[Unreadable]) -> Live {
    let mut live = Live::default();
    let mut done: Vec<(&str, Option<String>)> = Vec::new();
    for hook in HOOKS {
        let refused = match done.iter().find(|(name, _)| *name == hook.name) {
            Some((_, outcome)) => outcome.clone(),
            None => {
                let outcome = left_out(hook.name, disabled, unreadable)
                    .or_else(|| attach_one(ebpf, btf, hook).err().map(|e| short(&e)));
                done.push((hook.name, outcome.clone()));
                outcome
            }
        };
        if let Some(reason) = refused {
            live.refused.push(Refusal { hook: hook.name, signal: hook.signal, reason });
        }
    }
    live
}

const NEEDS_TYPES: &str = "needs the kernel's BTF";

/// Why a hook is not even tried. One that reads what is not there would read what lies at the beginning instead, and be taken for one
/// that works.
fn left_out(hook: &str, disabled: &[String], unreadable: &[Unreadable]) -> Option<String> {
    if disabled.iter().any(|name| name == hook) {
        return Some("left out by --disable-hook".to_owned());
    }
    unreadable.iter().find(|u| u.hook == hook).map(|u| u.reason.clone())
}

fn attach_one(ebpf: &mut Ebpf, btf: Option<&Btf>, hook: Hook) -> anyhow::Result<()> {
    let program = ebpf.program_mut(hook.name).with_context(|| format!("the object has no program {}", hook.name))?;
    match hook.kind {
        Kind::Tracepoint => {
            let btf = btf.context(NEEDS_TYPES)?;
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(hook.tracepoint, btf).context("load")?;
            program.attach().context("attach")?;
        }
        Kind::OnDemand => {
            btf.context(NEEDS_TYPES)?;
            let program: &mut RawTracePoint = program.try_into()?;
            program.load().context("load")?;
        }
        Kind::Cgroup => match program {
            Program::CgroupSkb(program) => program.load().context("load")?,
            Program::SockOps(program) => program.load().context("load")?,
            _ => bail!("not a program of cgroups"),
        },
    }
    Ok(())
}

/// A refused load carries the verifier's whole log; people get its last line, the rest goes to the debug log.
fn short(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    tracing::debug!("refused hook, in full: {whole}");
    let mut lines = whole.lines().map(str::trim).filter(|l| !l.is_empty());
    let first = lines.next().unwrap_or("refused").chars().take(200).collect::<String>();
    match lines.rfind(|l| ![":", "processed ", "verification time", "stack depth"].iter().any(|p| l.starts_with(p))) {
        Some(last) => format!("{first}; the verifier says: {}", last.chars().take(200).collect::<String>()),
        None => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_disabled_or_reads_what_is_not_there_is_left_out_by_name() {
        let disabled = ["mark_victim".to_owned()];
        let unreadable =
            [Unreadable { hook: "cgroup_mkdir", reason: "struct cgroup_root has no member hierarchy_id".to_owned() }];
        let reason = |hook| left_out(hook, &disabled, &unreadable);
        assert!(reason("mark_victim").is_some_and(|why| why.contains("--disable-hook")));
        assert!(reason("cgroup_mkdir").is_some_and(|why| why.contains("hierarchy_id")));
        for hook in names().filter(|hook| !["mark_victim", "cgroup_mkdir"].contains(hook)) {
            assert_eq!(reason(hook), None, "{hook}");
        }
    }
}
