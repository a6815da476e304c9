//! The floor: what server-sent events cost when nothing is batched and nothing is done but write.
//!
//! A thread per connection speaks just enough HTTP. A subscriber's socket goes into a list, and its
//! thread ends. The thread that reads a POST encodes the event once and writes it to each socket
//! with one blocking call. There is no history, no limit, no timeout, and one reader that stalls
//! stops everybody: so this peer has no part in the scenarios that need any of these.

use crate::peer_common::{HTML, STREAM, answer, answer_to_publisher, parse};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

type Channels = Arc<Mutex<HashMap<String, Arc<Mutex<Vec<TcpStream>>>>>>;

pub fn serve(page: Vec<u8>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}/", listener.local_addr()?);
    let page: Arc<[u8]> = page.into();
    let channels = Channels::default();
    loop {
        let (socket, _) = listener.accept()?;
        let (page, channels) = (Arc::clone(&page), Arc::clone(&channels));
        // A connection that breaks off is the client's affair.
        let talk = move || drop(converse(socket, &page, &channels));
        thread::Builder::new().stack_size(64 * 1024).spawn(talk)?;
    }
}

/// Answers requests until the peer leaves or subscribes.
fn converse(mut socket: TcpStream, page: &[u8], channels: &Channels) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut inbox = Vec::new();
    let mut piece = [0; 16 * 1024];
    let mut published = 0;
    loop {
        let mut used = 0;
        while let Some(request) = parse(&inbox[used..])? {
            used += request.length;
            let list = || {
                let mut channels = channels.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(channels.entry(request.path.to_owned()).or_default())
            };
            match request.method {
                "POST" => {
                    published += 1;
                    let frame = [format!("id: {published}\ndata: ").as_bytes(), request.body, b"\n\n"].concat();
                    let list = list();
                    let mut subscribers = list.lock().unwrap_or_else(PoisonError::into_inner);
                    subscribers.retain_mut(|subscriber| subscriber.write_all(&frame).is_ok());
                    let subscribers = subscribers.len();
                    let body = answer_to_publisher(published, subscribers);
                    let answer = answer("application/json", body.as_bytes(), request.close);
                    socket.write_all(&answer)?;
                }
                _ if request.path == "/" => socket.write_all(&answer(HTML, page, request.close))?,
                _ => {
                    let list = list();
                    let mut subscribers = list.lock().unwrap_or_else(PoisonError::into_inner);
                    socket.write_all(STREAM)?;
                    subscribers.push(socket);
                    return Ok(());
                }
            }
            if request.close {
                return Ok(());
            }
        }
        inbox.drain(..used);
        match socket.read(&mut piece)? {
            0 => return Ok(()),
            length => inbox.extend_from_slice(&piece[..length]),
        }
    }
}
