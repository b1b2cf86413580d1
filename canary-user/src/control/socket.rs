//! The unix socket: made for root and the configured group, each caller checked by what the kernel says of it.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use axum::{Router, extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::{UnixListener, UnixStream};

use crate::config::ApiConfig;

/// The guard's socket, taken and not served yet. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    group: Option<u32>,
}

/// Takes the socket, in a directory that is made where there is none. A file left by a guard that died is replaced. Where it
/// cannot be given to the configured group, it is root's alone, and the log says why.
///
/// # Errors
/// Another guard answers there, the place cannot be written, or something else has it.
pub async fn bind(api: &ApiConfig) -> anyhow::Result<Socket> {
    let path = api.socket.clone();
    let name = path.display();
    let advice = format!("let the guard write there, or set socket under [api] to another place than {name}");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| advice.clone())?;
    }
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).context(advice),
        Ok(found) if !found.file_type().is_socket() => bail!("{name} is there and is no socket: {advice}"),
        Ok(_) if UnixStream::connect(&path).await.is_ok() => {
            bail!("another guard answers at {name}: set socket under [api] to another place for this one")
        }
        Ok(_) => fs::remove_file(&path).with_context(|| advice.clone())?,
    }
    let listener = UnixListener::bind(&path).with_context(|| advice.clone())?;
    // From here on the file is ours to remove.
    let mut socket = Socket { listener: Some(listener), path, group: None };
    if let Some(group) = &api.group {
        // Without its group the socket still serves who would pause or roll back as root.
        match group_id(group).and_then(|id| give(&socket.path, id)) {
            Ok(id) => socket.group = Some(id),
            Err(error) => tracing::warn!("only root can use {}: {error:#}", socket.path.display()),
        }
    }
    let mode = if socket.group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&socket.path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("chmod {mode:o} {}", socket.path.display()))?;
    Ok(socket)
}

impl Socket {
    /// The group that may use it besides root.
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// Serves until `shutdown` is ready.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        mut self,
        router: Router,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let listener = self.listener.take().expect("a socket is served once");
        let service = router.into_make_service_with_connect_info::<Peer>();
        axum::serve(listener, service).with_graceful_shutdown(shutdown).await.context("serve the unix socket")
    }
}

/// The other end of a connection, as the kernel knows it; `None` = it does not say.
#[derive(Clone, Debug)]
pub(super) struct Peer(Option<Credentials>);

#[derive(Clone, Debug)]
struct Credentials {
    uid: u32,
    /// The group that it runs as, and those that it is in besides.
    groups: Vec<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|peer| Credentials {
            uid: peer.uid(),
            groups: std::iter::once(peer.gid()).chain(peer.pid().map(further_groups).unwrap_or_default()).collect(),
        }))
    }
}

impl Peer {
    /// The caller's name where it may command: root, the guard's own user, and members of the group.
    pub fn may_command(&self, group: Option<u32>) -> Result<String, String> {
        let Some(peer) = &self.0 else { return Err("the kernel does not say who asks".into()) };
        let own = rustix::process::geteuid().as_raw();
        match peer.uid {
            0 => Ok("root".into()),
            uid if uid == own || group.is_some_and(|g| peer.groups.contains(&g)) => Ok(format!("uid {uid}")),
            uid => Err(format!(
                "uid {uid} may not command the guard: ask as root, or name one of its groups as group under [api]"
            )),
        }
    }
}

/// The groups that a process is in besides its own. That it could connect at all was the kernel's decision, by the
/// socket's mode, so that a process number that was given to somebody else since opens nothing.
pub(super) fn further_groups(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().flat_map(str::parse).collect()
}

/// Gives the socket to a group, and returns that.
fn give(socket: &Path, group: u32) -> anyhow::Result<u32> {
    chown(socket, None, Some(group)).with_context(|| {
        format!("it cannot be given to group {group}: let the guard have CAP_CHOWN, or be a member of that group")
    })?;
    Ok(group)
}

/// A group's number, by number or by its name in /etc/group.
pub(super) fn group_id(group: &str) -> anyhow::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string("/etc/group").context("read /etc/group for group under [api]")?;
    let field = |line: &str| -> Option<u32> {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    };
    text.lines().find_map(field).with_context(|| {
        format!("group under [api]: /etc/group has no '{group}': `groupadd --system {group}` makes it; a number is taken too")
    })
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already, or to be replaced by the next guard.
        let _ = fs::remove_file(&self.path);
    }
}
