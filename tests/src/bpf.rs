//! What the kernel itself says of loaded and attached programs, and one program of the tests' own.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs,
    io::{Error, Result},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// Ids of what a process holds. The kernel does not give an id again for a long time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub programs: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
}

impl Held {
    /// What the open files of `pid` are.
    pub fn by(pid: u32) -> Self {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let id = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u32>().ok());
            held.programs.extend(id("prog_id:"));
            held.links.extend(id("link_id:"));
            held.maps.extend(id("map_id:"));
        }
        held
    }

    /// Those of them that the kernel still has, whoever keeps them.
    pub fn that_are_left(&self) -> Self {
        let programs = aya::programs::loaded_programs().flatten().map(|p| p.id());
        let links = aya::programs::loaded_links().flatten().map(|l| l.id());
        let maps = aya::maps::loaded_maps().flatten().map(|m| m.id());
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            links: links.filter(|id| self.links.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
        }
    }
}

/// `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug)]
pub enum Attach {
    Ingress = 0,
    Egress = 1,
    SockOps = 3,
}

/// How many programs are attached to a cgroup itself (`BPF_PROG_QUERY`).
pub fn attached(cgroup: impl AsFd, direction: Attach) -> Result<u32> {
    // target_fd, attach_type, query_flags, attach_flags, prog_ids (low, high), prog_cnt: a count of 0 asks for the number.
    let mut attributes = [0u32; 8];
    attributes[0] = number(cgroup.as_fd());
    attributes[1] = direction as u32;
    call(16, &mut attributes)?;
    Ok(attributes[6])
}

/// Lets every packet through and is attached alone: no other program may join it, which is how a kernel refuses ours.
/// It stays until the cgroup is removed.
pub fn occupy(cgroup: impl AsFd, direction: Attach) -> Result<()> {
    // 0 is exclusive.
    attach(cgroup, &load_pass()?, direction, 0)
}

/// Lets every packet through, and lets cgroups below have programs of their own in its place. In this one no other may join it,
/// until the cgroup is removed.
pub fn occupy_alone(cgroup: impl AsFd, direction: Attach) -> Result<()> {
    // 1 is BPF_F_ALLOW_OVERRIDE.
    attach(cgroup, &load_pass()?, direction, 1)
}

/// Drops every packet, until the cgroup is removed.
pub fn lose_all(cgroup: impl AsFd, direction: Attach) -> Result<()> {
    attach(cgroup, &load_returning(CGROUP_SKB, 0)?, direction, 2)
}

/// Drops one of 16 packets, whichever it is, until the cgroup is removed: a line that loses packets.
pub fn lose_some(cgroup: impl AsFd, direction: Attach) -> Result<()> {
    // call bpf_get_prandom_u32; r0 &= 15; if r0 == 0 goto the last but one; r0 = 1; exit; r0 = 0; exit
    let instructions = [
        0x0000_0007_0000_0085,
        0x0000_000f_0000_0057,
        0x0000_0000_0002_0015,
        0x0000_0001_0000_00b7,
        0x95,
        0x0000_0000_0000_00b7,
        0x95,
    ];
    // 2 is BPF_F_ALLOW_MULTI.
    attach(cgroup, &load(CGROUP_SKB, &instructions)?, direction, 2)
}

fn attach(cgroup: impl AsFd, program: &OwnedFd, direction: Attach, flags: u32) -> Result<()> {
    // target_fd, attach_bpf_fd, attach_type, attach_flags.
    let mut attributes = [number(cgroup.as_fd()), number(program.as_fd()), direction as u32, flags];
    call(8, &mut attributes)?;
    Ok(())
}

/// Takes every program off a cgroup that this process has attached there, as `bpftool link detach` does: how many there were.
pub fn take_off(cgroup_id: u64) -> Result<usize> {
    let mut taken = 0;
    for entry in fs::read_dir("/proc/self/fdinfo")?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("cgroup_id:")?.trim().parse::<u64>().ok());
        let fd = entry.file_name().to_str().and_then(|fd| fd.parse::<u32>().ok());
        if let Some(fd) = fd.filter(|_| id == Some(cgroup_id)) {
            // link_fd.
            call(34, &mut [fd])?;
            taken += 1;
        }
    }
    Ok(taken)
}

fn load_pass() -> Result<OwnedFd> {
    load_returning(CGROUP_SKB, 1)
}

const CGROUP_SKB: u32 = 8;
const SOCK_OPS: u32 = 13;
const RAW_TRACEPOINT: u32 = 17;

fn load_returning(program_type: u32, value: u32) -> Result<OwnedFd> {
    // r0 = value; exit
    load(program_type, &[u64::from(value) << 32 | 0xb7, 0x95])
}

