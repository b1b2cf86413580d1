//! The programs that are attached to each watched cgroup, one by one: what a cgroup refuses costs only its signal.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, cgroup_skb::CgroupSkbLinkId, sock_ops::SockOpsLinkId},
};

use super::hooks::{self, Live, Refusal, Signal};

/// What is attached to one cgroup.
#[derive(Default)]
pub struct Attachments {
    links: Vec<(&'static str, Link)>,
    /// Signals that are missing here although their programs are loaded, and why.
    pub refused: Vec<(Signal, String)>,
}

enum Link {
    Skb(CgroupSkbLinkId),
    SockOps(SockOpsLinkId),
}

impl Attachments {
    /// Attaches every live program of its kind.
    pub fn attach(ebpf: &mut Ebpf, cgroup: &OwnedFd, live: &Live) -> Self {
        let mut attachments = Self::default();
        for hook in hooks::of_cgroups().filter(|h| live.has(h.signal)) {
            match attach(ebpf, hook.name, cgroup.as_fd()) {
                Ok(link) => attachments.links.push((hook.name, link)),
                Err(error) => attachments.refused.push((hook.signal, format!("{}: {error:#}", hook.name))),
            }
        }
        attachments
    }

    /// Whether nothing was tried: another target above may do it.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.refused.is_empty()
    }

    pub fn has(&self, signal: Signal) -> bool {
        !self.refused.iter().any(|(refused, _)| *refused == signal)
    }

    /// Takes everything off again. The link of a removed cgroup is dead already; that is no failure.
    pub fn detach(self, ebpf: &mut Ebpf) {
        for (name, link) in self.links {
            let done = match (ebpf.program_mut(name), link) {
                (Some(Program::CgroupSkb(program)), Link::Skb(link)) => program.detach(link),
                (Some(Program::SockOps(program)), Link::SockOps(link)) => program.detach(link),
                _ => Ok(()),
            };
            if let Err(error) = done {
                tracing::debug!("detach {name}: {error}");
            }
        }
    }
}

/// Attaches each loaded program of its kind to a cgroup and takes it off again: what the kernel refused.
pub fn try_each(ebpf: &mut Ebpf, cgroup: &OwnedFd, live: &Live) -> Vec<Refusal> {
    let mut taken = Attachments::default();
    let mut refused = Vec::new();
    // Also one whose signal is lost by another hook: each is told for itself.
    for hook in hooks::of_cgroups().filter(|h| live.refused.iter().all(|r| r.hook != h.name)) {
        match attach(ebpf, hook.name, cgroup.as_fd()) {
            Ok(link) => taken.links.push((hook.name, link)),
            Err(error) => refused.push(Refusal { hook: hook.name, signal: hook.signal, reason: format!("{error:#}") }),
        }
    }
    taken.detach(ebpf);
    refused
}

fn attach(ebpf: &mut Ebpf, name: &str, cgroup: BorrowedFd<'_>) -> anyhow::Result<Link> {
    let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    // Links stack by themselves; only attachments without a link need the mode.
    let mode = CgroupAttachMode::Single;
    Ok(match program {
        Program::CgroupSkb(program) => {
            let direction = if name == "ingress" { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            Link::Skb(program.attach(cgroup, direction, mode).context("attach to the cgroup")?)
        }
        Program::SockOps(program) => Link::SockOps(program.attach(cgroup, mode).context("attach to the cgroup")?),
        _ => bail!("not a program of cgroups"),
    })
}
