//! What bounds the queue and the store.

use std::time::Duration;

/// Bounds of a queue. Every process of a deployment should use the same: a write is held to its writer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Size of an event, a record or a mail.
    pub message_bytes_max: usize,
    /// Events that wait for the leader; past it [`post`](crate::TaskQueue::post) is refused.
    pub events_max: u64,
    /// Bytes of these events.
    pub event_bytes_max: u64,
    /// Records since the last checkpoint; past it the leader has to make one.
    pub records_max: u64,
    /// Bytes of these records.
    pub record_bytes_max: u64,
    /// Mails in one mailbox.
    pub mailbox_mails_max: u64,
    /// Bytes in one mailbox.
    pub mailbox_bytes_max: u64,
    /// Bytes in all mailboxes.
    pub mail_bytes_max: u64,
    /// Mailboxes, open and closed.
    pub mailboxes_max: u64,
    /// Size of a checkpoint.
    pub checkpoint_bytes_max: usize,
    /// Messages in one answer, and in one commit or post.
    pub page_max: usize,
    /// Longest wait of one read; a longer one is cut to it.
    pub wait_max: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            events_max: 65_536,
            event_bytes_max: 128 << 20,
            records_max: 262_144,
            record_bytes_max: 256 << 20,
            mailbox_mails_max: 16_384,
            mailbox_bytes_max: 16 << 20,
            mail_bytes_max: 512 << 20,
            mailboxes_max: 16_384,
            checkpoint_bytes_max: 128 << 20,
            page_max: 4_096,
            wait_max: Duration::from_secs(30),
        }
    }
}

/// Bounds of an artifact store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Size of one artifact.
    pub artifact_bytes_max: u64,
    /// Bytes of all artifacts, those that are being published included.
    pub bytes_max: u64,
    /// Fences of revoked holders that are remembered; past it the oldest is dropped.
    pub fences_max: u64,
    /// How long a fence is remembered.
    pub fence_time: Duration,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            artifact_bytes_max: 16 << 30,
            bytes_max: 256 << 30,
            fences_max: 1_000_000,
            fence_time: Duration::from_secs(7 * 24 * 3600),
        }
    }
}
