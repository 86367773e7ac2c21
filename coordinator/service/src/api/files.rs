//! The proof and the other files of a result.

use assay_queue::StoreError;
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::extract::{Auth, BatchPath, FilePath, Json};
use super::view::{BatchDetail, FileView};
use super::{App, SharedApp};
use crate::keys::Tenant;
use crate::problem::{Code, Problem};

/// Name of the Groth16 proof among the files.
pub(crate) const PROOF: &str = "proof.bin";
/// How long a file may take to come out of the store.
const STORE_TIME: std::time::Duration = std::time::Duration::from_secs(60);

/// The Groth16 proof, once the coordinator has checked it.
#[utoipa::path(
    get, path = "/v1/batches/{id}/proof", tag = "results", operation_id = "get_proof",
    params(("id" = u64, Path, description = "the batch")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = Problem), (status = 503, body = Problem),
    ),
)]
pub(crate) async fn proof(
    Extract(app): Extract<SharedApp>,
    Auth(tenant): Auth,
    BatchPath(id): BatchPath,
) -> Result<Response, Problem> {
    send(&app, &tenant, id, PROOF).await
}

/// Lists the files of the result.
#[utoipa::path(
    get, path = "/v1/batches/{id}/files", tag = "results", operation_id = "list_files",
    params(("id" = u64, Path, description = "the batch")),
    responses((status = 200, body = Vec<FileView>), (status = "4XX", body = Problem), (status = 503, body = Problem)),
)]
pub(crate) async fn list(
    Extract(app): Extract<SharedApp>,
    Auth(tenant): Auth,
    BatchPath(id): BatchPath,
) -> Result<Json<Vec<FileView>>, Problem> {
    Ok(Json(files(&app, &tenant, id).await?))
}

/// A file of the result.
#[utoipa::path(
    get, path = "/v1/batches/{id}/files/{name}", tag = "results", operation_id = "get_file",
    params(("id" = u64, Path, description = "the batch"), ("name" = String, Path, description = "the file")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = Problem), (status = 503, body = Problem),
    ),
)]
pub(crate) async fn file(
    Extract(app): Extract<SharedApp>,
    Auth(tenant): Auth,
    BatchPath(id): BatchPath,
    FilePath(name): FilePath,
) -> Result<Response, Problem> {
    send(&app, &tenant, id, &name).await
}

async fn files(app: &App, tenant: &Tenant, id: assay_schedule::BatchId) -> Result<Vec<FileView>, Problem> {
    let state = app.read().await?;
    let history = state.history_of(tenant.id, id).ok_or_else(|| Problem::new(Code::NotFound))?;
    let status = state.machine().status(id).ok_or_else(|| Problem::new(Code::NotFound))?;
    Ok(BatchDetail::of(id, history, &status, 0).files)
}

async fn send(
    app: &App,
    tenant: &Tenant,
    id: assay_schedule::BatchId,
    name: &str,
) -> Result<Response, Problem> {
    let files = files(app, tenant, id).await?;
    let Some(file) = files.into_iter().find(|file| file.name == name) else {
        return Err(match name {
            PROOF => Problem::with(Code::NoResult, "the batch has no checked proof").about(id.0),
            _ => Problem::new(Code::NotFound),
        });
    };
    let hash = blake3::Hash::from_hex(&file.blake3).map_err(|_| Problem::new(Code::Internal))?;
    let read = tokio::time::timeout(STORE_TIME, app.parts.store.get(&hash)).await;
    let lost = || Problem::with(Code::Unavailable, "the file cannot be read now").retry_after(10).about(id.0);
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error @ (StoreError::Missing { .. } | StoreError::Corrupt { .. }))) => {
            tracing::error!(%error, batch = id.0, name, "a file of a result is lost");
            return Err(Problem::with(Code::Internal, "the file is lost").about(id.0));
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, batch = id.0, name, "a file of a result cannot be read");
            return Err(lost());
        }
        Err(_) => return Err(lost()),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ETAG, format!("\"{}\"", file.blake3)),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"batch-{id}-{}\"", file.name)),
    ];
    Ok((headers, bytes).into_response())
}
