//! A canary before anything is done about it, as a person meets it: not known yet, healthy, and worse with a rollback that waits for
//! approval; on the page in a real browser, wide and on a phone, light and dark, and in `canary top` in a real terminal. What the page
//! has to be typed reaches the guard, and a key approves.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    Sandbox,
    browser::Browser,
    guard::{Configuration, Guard, PATIENCE, program},
    kernel_available,
    pictures::{Pictures, at},
    service::{Service, Traffic},
    terminal::Terminal,
};
use canary_user::guard::Stage;
use serde_json::json;

const TEST: &str = "each_state_before_an_action_is_understood_from_the_page_alone_and_from_the_terminal_alone";

/// Learns and judges within seconds, and by nothing that depends on how busy this machine is: what is tested are the looks.
const JUDGE: &str = "[judge]
baseline_windows = 30
initial_windows = 10
warmup_windows = 10
soak_windows = 30
[judge.indicator]
turnaround_mean = { mute = true }
turnaround_p95 = { mute = true }
memory_in_use = { delta = 0.5, delta_healthy = 0.5 }
bytes_per_work = { delta = 0.5, delta_healthy = 0.5 }
";

/// Who looks, and at what.
struct Looks {
    browser: Browser,
    terminal: Terminal,
    guard: Guard,
    dir: PathBuf,
}

impl Looks {
    /// The state whose verdict the page calls so, once it is there.
    fn at(&self, state: &str, called: &str, page: &[(&str, &str)], top: &[&str]) -> anyhow::Result<()> {
        let pictures = Pictures::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("states").join(state))?;
        self.open_page()?;
        let answers = [page, &[(at::IS_WORSE, called), (at::RUNS, "Yes: 1.5, 1 instance")]].concat();
        for (_, part) in &answers {
            self.browser.until_it_says(part).with_context(|| format!("{state}: {}", self.guard.said()))?;
        }
        pictures.of_page(&self.browser, &answers).context(state.to_owned())?;
        let words = [top, &["shop: canary 1.5 (1 instance) against stable 1.4 (2 instances)"]].concat();
        pictures.of_terminal(&self.browser, &self.terminal, &words).context(state.to_owned())
    }

    fn open_page(&self) -> anyhow::Result<()> {
        self.browser.look(1280, 1000, "light")?;
        self.browser.open(&format!("http://{}/", self.guard.pages.0))?;
        self.browser.until_it_says("live").map(drop)
    }

    /// The first command of the page's answers, as its button copies it.
    fn copied(&self) -> anyhow::Result<String> {
        self.open_page()?;
        let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        self.browser.devtools("Browser.grantPermissions", &permissions)?;
        self.browser.script("document.querySelector('.answers .copy').click()")?;
        self.browser.until_it_says("Copied: ")?;
        let copied = self.browser.script("return navigator.clipboard.readText()")?;
        Ok(copied.as_str().context("text on the clipboard")?.to_owned())
    }

    /// What a command says that is typed where this guard is the usual one, and whether it was granted.
    fn typed(&self, command: &str) -> anyhow::Result<(bool, String)> {
        let path = format!("{}:{}", self.dir.display(), env::var("PATH")?);
        let socket = self.dir.join("canary.sock");
        let output =
            Command::new("sh").args(["-c", command]).env("PATH", path).env("CANARY_SOCKET", socket).output()?;
        let both = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        Ok((output.status.success(), both.concat()))
    }
}

