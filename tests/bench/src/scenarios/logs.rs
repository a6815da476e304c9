//! Logs that outlive the process, and that many nodes share.

use super::*;
use crate::wire;
use std::fs;

const LOGS: [Peer; 3] = [Peer::Newswire, Peer::Interval, Peer::Always];

pub fn journal(bench: &mut Bench) {
    let cases = [(ONE_PUBLISHER, 1), (EIGHT_PUBLISHERS, 8), (MANY_PUBLISHERS, 64)];
    let cases = cases.map(|(case, publishers)| (case.to_owned(), publishers));
    let (peers, time) = (bench.peers_of(&LOGS), bench.seconds(2.5, 1.0));
    bench.take_turns(JOURNAL, bench.rounds, &cases, &peers, |server, &publishers, place| {
        let request = wire::publish(server.address, "/channels/bench0", EVENT);
        let visits = Visits::new(server.address, true, request, publishers)?;
        let latency = answers(server, visits, time, place)?;
        put_latency(place, &latency);
        Ok(())
    });
}

pub fn recovery(bench: &mut Bench) {
    // 8,192 events of 100 bytes of data have about 1 MiB with their ids.
    const EVENTS: usize = 8_192;
    let sizes = if bench.quick { &[1, 64][..] } else { &[1, 64, 1_024] };
    let cases: Vec<_> = sizes.iter().map(|&size| (format!("{size} MiB"), size)).collect();
    for round in 0..bench.rounds {
        for (case, size) in &cases {
            let mut place = Place {
                figures: &mut bench.figures,
                scenario: RECOVERY,
                case: case.clone(),
                server: Peer::Newswire.name(),
                round,
            };
            if let Err(error) = recover(&bench.stage, *size, EVENTS, &mut place) {
                bench.figures.failures.push(format!("{RECOVERY}, {case}: {error}"));
            }
        }
    }
}

/// One channel is published, and copied under so many names.
fn recover(stage: &Stage, channels: usize, events: usize, place: &mut Place) -> io::Result<()> {
    let journal = tempfile::tempdir()?;
    let line = "x".repeat(EVENT) + "\n";
    let server = stage.start_with_journal(journal.path())?;
    let content = line.repeat(events);
    let head = format!(
        "POST /channels/c0?lines HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        server.address,
        content.len()
    );
    let mut socket = TcpStream::connect(server.address)?;
    socket.write_all((head + &content).as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(answer));
    }
    drop(server);
    let first = journal.path().join("c0");
    for number in 1..channels {
        let copy = journal.path().join(format!("c{number}"));
        fs::create_dir(&copy)?;
        for file in fs::read_dir(&first)? {
            let file = file?;
            fs::copy(file.path(), copy.join(file.file_name()))?;
        }
    }
    let begin = Instant::now();
    let server = stage.start_with_journal(journal.path())?;
    place.put("recovered after", Unit::Milliseconds, begin.elapsed().as_secs_f64() * 1e3);
    let memory = probe::memory(&server.processes());
    place.put("server has", Unit::Megabytes, memory / 1024.0);
    Ok(())
}

pub fn redis(bench: &mut Bench) {
    const SUBSCRIBERS: usize = 1_000;
    // One subscriber to each channel; or half of all at each node, flat out.
    let cases = [
        ("1 channel, 1,000 events/s", Some(1)),
        ("100 channels, 1,000 events/s", Some(100)),
        ("1,000 channels, 1,000 events/s", Some(1_000)),
        ("1,000 subscribers at two nodes, flat out", None),
    ]
    .map(|(case, channels)| (case.to_owned(), channels));
    let (peers, time) = (bench.peers_of(&PAIRS), bench.seconds(4.0, 2.0));
    bench.take_turns(REDIS, bench.rounds, &cases, &peers, |server, &channels, place| {
        let mut load = Load::new(server.address, channels.unwrap_or(1), EVENT, SUBSCRIBERS)?;
        if let Some(channels) = channels {
            load.subscribe_at(server.far());
            load.subscribe(channels)?;
            return steady(server, &mut load, Duration::from_millis(1), time, place);
        }
        load.subscribe(SUBSCRIBERS / 2)?;
        load.subscribe_at(server.far());
        load.subscribe(SUBSCRIBERS / 2)?;
        flood(server, &mut load, time, place)
    });
}
