//! A canary that was rolled back, as a person meets it: on the page in a real browser, wide and on a phone, light and dark, and in
//! `canary top` in a real terminal. That it was bad, why, what was done and what to do next stand on the first screen of each.

use std::{fs, path::Path};

use anyhow::Context as _;
use canary_e2e::{
    Sandbox,
    browser::Browser,
    guard::{Configuration, Guard, PATIENCE},
    kernel_available,
    pictures::{Pictures, at},
    service::{Service, Traffic},
    terminal::Terminal,
};
use canary_user::guard::Stage;
use serde_json::json;

const TEST: &str = "a_canary_that_was_rolled_back_is_understood_from_the_page_alone_and_from_the_terminal_alone";
const ANSWERS: [(&str, &str); 6] = [
    (at::IS_WORSE, "It was worse, and is gone: it kept crashing"),
    (at::WHY, "dies from a fault signal"),
    (at::RUNS, "No"),
    (at::SURE, "As sure as a fact is"),
    (at::DONE, "Done, and the service is back: rollback"),
    (at::NEXT, "Nothing: mend it before the next rollout"),
];
const TAB: u32 = 9;
const ENTER: u32 = 13;

#[test]
fn a_canary_that_was_rolled_back_is_understood_from_the_page_alone_and_from_the_terminal_alone() -> anyhow::Result<()> {
    if !kernel_available(TEST) || !Browser::available(TEST) || !Terminal::available(TEST) {
        return Ok(());
    }
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let stable = ["stable-0", "stable-1"].map(service).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let canary = service("canary-0")?;
    let to_stable = || Traffic::start(&stable.iter().map(|s| s.address).collect::<Vec<_>>());
    let _traffic = to_stable()?;
    let of_canary = Traffic::start(&[canary.address])?;
    let configuration = Configuration::shop_with_token(&sandbox)?;
    let acts = "mode = \"rollback\"\norchestrator = \"process\"\n";
    fs::write(configuration.file(), fs::read_to_string(configuration.file())? + acts)?;
    let mut guard = Guard::start(&configuration)?;
    guard.until("both are measured", |w| w["indicators"]["turnaround_mean"]["canary"].is_number())?;

    // Two crashes within five minutes are a fact. Who used the canary goes to stable.
    for _ in 0..2 {
        sandbox.run(&format!("{}/canary-0", sandbox.base), "kill -SEGV $$")?.wait()?;
    }
    drop(of_canary);
    let _more = to_stable()?;
    let browser = Browser::start()?;
    configuration.until(Stage::Recovered, "the service is back", PATIENCE).with_context(|| guard.said())?;

    let pictures = Pictures::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("rolled_back"))?;
    on_the_page(&browser, &guard, &pictures)?;
    in_the_terminal(&browser, configuration.dir.path(), &pictures)?;
    assert!(guard.stop()?.success());
    Ok(())
}

fn on_the_page(browser: &Browser, guard: &Guard, pictures: &Pictures) -> anyhow::Result<()> {
    browser.open(&format!("http://{}/", guard.pages.0))?;
    browser.until_it_says("live")?;
    pictures.of_page(browser, &ANSWERS)?;
    let text = browser.text()?;
    for part in ["rollback verified", "process finds it in effect"] {
        assert!(text.contains(part), "'{part}' is not on the page:\n{text}");
    }
    by_keyboard(browser)
}

/// The button is reached by the key that goes from one control to the next, is seen to be reached, and opens its question.
fn by_keyboard(browser: &Browser) -> anyhow::Result<()> {
    browser.devtools("Emulation.setFocusEmulationEnabled", &json!({ "enabled": true }))?;
    let mut passed = Vec::new();
    for _ in 0..3 {
        browser.press("Tab", TAB)?;
        let seen = "const e = document.activeElement; \
                    return [e.textContent, getComputedStyle(e).outlineStyle !== 'none' && e.getBoundingClientRect().left >= 0]";
        passed.push(browser.script(seen)?);
    }
    assert_eq!(passed, [json!(["To the state", true]), json!(["shop", true]), json!(["Pause", true])]);
    browser.press("Enter", ENTER)?;
    let asks = "return [document.getElementById('ask').open, document.activeElement.type]";
    assert_eq!(browser.script(asks)?, json!([true, "password"]));
    Ok(())
}

fn in_the_terminal(browser: &Browser, dir: &Path, pictures: &Pictures) -> anyhow::Result<()> {
    let terminal = Terminal::of_top(dir)?;
    pictures.of_terminal(
        browser,
        &terminal,
        &[
            "shop regressed, gone",
            " It was worse, and is gone   dies from a fault signal: ",
            "(none running)",
            "rollback done and verified, the service is back",
            "stable serves ",
            "Nothing: mend it before the next rollout",
        ],
    )?;
    terminal.press("q")
}
