//! The old text format, 0.0.4.

use super::*;

/// A full page as text of 0.0.4.
fn full_text() -> (Page, String) {
    let metrics = Metrics::default();
    metrics.record(&all_measured(story::DECIDED));
    let openmetrics = metrics.openmetrics().expect("encodes");
    (Page::read(&openmetrics), metrics.text().expect("encodes"))
}

#[test]
fn the_old_text_format_has_the_same_series_with_the_names_of_its_families() {
    let (openmetrics, text) = full_text();
    assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
    let page = Page::read(&format!("{text}# EOF\n"));
    assert_eq!(page.values, openmetrics.values);
    for (family, kind) in &page.types {
        assert!(text.contains(&format!("# HELP {family} ")), "{family}");
        let suffix = if kind == "histogram" { "_count" } else { "" };
        assert!(page.has_family(&format!("{family}{suffix}")), "{family} has no series of its name");
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
    }
}

#[test]
fn promtool_finds_nothing_to_say_about_the_page() {
    use std::{io::Write as _, process::Stdio};
    let started = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Ok(child) => child,
        Err(error) => {
            println!(
                "SKIP promtool_finds_nothing_to_say_about_the_page: promtool: {error}: apt-get install prometheus"
            );
            return;
        }
    };
    let (_, text) = full_text();
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads all");
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
