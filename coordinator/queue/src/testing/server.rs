//! A Redis server of one test, in a folder of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Whether it keeps an append-only file, written before each answer.
    pub has_aof: bool,
    /// Further arguments, each as on the command line: `--maxmemory 1mb`.
    pub arguments: Vec<String>,
    /// TLS files: certificate, key and the authority of clients.
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
    /// Whether it is a Sentinel; `arguments` is then its configuration file, line by line.
    pub is_sentinel: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { has_aof: true, arguments: Vec::new(), tls: None, is_sentinel: false }
    }
}

impl ServerOptions {
    /// A server with an append-only file and these further arguments.
    pub fn with(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(|a| (*a).to_owned()).collect(), ..Self::default() }
    }
}

/// A running server on a free loopback port; ends when dropped.
pub struct RedisServer {
    folder: tempfile::TempDir,
    options: ServerOptions,
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a server with an append-only file.
    ///
    /// # Panics
    /// If it does not start; says how to install it where it is missing.
    pub fn start() -> Self {
        Self::start_with(ServerOptions::default())
    }

    /// Starts a server.
    ///
    /// # Panics
    /// If it does not start; says how to install it where it is missing.
    pub fn start_with(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a redis server");
        let mut server = Self { folder, options, port: free_port(), child: None };
        server.spawn();
        server
    }

    /// Its URL, without a login.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // `Child::kill` is SIGKILL. An error means that it is dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after [`kill`](Self::kill), on the same port and with the same data.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Stops it without ending it (`true`), or lets it go on (`false`).
    ///
    /// # Panics
    /// If there is no server.
    pub fn pause(&self, is_paused: bool) {
        let child = self.child.as_ref().expect("a server that runs");
        let signal = if is_paused { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Runs a command as the default user.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// What it says of itself: a section of `INFO`.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn info(&self, section: &str) -> String {
        redis::from_redis_value(self.command(&["INFO", section])).expect("a text")
    }

    /// Runs a command as the default user.
    ///
    /// # Errors
    /// What the server answers, or that it does not.
    pub fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let (name, arguments) = words.split_first().expect("a command has a name");
        redis::cmd(name).arg(arguments).query(&mut connection)
    }

    fn spawn(&mut self) {
        let deadline = Instant::now() + START_MAX;
        let mut child = self.launch();
        loop {
            if let Some(status) = child.try_wait().expect("a child to ask") {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                // Somebody else may have taken the port meanwhile.
                if self.child.is_none() && log.contains("Address already in use") && Instant::now() < deadline
                {
                    self.port = free_port();
                    child = self.launch();
                    continue;
                }
                panic!("redis-server ended with {status}:\n{log}");
            }
            if self.answers() {
                break;
            }
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("redis-server does not answer within {START_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
    }

    /// Whether it has loaded its data. Through TLS only whether it listens.
    fn answers(&self) -> bool {
        if self.options.tls.is_some() {
            return std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        }
        match self.try_command(&["PING"]) {
            Ok(_) => true,
            Err(error) => matches!(error.code(), Some("NOAUTH" | "NOPERM")),
        }
    }

    fn launch(&self) -> Child {
        let folder = self.folder.path();
        let mut command = Command::new("redis-server");
        if self.options.is_sentinel {
            let path = folder.join("sentinel.conf");
            let port = format!("port {}\nbind 127.0.0.1\ndir {}\n", self.port, folder.display());
            std::fs::write(&path, port + &self.options.arguments.join("\n"))
                .expect("a configuration to write");
            command.arg(path).args(["--sentinel", "--logfile"]).arg(folder.join("log"));
        } else {
            command.args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--dir"]).arg(folder);
            command.arg("--logfile").arg(folder.join("log"));
            command.args(["--appendonly", if self.options.has_aof { "yes" } else { "no" }]);
            command.args(["--appendfsync", "always"]);
            match &self.options.tls {
                None => command.args(["--port", &self.port.to_string()]),
                Some((certificate, key, authority)) => {
                    command.args(["--port", "0", "--tls-port", &self.port.to_string(), "--tls-cert-file"]);
                    command.arg(certificate).arg("--tls-key-file").arg(key);
                    command.arg("--tls-ca-cert-file").arg(authority)
                }
            };
            // Back-pressure goes by it; a later argument wins.
            command.args(["--maxmemory", "1gb"]);
            command.args(self.options.arguments.iter().flat_map(|argument| argument.split(' ')));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.unwrap_or_else(|error| {
            panic!("redis-server cannot be started ({error}): run `make setup`, which installs it")
        })
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").port()
}
