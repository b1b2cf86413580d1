//! TLS on the guard's port: connections come to axum once their handshake is done.

use std::{future, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};

use crate::config::TlsConfig;

/// Handshakes under way at once, and how long one may take: whoever connects and says nothing blocks nobody else.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads certificate and key.
///
/// # Errors
/// A file that cannot be read, is no PEM, or a key that does not fit the certificate.
pub fn load(config: &TlsConfig) -> anyhow::Result<Arc<ServerConfig>> {
    let (certificate, key) = (config.certificate.display(), config.key.display());
    let chain = CertificateDer::pem_file_iter(&config.certificate)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("tls.certificate {certificate}: not a certificate in PEM that can be read"))?;
    anyhow::ensure!(!chain.is_empty(), "tls.certificate {certificate}: there is no certificate in it");
    let private = PrivateKeyDer::from_pem_file(&config.key)
        .with_context(|| format!("tls.key {key}: not a private key in PEM that can be read"))?;
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("tls: {key} is not the key of {certificate}"))?;
    Ok(Arc::new(server))
}

/// Connections whose handshake is done.
#[derive(Debug)]
pub struct Tls {
    done: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl Tls {
    /// Accepts from now on; ends with what it returns.
    ///
    /// # Errors
    /// Where the listener has no address any more.
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let (send, done) = mpsc::channel(1);
        tokio::spawn(accept(listener, TlsAcceptor::from(config), send));
        Ok(Self { done, local })
    }
}

async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    send: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, peer) = tokio::select! {
            // axum's own way: it waits a moment where no file descriptor is left.
            accepted = Listener::accept(&mut listener) => accepted,
            () = send.closed() => return,
        };
        let (acceptor, send) = (acceptor.clone(), send.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(send.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!("TLS with {peer}: {error}"),
                Err(_) => tracing::debug!("TLS with {peer}: no handshake within {PATIENCE:?}"),
            }
            drop(permit);
        });
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.done.recv().await {
            Some(connection) => connection,
            // Its task ends only with us.
            None => future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
