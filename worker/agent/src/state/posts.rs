//! Messages to the leader: what is due, what is under way, and how the link is.
//!
//! Every obligation (registration, heartbeat, result, request for parts, goodbye) is sent until it is settled. While the
//! queue refuses, one message at a time is tried, ever more seldom; the first one that gets through lets all others go.

use std::collections::BTreeMap;

use assay_schedule::{AttemptId, Event, Hash, Part};

use super::parts::PartPhase;
use super::{Phase, PostError, PostId, Refused, State};

/// Messages under way at the same time.
const UNDER_WAY_MAX: usize = 256;
/// Parts that one message asks for.
const PARTS_PER_POST_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// With the profile of this number.
    Join(u64),
    Heartbeat,
    Result(AttemptId),
    Spawn(AttemptId, Vec<Hash>),
    PartLost(AttemptId, Hash),
    Leave,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Posts {
    next: u64,
    under_way: BTreeMap<PostId, Purpose>,
    /// Failures in a row.
    failures: u32,
    blocked_until: u64,
    /// When to register, also again: the leader may have refused, and does not say so.
    join: u64,
    /// How often the profile has changed, and which of these the inbox has.
    profile: u64,
    profile_told: u64,
    /// Whether the registration of this session is in the inbox.
    has_joined: bool,
    /// When the leader said something last.
    heard: u64,
    heartbeat: u64,
    is_goodbye_due: bool,
}

impl Posts {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            next: 0,
            under_way: BTreeMap::new(),
            failures: 0,
            blocked_until: now_ms,
            join: now_ms,
            profile: 0,
            profile_told: 0,
            has_joined: false,
            heard: now_ms,
            heartbeat: now_ms,
            is_goodbye_due: false,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.failures == 0 && self.has_joined
    }

    /// A new session begins.
    pub(super) fn register(&mut self, now_ms: u64) {
        self.join = now_ms;
        self.has_joined = false;
        self.heard = now_ms;
    }

    /// The worker has other places than the leader knows of.
    pub(super) fn change_profile(&mut self) {
        self.profile += 1;
    }

    /// The leader has said something: the registration stands.
    pub(super) fn hear(&mut self, now_ms: u64, rejoin_ms: u64) {
        self.heard = now_ms;
        if self.has_joined {
            self.join = now_ms + rejoin_ms;
        }
    }

    /// For how long the leader has said nothing.
    pub(super) fn silence(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard)
    }

    pub(super) fn say_goodbye(&mut self) {
        self.is_goodbye_due = true;
    }

    fn is_under_way(&self, wanted: impl Fn(&Purpose) -> bool) -> bool {
        self.under_way.values().any(wanted)
    }
}

impl State {
    pub(super) fn posted(
        &mut self,
        post: PostId,
        result: Result<(), PostError>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let purpose = self.posts.under_way.remove(&post).ok_or(Refused::UnknownPost(post))?;
        match result {
            Ok(()) => self.posts.failures = 0,
            Err(PostError::Unavailable) => {
                let again = self.again(self.posts.failures, now_ms);
                self.posts.failures = again.tries;
                self.posts.blocked_until = again.due.unwrap_or(now_ms);
                return Ok(());
            }
            // The link is fine; the message is repeated like one that is not answered.
            Err(PostError::Refused) => {}
        }
        match &purpose {
            Purpose::Join(profile) => {
                self.posts.profile_told = *profile;
                self.posts.join = now_ms + self.settings.times.rejoin_ms;
                self.posts.has_joined = true;
            }
            Purpose::Heartbeat => {}
            Purpose::Result(attempt) => self.report_posted(*attempt, now_ms),
            Purpose::Spawn(attempt, keys) => self.parts_posted(*attempt, keys, now_ms),
            Purpose::PartLost(attempt, key) => self.loss_posted(*attempt, *key, now_ms),
            Purpose::Leave => {
                self.posts.is_goodbye_due = false;
                self.left();
            }
        }
        Ok(())
    }

