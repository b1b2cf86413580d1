//! Reads what a test executable prints (run with `--show-output`): lines in, counts and the lines worth showing out.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub fn and(mut self, other: Self) -> Self {
        self.add(other);
        self
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// One run of an executable, or of several one after the other (doc tests of each crate).
#[derive(Debug, Default)]
pub struct Run {
    counts: Counts,
    block: Block,
    /// The test whose output is being read.
    section: Option<String>,
    /// Tests that passed but say they were skipped.
    skipped: BTreeSet<String>,
    /// A run has begun whose `test result:` has not come: it crashed if it never does.
    open: bool,
    /// Lines outside of any test's output: what is shown if the run ends without a result.
    said: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Block {
    #[default]
    Results,
    Successes,
    Failures,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub counts: Counts,
    /// What it said, if it ended without naming a failed test: it crashed, or did not build.
    pub unexplained: Vec<String>,
}

impl Run {
    /// Takes a line; gives back what the reader should see of it.
    pub fn line(&mut self, line: &str) -> Vec<String> {
        let mut shown = Vec::new();
        if is_start(line) {
            self.open = true;
            self.block = Block::Results;
            self.section = None;
        } else if let Some(counts) = self.open.then(|| result(line)).flatten() {
            self.finish(counts);
        } else if self.open && line == "successes:" {
            self.block = Block::Successes;
        } else if self.open && line == "failures:" {
            self.block = Block::Failures;
            self.section = None;
        } else if let Some(name) = section(line).filter(|_| self.block != Block::Results) {
            self.section = Some(name.to_owned());
            if self.block == Block::Failures {
                shown.push(line.to_owned());
            }
        } else {
            shown.extend(self.other(line));
        }
        shown
    }

    fn other(&mut self, line: &str) -> Option<String> {
        match self.block {
            Block::Results => {
                self.said.push(line.to_owned());
                let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
                if outcome == "FAILED" {
                    return Some(format!("FAILED {name}"));
                }
                let reason = outcome.strip_prefix("ignored")?.trim_start_matches([',', ' ']);
                Some(format!("SKIP {name}: {}", if reason.is_empty() { "ignored, without a reason" } else { reason }))
            }
            Block::Successes => {
                let test = self.section.as_ref()?;
                let text = line.trim_start();
                if !text.starts_with("SKIP ") {
                    return None;
                }
                self.skipped.insert(test.clone());
                Some(text.to_owned())
            }
            Block::Failures => Some(line.to_owned()),
        }
    }

    fn finish(&mut self, counts: Counts) {
        let skipped = u32::try_from(self.skipped.len()).unwrap_or(u32::MAX).min(counts.passed);
        self.counts.add(Counts { passed: counts.passed - skipped, skipped: counts.skipped + skipped, ..counts });
        self.skipped.clear();
        self.said.clear();
        self.section = None;
        self.block = Block::Results;
        self.open = false;
    }

    /// `success` is the process's own word: a run that failed without a failed test counts as one.
    pub fn end(mut self, success: bool) -> Ended {
        let mut unexplained = Vec::new();
        if self.open || (!success && self.counts.failed == 0) {
            self.counts.failed += 1;
            unexplained.push("FAILED the run ended without a result; it said:".to_owned());
            unexplained.append(&mut self.said);
        }
        Ended { counts: self.counts, unexplained }
    }
}

/// `running 3 tests`
fn is_start(line: &str) -> bool {
    let count = line.strip_prefix("running ").and_then(|rest| rest.split_once(' '));
    count.is_some_and(|(count, noun)| count.parse::<u32>().is_ok() && (noun == "tests" || noun == "test"))
}

/// `---- path::of::test stdout ----`
fn section(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`
fn result(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let of = |word: &str| counts.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse::<u32>().ok());
    Some(Counts { passed: of("passed")?, failed: of("failed")?, skipped: of("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, success: bool) -> (Counts, Vec<String>) {
        let mut run = Run::default();
        let mut shown: Vec<String> = text.lines().flat_map(|line| run.line(line)).collect();
        let ended = run.end(success);
        shown.extend(ended.unexplained);
        (ended.counts, shown)
    }

    #[test]
    fn a_test_that_says_skip_is_skipped_and_not_passed() {
        let text = "running 3 tests\ntest a ... ok\ntest b ... ok\ntest c ... ignored, needs a cluster\n\nsuccesses:\n\n\
            ---- b stdout ----\nSKIP b: no network\nSKIP b: and no clock\n\n\nsuccesses:\n    a\n    b\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let (counts, shown) = read(text, true);
        assert_eq!(counts, Counts { passed: 1, failed: 0, skipped: 2 });
        assert_eq!(shown, ["SKIP c: needs a cluster", "SKIP b: no network", "SKIP b: and no clock"]);
    }

    #[test]
    fn the_output_of_a_failed_test_is_shown() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nquiet\n\n\n\
            successes:\n    a\n\nfailures:\n\n---- b stdout ----\nassertion failed\n\n\nfailures:\n    b\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let (counts, shown) = read(text, false);
        assert_eq!(counts, Counts { passed: 1, failed: 1, skipped: 0 });
        assert!(shown.contains(&"assertion failed".to_owned()));
        assert!(!shown.contains(&"quiet".to_owned()));
    }

    #[test]
    fn several_runs_add_up_and_a_test_may_print_a_result_line_of_its_own() {
        let one = "running 1 test\ntest a ... ok\n\nsuccesses:\n\nsuccesses:\n    a\n\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(read(&format!("{one}\n{one}"), true).0, Counts { passed: 2, failed: 0, skipped: 0 });
    }

    #[test]
    fn a_run_that_crashes_counts_as_failed_and_shows_what_it_said() {
        let (counts, shown) = read("running 2 tests\ntest a ... ok\nfatal runtime error: stack overflow\n", false);
        assert_eq!(counts.failed, 1);
        assert!(shown.contains(&"fatal runtime error: stack overflow".to_owned()));
        // Doc tests that do not even build.
        assert_eq!(read("error: could not compile `x`\n", false).0, Counts { passed: 0, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_failing_end_after_only_passed_tests_is_a_failure() {
        let text = "running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(read(text, false).0, Counts { passed: 1, failed: 1, skipped: 0 });
    }
}
