//! What makes the guard one file; shared with tests/tests/image.rs.

/// For the compiler, at the last step alone: what the guard is linked from is the same either way, so that nothing of it is
/// compiled again. glibc holds the look-up of names by files and DNS itself; the linker's warning is about all others.
pub const WORDS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Cstrip=symbols"];
