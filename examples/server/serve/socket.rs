//! A socket that tells what comes of it, answers in our words where hyper has none, and lingers.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tower_warden::Problem;

use super::watch::Watch;
use crate::app::Hardening;

/// So long, and for so many bytes, a client that is still sending has to see its answer: a socket
/// that is closed over unread bytes takes the answer back (RST).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OVER: usize = 16 * 1024 * 1024;

pub struct Socket {
    socket: TcpStream,
    watch: Watch,
    hardening: Hardening,
    /// What is written in place of hyper's own words, and how much of it was.
    instead: Option<(Vec<u8>, usize)>,
    linger: Option<Linger>,
    /// The client sends nothing more.
    at_end: bool,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl Socket {
    pub fn new(socket: TcpStream, watch: Watch, hardening: Hardening) -> Self {
        Self { socket, watch, hardening, instead: None, linger: None, at_end: false }
    }

    /// Reads and throws away, until the client has closed its side.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let linger = self
            .linger
            .get_or_insert_with(|| Linger { until: Box::pin(sleep(LINGER)), left: LINGER_OVER });
        let mut scratch = [0; 8 * 1024];
        while linger.left > 0 && linger.until.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut scratch);
            if ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read)).is_err() {
                break;
            }
            match read.filled().len() {
                0 => break,
                length => linger.left = linger.left.saturating_sub(length),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((words, written)) = &mut self.instead {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &words[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => *written += length,
            }
            if *written == words.len() {
                self.instead = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        match &buf.filled()[before..] {
            [] => self.at_end = true,
            bytes => self.watch.read(bytes),
        }
        Poll::Ready(Ok(()))
    }
}

/// Not vectored: hyper copies small answers into one buffer then, which is one write.
impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.instead.is_none()
            && self.watch.is_quiet()
            && let Some(words) = in_our_words(bytes, self.watch.has_line(), self.hardening)
        {
            self.watch.gave_up();
            self.instead = Some((words, 0));
        }
        let written = match self.instead {
            Some(_) => self.poll_write_instead(cx).map_ok(|()| bytes.len()),
            None => Pin::new(&mut self.socket).poll_write(cx, bytes),
        };
        self.watch.wrote(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
        }
        if self.at_end || !self.watch.has_unread() {
            return Poll::Ready(Ok(()));
        }
        self.poll_linger(cx)
    }
}

/// Where this is hyper's own answer to a head that it can't read: the same as a problem document.
/// Its own is a bare head, which no answer of the app's is.
fn in_our_words(bytes: &[u8], has_line: bool, hardening: Hardening) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, "") = text.split_once("\r\n\r\n")? else { return None };
    let mut lines = head.split("\r\n");
    let status = match lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..4)? {
        "400 " => StatusCode::BAD_REQUEST,
        "414 " => StatusCode::URI_TOO_LONG,
        // One line that fills the buffer is that of the URI.
        "431 " if !has_line => StatusCode::URI_TOO_LONG,
        "431 " => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => return None,
    };
    let mut date = None;
    for line in lines {
        match line.split_once(": ")? {
            ("content-length", "0") | ("connection", _) => {}
            ("date", value) => date = Some(value),
            _ => return None,
        }
    }
    let (code, detail) = match status {
        StatusCode::BAD_REQUEST => ("invalid_request", "Malformed request"),
        StatusCode::URI_TOO_LONG => ("uri_too_long", "URI too long"),
        _ => ("headers_too_large", "Request header fields too large"),
    };
    let mut response = Problem::new(status, code, detail).into_http();
    hardening.harden(response.headers_mut());
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(date) = date.and_then(|date| HeaderValue::from_str(date).ok()) {
        headers.insert(header::DATE, date);
    }
    let (head, body) = response.into_parts();
    let mut words = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            words.extend_from_slice(part);
        }
    }
    words.extend_from_slice(b"\r\n");
    words.extend_from_slice(&body);
    Some(words)
}
