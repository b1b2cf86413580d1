//! The page of a running guard in a real browser: what a person reads, and that it keeps up by itself.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use canary_e2e::{
    Sandbox,
    browser::Browser,
    guard::{Configuration, Guard, TOKEN},
    kernel_available,
    pictures::Pictures,
    service::{Service, Traffic},
    wait_until,
};
use serde_json::json;

const TEST: &str = "the_page_of_a_running_guard_in_chromium";

#[test]
fn the_page_of_a_running_guard_in_chromium() -> anyhow::Result<()> {
    if !kernel_available(TEST) || !Browser::available(TEST) {
        return Ok(());
    }
    let browser = Browser::start()?;
    let sandbox = Sandbox::new()?;
    let service = |name: &str| Service::start(&sandbox, &sandbox.cgroup(name)?);
    let services = ["stable-0", "stable-1", "canary-0"].map(service).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let traffic = Traffic::start(&services.iter().map(|s| s.address).collect::<Vec<_>>())?;
    let mut guard = Guard::start(&Configuration::shop_with_token(&sandbox)?)?;
    guard.until("both are measured", |w| w["indicators"]["turnaround_mean"]["canary"].is_number())?;

    browser.look(1280, 1000, "light")?;
    browser.open(&format!("http://{}/", guard.pages.0))?;
    let text = browser.until_it_says("live")?;
    for part in [
        "shop",
        "Is it worse?",
        "Cannot be told: too little data",
        "Is a canary running?",
        "Yes: 1.5, 1 instance",
        "How sure are we?",
        "What did we do?",
        "What to do next?",
    ] {
        assert!(text.contains(part), "'{part}' is not on the page:\n{text}");
    }
    // Two crashes within five minutes are a fact: no statistics, whatever else goes on on this machine.
    let canary = format!("{}/canary-0", sandbox.base);
    for _ in 0..2 {
        sandbox.run(&canary, "kill -SEGV $$")?.wait()?;
    }
    guard.until("the canary is condemned", |w| w["verdict"] == "regressed" && w["decision"]["stage"] == "blocked")?;
    let text = browser.until_it_says("Yes: it keeps crashing")?;
    for part in [
        "Nothing: would roll back",
        "Take the canary back",
        "dies from a fault signal",
        "regressed",
        "rollback blocked",
        "Report of the latest decision",
    ] {
        assert!(text.contains(part), "'{part}' is not on the page:\n{text}");
    }

    // What a person selects stays selected while windows come in, and what has the focus keeps it.
    browser.script(
        "window.kept = [document.querySelector('main [aria-live]'), document.querySelector('.copy')]; \
         kept[1].focus(); getSelection().selectAllChildren(document.querySelector('.answers pre'))",
    )?;
    browser.until_it_says("stands still while text is selected")?;
    let windows_later = |guard: &mut Guard, n: u64| {
        let now = guard.next_window()?["window"].as_u64().unwrap_or(u64::MAX);
        guard.until("windows go on", |w| w["window"].as_u64() >= Some(now + n)).map(drop)
    };
    windows_later(&mut guard, 30)?;
    let command = browser.script("return document.querySelector('.answers pre').textContent")?;
    assert!(
        command.as_str().is_some_and(|c| c.starts_with("find '") && c.ends_with("xargs -r kill -TERM")),
        "{command}"
    );
    assert_eq!(browser.script("return getSelection().toString()")?, command);
    browser.script("getSelection().removeAllRanges()")?;
    wait_until("the page to go on", canary_e2e::guard::PATIENCE, || {
        browser.script("return document.getElementById('live').textContent").is_ok_and(|text| text == json!("live"))
    })?;
    windows_later(&mut guard, 20)?;
    let kept = browser.script("return kept.every(e => e.isConnected) && document.activeElement === kept[1]")?;
    assert_eq!(kept, json!(true));
    // The button copies the command.
    let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
    browser.devtools("Browser.grantPermissions", &permissions)?;
    browser.script("kept[1].click()")?;
    browser.until_it_says("Copied: find")?;
    assert_eq!(browser.script("return navigator.clipboard.readText()")?, command);

    let pictures = Pictures::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("page"))?;
    pictures.of_page(&browser, &[])?;
    // Every control is reached by keyboard, and the key asks for the token.
    let reached = browser.script(
        "return [...document.querySelectorAll('a[href], button')].filter(e => e.offsetParent && e.tabIndex < 0).length",
    )?;
    assert_eq!(reached, json!(0));
    browser.script("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'p', bubbles: true }))")?;
    assert_eq!(browser.script("return document.getElementById('ask').open")?, json!(true));

    // The button pauses for real, and says so; pressed again it resumes, without asking for the token once more.
    browser.script(&format!(
        "const ask = document.getElementById('ask'); ask.querySelector('input').value = '{TOKEN}'; \
         ask.querySelector('button[value=ok]').click()"
    ))?;
    let text = browser.until_it_says("No action is begun: by the API token until it is resumed: from the page")?;
    assert!(text.contains("Paused all deployments by the API token") && text.contains("Resume"), "{text}");
    pictures.take(&browser, "paused")?;
    browser.script("document.getElementById('pause').click()")?;
    browser.until_it_says("Resumed all deployments; it was paused by the API token")?;
    wait_until("the button to pause again", canary_e2e::guard::PATIENCE, || {
        browser.script("return document.getElementById('pause').textContent").is_ok_and(|text| text == json!("Pause"))
    })?;

    // What it says to type does what it says, also where cgroup2 is not mounted at the usual place.
    let command = browser.script("return document.querySelector('.answers pre').textContent")?;
    let command = command.as_str().context("there is a command")?;
    ensure!(Command::new("sh").args(["-c", command]).status()?.success(), "{command}");
    browser.until_it_says("Is a canary running?\n\nNo")?;

    let report = browser.script("return document.getElementById('report').href")?;
    browser.open(report.as_str().unwrap_or_default())?;
    let text = browser.until_it_says("rollback blocked")?;
    assert!(text.contains("Gates that were asked") && text.contains("mode blocked"), "{text}");
    // It stays what it was, whatever windows come in.
    let numbers = "return ['verdict', 'indicators'].map(id => document.getElementById(id).innerText).join('\\n')";
    let first = browser.script(numbers)?;
    assert!(first.as_str().is_some_and(|text| text.contains("CPU per turnaround")), "{first}");
    windows_later(&mut guard, 20)?;
    browser.open(report.as_str().unwrap_or_default())?;
    assert_eq!(browser.script(numbers)?, first);
    for (name, width, scheme) in
        [("report", 1100, "light"), ("report-dark", 1100, "dark"), ("report-phone", 390, "light")]
    {
        browser.look(width, 1000, scheme)?;
        pictures.take(&browser, name)?;
        let drawn = "return [...document.querySelectorAll('#course svg')].filter(s => s.checkVisibility()).length";
        assert_eq!(browser.script(drawn)?, json!(1), "{name}: the picture for this screen, and no other");
    }
    // What the pages asked for came from the guard alone.
    let outside = browser.script(
        "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith(location.origin)).map(r => r.name)",
    )?;
    assert_eq!(outside, json!([]));
    drop(traffic);
    assert!(guard.stop()?.success());
    Ok(())
}
