//! The pages that users read, and what a test can take out of them: fenced blocks, tables and quoted commands.
#![allow(dead_code, reason = "shared by the tests of several crates, none of which uses all of it")]

use std::{fs, path::Path, path::PathBuf};

/// One page with its path from the repository's root.
pub struct Page {
    pub name: String,
    pub text: String,
}

/// Every crate of the workspace lies directly below it.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the repository").to_owned()
}

pub fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("read {name}: {error}"))
}

/// All Markdown of the repository's root and of `docs/`.
pub fn pages() -> Vec<Page> {
    let mut names: Vec<String> = ["", "docs/"]
        .iter()
        .flat_map(|directory| {
            let entries = fs::read_dir(repository().join(directory)).expect("list the directory");
            entries.map(move |e| format!("{directory}{}", e.expect("an entry").file_name().to_string_lossy()))
        })
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.sort();
    assert!(names.iter().any(|n| n == "README.md") && names.iter().any(|n| n == "docs/operations.md"), "{names:?}");
    names.into_iter().map(|name| Page { text: read(&name), name }).collect()
}

/// Bodies of the fenced blocks in this language, each with the place of its first line.
pub fn fenced(page: &Page, language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String, String)> = None;
    for (number, line) in page.text.lines().enumerate() {
        match (&mut open, line.trim().strip_prefix("```")) {
            (Some((wanted, place, body)), Some(_)) => {
                if *wanted {
                    found.push((std::mem::take(place), std::mem::take(body)));
                }
                open = None;
            }
            (Some((_, _, body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, Some(tag)) => open = Some((tag == language, format!("{}:{}", page.name, number + 2), String::new())),
            (None, None) => {}
        }
    }
    found
}

/// Cells of every table row of the text, headings and rules left out.
pub fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|--") || line.starts_with("| --");
    let mut rows = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let is_heading = lines.get(i + 1).is_some_and(|next| is_rule(next));
        if line.starts_with('|') && !is_rule(line) && !is_heading {
            rows.push(line.trim().trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect());
        }
    }
    rows
}

/// What stands in backticks.
pub fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The part of a page from a heading to the next of the same or a higher level.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("there is no heading '{heading}'"));
    let body = &text[start + heading.len()..];
    let level = heading.chars().take_while(|c| *c == '#').count();
    let next = (1..=level).filter_map(|l| body.find(&format!("\n{} ", "#".repeat(l)))).min();
    &body[..next.unwrap_or(body.len())]
}

/// Quoted command lines that begin with `program`, as words with the program left out, each with its place: in
/// indented blocks, in fences for a shell, and in backticks. `sudo` and variables before it are skipped.
pub fn commands(page: &Page, program: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut fence: Option<bool> = None;
    for (number, line) in page.text.lines().enumerate() {
        let place = format!("{}:{}", page.name, number + 1);
        let mut take = |text: &str| {
            for part in text.split("&&") {
                found.extend(command(part, program).map(|words| (place.clone(), words)));
            }
        };
        if let Some(tag) = line.trim().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(["", "sh", "console"].contains(&tag)) };
        } else if fence == Some(true) || (fence.is_none() && line.starts_with("    ")) {
            take(line);
        } else if fence.is_none() {
            code(line).into_iter().for_each(take);
        }
    }
    found
}

/// The words after `program` up to a comment or a redirection; `None` where it is another command, or the bare name.
fn command(text: &str, program: &[&str]) -> Option<Vec<String>> {
    let is_prefix =
        |word: &&str| *word == "sudo" || *word == "$" || word.split_once('=').is_some_and(|(k, _)| !k.starts_with('-'));
    let mut quoted = false;
    let ends_word = |c: char| {
        quoted ^= c == '\'';
        c.is_whitespace() && !quoted
    };
    let words = text.split(ends_word).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.skip_while(is_prefix).collect();
    let rest = words.strip_prefix(program)?;
    let ends = |word: &&&str| !word.starts_with(['#', '>', '<', '|', ';', '…']) || word.ends_with('>');
    let rest: Vec<String> = rest.iter().take_while(ends).map(|w| w.trim_matches('\'').to_owned()).collect();
    (!rest.is_empty()).then_some(rest)
}
