//! The journal of systemd, by its native protocol: one datagram of fields.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::{os::unix::net::UnixDatagram, path::Path};

use anyhow::Context as _;

use super::message::Message;

pub const SOCKET: &str = "/run/systemd/journal/socket";

/// `journalctl MESSAGE_ID=` finds all messages of the guard by it.
const MESSAGE_ID: &str = "8d2c5b6f0c8b4c0f9a51c6ab7f9a3e10";

pub fn send(socket: &Path, message: &Message) -> anyhow::Result<()> {
    let priority = message.severity.priority().to_string();
    let mut fields = vec![
        ("MESSAGE", format!("{}: {}", message.title, message.text)),
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", "canary".to_owned()),
        ("MESSAGE_ID", MESSAGE_ID.to_owned()),
        ("CANARY_DEPLOYMENT", message.deployment.clone()),
        ("CANARY_OCCASION", message.occasion.name().to_owned()),
    ];
    fields.extend(message.decision.clone().map(|id| ("CANARY_DECISION", id)));
    let mut datagram = Vec::new();
    for (name, value) in &fields {
        // A value with line breaks has its length in front of it.
        datagram.extend_from_slice(name.as_bytes());
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
        datagram.extend_from_slice(value.as_bytes());
        datagram.push(b'\n');
    }
    let socket_name = socket.display();
    let sender = UnixDatagram::unbound().context("make a socket")?;
    sender.send_to(&datagram, socket).with_context(|| format!("send to {socket_name}: does systemd-journald run?"))?;
    Ok(())
}
