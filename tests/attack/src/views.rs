//! Ten thousand different views come and go, at the limit and beyond it: nothing is left of them.

use crate::client::{Caller, Event, Reading, Subscribed, Subscription};
use crate::payload::Payload;
use crate::report::Report;
use crate::server::{Newswire, is_all_gone};
use crate::{Order, Outcome};
use std::thread;
use std::time::{Duration, Instant};

/// So many at a time, which is the limit, so often.
const AT_ONCE: usize = 500;
const TIMES: usize = 20;

/// Views that are asked for when there are as many as may be.
const BEYOND: usize = 20;

/// How long an event, or the end of all views, may take.
const TIMEOUT: Duration = Duration::from_secs(30);

pub fn run(order: &Order, report: &Report) -> Outcome<()> {
    let what = "views";
    let limit = AT_ONCE.to_string();
    let arguments = ["--max-connections", "1000", "--max-views", &limit, "--heartbeat", "1"];
    let server = Newswire::start(what, report, &order.newswire, &arguments)?;
    let before = server.vitals_at_first()?;
    report.row(format!("{what}: at the start"), before);
    let mut resident = Vec::new();
    for time in 0..TIMES {
        come_and_go(&server, report, time)?;
        let vitals = server.vitals()?;
        resident.push(vitals.resident_kib);
        if (time + 1).is_multiple_of(5) {
            report.row(format!("{what}: after {}", (time + 1) * AT_ONCE), vitals);
        }
    }
    let after = server.vitals_at_rest(before, Duration::from_secs(30))?;
    report.row(format!("{what}: at rest"), after);
    is_all_gone(report, what, before, after);
    // Until the allocator has what so many at a time need, memory grows and is no leak.
    let (early, late) = (resident[TIMES / 2 - 1], resident[TIMES - 1]);
    report.expect(
        late <= early + 256,
        format!("{what}: memory grew from {early} to {late} KiB with views that are gone"),
    );
    Ok(())
}

/// As many views as may be, none of which was there before; more are refused; and all go.
fn come_and_go(server: &Newswire<'_>, report: &Report, time: usize) -> Outcome<()> {
    let what = "views";
    let first = time * (AT_ONCE + BEYOND);
    let mut streams = Vec::new();
    for number in first..first + AT_ONCE {
        match open(server, number)? {
            Subscribed::Streaming(stream) => streams.push(stream),
            _ => return Err(format!("view {number} is refused").into()),
        }
    }
    let count = server.metric("views")?;
    report.expect(count == AT_ONCE as u64, format!("{what}: {count} in place of {AT_ONCE}"));
    for number in first + AT_ONCE..first + AT_ONCE + BEYOND {
        let is_refused = matches!(open(server, number)?, Subscribed::Refused);
        report.expect(is_refused, format!("{what}: one beyond the limit is not refused"));
    }
    // A second subscriber of a view needs no other one.
    let is_let_in = matches!(open(server, first)?, Subscribed::Streaming(_));
    report.expect(is_let_in, format!("{what}: a view that is there is refused"));
    for at in [0, AT_ONCE / 2, AT_ONCE - 1] {
        is_heard(server, report, first + at, &mut streams[at])?;
    }
    drop(streams);
    let deadline = Instant::now() + TIMEOUT;
    while server.metric("views")? > 0 {
        if Instant::now() > deadline {
            return Err("views are left without a subscriber".into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Shared by many views, so that publishing begins few channels.
fn channel(number: usize) -> String {
    format!("a{}", number % 8)
}

fn open(server: &Newswire<'_>, number: usize) -> Outcome<Subscribed> {
    let prefix = if number.is_multiple_of(2) { "*" } else { "" };
    let names = format!("{},b{number}{prefix}", channel(number));
    Ok(Subscription::open(server.address, &names, None, false, 0)?)
}

/// What is published on one of its channels comes to a view, once.
fn is_heard(server: &Newswire<'_>, report: &Report, number: usize, stream: &mut Subscription) -> Outcome<()> {
    let channel = channel(number);
    let text = Payload { publisher: 0, number: number as u32 }.write(100, 1);
    let target = format!("/channels/{channel}");
    let status = Caller::new(server.address).request("POST", &target, text.as_bytes())?.status;
    let mut events = Vec::new();
    let deadline = Instant::now() + TIMEOUT;
    let times = |events: &[Event]| events.iter().filter(|event| event.data.as_deref() == Some(&text)).count();
    while times(&events) == 0
        && Instant::now() < deadline
        && stream.read(TIMEOUT, 16 * 1024, &mut events)? == Reading::Some
    {}
    let is_of_channel = events.iter().all(|event| event.name.as_deref() == Some(&channel));
    report.expect(
        status == 200 && times(&events) == 1 && is_of_channel,
        format!("views: {status}, and on the stream {events:?}"),
    );
    Ok(())
}
