//! The page's table of kernels, as `cargo xtask vm` prints it, against the hooks that there are.

use std::collections::BTreeSet;

use canary_user::telemetry::{hooks, kernel::OLDEST};

use crate::markdown;

/// Which kernel takes which hook is for `cargo xtask vm` to say; here only that none was forgotten or is gone.
#[test]
fn the_table_of_kernels_has_every_hook() {
    let page = markdown::read("docs/operations.md");
    let section = markdown::section(&page, "## Kernels and hooks");
    let (_, table) = section.split_once("| signal | hook | ").expect("the table that `cargo xtask vm` prints");
    let table: Vec<&str> = table.lines().take_while(|line| line.starts_with('|') || line.ends_with('|')).collect();
    // Signal, hook, and a kernel each; what is no hook has an empty second cell.
    let hook = |line: &&str| line.split('|').nth(2).map(|cell| cell.trim().trim_matches('`').to_owned());
    let rows = table.iter().skip(2).filter_map(hook).filter(|name| !name.is_empty());
    let documented: BTreeSet<String> = rows.collect();
    let there: BTreeSet<String> = hooks::names().map(str::to_owned).collect();
    assert_eq!(documented, there, "docs/operations.md: paste the table that `cargo xtask vm` prints");
}

#[test]
fn the_page_has_the_oldest_kernel() {
    let page = markdown::read("docs/operations.md");
    let oldest = format!("Linux {}.{} or later", OLDEST.0, OLDEST.1);
    assert!(markdown::section(&page, "## Kernels and hooks").contains(&oldest), "docs/operations.md: {oldest}");
}
