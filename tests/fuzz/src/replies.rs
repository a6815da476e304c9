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

/// The replies, and what ends them.
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
        Reply::List(list) | Reply::Push(list) => list.iter().map(|it| size_of::<Reply>() + bytes(it)).sum(),
        Reply::Text(text) => text.len(),
        Reply::Error(said) => said.len(),
        _ => 0,
    }
}

/// Beside the random cases, some that were made by hand.
#[cfg(test)]
mod cases {
    use super::*;
    use resp::LINE_BYTES;

    const MOST: Most = Most { string_bytes: 100, reply_bytes: 10_000 };

    fn show(reply: &Reply) -> String {
        let list = |list: &[Reply]| list.iter().map(show).collect::<Vec<_>>().join(",");
        match reply {
            Reply::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Reply::Number(number) => number.to_string(),
            Reply::Null => "-".into(),
            Reply::List(values) => format!("[{}]", list(values)),
            Reply::Push(values) => format!(">[{}]", list(values)),
            Reply::Error(said) => format!("!{said}"),
            Reply::Dropped => "x".into(),
        }
    }

    #[test]
    fn a_command_says_the_length_of_each_argument() {
        let mut wire = Vec::new();
        encode(&["XADD", "", "a\r\n$1\r\nb"], &mut wire);
        assert_eq!(wire, b"*3\r\n$4\r\nXADD\r\n$0\r\n\r\n$8\r\na\r\n$1\r\nb\r\n");
    }

    #[test]
    fn replies_of_every_kind_are_read() {
        let wire = b"+OK\r\n:-7\r\n$4\r\na\r\nb\r\n$-1\r\n*-1\r\n_\r\n#t\r\n,1.5\r\n(99\r\n-ERR no\r\n!3\r\nBAD\r\n\
            =5\r\ntxt:x\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n%1\r\n+k\r\n*0\r\n~1\r\n:1\r\n$0\r\n\r\n";
        let expected = "OK|-7|a\r\nb|-|-|-|t|1.5|99|!ERR no|!BAD|txt:x|>[invalidate,[k]]|[k,[]]|[1]|";
        let shown = |wire: &mut dyn BufRead| {
            let (replies, end) = read(wire, MOST);
            assert_eq!(end, ErrorKind::UnexpectedEof);
            replies.iter().map(show).collect::<Vec<_>>().join("|")
        };
        assert_eq!(shown(&mut &wire[..]), expected);
        assert_eq!(shown(&mut BufReader::with_capacity(1, &wire[..])), expected);
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        let deep = "*1\r\n".repeat(9);
        let long = "+".to_owned() + &"x".repeat(LINE_BYTES as usize);
        let short = "?\r\n|\r\n|+OK\n|:x\r\n|:\r\n|$-2\r\n|$+1\r\n|$?\r\n|$\r\n|$1\r\nabc|$1\r\na\r\r|%-1\r\n|*1\r\n>1\r\n|\
                     $9223372036854775807\r\n|*99999999999999999999\r\n|%18446744073709551615\r\n";
        for wire in short.split('|').chain([&*deep, &long]) {
            assert_eq!(read(wire.as_bytes(), MOST), (vec![], ErrorKind::InvalidData), "{wire:.40}");
        }
    }

    #[test]
    fn a_claim_costs_no_memory_and_a_value_beyond_the_limits_costs_only_itself() {
        let most = Most { string_bytes: 10, ..MOST };
        // The count and the length are claims: no byte of them has come.
        let claims = b"*9223372036854775807\r\n$10\r\n";
        assert_eq!(read(&claims[..], most), (vec![], ErrorKind::UnexpectedEof));

        let wire = format!("*2\r\n$11\r\n{}\r\n$2\r\nok\r\n+next\r\n", "x".repeat(11));
        let replies = read(wire.as_bytes(), most).0;
        assert_eq!(replies.iter().map(show).collect::<Vec<_>>(), ["[x,ok]", "next"]);

        let wire = format!("*100000\r\n{}+next\r\n", ":1\r\n".repeat(100_000));
        let (read, _) = read(wire.as_bytes(), most);
        let Reply::List(values) = &read[0] else { panic!("{:?}", read[0]) };
        assert_eq!(values.len(), 10_000 / size_of::<Reply>() + 1);
        assert_eq!((values.last(), show(&read[1])), (Some(&Reply::Dropped), "next".into()));
    }
}
