//! Quoted configurations are valid, and the page of keys is complete, with the defaults that hold.

use std::collections::{BTreeMap, BTreeSet};

use canary_user::{
    config::{Config, Mistake, Occasion},
    guard::gates::GATES,
    judge::{
        Parameters,
        settings::{IndicatorKey, SETTINGS},
    },
    window::Indicator,
};

use crate::markdown;

#[test]
fn quoted_configurations_are_valid() {
    let mut seen = 0;
    for page in markdown::pages() {
        for (place, text) in markdown::fenced(&page, "toml") {
            seen += 1;
            Config::parse(&text, &place).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    assert!(seen > 0, "the README has a configuration");
}

#[test]
fn shipped_configurations_are_valid() {
    let example = "deploy/canary.example.toml";
    Config::parse(&markdown::read(example), example).unwrap_or_else(|error| panic!("{error}"));
    for place in ["base", "overlays/observe", "overlays/advise", "overlays/enforce"] {
        let path = format!("deploy/kubernetes/{place}/canary.toml");
        let config = Config::parse(&markdown::read(&path), &path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.deployments.len(), 1, "{path}");
    }
}

/// The reader's own answer to a key that does not exist: those that do.
fn known_keys(table: &str) -> Vec<String> {
    let deployment = "[[deployment]]\nname = \"a\"\n";
    let text = match table {
        "" => "no_such_key = 1\n".to_owned(),
        table @ ("judge" | "api" | "tls" | "kubernetes") => format!("[{table}]\nno_such_key = 1\n"),
        "notify" => "[[notify]]\nno_such_key = 1\n".to_owned(),
        "deployment" => format!("{deployment}no_such_key = 1\n"),
        "indicator" => "[judge.indicator.cpu_per_work]\nno_such_key = 1\n".to_owned(),
        inner => format!("{deployment}{inner} = {{ no_such_key = 1 }}\n"),
    };
    match Config::parse(&text, table).map_err(|e| *e.mistake) {
        Err(Mistake::UnknownKey { known, .. }) => known,
        other => panic!("{table}: {other:?}"),
    }
}

/// Every key that the reader knows, as the page writes them.
fn keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for key in known_keys("") {
        match key.as_str() {
            "deployment" => {}
            "judge" | "notify" | "tls" | "kubernetes" => {}
            "api" => keys.extend(known_keys(&key).iter().map(|k| format!("{key}.{k}"))),
            _ => drop(keys.insert(key)),
        }
    }
    keys.extend(known_keys("judge").iter().filter(|k| *k != "indicator").map(|k| format!("judge.{k}")));
    keys.extend(known_keys("indicator").iter().map(|k| format!("judge.indicator.NAME.{k}")));
    keys.extend(known_keys("kubernetes").iter().map(|k| format!("kubernetes.{k}")));
    keys.extend(known_keys("tls").iter().map(|k| format!("tls.{k}")));
    keys.extend(known_keys("notify").iter().map(|k| format!("notify.{k}")));
    for key in known_keys("deployment") {
        match key.as_str() {
            // The keys of `judge.indicator`, for one deployment.
            "indicator" => {}
            "stable" | "canary" | "budget" | "webhook" | "command" | "quarantine" | "http_route" => {
                let inner = known_keys(&key);
                keys.extend(inner.iter().filter(|k| *k != "kubernetes").map(|k| format!("deployment.{key}.{k}")));
                if inner.iter().any(|k| k == "kubernetes") {
                    let pods = known_keys(&format!("{key}.kubernetes"));
                    keys.extend(pods.iter().map(|k| format!("deployment.{key}.kubernetes.{k}")));
                }
            }
            _ => {
                keys.insert(format!("deployment.{key}"));
            }
        }
    }
    keys
}

/// Key to default, as the page has it.
fn documented() -> BTreeMap<String, String> {
    let (page, judge) = (markdown::read("docs/operations.md"), markdown::read("docs/judge.md"));
    let mut rows = markdown::rows(markdown::section(&page, "## Configuration"));
    rows.extend(markdown::rows(markdown::section(&judge, "## Settings")));
    rows.iter()
        .flat_map(|row| {
            markdown::code(&row[0]).into_iter().map(|k| (k.to_owned(), row[1].replace('`', ""))).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_page_and_the_example_have_every_key() {
    let documented: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(documented, keys(), "docs/operations.md, Configuration, against what the reader takes");
    let example = markdown::read("deploy/canary.example.toml");
    for key in keys() {
        let last = key.rsplit('.').next().expect("a name");
        assert!(example.contains(&format!("{last} = ")), "deploy/canary.example.toml does not show {key}");
    }
}

#[test]
fn the_page_and_the_example_have_every_occasion() {
    let names = Occasion::ALL.map(Occasion::name);
    let page = markdown::read("docs/operations.md");
    let rows = markdown::rows(markdown::section(&page, "## Configuration"));
    let row = rows.iter().find(|row| row[0] == "`notify.on`").expect("a row of notify.on");
    assert_eq!(row[2], format!("occasions that it is told of: {}", names.join(", ")), "docs/operations.md: notify.on");
    let quoted = names.map(|name| format!("\"{name}\"")).join(", ");
    let example = markdown::read("deploy/canary.example.toml");
    assert!(example.contains(&format!("# on = [{quoted}]\n")), "deploy/canary.example.toml does not show {quoted}");
}

#[test]
fn the_page_has_the_defaults_that_hold() {
    let least = "[[deployment]]\nname = \"a\"\nstable = { cgroup = \"/a/1\" }\ncanary = { cgroup = \"/a/2\" }\n\
                 webhook = { url = \"http://a\" }\ncommand = { run = [\"/a\"] }\n";
    let shown = Config::parse(least, "least").expect("valid").to_string();
    let shown: toml::Table = toml::from_str(&shown).expect("TOML");
    for (key, default) in documented() {
        // A default that differs from one indicator to the other is listed by itself.
        let one = key.replace("indicator.NAME", "indicator.cpu_per_work");
        let steps: Vec<&str> = one.split('.').collect();
        let mut value = Some(toml::Value::Table(shown.clone()));
        for step in steps {
            value = match value {
                Some(toml::Value::Array(list)) => list[0].get(step).cloned(),
                Some(table) => table.get(step).cloned(),
                None => None,
            };
        }
        let holds = match (key.as_str(), value) {
            ("deployment.name" | "deployment.stable.cgroup" | "deployment.canary.cgroup" | "notify.kind", _) => {
                "required".to_owned()
            }
            ("notify.on", _) => "all".to_owned(),
            ("deployment.webhook.url" | "deployment.command.run", _) => "required".to_owned(),
            ("deployment.http_route.name" | "deployment.http_route.canary", _) => "required".to_owned(),
            ("deployment.stable.version", _) => "\"stable\"".to_owned(),
            ("deployment.canary.version", _) => "\"canary\"".to_owned(),
            (_, Some(value)) => value.to_string(),
            (_, None) => "none".to_owned(),
        };
        assert_eq!(default, holds, "docs/operations.md: default of {key}");
    }
}

/// Name, default and meaning of every number of the judge, as the page has them.
fn judge_settings() -> String {
    let defaults = Parameters::default();
    let mut text = "| key | default | range | meaning |\n|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let (default, range) = (setting.value(&defaults), format!("{} to {}", setting.least, setting.most));
        text += &format!("| `judge.{}` | {default} | {range} | {} |\n", setting.key, setting.meaning);
    }
    let cpu = &defaults.indicators[Indicator::CpuPerWork as usize];
    for key in IndicatorKey::ALL {
        let (name, default) = (key.name(), key.value(cpu));
        text += &format!("| `judge.indicator.NAME.{name}` | {default} | | {} |\n", key.meaning());
    }
    text += "\nDefaults that differ from one indicator to the other:\n\n| NAME | epsilon | delta | steps | missing |\n|---|---|---|---|---|\n";
    for indicator in Indicator::ALL {
        let set = &defaults.indicators[indicator as usize];
        let (delta, steps, missing) = (set.tolerance.delta, set.tolerance.steps, set.missing.name());
        text += &format!("| {} | {} | {delta} | {steps} | {missing} |\n", indicator.name(), set.epsilon);
    }
    text
}

#[test]
fn the_page_has_every_setting_of_the_judge() {
    const BEGIN: &str =
        "<!-- judge settings: written by `CANARY_REWRITE_DOCS=1 cargo test -p canary-user --test docs` -->\n";
    const END: &str = "<!-- judge settings: end -->\n";
    let page = markdown::read("docs/judge.md");
    let (before, rest) = page.split_once(BEGIN).expect("docs/judge.md has a place for the settings");
    let (listed, after) = rest.split_once(END).expect("and an end of it");
    let wanted = judge_settings();
    if std::env::var_os("CANARY_REWRITE_DOCS").is_some() && listed != wanted {
        let path = markdown::repository().join("docs/judge.md");
        std::fs::write(path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("write the page");
        return;
    }
    assert_eq!(
        listed, wanted,
        "docs/judge.md, Settings: run CANARY_REWRITE_DOCS=1 cargo test -p canary-user --test docs"
    );
}

#[test]
fn the_page_has_every_gate_in_the_order_of_asking() {
    let page = markdown::read("docs/operations.md");
    let section = markdown::section(&page, "## Gates");
    let rows = markdown::rows(section.split("\n### ").next().unwrap_or(section));
    let told: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(told, GATES.map(|(name, _)| name));
}
