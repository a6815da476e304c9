//! What must hold for all replies of Redis. The target and the integration test share it.

use std::io::{BufRead, BufReader, ErrorKind};

#[path = "../../../src/redis/resp.rs"]
mod resp;

use resp::{Most, Reply, encode};

/// However the bytes are cut, the replies are the same; and none takes more memory than its bound.
pub(super) fn check(wire: &[u8], piece_bytes: usize, string_bytes: usize, reply_bytes: usize) {
    let most = Most { string_bytes, reply_bytes };
    let whole = read(wire, most);
    let cut = read(BufReader::with_capacity(piece_bytes, wire), most);
    assert_eq!(cut, whole, "{:?}", String::from_utf8_lossy(wire));
    for reply in &whole.0 {
        // What is beyond the bound is dropped, and leaves at most two values in each list that is open then.
        assert!(bytes(reply) <= reply_bytes + 20 * size_of::<Reply>(), "{reply:?}");
    }
}

/// A command of any arguments is read as it was encoded.
pub(super) fn check_command(arguments: Vec<Vec<u8>>) {
    let mut wire = Vec::new();
    encode(&arguments, &mut wire);
    let most = Most { string_bytes: wire.len(), reply_bytes: 64 * wire.len() };
    let list = Reply::List(arguments.into_iter().map(Reply::Text).collect());
    assert_eq!(read(&wire[..], most), (vec![list], ErrorKind::UnexpectedEof));
}

fn read(mut wire: impl BufRead, most: Most) -> (Vec<Reply>, ErrorKind) {
    let mut read = Vec::new();
    loop {
        match most.read(&mut wire) {
            Ok(reply) => read.push(reply),
            Err(error) => return (read, error.kind()),
        }
    }
}

fn bytes(reply: &Reply) -> usize {
    match reply {
        Reply::List(list) | Reply::Push(list) => {
            list.iter().map(|it| size_of::<Reply>() + bytes(it)).sum()
        }
        Reply::Text(text) => text.len(),
        Reply::Error(said) => said.len(),
        _ => 0,
    }
}
