//! docs/promises.md: each promise names a test, and each named test exists and is a test.

use std::path::Path;

#[path = "../../canary-user/tests/docs/markdown.rs"]
mod markdown;

/// Whether the file has a test of this name: `#[test]`, tokio's, or one of proptest's.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let start = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|l| l.strip_prefix(name));
        start.is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().enumerate().any(|(i, line)| {
        let attributes = lines[..i].iter().rev().take_while(|l| l.starts_with("#[") || l.starts_with("//"));
        is_it(line) && attributes.clone().any(|l| l.starts_with("#[test]") || l.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_promise_names_tests_that_exist() {
    let page = markdown::read("docs/promises.md");
    let rows = markdown::rows(&page);
    assert!(rows.len() > 20, "{} promises", rows.len());
    for row in rows {
        let [promise, file, tests] = &row[..] else { panic!("three columns: {row:?}") };
        let file = file.trim_matches('`');
        assert!(Path::new(&markdown::repository().join(file)).is_file(), "{promise}: there is no {file}");
        let text = markdown::read(file);
        let names = markdown::code(tests);
        assert!(!names.is_empty(), "{promise}: names no test");
        for name in names {
            assert!(has_test(&text, name), "{promise}: {file} has no test {name}");
        }
    }
}
