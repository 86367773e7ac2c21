//! What tenants can do, and what they cannot.

use std::time::Duration;

use serde_json::Value;

use crate::agent::Habits;
use crate::cluster::{until, Cluster};
use crate::simple::{output, Shape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_goes_from_submission_to_its_settled_proof() {
    let mut cluster = Cluster::new();
    // A task that is thought to be late would be done twice.
    cluster.settings.limits.attempts_max = 1;
    let node = cluster.node().await;
    let _agents = [cluster.agent(1, Habits::default()), cluster.agent(2, Habits::default())];
    let client = &node.client;
    let id = client.submitted("first", Shape::new(1)).await;
    client.wait_for(id, "settled").await;

    let (status, detail) = client.get(&format!("/v1/batches/{id}")).await;
    assert_eq!(status, 200);
    assert!(detail["tasks"].as_array().unwrap().iter().all(|task| task["state"] == "done"), "{detail}");
    let spans = detail["spans"].as_array().unwrap();
    // Execute, 2 blocks and the fold with 3 shards and a reduction each, wrap, Groth16.
    assert_eq!(spans.len(), 1 + 3 + 3 * 4 + 2, "{detail}");
    assert!(spans.iter().all(|span| span["state"] == "accepted" && span["ended_ms"].is_u64()));

    until("all files are there", || async {
        let (_, files) = client.get(&format!("/v1/batches/{id}/files")).await;
        files.as_array().unwrap().len() == 3
    })
    .await;
    let proof = client.request("GET", &format!("/v1/batches/{id}/proof")).send().await.unwrap();
    assert_eq!(proof.headers()["content-type"], "application/octet-stream");
    let etag = proof.headers()["etag"].to_str().unwrap().to_owned();
    let proof = proof.bytes().await.unwrap();
    assert_eq!(etag, format!("\"{}\"", blake3::hash(&proof).to_hex()));
    assert!(Shape::read(&proof).is_some());
    let (status, claim) = client.get(&format!("/v1/batches/{id}/files/claim.txt")).await;
    assert_eq!((status, claim.as_str().unwrap()), (200, "batch 0 of chain 1\n"));
    let receipts =
        client.request("GET", &format!("/v1/batches/{id}/files/receipts.json")).send().await.unwrap();
    let receipts: serde_json::Value = serde_json::from_slice(&receipts.bytes().await.unwrap()).unwrap();
    assert_eq!(receipts["accepted"].as_array().unwrap().len(), spans.len());
    assert!(!receipts["receipts"].as_array().unwrap().is_empty());

    let (_, workers) = client.get("/v1/workers").await;
    assert_eq!(workers["workers"][0]["devices"][0], "sim");
    // The next batch of the chain begins where this one ends.
    let next = client.submitted("second", Shape::new(1).next()).await;
    client.wait_for(next, "settled").await;
    // Nothing is left but what can be downloaded and the chain's last fold proof.
    until("artifacts are let go", || async {
        let usage = cluster.store.usage().await.unwrap();
        usage.artifacts == 2 * 3 + 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_key_gives_the_same_batch_and_never_another_one() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let (client, shape) = (&node.client, Shape::new(1));
    let id = client.submitted("key", shape).await;

    let (status, body) = client.submit("key", shape).await;
    assert_eq!((status, body["id"].as_u64(), body["repeated"].as_bool()), (200, Some(id), Some(true)));

    let (status, body) = client.submit("key", Shape { runs: 1, ..shape }).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("idempotency_key_reused")));
    assert_eq!(body["batch"].as_u64(), Some(id));

    let other = client.request("POST", "/v1/batches").header("idempotency-key", "key");
    let (status, body) = client.send(other.header("x-assay-priority", "7").body(shape.bytes())).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("idempotency_key_reused")));

    // The same key of another tenant is another key; the chain is still the first one's.
    let (status, body) = client.with_key(&cluster.other_key).submit("key", shape).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("chain_unavailable")));

    // The payload survived all of it.
    let _agent = cluster.agent(1, Habits::default());
    client.wait_for(id, "settled").await;
    let (status, body) = client.submit("key", shape).await;
    assert_eq!((status, body["id"].as_u64()), (200, Some(id)));
    until("only results and the fold proof are held", || async {
        cluster.store.usage().await.unwrap().artifacts == 3 + 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_the_body_names_the_batch() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let submit = || node.client.send(node.client.request("POST", "/v1/batches").body(Shape::new(1).bytes()));
    let (first, second) = (submit().await, submit().await);
    assert_eq!((first.0, second.0), (201, 200));
    assert_eq!(first.1["id"], second.1["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_are_refused_and_foreign_batches_are_not_there() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let id = node.client.submitted("mine", Shape::new(1)).await;
    let paths = [
        "/v1/batches".to_owned(),
        format!("/v1/batches/{id}"),
        format!("/v1/batches/{id}/proof"),
        format!("/v1/batches/{id}/files"),
        format!("/v1/batches/{id}/files/x"),
        format!("/v1/batches/{id}/events"),
        "/v1/events".to_owned(),
        "/v1/workers".to_owned(),
    ];
    for key in ["", "wrong", &cluster.key[1..], "assay_0000"] {
        for path in &paths {
            let (status, body) = node.client.with_key(key).get(path).await;
            assert_eq!((status, body["code"].as_str()), (401, Some("unauthorized")), "{path}");
        }
        let (status, _) = node.client.with_key(key).submit("k", Shape::new(9)).await;
        assert_eq!(status, 401);
    }
    let foreign = node.client.with_key(&cluster.other_key);
    for path in &paths[1..6] {
        let (status, body) = foreign.get(path).await;
        assert_eq!((status, body["code"].as_str()), (404, Some("not_found")), "{path}");
        // Exactly what a batch that nobody has gives.
        let missing = foreign.get(&path.replacen(&id.to_string(), "99999", 1)).await;
        assert_eq!(missing, (status, body), "{path}");
    }
    let cancel = foreign.send(foreign.request("DELETE", &format!("/v1/batches/{id}"))).await;
    assert_eq!(cancel, foreign.send(foreign.request("DELETE", "/v1/batches/99999")).await);
    assert_eq!(cancel.0, 404);
    assert_eq!(foreign.get("/v1/batches").await.1["batches"].as_array().unwrap().len(), 0);
    assert_eq!(node.client.phase(id).await, "proving");
    for open in ["/health", "/ready", "/version", "/metrics", "/openapi.json", "/", "/page.js", "/page.css"] {
        assert_eq!(node.client.with_key("").get(open).await.0, 200, "{open}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_the_batches_of_all_tenants_and_changes_nothing() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let other = node.client.with_key(&cluster.other_key);
    let ids = [node.client.submitted("a", Shape::new(1)).await, other.submitted("b", Shape::new(2)).await];
    let operator = node.client.with_key(&cluster.operator_key);
    let (status, list) = operator.get("/v1/batches").await;
    assert_eq!(status, 200);
    let number = |value: &Value| value.as_u64().unwrap();
    let batches = list["batches"].as_array().unwrap().iter();
    let seen: Vec<_> = batches.map(|batch| (number(&batch["id"]), number(&batch["tenant"]))).collect();
    assert_eq!(seen, [(ids[1], 2), (ids[0], 1)]);
    for id in ids {
        assert_eq!(operator.get(&format!("/v1/batches/{id}")).await.1["batch"]["id"], id);
        let events = operator.request("GET", &format!("/v1/batches/{id}/events")).send().await.unwrap();
        assert_eq!(events.status(), 200);
        for (method, path) in [
            ("DELETE", format!("/v1/batches/{id}")),
            ("GET", format!("/v1/batches/{id}/proof")),
            ("GET", format!("/v1/batches/{id}/files")),
        ] {
            let (status, body) = operator.send(operator.request(method, &path)).await;
            assert_eq!((status, body["code"].as_str()), (403, Some("forbidden")), "{method} {path}");
        }
    }
    assert_eq!(operator.get("/v1/workers").await.0, 200);
    assert_eq!(operator.get("/v1/batches/99999").await.0, 404);
    let (status, body) = operator.submit("c", Shape::new(3)).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("forbidden")));
    assert_eq!(
        other.get("/v1/batches").await.1["batches"].as_array().unwrap().len(),
        1,
        "tenants see their own"
    );
    assert_eq!(node.client.phase(ids[0]).await, "proving", "nothing was cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_batch_ends_and_stays_ended() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let client = &node.client;
    let slow = Habits { delay: Duration::from_secs(600), ..Habits::default() };
    let _agent = cluster.agent(1, slow);
    let id = client.submitted("key", Shape::new(1)).await;
    until("the execution runs", || async {
        client.get(&format!("/v1/batches/{id}")).await.1["batch"]["tasks_running"] == 1
    })
    .await;
    let cancel = || client.send(client.request("DELETE", &format!("/v1/batches/{id}")));
    assert_eq!(cancel().await.0, 204);
    assert_eq!(client.phase(id).await, "cancelled");
    let (status, body) = cancel().await;
    assert_eq!((status, body["code"].as_str()), (409, Some("not_cancellable")));
    let (status, body) = client.get(&format!("/v1/batches/{id}/proof")).await;
    assert_eq!((status, body["code"].as_str()), (409, Some("no_result")));
    until("everything is let go", || async { cluster.store.usage().await.unwrap().artifacts == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_that_cannot_be_are_refused_and_leave_nothing() {
    let cluster =
        Cluster::with_keys("batches_max = 2\nbytes_max = 1000\nrequests_per_second = 10000.0\nburst = 10000");
    let node = cluster.node().await;
    let client = &node.client;
    let post = || client.request("POST", "/v1/batches");
    let code = |answer: (u16, serde_json::Value)| {
        (answer.0, answer.1["code"].as_str().unwrap_or_default().to_owned())
    };
    let refusals = [
        (post().body("no batch at all"), 422, "invalid_batch"),
        (post().body(""), 422, "invalid_batch"),
        (post().header("x-assay-priority", "256").body(Shape::new(1).bytes()), 400, "invalid_request"),
        (post().header("x-assay-priority", "-1").body(Shape::new(1).bytes()), 400, "invalid_request"),
        (post().header("x-assay-deadline", "soon").body(Shape::new(1).bytes()), 400, "invalid_request"),
        (post().header("x-assay-deadline", "1;").body(Shape::new(1).bytes()), 400, "invalid_request"),
        (post().header("x-assay-deadline", "1; hard").body(Shape::new(1).bytes()), 422, "deadline_passed"),
        (
            post().header("idempotency-key", "k".repeat(257)).body(Shape::new(1).bytes()),
            400,
            "invalid_request",
        ),
        (post().header("idempotency-key", "").body(Shape::new(1).bytes()), 400, "invalid_request"),
        (post().header("x-assay-callback", "ftp://x/").body(Shape::new(1).bytes()), 422, "invalid_callback"),
    ];
    for (request, status, expected) in refusals {
        assert_eq!(code(client.send(request).await), (status, expected.to_owned()));
    }
    let first = client.submitted("1", Shape::new(1)).await;
    let gap = Shape { from: 5, to: 6, ..Shape::new(1) };
    assert_eq!(code(client.submit("gap", gap).await), (409, "out_of_sequence".into()));
    client.submitted("2", Shape::new(2)).await;
    let (status, body) = client.submit("3", Shape::new(3)).await;
    assert_eq!((status, body["code"].as_str()), (429, Some("quota_exceeded")));
    assert!(body["retry_after"].is_u64());
    assert_eq!(client.send(client.request("DELETE", &format!("/v1/batches/{first}"))).await.0, 204);
    let large = [Shape::new(4).bytes(), vec![b' '; 1000]].concat();
    assert_eq!(code(client.send(post().body(large)).await), (429, "quota_exceeded".into()));
    client.submitted("3", Shape::new(3)).await;
    until("only two payloads are held", || async { cluster.store.usage().await.unwrap().artifacts == 2 })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lies_is_found_out_and_the_batch_settles() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let liar = cluster.agent(1, Habits { lies: true, ..Habits::default() });
    let id = node.client.submitted("key", Shape::new(1)).await;
    until("the liar is quarantined", || async {
        node.client.get("/v1/workers").await.1["workers"][0]["quarantined_until_ms"].is_u64()
    })
    .await;
    let (_, detail) = node.client.get(&format!("/v1/batches/{id}")).await;
    let wait = detail["tasks"].as_array().unwrap().iter().find_map(|task| task["wait"]["code"].as_str());
    assert!(matches!(wait, Some("quarantined" | "backoff")), "{detail}");
    let metrics = node.client.get("/metrics").await.1;
    let failures =
        metrics.as_str().unwrap().lines().find(|line| line.starts_with("assay_verification_failures_total"));
    assert!(failures.is_some_and(|line| !line.ends_with(" 0")), "{failures:?}");
    let _honest = cluster.agent(2, Habits::default());
    node.client.wait_for(id, "settled").await;
    drop(liar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_newest_first_and_filtered() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let client = &node.client;
    let mut ids = Vec::new();
    for chain in 0..5 {
        ids.push(client.submitted(&format!("c{chain}"), Shape::new(chain)).await);
    }
    client.send(client.request("DELETE", &format!("/v1/batches/{}", ids[3]))).await;
    let page = |query: &str| {
        let path = format!("/v1/batches{query}");
        async move {
            let (status, body) = client.get(&path).await;
            assert_eq!(status, 200, "{body}");
            let ids: Vec<u64> = body["batches"]
                .as_array()
                .unwrap()
                .iter()
                .map(|batch| batch["id"].as_u64().unwrap())
                .collect();
            (ids, body["next"].as_u64())
        }
    };
    let newest: Vec<u64> = ids.iter().rev().copied().collect();
    assert_eq!(page("").await, (newest.clone(), None));
    assert_eq!(page("?limit=2").await, (newest[..2].to_vec(), Some(newest[1])));
    assert_eq!(page(&format!("?limit=3&before={}", newest[1])).await, (newest[2..].to_vec(), None));
    assert_eq!(page("?phase=cancelled").await, (vec![ids[3]], None));
    for wrong in ["?limit=0", "?limit=1000", "?limit=x", "?phase=none", "?unknown=1", "?before=-1"] {
        let (status, body) = client.get(&format!("/v1/batches{wrong}")).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("invalid_request")), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_asks_too_often_has_to_wait_and_others_do_not() {
    let cluster = Cluster::with_keys("requests_per_second = 0.5\nburst = 3");
    let node = cluster.node().await;
    for _ in 0..3 {
        assert_eq!(node.client.get("/v1/batches").await.0, 200);
    }
    let answer = node.client.request("GET", "/v1/batches").send().await.unwrap();
    assert_eq!(answer.status(), 429);
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(node.client.with_key(&cluster.other_key).get("/v1/batches").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_describes_exactly_what_is_served() {
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let (status, document) = node.client.get("/openapi.json").await;
    assert_eq!(status, 200);
    assert_eq!(document["openapi"].as_str().map(|version| &version[..2]), Some("3."));
    let paths = document["paths"].as_object().unwrap();
    let served: Vec<&str> = include_str!("../../src/api.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once('"'))
        .map(|(path, _)| path)
        .filter(|path| *path != "/" && !path.starts_with("/page."))
        .collect();
    assert!(served.len() > 10);
    let mut described: Vec<&str> = paths.keys().map(String::as_str).collect();
    let mut expected = served.clone();
    described.sort_unstable();
    expected.sort_unstable();
    assert_eq!(described, expected);
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{id}", "1").replace("{name}", "x");
            let request = node.client.request(&method.to_uppercase(), &path);
            let answer = request.send().await.unwrap();
            assert_ne!(answer.status(), 405, "{method} {path}");
        }
        let other = node.client.send(node.client.request("PATCH", &path.replace("{id}", "1"))).await;
        assert_eq!((other.0, other.1["code"].as_str()), (405, Some("method_not_allowed")), "{path}");
    }
}

/// Every object of a document with the path that leads to it.
fn objects<'a>(value: &'a Value, path: &str, found: &mut Vec<(String, &'a serde_json::Map<String, Value>)>) {
    match value {
        Value::Object(fields) => {
            found.push((path.to_owned(), fields));
            fields.iter().for_each(|(name, value)| objects(value, &format!("{path}/{name}"), found));
        }
        Value::Array(values) => {
            (0..)
                .zip(values)
                .for_each(|(at, value): (usize, _)| objects(value, &format!("{path}/{at}"), found));
        }
        _ => {}
    }
}

/// What the specification of OpenAPI 3.1 asks of a document, as far as this one uses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_valid() {
    let cluster = Cluster::new();
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    let request = axum::http::Request::get("/openapi.json").body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(cluster.service().router(stopping), request).await.unwrap();
    let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for field in ["title", "version"] {
        assert!(document["info"][field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    assert_eq!(
        (schemes["key"]["type"].as_str(), schemes["key"]["scheme"].as_str()),
        (Some("http"), Some("bearer"))
    );
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"]
                .as_str()
                .unwrap_or_else(|| panic!("{method} {path} has no operationId"));
            assert!(ids.insert(id.to_owned()), "{id} twice");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let mut named = std::collections::BTreeSet::new();
            for parameter in &parameters {
                let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
                assert!(
                    ["path", "query", "header"].contains(&place) && parameter["schema"].is_object(),
                    "{id} {name}"
                );
                assert!(named.insert((name, place)), "{id} {name} twice");
                assert_eq!(place == "path", parameter["required"] == true, "{id} {name}");
            }
            let segments = path.split(['{', '}']).skip(1).step_by(2);
            for segment in segments {
                assert!(named.remove(&(segment, "path")), "{id}: {segment} is not described");
            }
            assert!(
                named.iter().all(|(_, place)| *place != "path"),
                "{id} has a parameter that its path has not"
            );
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{id}");
            for (status, response) in responses {
                let is_status =
                    status.len() == 3 && (status.ends_with("XX") || status.parse::<u16>().is_ok());
                assert!(is_status && response["description"].is_string(), "{id} {status}");
            }
            let is_open = operation["security"] == serde_json::json!([{}]);
            let is_system = operation["tags"] == serde_json::json!(["system"]);
            assert_eq!(is_open, is_system, "{id}: {}", operation["security"]);
        }
    }
    let mut found = Vec::new();
    objects(&document, "", &mut found);
    for (path, fields) in found {
        if let Some(reference) = fields.get("$ref") {
            let target = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(target).is_some(), "{path}: {target}");
        }
        if let (Some(required), Some(properties)) = (fields.get("required"), fields.get("properties")) {
            let required = required.as_array().unwrap();
            assert!(required.iter().all(|name| properties.get(name.as_str().unwrap()).is_some()), "{path}");
        }
    }
    // Codes of problems are part of the contract.
    let codes = &document["components"]["schemas"]["Code"]["enum"];
    let codes: Vec<&str> = codes.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(codes, assay_service::problem::Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
}

#[test]
fn the_stand_ins_depend_on_their_inputs() {
    let shape = Shape::new(1);
    let one = output(assay_schedule::Kind::Wrap, &[shape.bytes()], 0);
    assert_ne!(one, output(assay_schedule::Kind::Fold, &[shape.bytes()], 0));
    assert_ne!(one, output(assay_schedule::Kind::Wrap, &[shape.next().bytes()], 0));
}
