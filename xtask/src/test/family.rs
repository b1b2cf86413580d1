//! Ends a process and all that descend from it.
//!
//! Not by a process group of its own: at a terminal, Ctrl-C would reach it no more. And what a test starts may have made groups and
//! sessions of its own.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// `root` is a child that was not waited for, so that the number is its own.
pub fn kill(root: Pid) {
    // One that has ended meanwhile is none to be told of.
    let send = |pid: i32, signal: Signal| Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
    // Stopped first, so that none of them starts another between the look and its end; and looked for until there is nobody new.
    let mut family: Vec<i32> = Vec::new();
    loop {
        let found = with_descendants(root.as_raw_pid(), &parents());
        let new: Vec<i32> = found.into_iter().filter(|pid| !family.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            let _ = send(pid, Signal::STOP);
            family.push(pid);
        }
    }
    for pid in family {
        let _ = send(pid, Signal::KILL);
    }
}

/// A process, its children, theirs, and so on. Those whose parent has ended are somebody else's by then.
fn with_descendants(root: i32, parents: &[(i32, i32)]) -> Vec<i32> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let is_new = |(pid, of): &&(i32, i32)| *of == parent && !family.contains(pid);
        let children: Vec<i32> = parents.iter().filter(is_new).map(|(pid, _)| *pid).collect();
        family.extend(children);
        next += 1;
    }
    family
}

/// Each process with its parent.
fn parents() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read(entry.path().join("stat")).ok()?;
            Some((pid, parent(&String::from_utf8_lossy(&stat))?))
        })
        .collect()
}

/// Of the text of `/proc/PID/stat`: number, name in brackets, state, parent. A name may have spaces and brackets in it.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_through_all_generations_and_nobody_else() {
        let parents = [(1, 0), (10, 1), (11, 10), (12, 11), (13, 10), (20, 1), (21, 20)];
        assert_eq!(with_descendants(10, &parents), [10, 11, 13, 12]);
        assert_eq!(with_descendants(12, &parents), [12]);
        // Read one after the other, and a number was given away in between.
        assert_eq!(with_descendants(30, &[(30, 31), (31, 30)]), [30, 31]);
    }

    #[test]
    fn the_parent_stands_after_a_name_of_any_form() {
        assert_eq!(parent("42 (a) b (c)) S 7 42 42 0 -1 4194304"), Some(7));
        assert_eq!(parent("42 (cut off"), None);
        let own = std::process::id().cast_signed();
        let parent_of_own = parents().into_iter().find(|(pid, _)| *pid == own).map(|(_, parent)| parent);
        assert_eq!(parent_of_own, Some(std::os::unix::process::parent_id().cast_signed()));
    }
}
