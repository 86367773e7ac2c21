//! The live page in a real browser: headless Chromium, driven over WebDriver. Screenshots stay as test output.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{json, Value};

use crate::agent::Habits;
use crate::cluster::{until, Cluster};
use crate::simple::Shape;

/// A browser; ends with its driver.
struct Browser {
    driver: Child,
    http: reqwest::Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver takes the browser with it when it is asked to end, not when it is killed.
        let pid = self.driver.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.driver.wait();
    }
}

fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    programs
        .iter()
        .find_map(|program| folders.iter().map(|folder| folder.join(program)).find(|file| file.is_file()))
}

impl Browser {
    /// Starts one; the error says what is missing.
    async fn start() -> Result<Self, &'static str> {
        let browser =
            find(&["chromium", "chromium-browser", "google-chrome"]).ok_or("chromium is not installed")?;
        let driver =
            find(&["chromedriver"]).ok_or("chromedriver is not installed (package chromium-driver)")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the driver starts");
        let profile = tempfile::tempdir().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut made = Self { driver, http, session: format!("http://127.0.0.1:{port}"), _profile: profile };
        until("the driver answers", || async { made.command("GET", "/status", None).await.is_some() }).await;
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1500,1100",
            &format!("--user-data-dir={}", made._profile.path().display()),
        ];
        let options = json!({"binary": browser, "args": arguments});
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let session = made.command("POST", "/session", Some(wanted)).await.expect("the browser starts");
        let id = session["sessionId"].as_str().expect("a session has a number").to_owned();
        made.session = format!("{}/session/{id}", made.session);
        Ok(made)
    }

    async fn command(&self, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
        let url = format!("{}{path}", self.session);
        let mut request = self.http.request(method.parse().unwrap(), url).timeout(Duration::from_secs(60));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let is_success = answer.status().is_success();
        let body: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        assert!(is_success, "{path}: {body}");
        Some(body["value"].clone())
    }

    async fn open(&self, url: &str) {
        self.command("POST", "/url", Some(json!({ "url": url }))).await.expect("the page opens");
    }

    async fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height});
        self.command("POST", "/window/rect", Some(size)).await.expect("the window has a size");
    }

    /// Runs a script and returns what it returns.
    async fn run(&self, script: &str) -> Value {
        let call = json!({"script": script, "args": []});
        self.command("POST", "/execute/sync", Some(call)).await.expect("the script runs")
    }

    /// Waits until an expression is true.
    async fn until(&self, expression: &str) {
        until(expression, || async { self.run(&format!("return Boolean({expression})")).await == true })
            .await;
    }

    /// Keeps a screenshot as test output.
    async fn shoot(&self, name: &str) {
        let picture = self.command("GET", "/screenshot", None).await.expect("a screenshot");
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{} bytes", bytes.len());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        println!("screenshot: {}", path.display());
    }
}

/// Signs in on an open page.
async fn sign_in(browser: &Browser, key: &str) {
    // Without a key the page asks for one; a wrong one is refused; the right one is taken and kept in this tab only.
    browser.until("!document.querySelector('#login').hidden").await;
    let enter = |key: &str| {
        format!("document.querySelector('#key').value = '{key}'; document.querySelector('#login').requestSubmit();")
    };
    browser.run(&enter("assay_wrong")).await;
    browser.until("document.querySelector('#login-error').textContent.includes('not valid')").await;
    browser.run(&enter(key)).await;
    browser.until("document.querySelectorAll('#list li').length == 2").await;
    assert_eq!(browser.run("return localStorage.getItem('assay-key')").await, Value::Null);
    assert_eq!(browser.run("return sessionStorage.getItem('assay-key')").await, key);
}

