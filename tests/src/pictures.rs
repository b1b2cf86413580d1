//! What a person sees of a running guard, as pictures: its page on four screens, and `canary top` in a terminal of two sizes, on light
//! and on dark. What nobody could read on one of them is an error.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::{browser::Browser, terminal::Terminal};

/// Where the page has its answers, below `.answers`.
pub mod at {
    pub const IS_WORSE: &str = ".wide .answer";
    pub const WHY: &str = ".wide .more";
    pub const RUNS: &str = "section:nth-of-type(2) .answer";
    pub const SURE: &str = "section:nth-of-type(3) .answer";
    pub const DONE: &str = ".did .answer";
    pub const NEXT: &str = ".next .answer";
    pub const COMMAND: &str = ".next pre";
}

/// Name, width and height in CSS pixels, and colour scheme.
const SCREENS: [(&str, u32, u32, &str); 4] = [
    ("phone", 390, 844, "dark"),
    ("phone-light", 390, 844, "light"),
    ("dark", 1280, 1000, "dark"),
    ("light", 1280, 1000, "light"),
];
/// What comes further down where the screen is narrow.
const NOT_FIRST_ON_A_PHONE: [&str; 2] = [at::RUNS, at::SURE];
const PHONE_WIDTH: u32 = 600;

/// Columns and rows of a terminal, and what there is room for: in the larger one, for a table of events.
const SIZES: [(u16, u16, &str); 2] = [(80, 24, "evidence"), (120, 40, "since the canary's warm-up")];

const LEGIBLE: &str = include_str!("pictures/legible.js");
/// Of text on its ground (WCAG 2.2, 1.4.3).
const CONTRAST: f64 = 4.5;
/// The same in a terminal, whose sixteen colours are its user's choice and not ours: here they are those of xterm.
const CONTRAST_IN_A_TERMINAL: f64 = 3.0;

/// A directory of pictures of one state, which are left there for a person to look at.
pub struct Pictures(PathBuf);

impl Pictures {
    /// # Errors
    /// Where the directory cannot be made.
    pub fn new(directory: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Self(directory))
    }

    /// The guard's page, which is open, on each screen. `answers`: by their places, a part of each, which is told there on the first
    /// screen as a whole, without scrolling.
    ///
    /// # Errors
    /// Where one is not, or something is not legible.
    pub fn of_page(&self, browser: &Browser, answers: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut grounds = Vec::new();
        for (name, width, height, scheme) in SCREENS {
            browser.look_at_charts(width, height, scheme)?;
            self.take(browser, name)?;
            for (place, part) in answers {
                let told = browser.script(&format!(
                    "scrollTo(0, 0); const screen = document.documentElement; \
                     const element = document.querySelector({}), at = element.getBoundingClientRect(); \
                     const is = at.width > 0 && at.top >= 0 && at.bottom <= screen.clientHeight && at.left >= 0 && at.right <= screen.clientWidth; \
                     return [element.innerText, is]",
                    json!(format!(".answers {place}"))
                ))?;
                let is_told = told[0].as_str().is_some_and(|text| text.contains(part));
                ensure!(is_told, "{name}: '{part}' is not what is told at {place}: {told}");
                let may_be_below = width < PHONE_WIDTH && NOT_FIRST_ON_A_PHONE.contains(place);
                ensure!(told[1] == true || may_be_below, "{name}: {told} is not on the first screen as a whole");
            }
            grounds.push(browser.script("return getComputedStyle(document.body).backgroundColor")?);
        }
        ensure!(grounds[0] != grounds[1], "dark is not light: {grounds:?}");
        Ok(())
    }

    /// What the browser shows now.
    ///
    /// # Errors
    /// Where something is not legible.
    pub fn take(&self, browser: &Browser, name: &str) -> anyhow::Result<()> {
        self.legible(browser, name, CONTRAST)
    }

    /// `canary top`, in each size. `words` stand on its screen in both.
    ///
    /// # Errors
    /// Where they do not, or something is not legible.
    pub fn of_terminal(&self, browser: &Browser, terminal: &Terminal, words: &[&str]) -> anyhow::Result<()> {
        for (columns, rows, more) in SIZES {
            terminal.resize((columns, rows))?;
            let screen = terminal.shows(&[words, &["q quit", more]].concat())?;
            let name = format!("top-{columns}x{rows}");
            fs::write(self.0.join(format!("{name}.txt")), &screen)?;
            let widest = screen.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            let fits = widest <= usize::from(columns) && screen.lines().count() <= usize::from(rows);
            ensure!(fits, "{name}:\n{screen}");
            let page = self.0.join(format!("{name}.html"));
            fs::write(&page, terminal.page()?)?;
            browser.open(&format!("file://{}", page.display()))?;
            for scheme in ["light", "dark"] {
                browser.look(u32::from(columns) * 9 + 40, u32::from(rows) * 18 + 20, scheme)?;
                self.legible(browser, &format!("{name}-{scheme}"), CONTRAST_IN_A_TERMINAL)?;
            }
        }
        Ok(())
    }

    /// The picture is there also where it is not legible.
    fn legible(&self, browser: &Browser, name: &str, contrast: f64) -> anyhow::Result<()> {
        browser.screenshot(&self.0.join(format!("{name}.png")))?;
        let faults = faults(browser, contrast)?;
        ensure!(faults.is_empty(), "{}: {faults:#?}", self.0.join(name).display());
        Ok(())
    }
}

