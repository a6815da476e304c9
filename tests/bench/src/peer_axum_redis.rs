//! The axum peer with a Redis behind it: `PUBLISH` for what comes in, one `PSUBSCRIBE` for what goes out.
//!
//! Settings, each the best we found for it:
//! - One connection to publish, on which requests that wait are written together, and one that hears everything. Both speak
//!   RESP by hand, since it is two commands.
//! - Each node counts ids itself. Both hear all events in one order from the beginning, so they count the same.
//! - Pub/sub is at most once: nothing repairs what is lost while a connection is away. newswire and nchan repair it.

use crate::peer_axum::Channels;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

/// Commands that are written together, at most.
const TOGETHER: usize = 256;

struct Publication {
    name: String,
    data: String,
    done: oneshot::Sender<()>,
}

#[derive(Clone)]
pub struct Publisher(mpsc::UnboundedSender<Publication>);

impl Publisher {
    /// Until Redis has answered.
    pub async fn publish(&self, name: String, data: String) {
        let (done, answered) = oneshot::channel();
        // A bench whose Redis is gone has failed, and sees that nothing is delivered.
        let _ = self.0.send(Publication { name, data, done });
        let _ = answered.await;
    }
}

pub async fn connect(port: u16, channels: Channels) -> io::Result<Publisher> {
    let mut subscriber = TcpStream::connect(("127.0.0.1", port)).await?;
    subscriber.write_all(b"PSUBSCRIBE *\r\n").await?;
    tokio::spawn(hear(BufReader::new(subscriber), channels));
    let publisher = TcpStream::connect(("127.0.0.1", port)).await?;
    publisher.set_nodelay(true)?;
    let (answers, commands) = publisher.into_split();
    let (publications, waiting) = mpsc::unbounded_channel();
    let (written, unanswered) = mpsc::unbounded_channel();
    tokio::spawn(write(commands, waiting, written));
    tokio::spawn(answer(BufReader::new(answers), unanswered));
    Ok(Publisher(publications))
}

async fn write(
    mut commands: OwnedWriteHalf,
    mut waiting: mpsc::UnboundedReceiver<Publication>,
    written: mpsc::UnboundedSender<oneshot::Sender<()>>,
) -> io::Result<()> {
    let mut publications = Vec::new();
    while waiting.recv_many(&mut publications, TOGETHER).await > 0 {
        let mut bytes = String::new();
        for Publication { name, data, done } in publications.drain(..) {
            bytes += "*3\r\n$7\r\nPUBLISH\r\n";
            for argument in [name, data] {
                bytes += &format!("${}\r\n{argument}\r\n", argument.len());
            }
            let _ = written.send(done);
        }
        commands.write_all(bytes.as_bytes()).await?;
    }
    Ok(())
}

/// An integer for each command.
async fn answer(
    mut answers: impl AsyncBufReadExt + Unpin,
    mut unanswered: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
) -> io::Result<()> {
    let mut line = String::new();
    while answers.read_line(&mut line).await? > 0 {
        if let Some(done) = unanswered.recv().await {
            let _ = done.send(());
        }
        line.clear();
    }
    Ok(())
}

/// Arrays of `pmessage`, the pattern, the channel and the data.
async fn hear(mut stream: impl AsyncBufReadExt + Unpin, channels: Channels) -> io::Result<()> {
    let mut line = String::new();
    let mut message = Vec::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let length = |line: &str| line[1..].trim_end().parse().map_err(io::Error::other);
        match line.as_bytes()[0] {
            b'*' => message.clear(),
            b'$' => {
                let mut text = vec![0; length(&line)?];
                stream.read_exact(&mut text).await?;
                stream.read_exact(&mut [0; 2]).await?;
                message.push(String::from_utf8(text).map_err(io::Error::other)?);
            }
            // The number of subscriptions, behind the answer to PSUBSCRIBE.
            _ => {}
        }
        if let [kind, _, name, data] = &message[..]
            && kind == "pmessage"
        {
            channels.append(name, data);
            message.clear();
        }
    }
}
