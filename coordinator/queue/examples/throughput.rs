//! Measures the queue: posts, commits and reads by batch size, then a leader loop that echoes events to mailboxes.
//!
//! `cargo run --release -p assay-queue --features testing --example throughput -- [redis URL | memory] [rate] [mailboxes]`
//!
//! Without a URL it starts its own server: append-only file on, written out every second, as the operations guide says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_queue::testing::{RedisServer, ServerOptions};
use assay_queue::{
    Bound, Commit, Cursor, EmbeddedQueue, Mailbox, QueueError, QueueLimits, RedisConfig, RedisQueue,
    TaskQueue,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Handles = Vec<Arc<dyn TaskQueue>>;

/// Processes that are played; each has one connection.
const HANDLES: usize = 8;
/// Size of an event, a record and a mail.
const MESSAGE_BYTES: usize = 300;
const LONG: Duration = Duration::from_secs(3600);
/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let place = arguments.first().map_or("", String::as_str);
    let rate: u64 = arguments.get(1).map_or(Ok(5_000), |text| text.parse())?;
    let mailboxes: usize = arguments.get(2).map_or(Ok(1_000), |text| text.parse())?;
    let server = place.is_empty().then(|| {
        RedisServer::start_with(ServerOptions::with(&["--appendfsync everysec", "--maxmemory 2gb"]))
    });
    let url = server.as_ref().map_or(place.to_owned(), RedisServer::url);
    for batch in [1, 16, 64, 256] {
        let handles = open(&url, &format!("batch-{batch}")).await?;
        let posts = measure_posts(&handles, batch).await?;
        let (commits, latency) = measure_commits(&handles[0], batch).await?;
        let reads = measure_reads(&handles, batch).await?;
        println!(
            "batch {batch:>3}: {posts:>9.0} events posted/s, {commits:>9.0} records committed with a mail each/s \
             ({latency:.2?} a commit), {reads:>9.0} mails read/s"
        );
    }
    echo(open(&url, "echo").await?, rate, mailboxes).await
}

async fn open(url: &str, name: &str) -> Result<Handles, Failure> {
    // Room for what a measurement leaves behind.
    let limits = QueueLimits {
        events_max: 10_000_000,
        event_bytes_max: 1 << 30,
        records_max: 10_000_000,
        record_bytes_max: 1 << 30,
        mailbox_mails_max: 10_000_000,
        mailbox_bytes_max: 1 << 30,
        mail_bytes_max: 1 << 30,
        ..QueueLimits::default()
    };
    if url == "memory" {
        let queue = EmbeddedQueue::in_memory(limits);
        return Ok((0..HANDLES).map(|_| Arc::new(queue.clone()) as Arc<dyn TaskQueue>).collect());
    }
    let mut handles: Handles = Vec::new();
    for _ in 0..HANDLES {
        handles.push(Arc::new(RedisQueue::open(RedisConfig::new(url, name), limits.clone()).await?));
    }
    Ok(handles)
}

fn mailbox(number: usize) -> Mailbox {
    Mailbox::new(format!("worker/{number}")).expect("a plain name")
}

