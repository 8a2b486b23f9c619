//! The documents of an issuer, fetched within bounds.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

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

/// An address that a document names: a stranger's must not make us ask inside of our own network.
pub(super) fn named_by(document: &Uri, url: &str) -> Result<Uri, JwksError> {
    let uri = checked(url)?;
    match uri.host() == document.host() || !uri.host().is_some_and(is_inside) {
        true => Ok(uri),
        false => Err(JwksError::InvalidUrl(url.to_owned())),
    }
}

/// Whether a host is this machine or an address of a private network.
fn is_inside(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let name = host == "localhost" || host.ends_with(".localhost");
    name || match host.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, ..] = ip.octets();
            // RFC 6598, too.
            let shared = a == 100 && b & 0xc0 == 64;
            a == 0 || ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared
        }
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
        Err(_) => false,
    }
}

/// `https` anywhere; `http` only where nobody stands in between.
pub(super) fn checked(url: &str) -> Result<Uri, JwksError> {
    let invalid = || JwksError::InvalidUrl(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let loopback = |host: &str| {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
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
    fn no_document_sends_us_into_a_private_network_but_one_from_there() {
        let document = |url: &str| url.parse::<Uri>().unwrap();
        let public = document("https://id.example/.well-known/openid-configuration");
        for url in
            ["https://id.example/keys", "https://keys.example:8443/keys", "https://9.9.9.9/k"]
        {
            assert!(named_by(&public, url).is_ok(), "{url}");
        }
        for url in [
            "http://127.0.0.1:8080/keys",
            "http://localhost/keys",
            "http://[::1]/keys",
            "https://127.0.0.1/keys",
            "https://LocalHost/keys",
            "https://x.localhost./keys",
            "https://10.0.0.7/keys",
            "https://192.168.1.1/keys",
            "https://169.254.169.254/latest",
            "https://100.64.0.1/keys",
            "https://0.0.0.0/keys",
            "https://[fd00::1]/keys",
            "https://[fe80::1]/keys",
            "https://[::ffff:10.0.0.7]/keys",
            "http://id.example/keys",
        ] {
            assert!(named_by(&public, url).is_err(), "{url}");
        }
        let inside = document("https://10.0.0.7/.well-known/openid-configuration");
        assert!(named_by(&inside, "https://10.0.0.7/keys").is_ok());
        assert!(named_by(&inside, "https://10.0.0.8/keys").is_err());
        assert!(named_by(&document("http://127.0.0.1:1/"), "http://127.0.0.1:2/keys").is_ok());
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