    /// Sends what is due.
    pub(super) fn flush(&mut self, now_ms: u64) {
        if now_ms < self.posts.blocked_until {
            return;
        }
        // Behind a queue that refuses one message is enough to find out.
        let room = if self.posts.failures > 0 { 1 } else { UNDER_WAY_MAX };
        while self.posts.under_way.len() < room {
            let Some((purpose, event)) = self.due(now_ms) else { return };
            let post = PostId(self.posts.next);
            self.posts.next += 1;
            self.posts.under_way.insert(post, purpose);
            self.actions.push(super::Action::Post { post, event });
        }
    }

    /// The next message, most urgent first.
    fn due(&mut self, now_ms: u64) -> Option<(Purpose, Event)> {
        let (worker, session) = (self.settings.worker, self.settings.session);
        let is_joining = self.posts.is_under_way(|purpose| matches!(purpose, Purpose::Join(_)));
        let is_due = self.posts.join <= now_ms || self.posts.profile_told != self.posts.profile;
        if is_due && self.leaving.is_none() && !is_joining {
            let purpose = Purpose::Join(self.posts.profile);
            return Some((purpose, Event::Join { worker, session, profile: self.profile() }));
        }
        if !self.posts.has_joined && self.leaving.is_none() {
            // Nothing counts before it.
            return None;
        }
        if self.posts.heartbeat <= now_ms
            && !self.posts.is_under_way(|purpose| *purpose == Purpose::Heartbeat)
        {
            self.posts.heartbeat = now_ms + self.jitter(self.settings.times.heartbeat_ms);
            return Some((Purpose::Heartbeat, Event::Heartbeat { worker, session, running: self.running() }));
        }
        if let Some((attempt, report)) = self.due_result(now_ms) {
            return Some((Purpose::Result(attempt), Event::Result { worker, session, attempt, report }));
        }
        if let Some((attempt, keys, parts)) = self.due_parts(now_ms) {
            return Some((Purpose::Spawn(attempt, keys), Event::Spawn { worker, session, attempt, parts }));
        }
        if let Some((attempt, key, output)) = self.due_loss(now_ms) {
            let event = Event::PartLost { worker, session, attempt, key, output };
            return Some((Purpose::PartLost(attempt, key), event));
        }
        if self.posts.is_goodbye_due && !self.posts.is_under_way(|purpose| *purpose == Purpose::Leave) {
            return Some((Purpose::Leave, Event::Leave { worker, session }));
        }
        None
    }

    /// Parts of one task that are to be asked for, a few at a time.
    fn due_parts(&self, now_ms: u64) -> Option<(AttemptId, Vec<Hash>, Vec<Part>)> {
        self.attempts.iter().find_map(|(id, attempt)| {
            let asks = |purpose: &Purpose, key: &Hash| {
                matches!(purpose, Purpose::Spawn(asker, keys) if asker == id && keys.contains(key))
            };
            let due = attempt.parts.iter().filter(|(key, part)| {
                matches!(&part.phase, PartPhase::Asking(next) if next.is_due(now_ms))
                    && !self.posts.is_under_way(|purpose| asks(purpose, key))
            });
            let due = due.map(|(key, part)| {
                Part { kind: part.kind, key: *key, inputs: part.inputs.clone(), units: part.units }
            });
            let parts: Vec<Part> = due.take(PARTS_PER_POST_MAX).collect();
            let keys: Vec<Hash> = parts.iter().map(|part| part.key).collect();
            (!parts.is_empty()).then_some((*id, keys, parts))
        })
    }

    fn due_loss(&self, now_ms: u64) -> Option<(AttemptId, Hash, u32)> {
        self.attempts.iter().find_map(|(id, attempt)| {
            attempt.parts.iter().find_map(|(key, part)| match &part.phase {
                PartPhase::Lost { output, next }
                    if next.is_due(now_ms)
                        && !self.posts.is_under_way(|purpose| *purpose == Purpose::PartLost(*id, *key)) =>
                {
                    Some((*id, *key, *output))
                }
                _ => None,
            })
        })
    }

    fn due_result(&self, now_ms: u64) -> Option<(AttemptId, assay_schedule::Report)> {
        self.attempts.iter().find_map(|(id, attempt)| match &attempt.phase {
            Phase::Reporting { report, next, .. }
                if next.is_due(now_ms)
                    && !self.posts.is_under_way(|purpose| *purpose == Purpose::Result(*id)) =>
            {
                Some((*id, report.clone()))
            }
            _ => None,
        })
    }
}
