//! Whom the limits by address count.

use tower_warden::{ForwardedHeader, Quota, TrustedProxies};

use crate::support::{Api, Server};

const PROXY: &str = "10.0.0.1";

#[tokio::test]
async fn client_is_the_nearest_hop_that_is_no_trusted_proxy() {
    use ForwardedHeader::{Forwarded, XForwardedFor};
    const XFF: &str = "x-forwarded-for";
    for (case, read, peer, headers, client) in [
        (
            "no proxy's header is read",
            XForwardedFor,
            "192.0.2.1",
            &[(XFF, "203.0.113.9")][..],
            "192.0.2.1",
        ),
        ("a proxy's is", XForwardedFor, PROXY, &[(XFF, "203.0.113.9")], "203.0.113.9"),
        ("from the right", XForwardedFor, PROXY, &[(XFF, "6.6.6.6, 203.0.113.9")], "203.0.113.9"),
        (
            "over trusted hops",
            XForwardedFor,
            PROXY,
            &[(XFF, "203.0.113.9, 10.9.9.9")],
            "203.0.113.9",
        ),
        (
            "over lines",
            XForwardedFor,
            PROXY,
            &[(XFF, "203.0.113.9"), (XFF, "10.2.2.2")],
            "203.0.113.9",
        ),
        ("up to what is none", XForwardedFor, PROXY, &[(XFF, "6.6.6.6, x, 10.2.2.2")], "10.2.2.2"),
        ("without it, the proxy", XForwardedFor, PROXY, &[], PROXY),
        ("only the one header", XForwardedFor, PROXY, &[("forwarded", "for=6.6.6.6")], PROXY),
        ("and no other", XForwardedFor, PROXY, &[("x-real-ip", "6.6.6.6")], PROXY),
        (
            "or the other",
            Forwarded,
            PROXY,
            &[("forwarded", "for=203.0.113.9"), (XFF, "6.6.6.6")],
            "203.0.113.9",
        ),
        (
            "IPv6 by /64",
            XForwardedFor,
            PROXY,
            &[(XFF, "2001:db8:1:2:3::4")],
            "2001:db8:1:2:ffff::1",
        ),
        (
            "IPv4-mapped is IPv4",
            XForwardedFor,
            PROXY,
            &[(XFF, "::ffff:203.0.113.9")],
            "203.0.113.9",
        ),
        ("mapped proxy", XForwardedFor, "::ffff:10.0.0.1", &[(XFF, "203.0.113.9")], "203.0.113.9"),
        ("mapped peer", XForwardedFor, "::ffff:192.0.2.1", &[], "192.0.2.1"),
    ] {
        let server = Server::with(|app| {
            app.limits.quotas.public = Quota::per_minute(1);
            app.limits.quotas.proxies = TrustedProxies::new(read.clone(), ["10.0.0.0/8"]).unwrap();
        })
        .await;
        let mut call = server.get("/public/status").from(peer);
        for (name, value) in headers {
            call = call.header(name, value);
        }
        call.await.expect(200);
        // That client has nothing left, wherever it comes from; its neighbours have.
        let other_way = match read {
            XForwardedFor => (XFF, client.to_owned()),
            _ => ("forwarded", format!("for=\"{client}\"")),
        };
        let again = server.get("/public/status").from(PROXY);
        let again = if client == PROXY { again } else { again.header(other_way.0, other_way.1) };
        assert_eq!(again.await.status, 429, "{case}");
        for other in ["192.0.2.2", "2001:db8:1:3::4"] {
            assert_eq!(server.get("/public/status").from(other).await.status, 200, "{case}");
        }
    }
}

#[tokio::test]
async fn made_up_addresses_do_not_get_round_a_limit() {
    let server = Server::start().await;
    let made_up = |n: u32| {
        let call = server.get("/public/status").from("203.0.113.9");
        call.header("x-forwarded-for", format!("198.51.100.{n}"))
            .header("forwarded", format!("for=198.51.100.{n}"))
    };
    for n in 0..100 {
        made_up(n).await.expect(200);
    }
    made_up(101).await.refused(429, "rate_limited");
}

#[tokio::test]
async fn who_has_one_address_of_a_64_has_them_all() {
    let server = Server::start().await;
    for n in 0..100 {
        server.get("/public/status").from(&format!("2001:db8:1:2:{n:x}::1")).await.expect(200);
    }
    server.get("/public/status").from("2001:db8:1:2:ffff::1").await.refused(429, "rate_limited");
    server.get("/public/status").from("2001:db8:1:3::1").await.expect(200);
}
