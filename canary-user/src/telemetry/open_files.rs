//! Room for the files and attachments of all targets.

use canary_common::MAX_SLOTS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For each target: five files of its cgroup, up to six of its memory, and three attached programs, with some to spare.
const PER_TARGET: u64 = 16;

/// Raises this process's limit of open files as far as all slots need and the system lets it. What cannot be opened later is
/// missing, and is told there.
pub fn make_room() {
    let wanted = PER_TARGET * MAX_SLOTS as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let set = |limit: u64, maximum| setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum });
    // More than the maximum takes CAP_SYS_RESOURCE.
    let room = maximum.map_or(wanted, |maximum| maximum.max(wanted));
    let raised = set(wanted, Some(room)).or_else(|_| set(maximum.unwrap_or(wanted), maximum));
    if let Err(error) = raised {
        tracing::debug!("raise the limit of open files: {error}");
    }
}
