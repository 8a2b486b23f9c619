//! A mail server on the loopback that keeps what it is told.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
};

#[derive(Clone)]
pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// What to answer to the next recipients; after these `250 OK`.
    answers: VecDeque<&'static str>,
    commands: Vec<String>,
    mails: Vec<String>,
}

impl MailServer {
    /// A server that answers so to the first recipients.
    pub(crate) async fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers.iter().copied().collect();
        let heard = Arc::new(Mutex::new(Heard { answers, ..Heard::default() }));
        let server = Self { address, heard };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().converse(stream));
            }
        });
        server
    }

    /// All command lines, of all connections.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.heard.lock().unwrap().commands.clone()
    }

    /// The messages, as they were before they travelled.
    pub(crate) fn mails(&self) -> Vec<String> {
        self.heard.lock().unwrap().mails.clone()
    }

    async fn converse(self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufStream::new(stream);
        let mut answer = "220 localhost ESMTP";
        loop {
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
            stream.flush().await?;
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            self.heard.lock().unwrap().commands.push(command.clone());
            answer = match command.split([' ', ':']).next() {
                Some("EHLO") => "250-localhost\r\n250 AUTH PLAIN",
                Some("AUTH") => "235 welcome",
                Some("MAIL") => "250 OK",
                Some("RCPT") => self.heard.lock().unwrap().answers.pop_front().unwrap_or("250 OK"),
                Some("DATA") => {
                    stream.write_all(b"354 go on\r\n").await?;
                    stream.flush().await?;
                    let mail = read_mail(&mut stream).await?;
                    self.heard.lock().unwrap().mails.push(mail);
                    "250 OK"
                }
                Some("QUIT") => return stream.write_all(b"221 bye\r\n").await,
                _ => "500 what?",
            };
        }
    }
}

/// Reads up to the dot that stands alone, and takes away the dots that were put before dots (RFC
/// 5321, section 4.5.2).
async fn read_mail(stream: &mut BufStream<TcpStream>) -> io::Result<String> {
    let mut mail = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == ".\r\n" {
            return Ok(mail);
        }
        mail.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
