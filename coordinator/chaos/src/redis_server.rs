//! The cluster's Redis: a real server on a loopback port, with an append-only file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use crate::child::Process;
use crate::error::ChaosError;

/// How long a server may take until it has loaded its data.
const START_MAX: Duration = Duration::from_secs(20);
const COMMAND_MAX: Duration = Duration::from_secs(2);
/// Memory while there is enough of it.
const MAXMEMORY: &str = "512mb";

/// The server.
pub(crate) struct RedisServer {
    dir: PathBuf,
    port: Port,
    has_aof: bool,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts a server in a folder of its own.
    pub(crate) fn start(dir: &Path, has_aof: bool) -> Result<Self, ChaosError> {
        std::fs::create_dir_all(dir).map_err(ChaosError::file("create", dir))?;
        let port = Port::reserve()?;
        let mut server = Self { dir: dir.to_owned(), port, has_aof, process: None };
        server.launch()?;
        server.wait()?;
        Ok(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, without waiting for it.
    pub(crate) fn launch(&mut self) -> Result<(), ChaosError> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        command.args(["--port", &self.port.number.to_string(), "--dir"]).arg(&self.dir);
        command.args(["--maxmemory", MAXMEMORY, "--maxmemory-policy", "noeviction"]);
        // `always`: what was answered is in the file, whenever the process dies.
        command.args(["--appendonly", if self.has_aof { "yes" } else { "no" }, "--appendfsync", "always"]);
        let started = Process::start(&mut command, &self.dir.join("redis.log"));
        let start = |source| ChaosError::Start { program: "redis-server".into(), source };
        self.process = Some(started.map_err(start)?);
        Ok(())
    }

    /// Waits until it has loaded its data.
    pub(crate) fn wait(&mut self) -> Result<(), ChaosError> {
        self.insist(&["PING"])
    }

    /// Runs a command until it is answered.
    fn insist(&mut self, words: &[&str]) -> Result<(), ChaosError> {
        let begun = Instant::now();
        loop {
            let error = match self.command(words) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let ended = self.process.as_mut().is_none_or(|process| process.ended().is_some());
            if ended || begun.elapsed() > START_MAX {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pause(&self, is_paused: bool) {
        if let Some(process) = &self.process {
            process.pause(is_paused);
        }
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// Leaves no memory for more data (`true`), or gives it back; data may be thrown away only if `evicts`.
    pub(crate) fn fill(&mut self, is_full: bool, evicts: bool) -> Result<(), ChaosError> {
        if is_full && evicts {
            self.insist(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"])?;
        }
        // Less than what any Redis needs: full at once.
        self.insist(&["CONFIG", "SET", "maxmemory", if is_full { "100kb" } else { MAXMEMORY }])
    }

    fn command(&self, words: &[&str]) -> Result<redis::Value, ChaosError> {
        let run = || {
            let client = redis::Client::open(self.url())?;
            let mut connection = client.get_connection_with_timeout(COMMAND_MAX)?;
            connection.set_read_timeout(Some(COMMAND_MAX))?;
            let (name, arguments) = words.split_first().unwrap_or((&"PING", &[]));
            redis::cmd(name).arg(arguments).query::<redis::Value>(&mut connection)
        };
        run().map_err(|error| ChaosError::Redis { reason: error.to_string() })
    }
}

/// A port of the loopback address that nobody else is given while this lives. Whoever sets `SO_REUSEADDR`, as servers do, can listen there.
pub(crate) struct Port {
    /// Bound, never listening.
    _socket: TcpSocket,
    pub(crate) number: u16,
}

impl Port {
    pub(crate) fn reserve() -> Result<Self, ChaosError> {
        let reserve = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let number = socket.local_addr()?.port();
            Ok(Self { _socket: socket, number })
        };
        reserve().map_err(|source| ChaosError::System { what: "get a free port", source })
    }
}
