//! newswire under coverage-guided fuzzing. libFuzzer makes inputs that reach new code, and each target below says what
//! must hold for every input.
//!
//! ```text
//! cargo install cargo-fuzz
//! cd tests/fuzz
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . request              # until it finds something
//! cargo fuzz run --fuzz-dir . -s none request -- -max_total_time=600 # no sanitizer; ten minutes
//! ```
//!
//! newswire has no unsafe code, so that the address sanitizer has little to find. Without it everything is twice as fast
//! and builds with a stable compiler. Inputs that reached new code are kept in `corpus/TARGET`, which is not committed. The
//! first inputs are a few made by hand:
//!
//! ```text
//! mkdir -p corpus/request
//! cargo fuzz run --fuzz-dir . -s none request corpus/request seeds/request -- -dict=http.dict
//! ```
//!
//! An input that breaks a promise is written to `artifacts/TARGET`. It becomes a named case in `tests/it` before the fault
//! is mended.
//!
//! | target | what must hold |
//! |---|---|
//! | `request` | a verdict on the beginning of a head stands, whatever follows, and is the same for a head in pieces; another parser reads an accepted head with the same length and the same fields |
//! | `chunks` | however a content is cut into pieces, it is the same content or the same refusal; another decoder agrees |
//! | `events` | however a stream is cut, it gives the messages of the plainest reading of the standard; an event of any strings is read as it was made |
//! | `channels` | a subscriber with any last event ID gets what a model of a few lines says |
//! | `replies` | however replies of Redis are cut, they are the same, and take no more memory than their bound; a command of any arguments is read as it was encoded |
//! | `server` | the whole server answers any bytes in HTTP, and nothing panics |

use newswire::app::{App, Publishers};
use newswire::channel::{self, Channels};
use newswire::http;
use std::net::SocketAddr;
use std::thread;

/// The whole server, in this process, and its channels.
pub fn serve(limits: http::Limits, channel_limits: channel::Limits) -> (SocketAddr, Channels) {
    // SAFETY: to ignore a signal installs no handler, so that no code of ours runs in one.
    // The runtime of Rust ignores SIGPIPE. libFuzzer has a `main` of its own, and the first client that leaves would end
    // the process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let app = App {
        addresses: vec![newswire::http::Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))],
        limits,
        channel_limits,
        publishers: Publishers::Anyone,
        log_accesses: false,
        ..App::default()
    };
    let listening = app.listen().expect("there is a free port");
    let address = listening.address().expect("it listens");
    let channels = listening.channels().clone();
    thread::spawn(move || listening.run());
    (address, channels)
}

/// Cuts `whole` into pieces of these lengths, over and over; a length of 0 is 1.
pub fn pieces<'w>(whole: &'w [u8], lengths: &'w [u8]) -> impl Iterator<Item = &'w [u8]> {
    let mut rest = whole;
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = lengths.next().map_or(rest.len(), |&length| usize::from(length.max(1)));
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        Some(piece)
    })
}
