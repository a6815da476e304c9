//! Replies of Redis: however they are cut, the same; and never more in memory than their bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use newswire_fuzz::pieces;

#[path = "../../../src/redis/resp.rs"]
mod resp;

use resp::{Malformed, Replies, Reply, encode};

fuzz_target!(|input: (Vec<u8>, Vec<u8>, Vec<Vec<u8>>)| {
    let (wire, lengths, arguments) = input;
    let whole = read([wire.as_slice()]);
    assert_eq!(read(pieces(&wire, &lengths)), whole);
    assert_eq!(read(pieces(&wire, &[1])), whole);
    for reply in &whole.0 {
        // What is beyond the bound is dropped, and leaves at most a value in each list that is open then.
        assert!(bytes(reply) <= 10_000 + 20 * size_of::<Reply>());
    }
    if !arguments.is_empty()
        && arguments.iter().map(|argument| argument.len() + 64).sum::<usize>() < 5_000
    {
        let mut wire = Vec::new();
        encode(&arguments, &mut wire);
        let list = Reply::List(arguments.into_iter().map(Reply::Text).collect());
        assert_eq!(read([wire.as_slice()]), (vec![list], Ok(())));
    }
});

fn read<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (Vec<Reply>, Result<(), Malformed>) {
    let (mut replies, mut read) = (Replies::new(5_000, 10_000), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            match replies.next(&mut piece) {
                Ok(reply) => read.extend(reply),
                Err(malformed) => return (read, Err(malformed)),
            }
        }
    }
    (read, Ok(()))
}

fn bytes(reply: &Reply) -> usize {
    match reply {
        Reply::List(list) | Reply::Push(list) => {
            list.iter().map(|it| size_of::<Reply>() + bytes(it)).sum()
        }
        Reply::Text(text) => text.len(),
        _ => 0,
    }
}
