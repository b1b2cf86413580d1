//! A canary that was rolled back, as a person meets it: on the page in a real browser, wide and on a phone, light and dark, and in
//! `canary top` in a real terminal. That it was bad, why, what was done and what to do next stand on the first screen of each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use canary_e2e::{
    Sandbox,
    browser::Browser,
    guard::{Configuration, Guard, PATIENCE, program},
    kernel_available,
    service::{Service, Traffic},
    terminal::Terminal,
};
use canary_user::guard::Stage;
use serde_json::{Value, json};

const TEST: &str = "a_canary_that_was_rolled_back_is_understood_from_the_page_alone_and_from_the_terminal_alone";
/// Verdict, why, what was done, what to do.
const ANSWERS: [(&str, &str); 4] = [
    (".wide .answer", "It was worse, and is gone: it kept crashing"),
    (".wide .more", "dies from a fault signal"),
    (".did .answer", "Done, and the service is back: rollback"),
    (".next .answer", "Nothing: mend it before the next rollout"),
];
const TAB: u32 = 9;
const ENTER: u32 = 13;

/// Pictures are left here for a person to look at.
fn pictures() -> anyhow::Result<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rolled_back");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

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

    let directory = pictures()?;
    on_the_page(&browser, &guard, &directory)?;
    in_the_terminal(&browser, configuration.dir.path(), &directory)?;
    assert!(guard.stop()?.success());
    Ok(())
}

/// The words of each answer that is on the screen as a whole, without scrolling.
fn on_the_first_screen(browser: &Browser) -> anyhow::Result<Value> {
    let selectors = json!(ANSWERS.map(|(selector, _)| selector));
    browser.script(&format!(
        "scrollTo(0, 0); const screen = document.documentElement; const words = {{}}; \
         for (const selector of {selectors}) {{ \
           const element = document.querySelector('.answers ' + selector), at = element.getBoundingClientRect(); \
           const is = at.width > 0 && at.top >= 0 && at.bottom <= screen.clientHeight && at.left >= 0 && at.right <= screen.clientWidth; \
           if (is) words[selector] = element.innerText; \
         }} return words"
    ))
}

fn on_the_page(browser: &Browser, guard: &Guard, directory: &Path) -> anyhow::Result<()> {
    browser.open(&format!("http://{}/", guard.pages.0))?;
    browser.until_it_says("live")?;
    let mut grounds = Vec::new();
    for (name, width, height, scheme) in [
        ("phone", 390, 844, "dark"),
        ("phone-light", 390, 844, "light"),
        ("dark", 1280, 1000, "dark"),
        ("light", 1280, 1000, "light"),
    ] {
        browser.look_at_charts(width, height, scheme)?;
        browser.screenshot(&directory.join(format!("{name}.png")))?;
        assert_eq!(browser.overflow()?, json!(0), "{name}: the page is wider than the screen");
        let words = on_the_first_screen(browser)?;
        for (selector, part) in ANSWERS {
            let told = words[selector].as_str().unwrap_or_default();
            assert!(told.contains(part), "{name}: '{part}' is not on the first screen, which has {words:#}");
        }
        grounds.push(browser.script("return getComputedStyle(document.body).backgroundColor")?);
    }
    assert_ne!(grounds[0], grounds[1], "dark is not light");
    let text = browser.text()?;
    for part in ["Is a canary running?\n\nNo", "rollback verified", "process finds it in effect"] {
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

fn in_the_terminal(browser: &Browser, dir: &Path, directory: &Path) -> anyhow::Result<()> {
    let command = format!("{} top --socket {}", program().display(), dir.join("canary.sock").display());
    let terminal = Terminal::open(dir, (80, 24), &command)?;
    // The larger one has room for a table of events.
    for (columns, rows, more) in [(80, 24, "evidence"), (120, 40, "since the canary's warm-up")] {
        terminal.resize((columns, rows))?;
        let screen = terminal.shows(&[
            "shop regressed, gone",
            " It was worse, and is gone   dies from a fault signal: ",
            "(none running)",
            "rollback done and verified, the service is back",
            "stable serves ",
            "Nothing: mend it before the next rollout",
            "q quit",
            more,
        ])?;
        let name = format!("top-{columns}x{rows}");
        fs::write(directory.join(format!("{name}.txt")), &screen)?;
        let widest = screen.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest <= usize::from(columns) && screen.lines().count() <= usize::from(rows), "{name}:\n{screen}");
        let page = directory.join(format!("{name}.html"));
        fs::write(&page, terminal.page()?)?;
        browser.open(&format!("file://{}", page.display()))?;
        for scheme in ["light", "dark"] {
            browser.look(u32::from(columns) * 9 + 40, u32::from(rows) * 18 + 20, scheme)?;
            browser.screenshot(&directory.join(format!("{name}-{scheme}.png")))?;
            assert_eq!(browser.overflow()?, json!(0), "{name}: a line is longer than the others");
        }
    }
    terminal.press("q")
}