/// Events per second that 8 tasks of each handle post, while the leader takes them away.
async fn measure_posts(handles: &Handles, batch: usize) -> Result<f64, Failure> {
    let posted = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for queue in handles.iter().flat_map(|queue| vec![queue.clone(); 8]) {
        let posted = posted.clone();
        tasks.spawn(async move {
            let events = vec![vec![7; MESSAGE_BYTES]; batch];
            while started.elapsed() < SPAN {
                match queue.post_all(&events).await {
                    Ok(_) => posted.fetch_add(batch as u64, Ordering::Relaxed),
                    Err(QueueError::Full { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                };
            }
            Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let rate = posted.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    let queue = &handles[0];
    let epoch = queue.lead("measure", LONG).await?.ok_or("somebody leads")?;
    let last = queue.post(Vec::new()).await?;
    queue.commit(epoch, &Commit::new(last)).await?;
    Ok(rate)
}

/// Records per second of commits one after the other, each with as many mails as records.
async fn measure_commits(queue: &Arc<dyn TaskQueue>, batch: usize) -> Result<(f64, Duration), Failure> {
    let epoch = queue.lead("measure", LONG).await?.ok_or("somebody leads")?;
    let cursor = queue.load().await?.cursor;
    let (started, mut commits, mut spent) = (Instant::now(), 0_u32, Duration::ZERO);
    while spent < SPAN && u64::from(commits) * (batch as u64) < 500_000 {
        let mut commit = Commit::new(cursor);
        commit.records = vec![vec![7; MESSAGE_BYTES]; batch];
        commit.mails = (0..batch).map(|at| (mailbox(at), vec![7; MESSAGE_BYTES])).collect();
        let position = queue.commit(epoch, &commit).await?.position;
        commits += 1;
        spent = started.elapsed();
        if commits.is_multiple_of(1024) {
            queue.checkpoint(epoch, position, b"state").await?;
        }
    }
    Ok((f64::from(commits) * batch as f64 / spent.as_secs_f64(), spent / commits))
}

/// Mails per second that each handle reads from its own mailbox, a page of `batch` at a time.
async fn measure_reads(handles: &Handles, batch: usize) -> Result<f64, Failure> {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for queue in handles {
        let queue = queue.clone();
        tasks.spawn(async move {
            let (mailbox, mut cursor, mut read) = (mailbox(0), Cursor(0), 0);
            while started.elapsed() < SPAN {
                let page = queue.read(&mailbox, cursor, batch, Duration::ZERO).await?;
                // At the end it begins anew.
                cursor = page.mails.last().map_or(Cursor(0), |mail| mail.cursor);
                read += page.mails.len();
            }
            Ok::<_, QueueError>(read)
        });
    }
    let mut read = 0;
    while let Some(task) = tasks.join_next().await {
        read += task??;
    }
    Ok(read as f64 / started.elapsed().as_secs_f64())
}

/// Events at a fixed rate, echoed by a leader to the mailboxes of as many readers.
async fn echo(handles: Handles, rate: u64, mailboxes: usize) -> Result<(), Failure> {
    const SECONDS: u64 = 10;
    let started = Instant::now();
    let total = rate * SECONDS;
    let leader = tokio::spawn(lead(handles[0].clone(), total));
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..mailboxes {
        // How many of the events go to this one.
        let mine = (total - number as u64).div_ceil(mailboxes as u64);
        readers.spawn(read(handles[number % HANDLES].clone(), number, mine, started));
    }
    // Let all readers fall asleep.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = started.elapsed();
    let mut posters = tokio::task::JoinSet::new();
    let posters_number = 4 * HANDLES as u64;
    for first in 0..posters_number {
        let queue = handles[first as usize % HANDLES].clone();
        posters.spawn(async move {
            for event in (first..total).step_by(posters_number as usize) {
                let due = begun + Duration::from_nanos(1_000_000_000 / rate * event);
                tokio::time::sleep_until((started + due).into()).await;
                let mut message = vec![b' '; MESSAGE_BYTES];
                message[..8].copy_from_slice(&(started.elapsed().as_nanos() as u64).to_le_bytes());
                message[8..16].copy_from_slice(&(event % mailboxes as u64).to_le_bytes());
                queue.post(message).await?;
            }
            Ok::<_, QueueError>(())
        });
    }
    while let Some(poster) = posters.join_next().await {
        poster??;
    }
    let mut latencies = Vec::new();
    while let Some(reader) = readers.join_next().await {
        latencies.extend(reader??);
    }
    let span = started.elapsed() - begun;
    let commits = leader.await??;
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "echo: {:.0} tasks/s ({rate} offered) through {commits} commits to {mailboxes} mailboxes; from post to reader: \
         median {:.2?}, 99% {:.2?}, worst {:.2?}",
        latencies.len() as f64 / span.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

async fn lead(queue: Arc<dyn TaskQueue>, total: u64) -> Result<u64, QueueError> {
    let Some(epoch) = queue.lead("echo", LONG).await? else { return Ok(0) };
    let (mut cursor, mut commits, mut checkpoint) = (Cursor(0), 0, 0);
    while cursor.0 < total {
        let events = queue.events(cursor, 1024, Duration::from_secs(1)).await?;
        let Some((last, _)) = events.last() else { continue };
        cursor = *last;
        let mut commit = Commit::new(cursor);
        for (_, event) in events {
            let mut number = [0; 8];
            number.copy_from_slice(&event[8..16]);
            commit.mails.push((mailbox(u64::from_le_bytes(number) as usize), event.clone()));
            commit.records.push(event);
        }
        let position = match queue.commit(epoch, &commit).await {
            Err(QueueError::Full { bound: Bound::Records, .. }) => return Ok(commits),
            committed => committed?.position,
        };
        commits += 1;
        if position.0 - checkpoint > 20_000 {
            checkpoint = position.0;
            queue.checkpoint(epoch, position, &vec![7; 1 << 20]).await?;
        }
    }
    Ok(commits)
}

/// Reads `mine` mails, acknowledging them; returns how long each was under way.
async fn read(
    queue: Arc<dyn TaskQueue>,
    number: usize,
    mine: u64,
    started: Instant,
) -> Result<Vec<Duration>, QueueError> {
    let (name, mut cursor, mut latencies) = (mailbox(number), Cursor(0), Vec::new());
    while (latencies.len() as u64) < mine {
        let page = queue.read(&name, cursor, 64, Duration::from_secs(30)).await?;
        let now = started.elapsed();
        for mail in &page.mails {
            let mut sent = [0; 8];
            sent.copy_from_slice(&mail.bytes[..8]);
            latencies.push(now.saturating_sub(Duration::from_nanos(u64::from_le_bytes(sent))));
            cursor = mail.cursor;
        }
        if !page.mails.is_empty() {
            queue.forget(&name, cursor).await?;
        }
    }
    Ok(latencies)
}