/// The browser's own log tells of nothing but the refused key.
async fn nothing_severe(browser: &Browser) {
    let log = browser.command("POST", "/se/log", Some(json!({"type": "browser"}))).await;
    let log = log.expect("the browser has a log");
    let is_severe =
        |entry: &&Value| entry["level"] == "SEVERE" && !entry["message"].to_string().contains("401");
    let severe: Vec<&Value> = log.as_array().expect("a list of entries").iter().filter(is_severe).collect();
    assert!(severe.is_empty(), "{severe:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_batch_while_it_is_proved() {
    let browser = match Browser::start().await {
        Ok(browser) => browser,
        Err(reason) => {
            // Past the harness, which keeps what tests print to itself.
            let _ = writeln!(std::io::stderr(), "skipped: the page is not tested: {reason}");
            return;
        }
    };
    let cluster = Cluster::new();
    let node = cluster.node().await;
    let slow = Habits { delay: Duration::from_millis(700), slots: 2, ..Habits::default() };
    let agents = [cluster.agent(1, slow.clone()), cluster.agent(2, slow)];
    agents.iter().for_each(|agent| agent.hurry(true));
    let settled =
        node.client.submitted("settled-before", Shape { runs: 1, shards: 1, ..Shape::new(7) }).await;
    node.client.wait_for(settled, "settled").await;
    agents.iter().for_each(|agent| agent.hurry(false));
    // More than will be done while the page is looked at.
    let id = node.client.submitted("nightly-0042", Shape { runs: 3, shards: 250, ..Shape::new(1) }).await;

    browser.open(&format!("http://{}/", node.address)).await;
    sign_in(&browser, &cluster.key).await;

    // The batch in work is chosen by itself; it has lanes, spans, reasons for waiting and an ETA, and all that moves.
    browser.until(&format!("document.querySelector('#detail-title').textContent == 'Batch #{id}'")).await;
    browser.until("document.querySelectorAll('#timeline .lane').length == 2").await;
    browser.until("document.querySelectorAll('#timeline .span-accepted').length >= 8").await;
    browser.until("document.querySelectorAll('#timeline .span-running').length >= 2").await;
    browser.until("document.querySelector('#waiting td[data-code=busy]')").await;
    browser.until("/in [0-9]/.test(document.querySelector('#facts').textContent)").await;
    browser.until("document.querySelectorAll('#workers tr').length == 2").await;
    let lanes = "[...document.querySelectorAll('#timeline .worker')].map((t) => t.firstChild.data).join()";
    browser.until(&format!("{lanes} == 'w1,w2'")).await;
    let stages = "return [...document.querySelectorAll('#stages li')].map((s) => s.dataset.kind + ' ' + s.className).join()";
    assert_eq!(
        browser.run(stages).await,
        "execute done,block running,fold waiting,wrap waiting,groth16 waiting"
    );
    browser.run("document.querySelector('#theme').click()").await;
    assert_eq!(browser.run("return document.documentElement.dataset.theme").await, "dark");
    browser.shoot("running-dark.png").await;
    browser.run("document.querySelector('#theme').click()").await;
    browser.shoot("running-light.png").await;
    let before = browser.run("return document.querySelectorAll('#timeline .span-accepted').length").await;
    let more = format!("document.querySelectorAll('#timeline .span-accepted').length > {before}");
    browser.until(&more).await;

    // On a narrow screen nothing is cut off but the timeline, which scrolls by itself.
    browser.resize(420, 900).await;
    browser.until("innerWidth <= 500 && document.documentElement.scrollWidth <= innerWidth").await;
    browser.shoot("narrow.png").await;
    browser.resize(1500, 1100).await;

    // Another batch can be looked at meanwhile, with its files.
    browser.run(&format!("[...document.querySelectorAll('#list button')].find((b) => b.textContent.startsWith('#{settled} ')).click()")).await;
    browser.until("document.querySelector('#facts').textContent.includes('settled')").await;
    browser.until("document.querySelectorAll('#files li').length == 3").await;
    browser.shoot("settled.png").await;

    // The end arrives without a reload.
    agents.iter().for_each(|agent| agent.hurry(true));
    browser.run(&format!("[...document.querySelectorAll('#list button')].find((b) => b.textContent.startsWith('#{id} ')).click()")).await;
    browser.until("document.querySelector('#facts').textContent.includes('Phasesettled')").await;
    browser.until("document.querySelector('#waiting-box').hidden").await;
    nothing_severe(&browser).await;
}
