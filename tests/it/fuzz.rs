//! Random input for everything that reads what clients send, and random lives of channels.
//!
//! Each test runs for a second, or for as many seconds as `NEWSWIRE_FUZZ_SECONDS` says. Each round has a seed of its own. A
//! round that fails prints its seed, and with `NEWSWIRE_FUZZ_SEED` the test begins with that round.

mod channels;
mod events;
mod laboratory;
mod replies;
mod requests;
mod resumption;

use crate::server::{Dice, exchange, serve_app};
use newswire::app::{App, Publishers};
use newswire::channel::{Channels, Limits};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Runs rounds until the time is up.
fn fuzz(subject: &str, mut round: impl FnMut(&mut Dice)) {
    let setting = |name: &str| std::env::var(name).ok();
    let number =
        |name: &str, text: String| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"));
    let first = setting("NEWSWIRE_FUZZ_SEED").map_or(0, |text| number("NEWSWIRE_FUZZ_SEED", text));
    let seconds = setting("NEWSWIRE_FUZZ_SECONDS").map_or(1, |text| number("NEWSWIRE_FUZZ_SECONDS", text));
    let started = Instant::now();
    let mut seed = first;
    while seed == first || started.elapsed() < Duration::from_secs(seconds) {
        let outcome = catch_unwind(AssertUnwindSafe(|| round(&mut Dice::new(seed))));
        if let Err(panic) = outcome {
            eprintln!("{subject}: repeat this round with NEWSWIRE_FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
        seed += 1;
    }
    println!("{subject}: seeds {first} to {} passed", seed - 1);
}

/// Up to `most` of these tokens in a row.
fn some_of(dice: &mut Dice, tokens: &[&str], most: usize) -> String {
    (0..dice.below(most + 1)).map(|_| *dice.pick(tokens)).collect()
}

/// Changes a few bytes: replaces, removes, flips, copies, cuts off or inserts some.
fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let byte = match dice.below(4) {
            0 => dice.next() as u8,
            _ => *dice.pick(b"\r\n\0 \t:;,%+&=?#/\\\"*@[]0a\x7f\x80\xff"),
        };
        match dice.below(6) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            3 => bytes.truncate(at),
            4 => {
                let end = at + dice.below(bytes.len() - at + 1).min(40);
                let copy = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => bytes.insert(at, byte),
        }
    }
}

/// Cuts bytes into pieces of any size.
fn pieces<'b>(dice: &mut Dice, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    let most = *dice.pick(&[1, 2, 5, 40, 4000]);
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((1 + dice.below(most)).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// The application in this process, without heartbeats. It counts panics.
fn start(limits: Limits) -> (SocketAddr, Channels) {
    serve_app(App {
        channel_limits: Limits { heartbeat: Duration::ZERO, ..limits },
        publishers: Publishers::Anyone,
        ..App::default()
    })
}

#[track_caller]
fn assert_no_panic(address: SocketAddr) {
    let metrics = exchange(address, "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(metrics.contains("\nnewswire_panics_total 0\n"), "{metrics}");
}

/// `application/x-www-form-urlencoded`. It encodes more than it must.
fn encode(dice: &mut Dice, text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' if !dice.once_in(6) => char::from(byte).to_string(),
        b' ' if dice.once_in(2) => "+".to_owned(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(encode).collect()
}
