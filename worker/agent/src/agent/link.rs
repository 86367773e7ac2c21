//! The queue's two directions: a task that reads the mailbox and one that posts.

use std::sync::Arc;
use std::time::Duration;

use assay_queue::{Cursor, NameError, QueueError, TaskQueue};
use assay_schedule::WorkerId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::state::{Input, PostError, PostId};
use crate::wire;

/// Mails read at once.
const PAGE_MAX: usize = 256;
/// Longest wait for a mail.
const WAIT: Duration = Duration::from_secs(10);
/// Letters posted at once.
const LETTERS_MAX: usize = 64;
/// A post that takes longer counts as failed; it may have been carried out.
const POST_MAX: Duration = Duration::from_secs(60);
/// The wait after a read that failed; doubles.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Mails of one read.
pub(super) struct Batch {
    pub session: u64,
    pub mails: Vec<Vec<u8>>,
    /// The mailbox is closed, or has lost mails that were not read.
    pub is_over: bool,
    /// Told when the mails have been dealt with.
    pub dealt_with: oneshot::Sender<()>,
}

/// Reads a session's mailbox; ends when it is dropped.
pub(super) struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reader {
    pub(super) fn start(
        queue: &Arc<dyn TaskQueue>,
        batches: &mpsc::Sender<Batch>,
        worker: WorkerId,
        session: u64,
    ) -> Result<Self, NameError> {
        let mailbox = wire::mailbox(worker, session)?;
        let (queue, batches) = (queue.clone(), batches.clone());
        Ok(Self(tokio::spawn(async move {
            read(&*queue, &batches, &mailbox, session).await;
        })))
    }
}

async fn read(
    queue: &dyn TaskQueue,
    batches: &mpsc::Sender<Batch>,
    mailbox: &assay_queue::Mailbox,
    session: u64,
) {
    // What a process before this one has dealt with is forgotten; where that ends shows in the first page.
    let mut after = None;
    let mut failures = 0u32;
    let mut dealt_with_upto = None;
    loop {
        // What has been dealt with is forgotten while more is awaited: the next task does not wait for it.
        let reading = queue.read(mailbox, after.unwrap_or(Cursor(0)), PAGE_MAX, WAIT);
        let (page, ()) = tokio::join!(reading, forget(queue, mailbox, dealt_with_upto.take()));
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "the mailbox cannot be read");
                let wait = (RETRY * 2u32.saturating_pow(failures.min(10))).min(RETRY_MAX);
                failures += 1;
                tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                continue;
            }
        };
        failures = 0;
        let is_lost = after.is_some_and(|after| page.forgotten > after);
        let upto = page.mails.last().map(|mail| mail.cursor);
        after = Some(upto.or(after).unwrap_or(page.forgotten));
        let is_over = page.is_closed || is_lost;
        if upto.is_none() && !is_over {
            continue;
        }
        let (dealt_with, done) = oneshot::channel();
        let mails = page.mails.into_iter().map(|mail| mail.bytes).collect();
        if batches.send(Batch { session, mails, is_over, dealt_with }).await.is_err() {
            return;
        }
        let is_done = done.await.is_ok();
        if is_over || !is_done {
            return;
        }
        dealt_with_upto = upto;
    }
}

async fn forget(queue: &dyn TaskQueue, mailbox: &assay_queue::Mailbox, upto: Option<Cursor>) {
    let Some(upto) = upto else { return };
    if let Err(error) = queue.forget(mailbox, upto).await {
        tracing::debug!(%error, "read mails are not forgotten");
    }
}

/// Messages that are posted together, all or none.
pub(super) struct Letter {
    pub post: PostId,
    pub messages: Vec<Vec<u8>>,
}

/// Posts letters in order, as many at once as have come.
pub(super) async fn post(
    queue: Arc<dyn TaskQueue>,
    mut letters: mpsc::Receiver<Letter>,
    inputs: mpsc::Sender<Input>,
) {
    let mut together = Vec::new();
    while letters.recv_many(&mut together, LETTERS_MAX).await > 0 {
        let messages: Vec<Vec<u8>> =
            together.iter().flat_map(|letter| letter.messages.iter().cloned()).collect();
        let mut result = put(&*queue, &messages).await;
        if result == Err(PostError::Refused) && together.len() > 1 {
            // One of them is too large: which?
            for letter in together.drain(..) {
                let result = put(&*queue, &letter.messages).await;
                if inputs.send(Input::Posted { post: letter.post, result }).await.is_err() {
                    return;
                }
            }
            result = Ok(());
        }
        for letter in together.drain(..) {
            if inputs.send(Input::Posted { post: letter.post, result }).await.is_err() {
                return;
            }
        }
    }
}

async fn put(queue: &dyn TaskQueue, messages: &[Vec<u8>]) -> Result<(), PostError> {
    match tokio::time::timeout(POST_MAX, queue.post_all(messages)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error @ QueueError::TooLarge { .. })) => {
            tracing::error!(%error, "a message is refused");
            Err(PostError::Refused)
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the queue takes no messages");
            Err(PostError::Unavailable)
        }
        Err(_) => {
            tracing::warn!("the queue does not answer");
            Err(PostError::Unavailable)
        }
    }
}
