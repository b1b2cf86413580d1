//! One HTTP request, one answer, within a time limit; and how a name is written in an address.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

/// More of an answer is not read.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;
/// More of an answer is not quoted.
const LONGEST_QUOTE: usize = 200;

/// Plain HTTP, and HTTPS with whom this machine trusts.
#[derive(Clone, Debug)]
pub struct HttpClient(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// Status and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.body.trim().chars().take(LONGEST_QUOTE).collect();
        write!(f, "answer {} '{}'", self.status, text.escape_debug())
    }
}

/// For one segment of a path, or one value of a query (RFC 3986: unreserved characters stay).
pub fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl HttpClient {
    /// Where the machine trusts nobody only plain HTTP works.
    ///
    /// # Errors
    /// TLS that cannot be set up.
    pub fn new() -> anyhow::Result<Self> {
        let builder = || ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let with_versions = || builder().with_safe_default_protocol_versions().context("set up TLS");
        let config = match with_versions()?.with_native_roots() {
            Ok(config) => config.with_no_client_auth(),
            Err(error) => {
                tracing::warn!("no certificate authorities (install ca-certificates); https will fail: {error}");
                with_versions()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
            }
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        // Nothing is kept open: there are hours between two calls.
        builder.pool_max_idle_per_host(0);
        Ok(Self(builder.build(connector)))
    }

    /// # Errors
    /// No answer within `timeout`, or one that is broken off or too long.
    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        body: String,
        timeout: Duration,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header("user-agent", concat!("canary-guard/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(body)).context("the request")?;
        let exchange = async {
            let answer = self.0.request(request).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| anyhow!("read the answer: {e}"))?.to_bytes();
            anyhow::Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let limit = || anyhow!("no answer within {}", humantime::format_duration(timeout));
        tokio::time::timeout(timeout, exchange).await.map_err(|_| limit())?
    }
}
