//! Ports for servers of the tests' own.

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// A port that nobody uses now. It is none of those that the system gives to clients, who could have
/// it before the server does; and no test gets it twice.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 22_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Suites that run beside one another begin elsewhere.
        let place = process::id().wrapping_mul(997).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = (FIRST + place % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
