//! A relay between a client and a server that can cut the connection at a chosen moment.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const RELAY: u8 = 0;
/// Requests go through, the next answer does not, and the connection ends there.
const LOSE_ANSWER: u8 = 1;
/// The next request does not go through, and the connection ends there.
const LOSE_REQUEST: u8 = 2;
/// Nothing goes through; connections stay open.
const PARTITION: u8 = 3;

/// Listens on a free loopback port and relays to a server; ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    cuts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Relays to `port` of this machine.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (mode, cuts) = (Arc::new(AtomicU8::new(RELAY)), Arc::new(AtomicU64::new(0)));
        let (relay_mode, relay_cuts) = (mode.clone(), cuts.clone());
        let task = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                relays.spawn(relay(client, port, relay_mode.clone(), relay_cuts.clone()));
            }
        });
        Self { address, mode, cuts, task }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Cuts the connection in the place of the next answer: its request has been carried out.
    pub fn lose_next_answer(&self) {
        self.mode.store(LOSE_ANSWER, Ordering::SeqCst);
    }

    /// Cuts the connection in the place of the next request: it is not carried out.
    pub fn lose_next_request(&self) {
        self.mode.store(LOSE_REQUEST, Ordering::SeqCst);
    }

    /// Holds everything back (`true`), or relays again (`false`); what was held back is lost.
    pub fn partition(&self, is_partitioned: bool) {
        self.mode.store(if is_partitioned { PARTITION } else { RELAY }, Ordering::SeqCst);
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut client: TcpStream, port: u16, mode: Arc<AtomicU8>, cuts: Arc<AtomicU64>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    // Latency is measured through it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    let cut = |from: u8| {
        let is_cut = mode.compare_exchange(from, RELAY, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        cuts.fetch_add(u64::from(is_cut), Ordering::SeqCst);
        is_cut
    };
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(read @ 1..) = read else { return };
                if cut(LOSE_REQUEST) {
                    return;
                }
                if mode.load(Ordering::SeqCst) != PARTITION && server.write_all(&request[..read]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(read @ 1..) = read else { return };
                if cut(LOSE_ANSWER) {
                    return;
                }
                if mode.load(Ordering::SeqCst) != PARTITION && client.write_all(&answer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
