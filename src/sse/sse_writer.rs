//! The response of an [`SseEmitter`], and its writer on the connection's own thread.

use super::output::Output;
use super::sse_emitter::SseEmitter;
use super::stream::event_stream;
use crate::http::lock::hold;
use crate::http::{Refusal, Response, Status, StreamWriter};
use std::io;
use std::mem::{replace, take};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How often the thread of an idle stream checks whether the client has left and whether the server stops.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The response that begins the stream. An emitter has one client: a second response of it is `500`.
impl From<SseEmitter> for Response {
    fn from(emitter: SseEmitter) -> Response {
        let mut state = hold(&emitter.0.state);
        if replace(&mut state.has_response, true) {
            let sentence = "The stream that answers this request has another client already.";
            return Refusal::new(Status::INTERNAL_SERVER_ERROR, sentence).into();
        }
        let opening = state.options.opening();
        drop(state);
        let writer = SseWriter { emitter, outcome: None };
        event_stream(opening, move |out| writer.run(out)).delayed()
    }
}

/// When it is dropped the emitter ends, also when the response was never sent.
struct SseWriter {
    emitter: SseEmitter,
    /// `None` while nothing was written.
    outcome: Option<io::Result<()>>,
}

impl SseWriter {
    fn run(mut self, out: StreamWriter) -> io::Result<()> {
        let heartbeat = hold(&self.emitter.0.state).options.heartbeat;
        let mut output = Output::new(out, heartbeat);
        self.outcome = Some(self.write_all(&mut output));
        drop(self);
        output.finish();
        Ok(())
    }

    /// Writes what is sent until the emitter is completed.
    fn write_all(&self, output: &mut Output) -> io::Result<()> {
        let shared = &self.emitter.0;
        let mut state = hold(&shared.state);
        let mut check_at = Instant::now();
        let mut deadline = state.timeout.and_then(|timeout| check_at.checked_add(timeout));
        loop {
            let now = Instant::now();
            if !state.is_completed && deadline.is_some_and(|deadline| deadline <= now) {
                deadline = None;
                let callback = state.on_timeout.take();
                drop(state);
                self.call(callback);
                self.emitter.complete();
            } else if !state.frames.is_empty() {
                let frames = take(&mut state.frames);
                state.bytes_in_write = frames.len();
                drop(state);
                output.write(&frames)?;
            } else if state.is_completed {
                return state.error.take().map_or(Ok(()), Err);
            } else if check_at <= now {
                drop(state);
                let heartbeat_at = output.keep_alive().ok_or(io::ErrorKind::BrokenPipe)?;
                check_at = heartbeat_at.min(now + CHECK_INTERVAL);
            } else {
                let until = deadline.map_or(check_at, |deadline| deadline.min(check_at));
                let woken = shared.changed.wait_timeout(state, until - now);
                drop(woken.unwrap_or_else(PoisonError::into_inner));
            }
            state = hold(&shared.state);
            state.bytes_in_write = 0;
        }
    }

    /// Calls a callback. After a panic, which the panic hook reports, the callbacks behind it are still called.
    fn call(&self, callback: Option<impl FnOnce(&SseEmitter)>) {
        if let Some(callback) = callback {
            let _ = catch_unwind(AssertUnwindSafe(|| callback(&self.emitter)));
        }
    }
}

impl Drop for SseWriter {
    fn drop(&mut self) {
        let shared = &self.emitter.0;
        let error = match self.outcome.take() {
            Some(outcome) => outcome.err(),
            // A response to HEAD leaves its connection open.
            None => (!shared.connection.is_open()).then(|| io::ErrorKind::BrokenPipe.into()),
        };
        let mut state = hold(&shared.state);
        state.is_completed = true;
        state.frames = Vec::new();
        // Callbacks are called and dropped without the lock.
        let (on_completion, on_error) = (state.on_completion.take(), state.on_error.take());
        let _not_called = state.on_timeout.take();
        drop(state);
        let failed = on_error.zip(error);
        self.call(failed.map(|(callback, error)| move |emitter: &_| callback(emitter, &error)));
        self.call(on_completion);
    }
}
