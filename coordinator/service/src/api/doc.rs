//! The OpenAPI document.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Assay coordinator",
        description = "Submit batches of blocks, watch them being proved, fetch their proofs. Errors are \
                       `application/problem+json` with stable `code`s. Coordinators that stand by serve everything too.",
    ),
    paths(
        super::submit::submit,
        super::batches::list,
        super::batches::detail,
        super::batches::cancel,
        super::batches::workers,
        super::files::proof,
        super::files::list,
        super::files::file,
        super::events::batch,
        super::events::all,
        super::system::health,
        super::system::ready,
        super::system::version,
        super::system::metrics,
        super::system::openapi,
    ),
    components(schemas(crate::problem::Problem, crate::problem::Code)),
    modifiers(&KeyScheme),
    security(("key" = [])),
)]
struct Doc;

struct KeyScheme;

impl Modify for KeyScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("an API key")).build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The OpenAPI document of the API.
pub fn document() -> utoipa::openapi::OpenApi {
    Doc::openapi()
}
