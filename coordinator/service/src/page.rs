//! The live page: three static files, built in.

use axum::http::{header, HeaderName};
use axum::response::IntoResponse;

const INDEX: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");

fn typed(kind: &'static str) -> [(HeaderName, &'static str); 2] {
    [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")]
}

pub(crate) async fn index() -> impl IntoResponse {
    (typed("text/html; charset=utf-8"), INDEX)
}

pub(crate) async fn script() -> impl IntoResponse {
    (typed("text/javascript; charset=utf-8"), SCRIPT)
}

pub(crate) async fn style() -> impl IntoResponse {
    (typed("text/css; charset=utf-8"), STYLE)
}
