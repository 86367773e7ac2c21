//! A relay between one process and Redis that can be told to misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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

/// Listens on a free loopback port; ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    lose_answer: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Relays to a port of this machine.
    pub(crate) async fn start(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, watching) = watch::channel(Mode::Relay);
        let lose_answer = Arc::new(AtomicBool::new(false));
        let lose = Arc::clone(&lose_answer);
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while relays.try_join_next().is_some() {}
                relays.spawn(relay(client, port, watching.clone(), Arc::clone(&lose)));
            }
        });
        Ok(Self { address, mode, lose_answer, task })
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, port: u16, mode: watch::Receiver<Mode>, lose: Arc<AtomicBool>) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // When one direction ends, so does the other.
    tokio::select! {
        () = pump(from_client, to_server, mode.clone(), None) => {}
        () = pump(from_server, to_client, mode.clone(), Some(&lose)) => {}
        () = until(mode, |mode| mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mode: watch::Receiver<Mode>,
    lose: Option<&AtomicBool>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if lose.is_some_and(|lose| lose.swap(false, Ordering::SeqCst)) {
            return;
        }
        until(mode.clone(), |mode| mode != Mode::Stall).await;
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
}
