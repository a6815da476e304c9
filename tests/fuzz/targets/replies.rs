//! Replies of Redis: however they are cut, the same; and never more in memory than their bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/replies.rs"]
mod replies;

fuzz_target!(|input: (Vec<u8>, u8, Vec<Vec<u8>>)| {
    let (wire, piece_bytes, arguments) = input;
    replies::check(&wire, usize::from(piece_bytes).max(1), 5_000, 10_000);
    if !arguments.is_empty() {
        replies::check_command(arguments);
    }
});
