//! The HTTP listener: HTTP/1.1, with a bound on everything a peer can make last.
//!
//! A peer gets [`ServerLimits::header_time`] for the header of each request (the time between requests on a kept
//! connection included), the body's time is bounded by the handlers, and one that does not take its answer is dropped
//! after [`ServerLimits::write_time`]. Connections are counted; beyond the limit new ones wait in the system's queue, and
//! those of an address that has its share already are closed. TLS belongs in front: see the README.

mod addresses;
mod stall;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{watch, OwnedSemaphorePermit, Semaphore};

use self::addresses::{Addresses, Seat};
use self::stall::Stall;

/// Bounds of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at the same time.
    pub connections_max: usize,
    /// Those of one peer address (an IPv6 network of 64 bits). Behind a proxy all have the proxy's: then it should be no
    /// less than the connections that the proxy keeps.
    pub connections_per_address_max: usize,
    /// For the header of a request.
    pub header_time: Duration,
    /// How long an answer may make no progress.
    pub write_time: Duration,
    /// Header fields of a request.
    pub headers_max: usize,
    /// Bytes of a header, and of what is read ahead.
    pub header_bytes_max: usize,
    /// How long a shutdown waits for requests that are under way.
    pub drain_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_address_max: 512,
            header_time: Duration::from_secs(10),
            write_time: Duration::from_secs(30),
            headers_max: 64,
            header_bytes_max: 64 << 10,
            drain_time: Duration::from_secs(10),
        }
    }
}

/// Address of the peer of a connection; an extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves `router` on `listener` until `stop` is ready, then waits for requests under way, as long as the limits say.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let addresses = Addresses::new(limits.connections_per_address_max);
    let (end, ending) = watch::channel(());
    tokio::pin!(stop);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = &mut stop => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(seat) = addresses.seat(peer.ip()) else {
                    tracing::debug!(%peer, "a connection too many from this address");
                    continue;
                };
                let place = (place, seat);
                let router = router.clone().layer(axum::Extension(Peer(peer)));
                tokio::spawn(converse(stream, router, limits, place, ending.clone()));
            }
            Err(error) => {
                // Out of file descriptors, or a peer that went away while it waited.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop((listener, ending));
    end.send_replace(());
    if tokio::time::timeout(limits.drain_time, end.closed()).await.is_err() {
        tracing::warn!("requests were under way when the time for them was over");
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    limits: ServerLimits,
    place: (OwnedSemaphorePermit, Seat),
    mut ending: watch::Receiver<()>,
) {
    // Small answers should not wait for more; a socket that refuses this works all the same.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Stall::new(stream, limits.write_time));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max)
        .serve_connection(io, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A peer that breaks the protocol or goes away is its own affair.
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
    drop(place);
}
