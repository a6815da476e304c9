//! The events of a detached emitter between the threads that send them and the one that writes them.

use crate::http::lock::hold;
use std::error::Error;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Encoded events that wait for the client, and whether more may come.
pub(super) struct Buffer {
    state: Mutex<State>,
    /// There is something to write, or no more is sent.
    changed: Condvar,
}

struct State {
    limit_bytes: usize,
    frames: Vec<u8>,
    /// How many bytes the writer has taken and not yet written.
    bytes_in_write: usize,
    /// Nothing more may be sent. What is here is still written.
    is_completed: bool,
    error: Option<io::Error>,
}

/// An event could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The client is too slow: the event does not fit in the buffer beside what the client has not taken yet. The
    /// event is lost, and the stream goes on.
    Full,
    /// The emitter was completed, or its client has left.
    Completed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full => "the client is too slow: the event does not fit in the buffer",
            SendError::Completed => "the stream has ended",
        })
    }
}

impl Error for SendError {}

/// What the writer does next.
pub(super) enum Step {
    Write(Vec<u8>),
    /// Nothing was sent for some time.
    Check,
    TimeOut,
    /// Everything is written.
    End(Option<io::Error>),
}

impl Buffer {
    pub(super) fn new(limit_bytes: usize) -> Buffer {
        let state = State {
            limit_bytes,
            frames: Vec::new(),
            bytes_in_write: 0,
            is_completed: false,
            error: None,
        };
        Buffer { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn set_limit(&self, bytes: usize) {
        hold(&self.state).limit_bytes = bytes;
    }

    pub(super) fn push(&self, frame: &[u8]) -> Result<(), SendError> {
        let mut state = hold(&self.state);
        if state.is_completed {
            return Err(SendError::Completed);
        }
        if state.frames.len() + state.bytes_in_write + frame.len() > state.limit_bytes {
            return Err(SendError::Full);
        }
        state.frames.extend_from_slice(frame);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes nothing more. The last frame is written whether or not it fits.
    pub(super) fn complete(&self, last_frame: &[u8], error: Option<io::Error>) {
        let mut state = hold(&self.state);
        if !mem::replace(&mut state.is_completed, true) {
            state.frames.extend_from_slice(last_frame);
            state.error = error;
            self.changed.notify_one();
        }
    }

    /// Takes nothing more, and forgets what was not written.
    pub(super) fn close(&self) {
        let mut state = hold(&self.state);
        state.is_completed = true;
        state.frames = Vec::new();
    }

    pub(super) fn is_completed(&self) -> bool {
        hold(&self.state).is_completed
    }

    /// Waits for what the writer does next. What it took before is written now.
    pub(super) fn next_step(&self, check_at: Instant, deadline: Option<Instant>) -> Step {
        let mut state = hold(&self.state);
        state.bytes_in_write = 0;
        loop {
            let now = Instant::now();
            if !state.is_completed && deadline.is_some_and(|deadline| deadline <= now) {
                return Step::TimeOut;
            }
            if !state.frames.is_empty() {
                state.bytes_in_write = state.frames.len();
                return Step::Write(mem::take(&mut state.frames));
            }
            if state.is_completed {
                return Step::End(state.error.take());
            }
            if check_at <= now {
                return Step::Check;
            }
            let until = deadline.map_or(check_at, |deadline| deadline.min(check_at));
            let woken = self.changed.wait_timeout(state, until.saturating_duration_since(now));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