fn load(program_type: u32, instructions: &[u64]) -> Result<OwnedFd> {
    let license = c"GPL";
    let halves = |address: usize| [address as u32, (address as u64 >> 32) as u32];
    let [code_low, code_high] = halves(instructions.as_ptr() as usize);
    let [license_low, license_high] = halves(license.as_ptr() as usize);
    // prog_type, insn_cnt, insns, license, and zeros up to expected_attach_type.
    let mut attributes = [0u32; 20];
    let count = instructions.len() as u32;
    attributes[..6].copy_from_slice(&[program_type, count, code_low, code_high, license_low, license_high]);
    own(call(5, &mut attributes)?)
}

pub(crate) fn own(fd: i32) -> Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A program that does nothing, attached: what a hook costs before anything is done in it.
#[derive(Debug)]
pub struct Empty {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    pub fn raw_tracepoint(name: &CStr) -> Result<Self> {
        let program = load_returning(RAW_TRACEPOINT, 0)?;
        let address = name.as_ptr() as usize as u64;
        // name, prog_fd.
        let mut attributes = [address as u32, (address >> 32) as u32, number(program.as_fd()), 0];
        let link = own(call(17, &mut attributes)?)?;
        Ok(Self { program, _link: link })
    }

    /// Beside whatever else is attached there.
    pub fn cgroup(cgroup: impl AsFd, direction: Attach) -> Result<Self> {
        let program = load_pass()?;
        // prog_fd, target_fd, attach_type, flags.
        let mut attributes = [number(program.as_fd()), number(cgroup.as_fd()), direction as u32, 0];
        let link = own(call(28, &mut attributes)?)?;
        Ok(Self { program, _link: link })
    }

    /// Runs and nanoseconds, as counted while `kernel.bpf_stats` is on.
    pub fn runs(&self) -> (u64, u64) {
        let path = format!("/proc/self/fdinfo/{}", self.program.as_raw_fd());
        let text = fs::read_to_string(path).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0);
        (field("run_cnt:"), field("run_time_ns:"))
    }
}

/// Somebody else's program on a cgroup, which asks for the state changes of each connection that is opened there. It stays until
/// the cgroup is removed.
#[derive(Debug)]
pub struct StateChanges {
    /// Of one element: how many ended the state "established".
    ended: OwnedFd,
}

impl StateChanges {
    pub fn of(cgroup: impl AsFd) -> Result<Self> {
        // map_type (an array), key_size, value_size, max_entries, map_flags.
        let ended = own(call(0, &mut [2, 4, 8, 1, 0])?)?;
        let instructions = [
            // r6 = r1; r2 = op
            0x0000_0000_0000_16bf,
            0x0000_0000_0000_1261,
            // if it is a connect, go and ask; if it is no state change, go to the end
            0x0000_0003_0008_0215,
            0x0000_000a_000a_0255,
            // r2 = the old state; if it is not "established", go to the end
            0x0000_0000_0004_1261,
            0x0000_0001_0008_0255,
            // r1 = the element (two words); r2 = 1; lock *r1 += r2; go to the end
            u64::from(number(ended.as_fd())) << 32 | 0x2118,
            0,
            0x0000_0001_0000_02b7,
            0x0000_0000_0000_21db,
            0x0000_0000_0003_0005,
            // r1 = r6; r2 = BPF_SOCK_OPS_STATE_CB_FLAG; call bpf_sock_ops_cb_flags_set
            0x0000_0000_0000_61bf,
            0x0000_0004_0000_02b7,
            0x0000_003b_0000_0085,
            // r0 = 1; exit
            0x0000_0001_0000_00b7,
            0x95,
        ];
        attach(cgroup, &load(SOCK_OPS, &instructions)?, Attach::SockOps, 2)?;
        Ok(Self { ended })
    }

    pub fn ended(&self) -> Result<u64> {
        let (index, mut ended) = (0u32, 0u64);
        let [key, value] =
            [(&raw const index) as u64, (&raw mut ended) as u64].map(|at| [at as u32, (at >> 32) as u32]);
        // map_fd, key, value, flags.
        call(1, &mut [number(self.ended.as_fd()), 0, key[0], key[1], value[0], value[1], 0, 0])?;
        Ok(ended)
    }
}

/// Nanoseconds per run between two readings; `None` where none ran.
pub fn ns_per_run(before: (u64, u64), after: (u64, u64)) -> Option<f64> {
    let runs = after.0.checked_sub(before.0).filter(|runs| *runs > 0)?;
    Some(after.1.saturating_sub(before.1) as f64 / runs as f64)
}

pub(crate) fn number(fd: BorrowedFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// bpf(2). `attributes` is the beginning of `union bpf_attr`, little-endian machines only.
pub(crate) fn call<const N: usize>(command: i32, attributes: &mut [u32; N]) -> Result<i32> {
    #[repr(C, align(8))]
    struct Aligned<const N: usize>([u32; N]);
    let mut union = Aligned(*attributes);
    // SAFETY: the kernel reads and writes at most the given size, and what the attributes point to outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut union, size_of_val(attributes)) };
    *attributes = union.0;
    if done < 0 { Err(Error::last_os_error()) } else { Ok(done as i32) }
}
