//! The directory of reports: one HTML file for each of the latest decisions, and how often writing them went well.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;

/// Decisions whose reports are kept.
pub const KEPT: usize = 200;

/// How often reports were written, and could not be. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<[AtomicU64; 2]>);

impl Counts {
    /// "written" and "failed", each with how often.
    pub fn results(&self) -> [(&'static str, u64); 2] {
        let [written, failed] = &*self.0;
        [("written", written.load(Ordering::Relaxed)), ("failed", failed.load(Ordering::Relaxed))]
    }
}

/// Where reports are written.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    counts: Counts,
    /// Whether the last one could not be written.
    is_failing: bool,
}

impl Directory {
    /// It is made with the first report.
    pub fn new(path: PathBuf) -> Self {
        Self { path, counts: Counts::default(), is_failing: false }
    }

    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Writes the report of a decision, in place of what was written of it before, and removes those of the oldest. Returns what
    /// is to be told: why it failed, but of several failures in a row the first only.
    pub(super) fn write(&mut self, id: &str, html: &str) -> Option<anyhow::Error> {
        let done = write(&self.path, id, html).and_then(|()| forget_the_oldest(&self.path));
        let was_failing = std::mem::replace(&mut self.is_failing, done.is_err());
        let [written, failed] = &*self.counts.0;
        let count = if done.is_ok() { written } else { failed };
        count.fetch_add(1, Ordering::Relaxed);
        done.err().filter(|_| !was_failing)
    }
}

/// Written beside its name first: nobody sees half a report.
fn write(directory: &Path, id: &str, text: &str) -> anyhow::Result<()> {
    let place = directory.join(format!("{}.html", file_name(id)));
    let what = || format!("write the report {}: see 'reports' in the configuration", place.display());
    fs::create_dir_all(directory).with_context(what)?;
    let draft = place.with_extension("html.part");
    fs::write(&draft, text).and_then(|()| fs::rename(&draft, &place)).with_context(what)
}

/// A name of a deployment may hold what a file's name may not.
fn file_name(id: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    id.chars().map(safe).collect()
}

/// Files that are not named as reports are belong to somebody else, and stay.
fn forget_the_oldest(directory: &Path) -> anyhow::Result<()> {
    let what = || format!("look for the oldest reports in {}", directory.display());
    let mut reports = Vec::new();
    for entry in fs::read_dir(directory).with_context(what)? {
        let path = entry.with_context(what)?.path();
        if let Some(decided) = decided(&path) {
            reports.push((decided, path));
        }
    }
    reports.sort_unstable();
    let too_many = reports.len().saturating_sub(KEPT);
    for (_, path) in &reports[..too_many] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove the old report {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// When the decision of a report was made, in ms since 1970, and its number: the end of its id. `None` for any other file.
fn decided(path: &Path) -> Option<(u64, u64)> {
    let id = path.file_name()?.to_str()?.strip_suffix(".html")?;
    let (rest, number) = id.rsplit_once('-')?;
    let (_, unix_ms) = rest.rsplit_once('-')?;
    let read = |digits: &str, least: usize| -> Option<u64> {
        let is_number = digits.len() >= least && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    };
    Some((read(unix_ms, 13)?, read(number, 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> String {
        format!("shop-{:013}-{n:04}", 1_795_000_000_000 + n)
    }

    #[test]
    fn the_reports_of_the_latest_decisions_are_kept_and_files_of_others_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("reports");
        let mut directory = Directory::new(path.clone());
        fs::create_dir(&path).expect("writable");
        let others = ["index.html", "incident-2026-11.html", "shop-1795000000000-0000.html.bak", "notes.txt"];
        others.iter().for_each(|name| fs::write(path.join(name), "mine").expect("writable"));
        // Not in the order of time: what is known later of an old decision makes it no younger.
        for n in (0..KEPT + 3).rev() {
            assert!(directory.write(&id(n), "a report").is_none());
        }
        assert!(directory.write(&id(KEPT), "the same anew").is_none());
        let there = |n: usize| path.join(format!("{}.html", id(n))).exists();
        assert_eq!((0..KEPT + 3).filter(|n| there(*n)).collect::<Vec<_>>(), (3..KEPT + 3).collect::<Vec<_>>());
        assert!(others.iter().all(|name| path.join(name).exists()), "they are somebody else's");
        assert_eq!(fs::read_dir(&path).expect("readable").count(), KEPT + others.len());
        let written = fs::read_to_string(path.join(format!("{}.html", id(KEPT)))).expect("a report");
        assert_eq!(written, "the same anew");
    }

    #[test]
    fn a_report_that_cannot_be_written_is_counted_and_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("reports");
        fs::write(&path, "a file is in its place").expect("writable");
        let mut directory = Directory::new(path.clone());
        let counts = directory.counts();
        let told = directory.write(&id(1), "a report").expect("it is told");
        assert!(format!("{told:#}").contains("see 'reports' in the configuration"), "{told:#}");
        assert!(directory.write(&id(2), "a report").is_none(), "once");
        assert_eq!(counts.results(), [("written", 0), ("failed", 2)]);
        fs::remove_file(&path).expect("there is one");
        assert!(directory.write(&id(3), "a report").is_none());
        assert_eq!(counts.results(), [("written", 1), ("failed", 2)]);
        fs::remove_dir_all(&path).expect("it was made");
        fs::write(&path, "again").expect("writable");
        assert!(directory.write(&id(4), "a report").is_some(), "and once when it begins anew");
    }

    #[test]
    fn a_name_that_no_file_may_have_is_written_all_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut directory = Directory::new(dir.path().to_owned());
        assert!(directory.write("shop/eu: ü-1795000000000-0001", "a report").is_none());
        assert!(dir.path().join("shop_eu___-1795000000000-0001.html").exists());
    }
}
