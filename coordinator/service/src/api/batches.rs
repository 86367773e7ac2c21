//! Batches and workers: list, status, cancel.

use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{Auth, BatchPath, Json, Query, Viewer};
use super::view::{BatchDetail, BatchList, BatchView, WorkerList, WorkerView};
use super::SharedApp;
use crate::problem::{Code, Problem};
use crate::request::Command;
use crate::state::{phase_name, State, PHASES};

/// Batches of a page, if nothing else is asked for.
pub(super) const PAGE: usize = 50;
const PAGE_MAX: usize = 200;

/// Which batches to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// At most so many, 1 to 200; 50 if absent.
    limit: Option<usize>,
    /// Only batches before this number.
    before: Option<u64>,
    /// Only batches in this phase.
    phase: Option<String>,
}

/// Lists the tenant's batches, newest first; for an operator's key, those of all tenants.
#[utoipa::path(
    get, path = "/v1/batches", tag = "batches", operation_id = "list_batches", params(ListQuery),
    responses((status = 200, body = BatchList), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn list(
    Extract(app): Extract<SharedApp>,
    viewer: Viewer,
    Query(query): Query<ListQuery>,
) -> Result<Json<BatchList>, Problem> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::with(Code::InvalidRequest, format!("query: limit is 1 to {PAGE_MAX}")));
    }
    if let Some(phase) = query.phase.as_deref().filter(|phase| !PHASES.contains(phase)) {
        let shown: String = phase.chars().take(32).collect();
        return Err(Problem::with(Code::InvalidRequest, format!("query: there is no phase {shown:?}")));
    }
    let state = app.read().await?;
    Ok(Json(page(&state, viewer, limit, &query)))
}

/// The first batches that somebody sees.
pub(super) fn page(state: &State, viewer: Viewer, limit: usize, query: &ListQuery) -> BatchList {
    let wanted = state.histories().rev().filter(|(id, history)| {
        viewer.sees(history)
            && query.before.is_none_or(|before| id.0 < before)
            && query.phase.as_deref().is_none_or(|phase| phase == phase_name(&history.phase))
    });
    let mut batches: Vec<BatchView> =
        wanted.take(limit + 1).map(|(id, history)| BatchView::of(id, history)).collect();
    let has_more = batches.len() > limit;
    batches.truncate(limit);
    let next = batches.last().map(|batch| batch.id).filter(|_| has_more);
    BatchList { batches, next }
}

/// A batch with its tasks, attempts and files.
#[utoipa::path(
    get, path = "/v1/batches/{id}", tag = "batches", operation_id = "get_batch",
    params(("id" = u64, Path, description = "the batch")),
    responses((status = 200, body = BatchDetail), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn detail(
    Extract(app): Extract<SharedApp>,
    viewer: Viewer,
    BatchPath(id): BatchPath,
) -> Result<Json<BatchDetail>, Problem> {
    let state = app.read().await?;
    let history = viewer.history(&state, id).ok_or_else(|| Problem::new(Code::NotFound))?;
    let status = state.machine().status(id).ok_or_else(|| Problem::new(Code::NotFound))?;
    Ok(Json(BatchDetail::of(id, history, &status, state.now().0)))
}

/// Ends a batch, unless it is being settled.
#[utoipa::path(
    delete, path = "/v1/batches/{id}", tag = "batches", operation_id = "cancel_batch",
    params(("id" = u64, Path, description = "the batch")),
    responses((status = 204), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn cancel(
    Extract(app): Extract<SharedApp>,
    Auth(tenant): Auth,
    BatchPath(id): BatchPath,
) -> Result<StatusCode, Problem> {
    app.ask(Command::Cancel { tenant: tenant.id, batch: id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The workers of the deployment; all tenants share them.
#[utoipa::path(
    get, path = "/v1/workers", tag = "workers", operation_id = "list_workers",
    responses((status = 200, body = WorkerList), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn workers(
    Extract(app): Extract<SharedApp>,
    _: Viewer,
) -> Result<Json<WorkerList>, Problem> {
    let state = app.read().await?;
    let workers = state.machine().workers();
    let workers =
        workers.map(|worker| WorkerView::of(&worker, state.about(worker.worker), state.lost(worker.worker)));
    let workers = workers.collect();
    Ok(Json(WorkerList { workers }))
}
