//! The documents of an issuer, fetched within bounds.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::JwksError;

/// What is read of an issuer's own document (RFC 8414, section 2).
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    pub(super) issuer: String,
    pub(super) jwks_uri: String,
}

pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

const LONGEST: usize = 512 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const NOT_FOUND: &str = "that there is nothing";

impl Client {
    pub(super) fn new() -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?;
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self(legacy::Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// A document, and for how long it may be kept.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        url: &Uri,
    ) -> Result<(T, Option<Duration>), JwksError> {
        let unreachable = |source: Box<_>| JwksError::Unreachable { url: url.clone(), source };
        let unusable = |what| JwksError::Unusable { url: url.clone(), what };
        let fetch = async {
            let response = self.0.get(url.clone()).await.map_err(|e| unreachable(e.into()))?;
            let (head, body) = response.into_parts();
            match head.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Err(unusable(NOT_FOUND)),
                _ => return Err(unusable("with another status than 200")),
            }
            let body = Limited::new(body, LONGEST).collect().await.map_err(unreachable)?;
            let document = serde_json::from_slice(&body.to_bytes());
            let document = document.map_err(|_| unusable("with another document"))?;
            Ok((document, max_age(&head.headers)))
        };
        let late = |late: tokio::time::error::Elapsed| unreachable(late.into());
        tokio::time::timeout(PATIENCE, fetch).await.map_err(late)?
    }
}

/// `https` anywhere; `http` only where nobody stands in between.
pub(super) fn checked(url: &str) -> Result<Uri, JwksError> {
    let invalid = || JwksError::InvalidUrl(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let loopback = |host: &str| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(uri),
        (Some("http"), Some(host)) if loopback(host) => Ok(uri),
        _ => Err(invalid()),
    }
}

/// `Cache-Control: max-age` (RFC 9111, section 5.2.2.1).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::CACHE_CONTROL)?.to_str().ok()?;
    let mut directives = value.split(',').map(str::trim);
    let seconds = directives.find_map(|directive| directive.strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_fetched_from() {
        for url in
            ["https://id.example/x", "http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost"]
        {
            assert!(checked(url).is_ok(), "{url}");
        }
        for url in
            ["http://id.example", "file:///etc/passwd", "/x", "", "http://10.0.0.1", "ftp://x"]
        {
            assert!(checked(url).is_err(), "{url}");
        }
    }

    #[test]
    fn how_long_a_document_may_be_kept_is_read() {
        let age = |text| {
            let value = http::HeaderValue::from_static(text);
            max_age(&HeaderMap::from_iter([(header::CACHE_CONTROL, value)]))
                .map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=300, must-revalidate"), Some(300));
        assert_eq!(age("no-store"), None);
        assert_eq!(age("max-age=soon"), None);
    }
}
