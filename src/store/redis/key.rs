//! The names of keys: `rl:{limiter}:{key}`.

use std::{fmt::Write, net::Ipv4Addr};

use ring::digest::{SHA256, digest};

use crate::limit::Key;

/// Longer text is hashed.
const LONGEST: usize = 64;

/// The name at which a limiter keeps the state of a key.
///
/// The parts can't run into one another, whatever they hold: escaped text has neither a colon nor
/// a brace, and only texts begin with `=`, only hashes with `#`, only numbers with `+`.
pub(super) fn name(prefix: &str, limiter: &str, key: &Key) -> String {
    let mut name = String::with_capacity(prefix.len() + limiter.len() + 48);
    name.push_str(prefix);
    name.push(':');
    push_escaped(&mut name, limiter);
    name.push(':');
    match key {
        // To write into a String can't fail.
        Key::ClientIp(ip) => _ = write!(name, "{ip}"),
        Key::User(id) => match id.as_str().parse::<Ipv4Addr>() {
            Ok(_) => push_hash(&mut name, id.as_str()),
            Err(_) => push_text(&mut name, id.as_str()),
        },
        Key::Number(number) => _ = write!(name, "+{number}"),
        Key::Text(text) => {
            name.push('=');
            push_text(&mut name, text);
        }
    }
    name
}

fn push_text(name: &mut String, text: &str) {
    if text.len() <= LONGEST {
        push_escaped(name, text);
    } else {
        push_hash(name, text);
    }
}

fn push_escaped(name: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'@' | b'-' => {
                name.push(char::from(byte));
            }
            _ => _ = write!(name, "%{byte:02X}"),
        }
    }
}

fn push_hash(name: &mut String, text: &str) {
    name.push('#');
    for byte in digest(&SHA256, text.as_bytes()).as_ref() {
        _ = write!(name, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::IpAddr};

    use super::*;
    use crate::{ClientIp, UserId};

    fn ip(text: &str) -> Key {
        Key::from(ClientIp::from(text.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn names_are_what_the_contract_says() {
        let user = Key::from(&UserId::from("6f1c2f0e-5d2f-4a51-9a77-0b6f1c2f0e5d"));
        let cases = [
            ("ip", ip("203.0.113.9"), "rl:ip:203.0.113.9"),
            ("login", ip("2001:db8:1:2:3::4"), "rl:login:2001:db8:1:2::/64"),
            ("user", user, "rl:user:6f1c2f0e-5d2f-4a51-9a77-0b6f1c2f0e5d"),
            ("key", Key::from("a.b@c-d_E"), "rl:key:=a.b@c-d_E"),
            ("key", Key::from(42_u64), "rl:key:+42"),
            ("key", Key::from("{a}:b%\0é"), "rl:key:=%7Ba%7D%3Ab%25%00%C3%A9"),
        ];
        for (limiter, key, expected) in cases {
            assert_eq!(name("rl", limiter, &key), expected);
        }
    }

    #[test]
    fn no_text_reaches_the_key_of_another() {
        let long = "x".repeat(10_000);
        let hash_of_long = name("rl", "ip", &Key::from(long.as_str()));
        let hash = hash_of_long.trim_start_matches("rl:ip:=").to_owned();
        let texts = [
            "",
            "a",
            "%61",
            "a:b",
            "a%3Ab",
            "{a}",
            "=a",
            "#a",
            "203.0.113.9",
            "::1",
            "\0",
            &long,
            &hash,
            &long[1..],
        ];
        let mut keys = vec![ip("203.0.113.9"), ip("::1")];
        keys.extend(texts.map(Key::from));
        keys.extend(texts.map(|text| Key::from(&UserId::from(text))));
        let limiters = ["ip", "ip:a", "ip%3Aa", "{ip}"];
        let all =
            limiters.iter().flat_map(|limiter| keys.iter().map(|key| name("rl", limiter, key)));
        let names: HashSet<_> = all.collect();
        assert_eq!(names.len(), limiters.len() * keys.len());
        assert!(names.iter().all(|name| name.len() < 256 && !name.contains(['{', '}', '\0'])));
    }
}
