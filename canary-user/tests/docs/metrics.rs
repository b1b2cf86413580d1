//! The list of metrics in docs/operations.md is written from the code.

use std::fs;

use canary_user::watch::metrics::{Description, describe};

use crate::markdown;

const PAGE: &str = "docs/operations.md";
const BEGIN: &str = "<!-- metrics: written by `CANARY_REWRITE_DOCS=1 cargo test -p canary-user --test docs` -->\n";
const END: &str = "<!-- metrics: end -->\n";

fn list() -> String {
    let row = |d: &Description| {
        let labels = if d.labels.is_empty() { "none".to_owned() } else { d.labels.join(", ") };
        format!("| `{}` | {} | {} | {labels} | {} |\n", d.name, d.kind, d.unit, d.help)
    };
    let rows: String = describe().iter().map(row).collect();
    format!("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n{rows}")
}

#[test]
fn the_list_of_metrics_is_that_of_the_code() {
    let page = markdown::read(PAGE);
    let (before, rest) = page.split_once(BEGIN).expect("the mark where the list begins");
    let (told, after) = rest.split_once(END).expect("the mark where the list ends");
    let list = list();
    if std::env::var_os("CANARY_REWRITE_DOCS").is_some() {
        let text = format!("{before}{BEGIN}{list}{END}{after}");
        fs::write(markdown::repository().join(PAGE), text).expect("rewrite the page");
        return;
    }
    let fresh = told == list;
    assert!(
        fresh,
        "{PAGE} is behind the code: run\n  CANARY_REWRITE_DOCS=1 cargo test -p canary-user --test docs\n{list}"
    );
}

#[test]
fn a_metric_that_a_page_names_exists() {
    let known: Vec<String> = describe().into_iter().map(|d| d.name).collect();
    // Crates, modules and labels of rules begin alike.
    let others = ["canary_user", "canary_ebpf", "canary_common", "canary_demo", "canary_window"];
    let shipped = ["deploy/prometheus/canary.rules.yml", "deploy/grafana/canary.json"].map(|name| {
        let text = fs::read_to_string(markdown::repository().join(name)).expect("a file that is shipped");
        (name.to_owned(), text)
    });
    let pages = markdown::pages().into_iter().map(|page| (page.name, page.text));
    for (name, text) in pages.chain(shipped) {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|w| w.starts_with("canary_") && !others.contains(w)) {
            let is_part = |k: &String| ["_bucket", "_sum", "_count"].iter().any(|s| format!("{k}{s}") == word);
            assert!(known.iter().any(|k| k == word || is_part(k)), "{name}: there is no metric {word}");
        }
    }
}
