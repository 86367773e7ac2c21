//! A relay between one process and Redis that can be told to misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It goes through.
    Relay,
    /// It waits, and goes through later: also what its sender has given up long ago.
    Stall,
    /// Connections end; new ones too.
    Cut,
}

/// Between a request whose answer is to be lost and the end of its connection: time for Redis to read it.
const DEAF: Duration = Duration::from_millis(300);

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToRedis,
    ToProcess,
}

/// What happens to what a trap waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snare {
    /// It waits, with all that comes after it: [`Mode::Stall`].
    Stall,
    /// It goes through, and its answer is lost with the connection.
    LoseAnswer,
}

/// Waits for something to pass; the first that does springs it.
#[derive(Clone)]
pub(crate) struct Trap {
    pub way: Way,
    /// What to look for, and a number in it.
    pub finds: fn(&[u8]) -> Option<u64>,
    pub snare: Snare,
    /// The same for all proxies that a trap is set in: only one of them springs.
    pub is_armed: Arc<AtomicBool>,
    /// Told the number of the proxy, as it was given, and the number found.
    pub sprung: mpsc::UnboundedSender<(usize, u64)>,
    pub proxy: usize,
}

/// Listens on a free loopback port; ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    lose_answer: Arc<AtomicBool>,
    trap: Arc<Mutex<Option<Trap>>>,
    task: JoinHandle<()>,
}

/// What a connection has to know.
#[derive(Clone)]
struct Rules {
    mode: watch::Sender<Mode>,
    lose_answer: Arc<AtomicBool>,
    trap: Arc<Mutex<Option<Trap>>>,
}

impl Proxy {
    /// Relays to a port of this machine.
    pub(crate) async fn start(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Relay);
        let (lose_answer, trap) = (Arc::default(), Arc::default());
        let rules =
            Rules { mode: mode.clone(), lose_answer: Arc::clone(&lose_answer), trap: Arc::clone(&trap) };
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while relays.try_join_next().is_some() {}
                relays.spawn(relay(client, port, rules.clone()));
            }
        });
        Ok(Self { address, mode, lose_answer, trap, task })
    }

    /// Where it listens, as a URL of Redis.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Ends the connection that has the next answer in its place: what was asked for is done.
    pub(crate) fn lose_answer(&self) {
        self.lose_answer.store(true, Ordering::SeqCst);
    }

    /// Sets a trap in the place of the one before.
    pub(crate) fn set_trap(&self, trap: Trap) {
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
    }
}

impl Rules {
    /// What is to happen to some bytes that pass.
    fn catch(&self, way: Way, bytes: &[u8]) -> Option<Snare> {
        let trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let trap = trap.as_ref().filter(|trap| trap.way == way && trap.is_armed.load(Ordering::SeqCst))?;
        let found = (trap.finds)(bytes)?;
        if !trap.is_armed.swap(false, Ordering::SeqCst) {
            return None;
        }
        if trap.snare == Snare::Stall {
            self.mode.send_replace(Mode::Stall);
        }
        // Whoever has set it may have gone.
        let _ = trap.sprung.send((trap.proxy, found));
        Some(trap.snare)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, port: u16, rules: Rules) {
    let mode = rules.mode.subscribe();
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let is_deaf = AtomicBool::new(false);
    // When one direction ends, so does the other.
    tokio::select! {
        () = ask(from_client, to_server, &rules, &is_deaf) => {}
        () = answer(from_server, to_client, &rules, &is_deaf) => {}
        () = until(mode, |mode| mode == Mode::Cut) => {}
    }
}

async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rules: &Rules, is_deaf: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let caught = rules.catch(Way::ToRedis, &buffer[..read]);
        if caught == Some(Snare::LoseAnswer) {
            is_deaf.store(true, Ordering::SeqCst);
        }
        until(rules.mode.subscribe(), |mode| mode != Mode::Stall).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if caught == Some(Snare::LoseAnswer) {
            return tokio::time::sleep(DEAF).await;
        }
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rules: &Rules, is_deaf: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if is_deaf.load(Ordering::SeqCst) {
            continue;
        }
        if rules.lose_answer.swap(false, Ordering::SeqCst) {
            return;
        }
        rules.catch(Way::ToProcess, &buffer[..read]);
        until(rules.mode.subscribe(), |mode| mode != Mode::Stall).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn until(mut mode: watch::Receiver<Mode>, wanted: impl Fn(Mode) -> bool) {
    if mode.wait_for(|mode| wanted(*mode)).await.is_err() {
        // The proxy is gone, and with it this task.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Answers every byte with the next one.
    async fn server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        let _ = stream.write_u8(byte + 1).await;
                    }
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn what_is_stalled_arrives_late_and_what_is_cut_never() {
        let proxy = Proxy::start(server().await).await.unwrap();
        let connect = || TcpStream::connect(proxy.address);
        let mut stream = connect().await.unwrap();
        stream.write_u8(1).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 2);
        proxy.set(Mode::Stall);
        stream.write_u8(5).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(early.is_err(), "{early:?}");
        proxy.set(Mode::Relay);
        assert_eq!(stream.read_u8().await.unwrap(), 6);
        proxy.set(Mode::Cut);
        assert!(stream.read_u8().await.is_err());
        assert!(connect().await.unwrap().read_u8().await.is_err(), "a new connection comes about");
        proxy.set(Mode::Relay);
        let mut stream = connect().await.unwrap();
        proxy.lose_answer();
        stream.write_u8(1).await.unwrap();
        assert!(stream.read_u8().await.is_err());
        let mut stream = connect().await.unwrap();
        stream.write_u8(8).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 9);
    }

    #[tokio::test]
    async fn a_trap_springs_once_at_what_it_waits_for() {
        let (one, other) =
            (Proxy::start(server().await).await.unwrap(), Proxy::start(server().await).await.unwrap());
        let (sprung, mut caught) = mpsc::unbounded_channel();
        let finds = |bytes: &[u8]| bytes.contains(&7).then_some(77);
        let is_armed = Arc::new(AtomicBool::new(true));
        let trap = Trap { way: Way::ToRedis, finds, snare: Snare::Stall, is_armed, sprung, proxy: 1 };
        one.set_trap(Trap { proxy: 0, ..trap.clone() });
        other.set_trap(trap.clone());
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(200));
        let ask = |proxy: &Proxy, byte: u8, wait: Duration| {
            let stream = TcpStream::connect(proxy.address);
            async move {
                let mut stream = stream.await.unwrap();
                stream.write_u8(byte).await.unwrap();
                tokio::time::timeout(wait, stream.read_u8()).await
            }
        };
        assert_eq!(ask(&other, 3, long).await.unwrap().unwrap(), 4);
        assert!(ask(&other, 7, short).await.is_err(), "it is held back");
        assert_eq!(caught.recv().await, Some((1, 77)));
        assert_eq!(ask(&one, 7, long).await.unwrap().unwrap(), 8, "only one of them springs");
        other.set(Mode::Relay);
        assert_eq!(ask(&other, 7, long).await.unwrap().unwrap(), 8);
        trap.is_armed.store(true, Ordering::SeqCst);
        one.set_trap(Trap { snare: Snare::LoseAnswer, proxy: 0, ..trap });
        let mut stream = TcpStream::connect(one.address).await.unwrap();
        stream.write_u8(7).await.unwrap();
        assert!(stream.read_u8().await.is_err(), "its answer is lost");
        assert_eq!(caught.recv().await, Some((0, 77)));
    }
}
