//! A real browser without a screen: Chromium, driven by chromedriver over the WebDriver protocol.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::{guard::PATIENCE, wait_until};

/// A browser with one page. Ends with the test.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// What it keeps of the user; removed at the end.
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Whether there is one here; prints why not otherwise.
    pub fn available(test: &str) -> bool {
        let found = Command::new("chromedriver").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        let lacks = found.err().map(|error| format!("chromedriver: {error}: apt-get install chromium chromium-driver"));
        lacks.as_ref().inspect(|why| println!("SKIP {test}: {why}")).is_none()
    }

    /// # Errors
    /// Where it does not come up.
    pub fn start() -> anyhow::Result<Self> {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start chromedriver")?;
        let out = BufReader::new(driver.stdout.take().context("its stdout")?);
        // "ChromeDriver was started successfully on port 12345."
        let port = out
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok());
        let profile = tempfile::tempdir()?;
        let mut browser = Self {
            driver,
            port: port.context("chromedriver does not say its port")?,
            session: String::new(),
            _profile: profile,
        };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,1000",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } } });
        let made = browser.ask("POST", "/session", &wanted)?;
        browser.session = made["sessionId"].as_str().context("a session")?.to_owned();
        Ok(browser)
    }

    pub fn open(&self, url: &str) -> anyhow::Result<()> {
        self.command("url", &json!({ "url": url })).map(drop)
    }

    /// The value of a script's `return`.
    pub fn script(&self, script: &str) -> anyhow::Result<Value> {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text that a person sees.
    pub fn text(&self) -> anyhow::Result<String> {
        Ok(self.script("return document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page shows this.
    pub fn until_it_says(&self, part: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        let found = wait_until(part, PATIENCE, || {
            std::thread::sleep(Duration::from_millis(100));
            text = self.text().unwrap_or_default();
            text.contains(part)
        });
        found.with_context(|| format!("the page says:\n{text}"))?;
        Ok(text)
    }

    /// A command of the browser's own protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> anyhow::Result<Value> {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Another screen: its width and height in CSS pixels, and light or dark.
    pub fn look(&self, width: u32, height: u32, scheme: &str) -> anyhow::Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size)?;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &features)?;
        Ok(())
    }

    /// The same, once the guard's page has its charts for this width: as wide as they were at the width before, they would be too
    /// wide for it, or leave most of it empty.
    pub fn look_at_charts(&self, width: u32, height: u32, scheme: &str) -> anyhow::Result<()> {
        self.look(width, height, scheme)?;
        let share = "return document.querySelector('.chart svg').width.baseVal.value / document.getElementById('now').clientWidth";
        wait_until("charts of this width", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(100));
            self.script(share).ok().and_then(|s| s.as_f64()).is_some_and(|share| (0.8..=1.0).contains(&share))
        })
    }

    /// Presses a key, by its name and its number on Windows, as a person does.
    pub fn press(&self, key: &str, number: u32) -> anyhow::Result<()> {
        let text = if key == "Enter" { "\r" } else { "" };
        for (kind, text) in [("keyDown", text), ("keyUp", "")] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number, "text": text });
            self.devtools("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// The whole page as a PNG file.
    pub fn screenshot(&self, file: &Path) -> anyhow::Result<()> {
        let picture = self.devtools("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }))?;
        let data = picture["data"].as_str().context("a picture")?;
        let png = base64::engine::general_purpose::STANDARD.decode(data)?;
        ensure!(png.starts_with(b"\x89PNG"), "not a picture");
        std::fs::write(file, png).with_context(|| format!("write {}", file.display()))
    }

    fn command(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", &format!("/session/{}/{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context("reach chromedriver")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}",
            body.len()
        );
        write!(stream, "{head}\r\n\r\n{body}")?;
        // It keeps the connection open whatever it is asked: the length says where the answer ends.
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).with_context(|| format!("{path}: chromedriver's answer"))?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).with_context(|| format!("{path}: chromedriver's answer"))?;
        let body = String::from_utf8_lossy(&body);
        let value: Value = serde_json::from_str(&body).with_context(|| format!("chromedriver says {body}"))?;
        if let Some(error) = value["value"]["error"].as_str() {
            bail!("{path}: {error}: {}", value["value"]["message"].as_str().unwrap_or_default());
        }
        Ok(value["value"].clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; its driver alone would leave it.
        if !self.session.is_empty() {
            let _ = self.ask("DELETE", &format!("/session/{}", self.session), &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
