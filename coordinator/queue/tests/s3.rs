//! Large artifacts in an S3 bucket, played by a small server.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_queue::testing::RedisServer;
use assay_queue::{ArtifactStore, BackendError, Class, Holder, ObjectsConfig, SharedStore, StoreError};
use common::config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Objects and parts of uploads by path; how many requests were signed with our key.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, u32), Vec<u8>>,
    signed: usize,
    unsigned: usize,
}

type Shared = Arc<Mutex<Bucket>>;

async fn serve() -> (String, Shared) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bucket = Shared::default();
    let served = bucket.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, served.clone()));
        }
    });
    (url, bucket)
}

/// Requests of one connection, until it ends.
async fn converse(mut stream: TcpStream, bucket: Shared) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(buffer[..head_end].to_vec()).ok()?;
        let header = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let length: usize = header("content-length").map_or(0, |(_, value)| value.parse().unwrap());
        while buffer.len() < head_end + length {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let body = buffer[head_end..head_end + length].to_vec();
        buffer.drain(..head_end + length);
        let is_signed =
            header("authorization").is_some_and(|(_, value)| value.contains("Credential=key-id/"));
        let mut words = head.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let (status, answer) = {
            let mut bucket = bucket.lock().unwrap();
            *(if is_signed { &mut bucket.signed } else { &mut bucket.unsigned }) += 1;
            bucket.answer(method, target, body)
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"e\"\r\nLast-Modified: Mon, 05 Oct 2026 07:00:00 GMT\r\n\r\n",
            answer.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&answer).await.ok()?;
    }
}

impl Bucket {
    fn answer(&mut self, method: &str, target: &str, body: Vec<u8>) -> (&'static str, Vec<u8>) {
        const OK: &str = "200 OK";
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.to_owned();
        let part =
            query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).map(|n| n.parse().unwrap());
        match (method, part) {
            ("POST", _) if query.starts_with("delete") => {
                let text = String::from_utf8(body).unwrap();
                let mut deleted = "<DeleteResult>".to_owned();
                for key in text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()) {
                    self.objects.remove(&format!("/bucket/{key}"));
                    deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
                }
                (OK, (deleted + "</DeleteResult>").into_bytes())
            }
            ("POST", _) if query.starts_with("uploads") => {
                let id =
                    "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
                (OK, id.as_bytes().to_vec())
            }
            ("POST", _) => {
                let whole =
                    self.parts.iter().filter(|((of, _), _)| *of == path).flat_map(|(_, part)| part.clone());
                self.objects.insert(path.clone(), whole.collect());
                self.parts.retain(|(of, _), _| *of != path);
                let etag = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
                (OK, etag.as_bytes().to_vec())
            }
            ("PUT", Some(number)) => {
                self.parts.insert((path, number), body);
                (OK, Vec::new())
            }
            ("PUT", None) => {
                self.objects.insert(path, body);
                (OK, Vec::new())
            }
            ("GET", _) if query.contains("list-type=2") => (OK, self.list()),
            ("GET", _) => match self.objects.get(&path) {
                Some(bytes) => (OK, bytes.clone()),
                None => ("404 Not Found", Vec::new()),
            },
            ("DELETE", _) => {
                self.objects.remove(&path);
                ("204 No Content", Vec::new())
            }
            _ => ("400 Bad Request", Vec::new()),
        }
    }

    fn list(&self) -> Vec<u8> {
        let mut list = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        for (path, bytes) in &self.objects {
            let (key, size) = (path.strip_prefix("/bucket/").unwrap(), bytes.len());
            list += &format!(
                "<Contents><Key>{key}</Key><LastModified>2026-10-05T07:00:00.000Z</LastModified>\
                 <ETag>e</ETag><Size>{size}</Size></Contents>"
            );
        }
        (list + "</ListBucketResult>").into_bytes()
    }
}

fn holder(name: &str) -> Holder {
    Holder::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_artifacts_go_to_a_bucket_signed_in_parts_and_checked() {
    let redis = RedisServer::start();
    let (endpoint, bucket) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "very secret\n").unwrap();
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let objects = ObjectsConfig {
        options: vec![
            option("endpoint", &endpoint),
            option("allow_http", "true"),
            option("region", "here"),
            option("access_key_id", "key-id"),
        ],
        secret_file: Some(secret),
        ..ObjectsConfig::new("s3://bucket/some/prefix")
    };
    let store = SharedStore::open(config(redis.url()), &objects, common::shared_limits()).await.unwrap();
    for size in [5_000, 17 << 20] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let hash = store.put(&holder("a/1"), bytes.clone()).await.unwrap().hash;
        assert_eq!(store.get(&hash).await.unwrap(), bytes);
        let path = bucket.lock().unwrap().objects.keys().next().unwrap().clone();
        assert!(path.starts_with("/bucket/some/prefix/test/"), "{path}");
        bucket.lock().unwrap().objects.get_mut(&path).unwrap()[3] ^= 1;
        assert!(matches!(store.get(&hash).await, Err(StoreError::Corrupt { .. })));
        store.put(&holder("a/2"), bytes.clone()).await.unwrap();
        assert_eq!(store.get(&hash).await.unwrap(), bytes);
        store.release(&holder("a")).await.unwrap();
        store.sweep(Duration::ZERO).await.unwrap();
        assert_eq!(bucket.lock().unwrap().objects.len(), 0);
        assert!(matches!(store.get(&hash).await, Err(StoreError::Missing { .. })));
    }
    let orphan = format!("/bucket/some/prefix/test/aa/{}.0123.5", "aa".repeat(32));
    bucket.lock().unwrap().objects.insert(orphan, b"12345".to_vec());
    let swept = store.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.blobs, swept.bytes), (1, 5));
    let bucket = bucket.lock().unwrap();
    assert!(bucket.signed > 10 && bucket.unsigned == 0, "{} {}", bucket.signed, bucket.unsigned);
    assert!(bucket.parts.is_empty());
}

#[tokio::test]
async fn a_bad_place_for_objects_is_refused() {
    let redis = RedisServer::start();
    let secret = ("access_key_id".to_owned(), "value that is secret".to_owned());
    for (url, options) in [
        ("ftp://x", vec![]),
        ("file://relative", vec![]),
        ("file:///tmp", vec![secret.clone()]),
        ("s3://bucket", vec![("no_such_option".to_owned(), "value that is secret".to_owned())]),
    ] {
        let objects = ObjectsConfig { options, ..ObjectsConfig::new(url) };
        let error =
            SharedStore::open(config(redis.url()), &objects, common::shared_limits()).await.err().unwrap();
        assert!(
            matches!(error, BackendError::Config { .. }) && error.class() == Class::Permanent,
            "{url}: {error}"
        );
        assert!(!error.to_string().contains("secret") && !format!("{objects:?}").contains("that is secret"));
    }
}
