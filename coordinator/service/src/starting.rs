//! What a coordinator answers while it has no queue yet: that it is alive, that it is not ready, and why.
//!
//! The port is bound before the queue is reached, so that a taken one is found at once; and whoever asks meanwhile (a probe,
//! an operator) gets an answer.

use std::future::Future;
use std::io;

use axum::extract::State as Extract;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::api::secure;
use crate::api::system::{health, unready, version};
use crate::problem::{Code, Problem};
use crate::server::{serve, ServerLimits};

/// Seconds after which another try makes sense.
const RETRY_AFTER: u64 = 5;

type Reason = watch::Receiver<String>;

/// Serves on `listener` until `begin` is ready; returns what that yields, and the listener. `reason`: why this coordinator is
/// not ready, as it changes.
///
/// # Errors
/// The system's, if the listener cannot be used twice.
pub async fn until_started<T>(
    listener: TcpListener,
    limits: ServerLimits,
    reason: Reason,
    begin: impl Future<Output = T>,
) -> io::Result<(T, TcpListener)> {
    let listener = listener.into_std()?;
    let copy = TcpListener::from_std(listener.try_clone()?)?;
    let (started, is_started) = oneshot::channel::<()>();
    let stop = async {
        // An error says that the sender is gone, which means the same.
        let _ = is_started.await;
    };
    let begin = async {
        let begun = begin.await;
        drop(started);
        begun
    };
    let (begun, ()) = tokio::join!(begin, serve(copy, router(reason), limits, stop));
    Ok((begun, TcpListener::from_std(listener)?))
}

fn router(reason: Reason) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/ready", get(ready))
        .fallback(other)
        .layer(map_response(|mut response: Response| async move {
            secure(&mut response);
            response
        }))
        .with_state(reason)
}

async fn ready(Extract(reason): Extract<Reason>) -> Response {
    unready("starting", vec![reason.borrow().clone()])
}

async fn other(Extract(reason): Extract<Reason>) -> Response {
    let detail = format!("the coordinator is starting: {}", *reason.borrow());
    Problem::with(Code::Unavailable, detail).retry_after(RETRY_AFTER).into_response()
}
