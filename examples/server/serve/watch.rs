//! What a connection is waiting for, and since when.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Bounds;

/// Shared by a connection's socket, its exchanges, and who closes it.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// HTTP/2: heads can't be told from what else is read.
    multiplexed: bool,
    /// Exchanges whose request or answer isn't at its end.
    open: usize,
    /// Those that have no answer yet.
    unanswered: usize,
    /// When an exchange last got on, or ended.
    moved: Instant,
    /// Since when the client takes nothing of what is written.
    stuck: Option<Instant>,
    /// Whether a line of the present head has come whole.
    line: bool,
    /// Whether the client may be sending what nobody reads.
    unread: bool,
    /// Whether no further request is taken.
    closing: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing was asked, since then.
    New(Instant),
    /// A head has begun.
    Head(Instant),
    /// Whatever else.
    Served,
}

impl Watch {
    pub fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            phase: Phase::New(now),
            multiplexed: false,
            open: 0,
            unanswered: 0,
            moved: now,
            stuck: None,
            line: false,
            unread: false,
            closing: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These bytes came.
    pub fn read(&self, bytes: &[u8]) {
        let mut state = self.state();
        if matches!(state.phase, Phase::New(_)) && !state.line && bytes.starts_with(b"PRI") {
            state.multiplexed = true;
        }
        if state.open > 0 || state.multiplexed {
            return;
        }
        state.line = state.line || bytes.contains(&b'\n');
        if let Phase::Served = state.phase {
            state.phase = Phase::Head(Instant::now());
        }
    }

    /// Bytes were written, or wait to be.
    pub fn wrote(&self, waits: bool) {
        let mut state = self.state();
        match (waits, state.stuck) {
            (true, None) => state.stuck = Some(Instant::now()),
            (false, Some(_)) => state.stuck = None,
            _ => {}
        }
    }

    /// What was read can't be understood; more of it may come.
    pub fn gave_up(&self) {
        self.state().unread = true;
    }

    /// No further request is taken.
    pub fn close(&self) {
        self.state().closing = true;
    }

    pub fn is_closing(&self) -> bool {
        self.state().closing
    }

    pub fn is_multiplexed(&self) -> bool {
        self.state().multiplexed
    }

    /// Whether no exchange is open.
    pub fn is_quiet(&self) -> bool {
        self.state().open == 0
    }

    /// Whether a line of the present head has come whole.
    pub fn has_line(&self) -> bool {
        self.state().line
    }

    /// Whether the client may be sending what nobody reads.
    pub fn has_unread(&self) -> bool {
        let state = self.state();
        state.unread && !state.multiplexed
    }

    /// A head was read.
    pub fn begin(&self) -> Exchange {
        let mut state = self.state();
        state.phase = Phase::Served;
        state.line = false;
        state.open += 1;
        state.unanswered += 1;
        Exchange(Arc::new(Guard(self.clone())))
    }

    /// When it has waited for too long; where it depends on the server only, when to look again.
    pub fn due(&self, bounds: &Bounds) -> Due {
        let state = self.state();
        if let Some(since) = state.stuck {
            return Due::Close(since + bounds.idle);
        }
        match state.phase {
            _ if state.unanswered > 0 => Due::Look(Instant::now() + look_again(bounds)),
            // The client doesn't take the answer.
            _ if state.open > 0 => Due::Close(state.moved + bounds.idle),
            Phase::New(since) | Phase::Head(since) => Due::Close(since + bounds.header),
            Phase::Served => Due::Close(state.moved + bounds.idle),
        }
    }
}

/// When something is to be done about a connection.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    Close(Instant),
    Look(Instant),
}

impl Due {
    pub fn at(self) -> Instant {
        match self {
            Self::Close(at) | Self::Look(at) => at,
        }
    }
}

/// An HTTP/2 stream may end while nobody looks at its connection.
fn look_again(bounds: &Bounds) -> Duration {
    bounds.idle.min(bounds.header)
}

/// A request and its answer; open while any clone is left.
#[derive(Clone, Debug)]
pub struct Exchange(Arc<Guard>);

#[derive(Debug)]
struct Guard(Watch);

impl Exchange {
    /// The head of the answer is there, or there will be none.
    pub fn answered(&self) {
        let mut state = self.0.0.state();
        state.unanswered = state.unanswered.saturating_sub(1);
        state.moved = Instant::now();
    }

    /// Some of its answer was taken.
    pub fn moved(&self) {
        self.0.0.state().moved = Instant::now();
    }

    /// Its request is not read to the end.
    pub fn left_unread(&self) {
        self.0.0.state().unread = true;
    }

    /// Its request came too slowly: it is the last.
    pub fn close(&self) {
        self.0.0.close();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        state.moved = Instant::now();
    }
}
