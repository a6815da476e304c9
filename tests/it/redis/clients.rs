//! Clients of servers that share their channels: they come back as EventSource does, to any server.

use crate::server::{Server, Stream, ask};
use newswire::sse::Message;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(super) type Node = Server;

/// Publishes an event; its id, or the status in place of 200.
pub(super) fn publish(address: SocketAddr, channel: &str, data: &str) -> Result<String, u16> {
    let answer = ask(address, "POST", &format!("/channels/{channel}"), &[("Accept", "text/plain")], data);
    match answer.status {
        200 => Ok(answer.text().trim_end().to_owned()),
        status => Err(status),
    }
}

/// The ids of so many events behind this one, of which none is a gap.
pub(super) fn resume(address: SocketAddr, channel: &str, id: &str, count: usize) -> Vec<String> {
    let mut stream = Stream::resume(address, channel, id);
    let next = |_| {
        let message = stream.next().expect("it goes on");
        assert_eq!(message.event_type, "message", "{message:?}");
        message.last_event_id
    };
    (0..count).map(next).collect()
}

/// A client that comes back behind the last event it has, to the next server each time.
pub(super) struct Client {
    received: Arc<Mutex<Vec<Message>>>,
    is_stopped: Arc<AtomicBool>,
    connections: Arc<Mutex<usize>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Behind this event. `servers` is asked each time: a server may have started again on another port.
    pub(super) fn start(channel: &str, id: &str, servers: impl Fn() -> Vec<SocketAddr> + Send + 'static) -> Client {
        Client::start_restless(channel, id, servers, Duration::MAX)
    }

    /// It leaves each stream after this time.
    pub(super) fn start_restless(
        channel: &str,
        id: &str,
        servers: impl Fn() -> Vec<SocketAddr> + Send + 'static,
        stays: Duration,
    ) -> Client {
        let (received, is_stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let connections = Arc::new(Mutex::new(0));
        let (target, mut id) = (format!("/channels/{channel}"), id.to_owned());
        let (to, stopped, count) = (Arc::clone(&received), Arc::clone(&is_stopped), Arc::clone(&connections));
        let thread = thread::spawn(move || {
            for nth in 0.. {
                if stopped.load(SeqCst) {
                    return;
                }
                let servers = servers();
                let mut stream = Stream::open(servers[nth % servers.len()], &target, &[("Last-Event-ID", &id)]);
                assert_eq!(stream.answer.status, 200);
                *count.lock().expect("no panic") += 1;
                let _ = stream.socket().set_read_timeout(Some(Duration::from_millis(200)));
                let begun = Instant::now();
                while begun.elapsed() < stays {
                    match stream.try_next() {
                        Ok(Some(message)) => {
                            // A gap has no id, and leaves the one of the client.
                            if !message.last_event_id.is_empty() {
                                id.clone_from(&message.last_event_id);
                            }
                            to.lock().expect("no panic").push(message);
                        }
                        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {
                            if stopped.load(SeqCst) {
                                return;
                            }
                        }
                        _ => break,
                    }
                }
                // A stream that is refused ends at once.
                thread::sleep(Duration::from_millis(50));
            }
        });
        Client { received, is_stopped, connections, thread: Some(thread) }
    }

    pub(super) fn received(&self) -> Vec<Message> {
        self.received.lock().expect("no panic").clone()
    }

    /// Whether one of the newest messages is such.
    pub(super) fn has(&self, is_wanted: impl Fn(&Message) -> bool) -> bool {
        self.received.lock().expect("no panic").iter().rev().take(10).any(is_wanted)
    }

    pub(super) fn data(&self) -> Vec<String> {
        self.received().into_iter().map(|message| message.data).collect()
    }

    pub(super) fn gaps(&self) -> usize {
        self.received().iter().filter(|message| message.event_type == "gap").count()
    }

    /// What it looks like, for a test that waits in vain.
    pub(super) fn summary(&self) -> String {
        let (received, connections) = (self.received(), self.connections());
        let newest = &received[received.len().saturating_sub(3)..];
        let has_ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        format!("{} received, {connections} connections, thread ended: {has_ended}, newest: {newest:?}", received.len())
    }

    /// How often it has connected.
    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().expect("no panic")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.is_stopped.store(true, SeqCst);
        let joined = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            joined.expect("it is joined once").expect("the client did not panic");
        }
    }
}
