//! The programs that are attached to each watched cgroup, one by one: what a cgroup refuses costs only its signal.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, cgroup_skb::CgroupSkbLinkId, sock_ops::SockOpsLinkId},
};

use super::hooks::{self, Hook, Live, Refusal, Signal};

/// What is attached to one cgroup.
#[derive(Default)]
pub struct Attachments {
    links: Vec<(&'static str, Link)>,
    /// Hooks that are missing here although their programs are loaded.
    pub refused: Vec<Refusal>,
}

enum Link {
    Skb(CgroupSkbLinkId),
    SockOps(SockOpsLinkId),
}

impl Attachments {
    /// Live hooks that are neither attached to a cgroup above nor were tried here. A program runs for the sockets of all
    /// descendants, and one at each level would count them as often.
    fn lacking(&self, live: &Live, above: &[&str]) -> Vec<Hook> {
        let is_tried = |hook: &Hook| {
            self.names().any(|name| name == hook.name) || self.refused.iter().any(|refusal| refusal.hook == hook.name)
        };
        let hooks = hooks::of_cgroups().filter(|hook| live.has(hook.signal) && !above.contains(&hook.name));
        hooks.filter(|hook| !is_tried(hook)).collect()
    }

    /// Whether there is anything to [`Self::complete`].
    pub fn lacks_any(&self, live: &Live, above: &[&str]) -> bool {
        !self.lacking(live, above).is_empty()
    }

    /// Attaches every live program that neither a cgroup above has nor this one.
    pub fn complete(&mut self, ebpf: &mut Ebpf, cgroup: &OwnedFd, live: &Live, above: &[&str]) {
        for hook in self.lacking(live, above) {
            match attach(ebpf, hook.name, cgroup.as_fd()) {
                Ok(link) => self.links.push((hook.name, link)),
                Err(error) => {
                    self.refused.push(Refusal { hook: hook.name, signal: hook.signal, reason: format!("{error:#}") })
                }
            }
        }
    }

    /// Takes off what a cgroup above has now.
    pub fn leave_to(&mut self, ebpf: &mut Ebpf, above: &[&str]) {
        let (theirs, own) = std::mem::take(&mut self.links).into_iter().partition(|(name, _)| above.contains(name));
        self.links = own;
        take_off(ebpf, theirs);
        self.refused.retain(|refusal| !above.contains(&refusal.hook));
    }

    /// The hooks that are attached here.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.links.iter().map(|(name, _)| *name)
    }

    pub fn has(&self, signal: Signal) -> bool {
        !self.refused.iter().any(|refusal| refusal.signal == signal)
    }

    /// Takes everything off again.
    pub fn detach(self, ebpf: &mut Ebpf) {
        take_off(ebpf, self.links);
    }
}

/// The link of a removed cgroup is dead already; that is no failure.
fn take_off(ebpf: &mut Ebpf, links: Vec<(&'static str, Link)>) {
    for (name, link) in links {
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
