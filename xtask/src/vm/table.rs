//! The tables, as Markdown: they are copied into docs/operations.md.

use std::fmt::Write as _;

use super::guest::{Finding, Report};

/// Signal × hook × kernel, then everything else that `canary check` looks at.
pub fn hooks(reports: &[Report]) -> String {
    let mut text = heading("| signal | hook |", "|---|---|", reports);
    let hook = |finding: &&Finding| finding.signal.is_some();
    for finding in first(reports).iter().filter(hook) {
        let signal = finding.signal.as_deref().unwrap_or_default();
        let name = finding.what.trim_start_matches("hook ");
        let _ = writeln!(text, "| {signal} | `{name}` |{}", cells(reports, &finding.what));
    }
    for finding in first(reports).iter().filter(|f| !hook(f) && !f.essential && f.what != "kernel") {
        let _ = writeln!(text, "| {} | |{}", finding.what, cells(reports, &finding.what));
    }
    text
}

/// Test × kernel.
pub fn tests(reports: &[Report]) -> String {
    let mut text = heading("| test |", "|---|", reports);
    let mut names: Vec<&String> = reports.iter().flat_map(|report| report.steps.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let _ = write!(text, "| {name} |");
        for report in reports {
            let cell = report.steps.get(name).map_or_else(|| "not run".to_owned(), ToString::to_string);
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn heading(names: &str, line: &str, reports: &[Report]) -> String {
    let kernels: String = reports.iter().map(|report| format!(" {} |", report.kernel)).collect();
    format!("{names}{kernels}\n{line}{}\n", "---|".repeat(reports.len()))
}

fn first(reports: &[Report]) -> &[Finding] {
    reports.iter().map(|report| report.findings.as_slice()).find(|findings| !findings.is_empty()).unwrap_or_default()
}

fn cells(reports: &[Report], what: &str) -> String {
    let cell = |report: &Report| match report.findings.iter().find(|finding| finding.what == what) {
        Some(finding) if finding.ok => " yes |",
        Some(_) => " no |",
        None => " not asked |",
    };
    reports.iter().map(cell).collect()
}