fn faults(browser: &Browser, contrast: f64) -> anyhow::Result<Vec<String>> {
    let faults = browser.script(&format!("{LEGIBLE} return faults({contrast})"))?;
    serde_json::from_value(faults).context("a list of faults")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<!DOCTYPE html><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
                        <body style=\"background: #fff\">";

    #[test]
    fn what_nobody_can_read_is_found() -> anyhow::Result<()> {
        if !Browser::available("what_nobody_can_read_is_found") {
            return Ok(());
        }
        let browser = Browser::start()?;
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("page.html");
        let of = |body: &str| -> anyhow::Result<Vec<String>> {
            fs::write(&file, format!("{HEAD}{body}"))?;
            browser.open(&format!("file://{}", file.display()))?;
            browser.look(390, 844, "light")?;
            faults(&browser, CONTRAST)
        };
        for (fault, body) in [
            ("wider than the screen", "<p style='width: 500px'>much room"),
            ("beyond the screen: \"away\"", "<p style='margin-left: -30px'>away"),
            (
                "cut off: \"a line that ends\"",
                "<p style='width: 20px; overflow: hidden; white-space: nowrap'>a line that ends",
            ),
            ("cut off: \"the second\"", "<div style='height: 20px; overflow: hidden'>the first<br>the second</div>"),
            ("one on another: \"below\", \"above\"", "<p>below<p style='margin-top: -30px'>above"),
            (
                "one on another: \"one\", \"two\"",
                "<svg><text x='9' y='40'>one</text><text x='9' y='44'>two</text></svg>",
            ),
            ("contrast 2.32: \"grey\"", "<p style='color: #aaa'>grey"),
            ("contrast 2.32: \"drawn\"", "<svg><text x='9' y='40' fill='#aaa'>drawn</text></svg>"),
            ("contrast 1.00: \"white\"", "<p style='background: #000; opacity: 0'><b style='color: #fff'>white</b>"),
        ] {
            let found = of(body)?;
            assert!(found.iter().any(|f| f.contains(fault)), "no '{fault}' in {found:?}");
        }
        let fine = "<p>black on white<p style=\"background: #000; color: #fff; width: 100px\">white on black, in two lines \
                    <a class=\"skip\" style=\"position: absolute; left: -999px\">waits</a><p hidden>not there";
        assert_eq!(of(fine)?, Vec::<String>::new());
        Ok(())
    }
}
