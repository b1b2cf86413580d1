//! systemd as a watcher, where it started the guard with `Type=notify`: told when the first window is there, and at each further
//! one that the line still moves. A guard that is stuck says nothing, and is started anew (sd_notify(3)).

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// So many windows may take longer than usual before the guard counts as stuck.
const WINDOWS: u32 = 5;
/// It is told no more often than this.
const PACE: Duration = Duration::from_secs(1);

/// Who started the guard and waits for its word.
pub struct Systemd {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How long it waits for a word before it takes the guard for stuck; `None` = it does not.
    patience: Option<Duration>,
    window: Duration,
    last: Option<Instant>,
}

impl Systemd {
    /// As the environment says; `None` where nobody waits for a word, also after a warning that it cannot be given.
    pub fn from_environment(window: Duration) -> Option<Self> {
        let address = env::var("NOTIFY_SOCKET").ok()?;
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let patience = number("WATCHDOG_USEC").filter(|_| for_us).map(Duration::from_micros);
        let systemd = Self::at(&address, patience, window);
        systemd.inspect_err(|error| tracing::warn!("systemd is not told that the guard runs: {error:#}")).ok()
    }

    /// `address` is a path, or a name after `@`.
    fn at(address: &str, patience: Option<Duration>, window: Duration) -> anyhow::Result<Self> {
        let context = || format!("NOTIFY_SOCKET is {address}");
        let socket = UnixDatagram::unbound().context("make a socket")?;
        // Whoever does not take a word keeps nobody from the next window.
        socket.set_nonblocking(true).context("make a socket")?;
        let address = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(address),
        };
        Ok(Self { socket, address: address.with_context(context)?, patience, window, last: None })
    }

    /// To be called at every window.
    pub fn window_came(&mut self) {
        let now = Instant::now();
        let words = match self.last {
            None => self.first_words(),
            Some(last) if self.patience.is_some() && now.duration_since(last) >= PACE => "WATCHDOG=1".to_owned(),
            Some(_) => return,
        };
        match self.socket.send_to_addr(words.as_bytes(), &self.address) {
            Ok(_) => self.last = Some(now),
            // Its queue is full: the next window tells it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!("systemd is not told that the guard runs: {error}");
                self.last = Some(now);
            }
        }
    }

    fn first_words(&self) -> String {
        let mut words = "READY=1\nSTATUS=Windows are coming in\nWATCHDOG=1".to_owned();
        let needed = self.window * WINDOWS;
        if self.patience.is_some_and(|patience| patience < needed) {
            words += &format!("\nWATCHDOG_USEC={}", needed.as_micros());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(socket: &UnixDatagram) -> Option<String> {
        let mut words = [0; 256];
        socket.set_nonblocking(true).expect("a socket");
        let length = socket.recv(&mut words).ok()?;
        Some(String::from_utf8_lossy(&words[..length]).into_owned())
    }

    #[test]
    fn systemd_is_told_of_the_first_window_and_later_no_more_than_once_a_second() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let here = UnixDatagram::bind(&path).expect("a socket");
        let mut systemd =
            Systemd::at(&path.display().to_string(), Some(Duration::from_secs(60)), PACE).expect("it is there");
        assert_eq!(said(&here), None, "not before there is a window");
        systemd.window_came();
        assert_eq!(said(&here).as_deref(), Some("READY=1\nSTATUS=Windows are coming in\nWATCHDOG=1"));
        systemd.window_came();
        assert_eq!(said(&here), None);
        systemd.last = systemd.last.and_then(|last| last.checked_sub(PACE));
        systemd.window_came();
        assert_eq!(said(&here).as_deref(), Some("WATCHDOG=1"));
    }

    #[test]
    fn a_window_that_is_longer_than_its_patience_prolongs_that() {
        let name = format!("canary-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let here = UnixDatagram::bind_addr(&address).expect("a socket");
        let minute = Duration::from_secs(60);
        let mut systemd = Systemd::at(&format!("@{name}"), Some(minute), minute).expect("it is there");
        systemd.window_came();
        assert!(said(&here).is_some_and(|words| words.ends_with("\nWATCHDOG_USEC=300000000")));
    }

    #[test]
    fn nobody_who_listens_is_no_reason_to_stop() {
        let mut systemd = Systemd::at("/nowhere/notify", None, PACE).expect("a path");
        systemd.window_came();
        systemd.window_came();
    }
}
