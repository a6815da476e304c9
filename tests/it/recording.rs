//! Recordings: the stream that is read from one is the stream that was recorded, byte by byte, with its rhythm.

use crate::events::{every_string, interpret, parse};
use newswire::sse::{Block, Blocks, Recorder, Recording};
use std::io::{self, BufReader, ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

const MARK: &[u8] = b"\xef\xbb\xbf";

/// Lines of every kind, each line end, a byte order mark, and what a recording uses itself.
const TOKENS: [&str; 10] = [
    "\n",
    "\r",
    "\u{feff}",
    "data: d\n",
    "id: 7\r",
    ": +5 ms\n",
    ": +5 ms\r\n",
    ":\r\n",
    "retry: 9\n",
    "event: \u{e9}",
];

fn bytes<'b>(blocks: impl IntoIterator<Item = &'b Block>) -> Vec<u8> {
    let pieces = blocks.into_iter().map(|block| match block.has_mark {
        true => [MARK, &block.bytes].concat(),
        false => block.bytes.clone(),
    });
    pieces.collect::<Vec<_>>().concat()
}

/// Records a stream that arrives in pieces, as `watch` does: the recording, and its blocks without the rest.
fn record<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<u8>, Vec<Block>, Block) {
    let (mut recording, mut blocks, mut recorded) = (Vec::new(), Blocks::new(), Vec::new());
    let mut recorder = Recorder::new(&mut recording);
    for piece in pieces {
        let mut whole = blocks.feed(piece).expect("it is small");
        whole.extend(blocks.release());
        for block in whole {
            recorder.record(&block).expect("memory takes it");
            recorded.push(block);
        }
    }
    (recording, recorded, blocks.end())
}

fn read(recording: &[u8], buffer: usize) -> Vec<Block> {
    let blocks = Recording::new(BufReader::with_capacity(buffer, recording));
    blocks.map(|block| block.expect("memory can be read")).collect()
}

/// Byte by byte, whole, and in pieces of three.
fn record_in_pieces(stream: &[u8], mut check: impl FnMut(Vec<u8>, Vec<Block>, Block)) {
    for size in [1, 3, stream.len().max(1)] {
        let (recording, blocks, rest) = record(stream.chunks(size));
        check(recording, blocks, rest);
    }
}

#[test]
fn blocks_have_every_byte_of_the_stream_however_it_is_cut() {
    every_string(&TOKENS, 4, &mut |stream| {
        record_in_pieces(stream.as_bytes(), |_, blocks, rest| {
            let all = bytes(blocks.iter().chain([&rest]));
            assert_eq!(String::from_utf8_lossy(&all), stream);
        });
    });
}

#[test]
fn a_parser_reads_from_a_recording_what_it_reads_from_the_stream() {
    every_string(&TOKENS, 4, &mut |stream| {
        let (messages, last_event_id, _) = interpret(stream.as_bytes());
        record_in_pieces(stream.as_bytes(), |recording, _, _| {
            let (recorded, recorded_id, _) = parse([&*recording]);
            let text = String::from_utf8_lossy(&recording);
            assert_eq!((recorded, &recorded_id), (messages.clone(), &last_event_id), "{stream:?} as {text:?}");
        });
    });
}

#[test]
fn a_recording_that_is_read_gives_the_recorded_stream_whatever_the_buffer_has_room_for() {
    every_string(&TOKENS, 4, &mut |stream| {
        record_in_pieces(stream.as_bytes(), |recording, blocks, _| {
            let text = String::from_utf8_lossy(&recording);
            for buffer in [1, 2, 5, 1_000] {
                let read = read(&recording, buffer);
                assert_eq!(bytes(&read), bytes(&blocks), "{stream:?} as {text:?}");
                let is_timed = |block: &Block| block.delay.is_some();
                assert!(read.iter().all(is_timed), "{stream:?} as {text:?}");
            }
        });
    });
}

#[test]
fn a_heartbeat_keeps_its_time_and_a_reconnection_time_is_not_lost() {
    let pieces: [&[u8]; 4] = [b": hello\nretry: 9\n", b":\n", b"id: 1\n", b"data: d\n\nda"];
    let (_, blocks, rest) = record(pieces);
    let texts: Vec<&[u8]> = blocks.iter().map(|block| &*block.bytes).collect();
    assert_eq!(texts, [&b": hello\nretry: 9\n"[..], b":\n", b"id: 1\ndata: d\n\n"]);
    assert_eq!(rest.bytes, b"da");
}