#[test]
fn each_state_before_an_action_is_understood_from_the_page_alone_and_from_the_terminal_alone() -> anyhow::Result<()> {
    if !kernel_available(TEST) || !Browser::available(TEST) || !Terminal::available(TEST) {
        return Ok(());
    }
    let browser = Browser::start()?;
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let (stable, canary) = ([service("stable-0")?, service("stable-1")?], service("canary-0")?);
    let [one, other] = [&stable[0], &stable[1]].map(|s| s.address);
    // A third of the load of each stable instance.
    let little = Traffic::start(&[one, one, one, other, other, other, canary.address])?;
    let configuration = Configuration::shop_with_token(&sandbox)?;
    let dir = configuration.dir.path().to_owned();
    let acts = "mode = \"rollback\"\norchestrator = \"process\"\napproval = \"required\"\n";
    fs::write(configuration.file(), fs::read_to_string(configuration.file())? + acts + JUDGE)?;
    symlink(program(), dir.join("canary"))?;
    let mut guard = Guard::start(&configuration)?;
    guard.until("a window", |_| true)?;
    let looks = Looks { browser, terminal: Terminal::of_top(&dir)?, guard, dir };

    looks.at(
        "inconclusive",
        "Not at the little load that it has; at full load it is not known",
        &[
            (at::WHY, "memory: compared at 3"),
            (at::WHY, "% of stable's load per instance only"),
            (at::SURE, "of 1\u{202f}000"),
            (at::DONE, "Nothing"),
            (at::NEXT, "Give canary and stable the same load per instance"),
        ],
        &[
            "shop inconclusive",
            " INCONCLUSIVE   memory: compared at 3",
            "of 1\u{202f}000 needed to call it worse",
            "decision              none yet",
            "next                  Give canary and stable the same load per instance",
        ],
    )?;

    let even = Traffic::start(&[one, other, canary.address])?;
    drop(little);
    looks.at(
        "healthy",
        "No: it is as good as stable so far",
        &[
            (at::WHY, "indicators are shown to be within their healthy margins"),
            (at::SURE, "of 1\u{202f}000"),
            (at::DONE, "Nothing"),
            (at::NEXT, "Go on with the rollout"),
        ],
        &[
            "shop healthy",
            " HEALTHY   all ",
            "of 1\u{202f}000 needed to call it worse",
            "decision              none yet",
            "next                  Go on with the rollout",
        ],
    )?;

    // Two crashes within five minutes are a fact.
    for _ in 0..2 {
        sandbox.run(&format!("{}/canary-0", sandbox.base), "kill -SEGV $$")?.wait()?;
    }
    looks.at(
        "waits",
        "Yes: it keeps crashing",
        &[
            (at::WHY, "dies from a fault signal"),
            (at::SURE, "As sure as a fact is"),
            (at::DONE, "Nothing yet: rollback waits for approval"),
            (at::NEXT, "Approve it, or take the canary back by hand"),
            (at::COMMAND, "canary approve shop-"),
        ],
        &[
            "shop regressed",
            " REGRESSED   dies from a fault signal: ",
            "a fact condemned it, whatever that is",
            "decision              rollback planned  approval: a person has to approve it",
            "next                  Approve it, or take the canary back by hand",
            "canary approve shop-",
        ],
    )?;

    // Who used the canary goes to stable.
    let _to_stable = Traffic::start(&[one, other])?;
    drop(even);
    is_approved(&looks, &configuration)?;
    assert!(looks.guard.stop()?.success());
    Ok(())
}

/// By what is copied from the page, which a pause refuses, and once that is over by a key in `canary top`.
fn is_approved(looks: &Looks, configuration: &Configuration) -> anyhow::Result<()> {
    let command = looks.copied()?;
    ensure!(looks.typed("canary pause --reason 'a look first'")?.0, "it is paused");
    let (granted, said) = looks.typed(&command)?;
    let is_refused =
        said.contains("not as things stand: pause: paused: by root") && said.contains("it goes on waiting");
    ensure!(!granted && is_refused, "{command}: {said}");
    ensure!(looks.typed("canary resume")?.0, "it is resumed");

    let terminal = &looks.terminal;
    let id = command.strip_prefix("canary approve ").with_context(|| command.clone())?;
    terminal.press("a")?;
    terminal.shows(&[&format!("Approve {id}: the guard may carry it out?")])?;
    terminal.press("y")?;
    terminal.shows(&[&format!("Approved {id}; process is asked once more")])?;
    configuration.until(Stage::Approved, "by root", PATIENCE).with_context(|| looks.guard.said())?;
    configuration.until(Stage::Verified, "process finds it in effect", PATIENCE).with_context(|| looks.guard.said())?;
    // Both said before who has to approve it, which is over.
    let screen = terminal.shows(&[" It was worse, and is gone ", "rollback done and verified"])?;
    let page = looks.browser.until_it_says("It was worse, and is gone: it kept crashing")?;
    for told in [screen, page] {
        ensure!(!told.contains("a person has to approve it"), "{told}");
    }
    terminal.press("q")
}
