//! An answer that may be there already.
//!
//! Stores and authenticators are chosen at run time, so their traits are used through `dyn`, and
//! an `async fn` behind `dyn` costs a heap allocation per call. Most answers need no waiting: a
//! remembered token, a limit counted in this process. [`Answer`] lets those come back by value and
//! boxes a future only where something must be waited for.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    task::{Context, Poll},
};

/// A value now, or a future of it.
///
/// ```
/// use tower_warden::Answer;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let now: Answer<u8> = Answer::Ready(1);
/// let later: Answer<u8> = Answer::pending(async { 2 });
/// assert_eq!(now.await + later.await, 3);
/// # }
/// ```
#[must_use = "what an answer waits for is only done where it is awaited"]
pub enum Answer<T> {
    /// The answer itself.
    Ready(T),
    /// Something must be waited for.
    Pending(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Answer<T> {
    /// Boxes a future.
    pub fn pending(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Pending(Box::pin(future))
    }
}

impl<T> IntoFuture for Answer<T> {
    type Output = T;
    type IntoFuture = AnswerFuture<T>;

    fn into_future(self) -> AnswerFuture<T> {
        match self {
            Self::Ready(value) => AnswerFuture(Polled::Ready(std::future::ready(value))),
            Self::Pending(future) => AnswerFuture(Polled::Pending(future)),
        }
    }
}

/// What `.await` on an [`Answer`] polls.
#[must_use = "futures do nothing unless polled"]
pub struct AnswerFuture<T>(Polled<T>);

enum Polled<T> {
    Ready(std::future::Ready<T>),
    Pending(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Future for AnswerFuture<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.get_mut().0 {
            Polled::Ready(ready) => Pin::new(ready).poll(cx),
            Polled::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for AnswerFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerFuture")
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Answer::Ready",
            Self::Pending(_) => "Answer::Pending",
        })
    }
}
