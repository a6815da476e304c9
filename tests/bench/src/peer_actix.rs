//! actix-web: a worker of one thread for each core, and one thread that accepts for all.
//!
//! - A listen queue of 4,096, `TCP_NODELAY`, and no bound on connections that are being opened.
//! - The body of a stream hands over all that its subscriber lacks as one chunk (`peer_tail.rs`).
//! - No timeouts for requests, no heartbeats, no middleware.

use crate::peer_common::{HTML, answer_to_publisher};
use crate::peer_tail::{Channels, Tail, relay};
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::KeepAlive;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

struct Events(Tail);

impl MessageBody for Events {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.get_mut().0.poll_next(context).map(|bytes| bytes.map(Ok))
    }
}

async fn publish(channels: web::Data<Channels>, name: web::Path<String>, data: Bytes) -> HttpResponse {
    let (id, subscribers) = channels.named(&name).publish(&data);
    let body = answer_to_publisher(id, subscribers);
    HttpResponse::Ok().content_type("application/json").body(body)
}

async fn subscribe(request: HttpRequest, channels: web::Data<Channels>, name: web::Path<String>) -> HttpResponse {
    let seen = request.headers().get("last-event-id");
    let seen = seen.and_then(|id| id.to_str().ok()?.parse().ok());
    let tail = channels.named(&name).subscribe(seen);
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream").insert_header(("Cache-Control", "no-store"));
    response.body(Events(tail))
}

pub fn serve(page: Vec<u8>) -> io::Result<()> {
    let (page, channels) = (Bytes::from(page), web::Data::new(Channels::default()));
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(move || {
            // This runs once in each worker.
            actix_web::rt::spawn(relay());
            let page = page.clone();
            let front = move || std::future::ready(HttpResponse::Ok().content_type(HTML).body(page.clone()));
            let channel =
                web::resource("/channels/{name}").route(web::get().to(subscribe)).route(web::post().to(publish));
            App::new().app_data(channels.clone()).route("/", web::get().to(front)).service(channel)
        })
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(Duration::ZERO)
        .backlog(4096)
        .max_connection_rate(20_000)
        .max_connections(20_000)
        .tcp_nodelay(true)
        .workers(std::thread::available_parallelism()?.get())
        .disable_signals()
        .bind("127.0.0.1:0")?;
        println!("http://{}/", server.addrs()[0]);
        server.run().await
    })
}
