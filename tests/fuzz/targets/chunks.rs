//! The chunked coding: however it is cut, the same content or the same refusal.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use newswire::http::{Chunks, Refusal};
use newswire_fuzz::pieces;

#[derive(Arbitrary, Debug)]
struct Input {
    lengths: Vec<u8>,
    coding: Coding,
}

#[derive(Arbitrary, Debug)]
enum Coding {
    Wild(Vec<u8>),
    /// Chunks with extensions, and a trailer section.
    Tame {
        chunks: Vec<(Vec<u8>, Extension)>,
        trailer: Option<Extension>,
        then: Vec<u8>,
    },
}

/// A letter and how often it is repeated, as a name or a quoted value.
#[derive(Arbitrary, Debug)]
struct Extension(u8, u16);

impl Extension {
    fn text(&self) -> String {
        char::from(b'a' + self.0 % 26).to_string().repeat(usize::from(self.1 % 6000))
    }

    fn extension(&self) -> String {
        match self.text() {
            text if text.is_empty() => text,
            text if self.0.is_multiple_of(2) => format!(" ;\t{text}"),
            text => format!(";x = \"{text}\\\"\""),
        }
    }
}

fuzz_target!(|input: Input| {
    let (wire, made) = match &input.coding {
        Coding::Wild(wire) => (wire.clone(), None),
        Coding::Tame { chunks, trailer, then } => encode(chunks, trailer.as_ref(), then),
    };
    let whole = decode([wire.as_slice()]);
    assert_eq!(decode(pieces(&wire, &input.lengths)), whole);
    assert_eq!(decode(pieces(&wire, &[1])), whole);
    assert!(whole.content.len() <= wire.len());
    if let Some((content, end)) = made {
        match whole.outcome {
            Ok(is_whole) => assert!(is_whole && whole.content == content && whole.taken == end),
            Err(refusal) => assert_eq!(refusal.status.0, 431),
        }
    } else if whole.outcome == Ok(true) {
        agrees_with_another(&whole, &wire);
    }
});

#[derive(Debug, PartialEq)]
struct Decoded {
    content: Vec<u8>,
    taken: usize,
    /// Whether it is whole.
    outcome: Result<bool, Refusal>,
}

fn decode<'w>(pieces: impl IntoIterator<Item = &'w [u8]>) -> Decoded {
    let (mut chunks, mut content, mut taken) = (Chunks::default(), Vec::new(), 0);
    for piece in pieces {
        match chunks.decode(piece, &mut content) {
            Ok(bytes) => {
                taken += bytes;
                assert!(bytes == piece.len() || chunks.is_whole());
            }
            // The decoder does not tell how much of this piece it has read.
            Err(refusal) => {
                return Decoded { content, taken: 0, outcome: Err(refusal) };
            }
        }
    }
    Decoded { content, taken, outcome: Ok(chunks.is_whole()) }
}

/// A coding whose extensions may be too long and that is valid otherwise, its content, and where it ends.
fn encode(
    chunks: &[(Vec<u8>, Extension)],
    trailer: Option<&Extension>,
    then: &[u8],
) -> (Vec<u8>, Option<(Vec<u8>, usize)>) {
    let (mut wire, mut content) = (Vec::new(), Vec::new());
    for (data, extension) in chunks.iter().filter(|(data, _)| !data.is_empty()) {
        wire.extend_from_slice(format!("{:x}{}\r\n", data.len(), extension.extension()).as_bytes());
        wire.extend_from_slice(data);
        wire.extend_from_slice(b"\r\n");
        content.extend_from_slice(data);
    }
    wire.extend_from_slice(b"0\r\n");
    if let Some(trailer) = trailer {
        wire.extend_from_slice(format!("a: {}\r\n", trailer.text()).as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    let end = wire.len();
    wire.extend_from_slice(then);
    (wire, Some((content, end)))
}

/// The sizes that httparse reads give the same data.
fn agrees_with_another(decoded: &Decoded, wire: &[u8]) {
    let (mut at, mut content) = (0, Vec::new());
    loop {
        let Ok(httparse::Status::Complete((skip, size))) = httparse::parse_chunk_size(&wire[at..]) else {
            panic!("httparse sees no chunk at {at}");
        };
        at += skip;
        if size == 0 {
            break;
        }
        let data = &wire[at..][..size as usize];
        content.extend_from_slice(data);
        at += data.len() + 2;
    }
    assert_eq!(content, decoded.content);
    assert!(at < decoded.taken);
}
