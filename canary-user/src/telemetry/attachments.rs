//! The programs that are attached to each watched cgroup, one by one: what a cgroup refuses costs only its signal.

use std::{
    fs,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

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
    /// Hooks that are missing here although their programs are loaded. What was in the way may be gone later.
    refused: Vec<Refusal>,
    /// Hooks that somebody else took off. They are not put there again: whoever did it wants them to be gone.
    taken_off: Vec<Hook>,
}

#[derive(Debug)]
enum Link {
    Skb(CgroupSkbLinkId),
    SockOps(SockOpsLinkId),
}

impl Attachments {
    /// Live hooks that are neither attached to a cgroup above nor were tried here. A program runs for the sockets of all
    /// descendants, and one at each level would count them as often.
    fn lacking(&self, live: &Live, above: &[&str]) -> Vec<Hook> {
        let is_attached = |hook: &Hook| above.contains(&hook.name) || self.names().any(|name| name == hook.name);
        let is_missing = |hook: &Hook| {
            self.refused.iter().any(|refusal| refusal.hook == hook.name)
                || self.taken_off.iter().any(|taken| taken.name == hook.name)
        };
        let live = hooks::of_cgroups().filter(|hook| live.has(hook.signal));
        live.filter(|hook| !is_attached(hook) && !is_missing(hook)).collect()
    }

    /// Whether there is anything to [`Self::complete`].
    pub fn lacks_any(&self, live: &Live, above: &[&str]) -> bool {
        !self.lacking(live, above).is_empty()
    }

    /// Attaches every live program that neither a cgroup above has nor this one. Where the cgroup cannot be opened, each of them is
    /// refused.
    pub fn complete(&mut self, ebpf: &mut Ebpf, cgroup: &anyhow::Result<OwnedFd>, live: &Live, above: &[&str]) {
        for hook in self.lacking(live, above) {
            let attached = match cgroup {
                Ok(cgroup) => attach(ebpf, hook.name, cgroup.as_fd()).map_err(|error| format!("{error:#}")),
                Err(error) => Err(format!("{error:#}")),
            };
            match attached {
                Ok(link) => self.links.push((hook.name, link)),
                Err(reason) => self.refused.push(Refusal { hook: hook.name, signal: hook.signal, reason }),
            }
        }
    }

    /// Leaves to a cgroup above what is attached there now.
    pub fn leave_to(&mut self, ebpf: &mut Ebpf, above: &[&str]) {
        let (theirs, own) = std::mem::take(&mut self.links).into_iter().partition(|(name, _)| above.contains(name));
        self.links = own;
        take_off(theirs, ebpf);
        self.refused.retain(|refusal| !above.contains(&refusal.hook));
        self.taken_off.retain(|hook| !above.contains(&hook.name));
    }

    /// The hooks that are attached here.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.links.iter().map(|(name, _)| *name)
    }

    /// Whether something was refused.
    pub fn is_short(&self) -> bool {
        !self.refused.is_empty()
    }

    /// What was refused lacks again.
    pub fn try_again(&mut self) {
        self.refused.clear();
    }

    pub fn has(&self, signal: Signal) -> bool {
        !self.refused.iter().any(|r| r.signal == signal) && !self.taken_off.iter().any(|h| h.signal == signal)
    }

    /// What is missing here, each with the reason.
    pub fn missing(&self) -> impl Iterator<Item = String> {
        let refused = self.refused.iter().map(|refusal| format!("{}: {}", refusal.hook, refusal.reason));
        refused.chain(self.taken_off.iter().map(|hook| format!("{}: somebody took it off", hook.name)))
    }

    /// What somebody else took off, or the kernel, which does so when the cgroup is removed.
    pub fn find_detached(&self) -> Vec<&'static str> {
        self.links.iter().filter(|(_, link)| is_detached(link)).map(|(name, _)| *name).collect()
    }

    /// From now on these are missing.
    pub fn give_up(&mut self, ebpf: &mut Ebpf, names: &[&'static str]) {
        let (gone, kept) = std::mem::take(&mut self.links).into_iter().partition(|(name, _)| names.contains(name));
        self.links = kept;
        self.taken_off.extend(hooks::of_cgroups().filter(|hook| names.contains(&hook.name)));
        take_off(gone, ebpf);
    }

    /// Takes everything off again; what was missing stays missing.
    pub fn detach(&mut self, ebpf: &mut Ebpf) {
        take_off(std::mem::take(&mut self.links), ebpf);
    }
}

/// The link of a removed cgroup is dead already; that is no failure.
fn take_off(links: Vec<(&'static str, Link)>, ebpf: &mut Ebpf) {
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

/// Whether a program is attached no more. The kernel then has no cgroup for its link.
fn is_detached(link: &Link) -> bool {
    let told =
        descriptor(&format!("{link:?}")).and_then(|fd| fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok());
    told.is_some_and(|told| told.lines().any(|line| line.strip_prefix("cgroup_id:").is_some_and(|id| id.trim() == "0")))
}

/// A link's file descriptor, which aya shows to people only. Where it is shown otherwise, no link can be asked for.
fn descriptor(shown: &str) -> Option<u32> {
    shown.trim_end_matches(')').rsplit('(').next()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_of_a_link_is_found_in_what_aya_shows() {
        assert_eq!(descriptor("Skb(CgroupSkbLinkId(Fd(FdLinkId(12))))"), Some(12));
        assert_eq!(descriptor("Skb(CgroupSkbLinkId(ProgAttach(ProgAttachLinkId(5, 6, BPF_CGROUP_SOCK_OPS))))"), None);
        assert_eq!(["", "Skb", "Skb()"].map(descriptor), [None; 3]);
    }

    fn hook(name: &str) -> Hook {
        hooks::of_cgroups().find(|hook| hook.name == name).expect("there is one")
    }

    fn lacking(attachments: &Attachments, above: &[&str]) -> Vec<&'static str> {
        attachments.lacking(&Live::default(), above).iter().map(|hook| hook.name).collect()
    }

    #[test]
    fn what_was_taken_off_is_missing_and_not_tried_again() {
        let attachments = Attachments { taken_off: vec![hook("egress")], ..Attachments::default() };
        assert!(!attachments.has(Signal::Network) && attachments.has(Signal::Connections));
        assert_eq!(attachments.missing().collect::<Vec<_>>(), ["egress: somebody took it off"]);
        assert!(!attachments.is_short());
        assert_eq!(lacking(&attachments, &[]), ["ingress", "connections"]);
    }

    #[test]
    fn what_was_refused_is_missing_until_it_is_tried_again() {
        let egress = hook("egress");
        let refusal = Refusal { hook: egress.name, signal: egress.signal, reason: "no room".to_owned() };
        let mut attachments = Attachments { refused: vec![refusal], ..Attachments::default() };
        assert!(!attachments.has(Signal::Network) && attachments.is_short());
        assert_eq!(attachments.missing().collect::<Vec<_>>(), ["egress: no room"]);
        assert_eq!(lacking(&attachments, &["ingress"]), ["connections"], "and not what a cgroup above has");
        attachments.try_again();
        assert_eq!(lacking(&attachments, &["ingress"]), ["egress", "connections"]);
    }
}
