//! What a refused peer still sends is read on for a moment: a connection that is closed over unread bytes is reset, and
//! its peer may then lose the answer that says why.

use std::pin::Pin;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// How long. Nothing of it is kept.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Has the body of a request read on after its handler has dropped it.
pub(super) fn over(request: Request) -> Request {
    // Who waits to be asked for its body is not asked after a refusal.
    if request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| Body::new(Lingering { body: Some(body) }))
}

/// A body that is not at its end yet, if it is `Some`.
struct Lingering {
    body: Option<Body>,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let read = async { while let Some(Ok(_)) = body.frame().await {} };
            // Who has not stopped by then is cut off.
            let _ = tokio::time::timeout(LINGER_TIME, read).await;
        });
    }
}
