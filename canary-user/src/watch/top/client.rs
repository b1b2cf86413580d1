//! What `canary top` asks of the guard's API: over the guard's unix socket, or over HTTP or HTTPS.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, Uri,
    body::{Bytes, Incoming},
    header,
};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::Command;
use crate::{control, http_client::percent_encoded};

const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer: an hour of windows in JSON is some megabytes.
const MOST_BYTES: usize = 32 << 20;

/// How the guard is reached and, where commands are wanted over the network, its token.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    token: Option<String>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    /// The kernel says who asks.
    Socket(PathBuf),
    Network {
        scheme: &'static str,
        http: Box<Http<HttpsConnector<HttpConnector>, Full<Bytes>>>,
    },
}

/// Whose certificates are trusted.
#[derive(Clone, Copy, Debug)]
pub enum Trusted<'a> {
    Machine,
    /// Those in this PEM file, and no others.
    File(&'a Path),
}

impl Client {
    /// Over the guard's unix socket.
    pub fn over_socket(socket: &Path) -> Self {
        Self { address: socket.display().to_string(), token: None, way: Way::Socket(socket.to_owned()) }
    }

    /// `address` is ADDRESS:PORT, http://ADDRESS:PORT or https://NAME:PORT.
    ///
    /// # Errors
    /// A token or certificates that cannot be read.
    pub fn new(address: &str, token_file: Option<&Path>, trusted: Trusted) -> anyhow::Result<Self> {
        let token = match token_file {
            None => None,
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).with_context(|| format!("read the token {}", file.display()))?;
                Some(text.trim().to_owned())
            }
        };
        let (scheme, rest) = match address.strip_prefix("https://") {
            Some(rest) => ("https", rest),
            None => ("http", address.strip_prefix("http://").unwrap_or(address)),
        };
        // Nobody is asked for a certificate over plain HTTP.
        let config = if scheme == "https" { tls(trusted)? } else { tls_with(RootCertStore::empty())? };
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let http = Box::new(Http::builder(TokioExecutor::new()).build(connector));
        Ok(Self { address: rest.trim_end_matches('/').to_owned(), token, way: Way::Network { scheme, http } })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// # Errors
    /// Where nobody answers, or not as expected.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let (status, body) = self.send(Method::GET, path, "").await?;
        if status != 200 {
            bail!("{}: {}", self.address, words(status, &body));
        }
        serde_json::from_slice(&body).with_context(|| format!("{}{path} is no guard's answer", self.address))
    }

    /// What the guard says of it.
    pub(super) async fn command(&self, command: &Command) -> anyhow::Result<String> {
        let (path, body) = match command {
            Command::Pause => ("/api/v1/pause".to_owned(), "{\"reason\":\"from canary top\"}"),
            Command::Resume => ("/api/v1/resume".to_owned(), "{}"),
            Command::Approve(id) => (format!("/api/v1/approve/{}", percent_encoded(id)), "{}"),
        };
        let (status, body) = self.send(Method::POST, &path, body).await?;
        Ok(words(status, &body))
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> anyhow::Result<(u16, Bytes)> {
        let exchange = async {
            let answer = self.answer(method, path, body).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
            let body = body.map_err(|e| anyhow::anyhow!("read the answer of {}: {e}", self.address))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        answer.with_context(|| format!("no answer from {} within {PATIENCE:?}", self.address))?
    }

    async fn answer(&self, method: Method, path: &str, body: &str) -> anyhow::Result<Response<Incoming>> {
        let uri: Uri = match &self.way {
            Way::Socket(_) => path.parse().context("a path")?,
            Way::Network { scheme, .. } => format!("{scheme}://{}{path}", self.address)
                .parse()
                .with_context(|| format!("{} is no ADDRESS:PORT", self.address))?,
        };
        let mut request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = Full::new(Bytes::from(body.to_owned()));
        match &self.way {
            Way::Socket(socket) => {
                let request = request.header(header::HOST, "guard").body(body).context("write the request")?;
                control::client::send(socket, request).await
            }
            Way::Network { http, .. } => {
                let request = request.body(body).context("the token is not one word")?;
                let hint = || {
                    format!("{}: is it the configuration's 'listen'? With [tls] it is https://NAME:PORT", self.address)
                };
                http.request(request).await.with_context(hint)
            }
        }
    }
}

fn tls(trusted: Trusted) -> anyhow::Result<ClientConfig> {
    let Trusted::File(file) = trusted else {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().context("set up TLS")?;
        let advice = "this machine trusts nobody (install ca-certificates): name the guard's certificate with --ca";
        return Ok(builder.with_native_roots().context(advice)?.with_no_client_auth());
    };
    let name = file.display();
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(file).with_context(|| format!("read the certificates in {name}"))?;
    for certificate in all {
        let what = || format!("{name}: not a certificate in PEM");
        roots.add(certificate.with_context(what)?).with_context(what)?;
    }
    anyhow::ensure!(!roots.is_empty(), "there is no certificate in {name}");
    tls_with(roots)
}

fn tls_with(roots: RootCertStore) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().context("set up TLS")?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The sentence in an answer.
fn words(status: u16, body: &[u8]) -> String {
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let sentence = said.as_ref().and_then(|v| v["said"].as_str().or(v["error"].as_str()));
    match (sentence, status) {
        (Some(sentence), _) => sentence.to_owned(),
        (None, 404 | 405) => "this guard does not know that: is it of another version than this program?".to_owned(),
        (None, status) => format!("HTTP status {status}"),
    }
}
