//! What the program reports. Standard error may be full, gone, or read by nobody: that never decides
//! what the program does, so only a thread of its own ever waits for it.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// So many lines wait to be written; what comes beyond is lost, and counted.
const WAITING: usize = 8192;

/// Writes lines to standard error, sooner or later.
#[derive(Clone, Debug)]
pub struct Report {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    /// All before it were written.
    End(Sender<()>),
}

impl Report {
    /// # Errors
    /// Where no thread can be had.
    pub fn start() -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let lost = Arc::<AtomicU64>::default();
        let losses = Arc::clone(&lost);
        thread::Builder::new()
            .name("report".to_owned())
            .spawn(move || write_all(&waiting, &losses))?;
        Ok(Self { lines, lost })
    }

    /// Says this, whatever the log filter is.
    pub fn say(&self, line: &str) {
        self.send(format!("{line}\n").into_bytes());
    }

    /// Waits until all is written, but not for long.
    pub fn finish(&self) {
        let (end, ended) = channel();
        if self.lines.try_send(Line::End(end)).is_ok() {
            // Whether it was written or not: this is the end.
            let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) =
                ended.recv_timeout(Duration::from_secs(1));
        }
    }

    fn send(&self, text: Vec<u8>) {
        if self.lines.try_send(Line::Text(text)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

fn write_all(waiting: &Receiver<Line>, lost: &AtomicU64) {
    let mut stderr = io::stderr();
    for line in waiting {
        // What can't be written is lost: there is nobody to tell.
        match line {
            Line::Text(text) => drop(stderr.write_all(&text)),
            Line::End(end) => drop(end.send(())),
        }
        match lost.swap(0, Relaxed) {
            0 => {}
            lines => drop(writeln!(stderr, "{lines} lines of the log were lost: nobody took them")),
        }
    }
}

/// One event of the log.
pub struct Event<'a>(&'a Report);

impl Write for Event<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.send(text.to_vec());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Report {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(self)
    }
}