#[test]
fn the_timing_is_the_time_since_the_block_before_and_comments_have_it_too() -> io::Result<()> {
    let mut file = Vec::new();
    let mut recorder = Recorder::new(&mut file);
    let block = |text: &str| Block { bytes: text.into(), ..Block::default() };
    recorder.comment("status 503\nheader Retry-After: 3\rdata: forged")?;
    thread::sleep(Duration::from_millis(40));
    recorder.record(&block("data: 1\n\n"))?;
    recorder.record(&block("data: 2\n\n"))?;
    thread::sleep(Duration::from_millis(60));
    recorder.comment("connecting again")?;
    thread::sleep(Duration::from_millis(20));
    recorder.record(&block("data: 3\n\n"))?;

    let read = read(&file, 1_000);
    let texts: Vec<&[u8]> = read.iter().map(|block| &*block.bytes).collect();
    assert_eq!(
        texts,
        [
            &b": status 503\n: header Retry-After: 3 data: forged\n"[..],
            b"data: 1\n\n",
            b"data: 2\n\n",
            b": connecting again\n",
            b"data: 3\n\n"
        ]
    );
    assert_eq!(read[0].delay, None, "what comes first says what the recording is");
    let delays = read[1..].iter().map(|block| block.delay.expect("it has a timing").as_millis());
    let delays: Vec<u128> = delays.collect();
    assert!(delays[0] >= 40 && delays[2] >= 60 && delays[3] >= 19, "{delays:?}");
    assert!(delays[1] < delays[2], "each is since the one before: {delays:?}");
    Ok(())
}

#[test]
fn the_rounding_of_timings_does_not_add_up() -> io::Result<()> {
    let mut file = Vec::new();
    let mut recorder = Recorder::new(&mut file);
    let begun = Instant::now();
    let mut last = Duration::ZERO;
    for _ in 0..200 {
        thread::sleep(Duration::from_micros(500));
        last = begun.elapsed();
        recorder.record(&Block { bytes: b"data: d\n\n".to_vec(), ..Block::default() })?;
    }
    let sum: Duration = read(&file, 1_000).iter().filter_map(|block| block.delay).sum();
    assert!(sum + Duration::from_millis(1) >= last, "{sum:?} of {last:?}");
    Ok(())
}

#[test]
fn a_file_by_hand_has_timings_where_it_wants_and_keeps_its_unfinished_end() {
    let file =
        b": +250 ms\r\ndata: a\r\n\r\ndata: b\n\n: hello\n: +1 ms\ndata: c\n: +2 ms\n\n: + 3 ms\n: +4ms\ndata: d";
    let delay = |milliseconds| Some(Duration::from_millis(milliseconds));
    let expected = [
        (delay(250), &b"data: a\r\n\r\n"[..]),
        (None, b"data: b\n\n"),
        (None, b": hello\n"),
        // Within an event, and misspelt, it is a comment.
        (delay(1), b"data: c\n: +2 ms\n\n"),
        (None, b": + 3 ms\n: +4ms\ndata: d"),
    ];
    for buffer in 1..40 {
        let read = read(file, buffer);
        let mut whole: Vec<(Option<Duration>, Vec<u8>)> = Vec::new();
        for block in read {
            // The LF of a CRLF may be a block of its own.
            match whole.last_mut().filter(|_| block.bytes == b"\n") {
                Some((_, before)) if block.delay == Some(Duration::ZERO) => before.push(b'\n'),
                _ => whole.push((block.delay, block.bytes)),
            }
        }
        let whole: Vec<_> = whole.iter().map(|(delay, bytes)| (*delay, &**bytes)).collect();
        assert_eq!(whole, expected, "with a buffer of {buffer}");
    }
}

/// Counts what a process that is killed between two writes would leave behind.
struct Writes(Vec<Vec<u8>>);

impl Write for &mut Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_block_is_written_with_one_write() -> io::Result<()> {
    let mut writes = Writes(Vec::new());
    let mut recorder = Recorder::new(&mut writes);
    let mut blocks = Blocks::new();
    for block in blocks.feed(b"\xef\xbb\xbfdata: 1\r\n\r\n: c\nid: 2\ndata\n\n")? {
        recorder.record(&block)?;
    }
    assert_eq!(writes.0.len(), 2);
    assert!(writes.0[0].starts_with(b"\xef\xbb\xbf: +") && writes.0[0].ends_with(b"ms\ndata: 1\r\n\r\n"));
    assert!(writes.0[1].starts_with(b": +") && writes.0[1].ends_with(b"ms\n: c\nid: 2\ndata\n\n"));
    Ok(())
}

#[test]
fn a_block_without_an_end_is_an_error_and_not_all_of_the_memory() {
    let piece = vec![b'x'; 1 << 20];
    let mut blocks = Blocks::new();
    let mut fed = blocks.feed(b"data: whole\n\n").expect("it is small");
    let error = (0..100).find_map(|_| blocks.feed(&piece).err()).expect("100 MiB are too much");
    assert_eq!(
        (error.kind(), fed.pop().map(|block| block.bytes)),
        (ErrorKind::InvalidData, Some(b"data: whole\n\n".to_vec()))
    );

    let endless = BufReader::new(io::repeat(b'x'));
    let mut recording = Recording::new(endless);
    let error = recording.next().expect("it says so").expect_err("it has no end");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(recording.next().is_none(), "an error is the end");
}
