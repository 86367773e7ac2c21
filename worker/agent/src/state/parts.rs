//! Parts of running tasks that other workers prove.

use assay_schedule::{Artifact, AttemptId, Hash, Kind, Output};

use super::{Action, FetchError, Phase, PublishError, Refused, State, Try};

/// Tries at a part's result that is missing or damaged.
const LOST_TRIES_MAX: u32 = 3;

/// Where a part stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartPhase {
    /// Its inputs go to the store.
    Publishing { kind: Kind, units: u64, next: Try },
    /// The coordinator is asked for it, again and again, until it is delivered.
    Asking { kind: Kind, units: u64, inputs: Vec<Output>, next: Try },
    /// Its outputs come from the store.
    Fetching { outputs: Vec<Artifact>, next: Try },
}

impl State {
    pub(super) fn part(&mut self, id: AttemptId, key: Hash, kind: Kind, units: u64) -> Result<(), Refused> {
        let parts_max = self.settings.parts_max;
        let attempt = self.get_mut(id)?;
        if attempt.phase != Phase::Running {
            return Err(Refused::Unexpected { attempt: id });
        }
        let refusal = if attempt.is_closed {
            Some("cancelled")
        } else if attempt.parts.len() >= parts_max {
            Some("too many parts at the same time")
        } else {
            None
        };
        if attempt.parts.contains_key(&key) {
            // Asked for twice: both get the same answer.
            return Ok(());
        }
        match refusal {
            Some(error) => {
                self.actions.push(Action::GivePart { attempt: id, key, error: Some(error.to_owned()) });
            }
            None => {
                attempt.parts.insert(key, PartPhase::Publishing { kind, units, next: Try::UNDER_WAY });
                self.actions.push(Action::PublishPart { attempt: id, key });
            }
        }
        Ok(())
    }

    pub(super) fn part_published(
        &mut self,
        id: AttemptId,
        key: Hash,
        result: Result<Vec<Output>, PublishError>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let attempt = self.get_mut(id)?;
        let unknown = Refused::UnknownPart { attempt: id, part: key };
        let Some(PartPhase::Publishing { kind, units, next }) = attempt.parts.get(&key) else {
            return Err(unknown);
        };
        let (kind, units, tries) = (*kind, *units, next.tries);
        match result {
            Ok(inputs) => {
                let asking = PartPhase::Asking { kind, units, inputs, next: Try::at(now_ms) };
                attempt.parts.insert(key, asking);
            }
            Err(PublishError::Unavailable | PublishError::Stopped) => {
                let next = self.again(tries, now_ms);
                self.set_part(id, key, PartPhase::Publishing { kind, units, next });
            }
            Err(PublishError::Revoked) => self.end_part(id, key, Some("cancelled".to_owned())),
            Err(PublishError::Refused(reason) | PublishError::Local(reason)) => {
                self.end_part(id, key, Some(reason));
            }
        }
        Ok(())
    }

    pub(super) fn deliver(
        &mut self,
        id: AttemptId,
        key: Hash,
        outputs: Vec<Artifact>,
    ) -> Result<(), Refused> {
        let attempt = self.get_mut(id)?;
        match attempt.parts.get(&key) {
            Some(PartPhase::Asking { .. }) => {}
            _ => return Err(Refused::UnknownPart { attempt: id, part: key }),
        }
        let fetching = PartPhase::Fetching { outputs: outputs.clone(), next: Try::UNDER_WAY };
        attempt.parts.insert(key, fetching);
        self.actions.push(Action::FetchPart { attempt: id, key, outputs });
        Ok(())
    }

    pub(super) fn part_fetched(
        &mut self,
        id: AttemptId,
        key: Hash,
        result: Result<(), FetchError>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let attempt = self.get_mut(id)?;
        let Some(PartPhase::Fetching { outputs, next }) = attempt.parts.get(&key) else {
            return Err(Refused::UnknownPart { attempt: id, part: key });
        };
        let (outputs, tries) = (outputs.clone(), next.tries);
        match result {
            Ok(()) => self.end_part(id, key, None),
            Err(FetchError::Lost(_) | FetchError::Local(_)) if tries + 1 >= LOST_TRIES_MAX => {
                self.end_part(id, key, Some("its result is lost".to_owned()));
            }
            Err(_) => {
                let next = self.again(tries, now_ms);
                self.set_part(id, key, PartPhase::Fetching { outputs, next });
            }
        }
        Ok(())
    }

    /// Tells a task that waits for parts that none will come.
    pub(super) fn fail_parts(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        for key in std::mem::take(&mut attempt.parts).into_keys() {
            self.actions.push(Action::GivePart { attempt: id, key, error: Some("cancelled".to_owned()) });
        }
    }

    /// Forgets the parts of a task that has ended.
    pub(super) fn drop_parts(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.parts.clear();
        }
    }

    fn set_part(&mut self, id: AttemptId, key: Hash, phase: PartPhase) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.parts.insert(key, phase);
        }
    }

    fn end_part(&mut self, id: AttemptId, key: Hash, error: Option<String>) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.parts.remove(&key);
            self.actions.push(Action::GivePart { attempt: id, key, error });
        }
    }

    /// Begins again what is due.
    pub(super) fn retry_parts(&mut self, now_ms: u64) {
        for (id, attempt) in &mut self.attempts {
            for (key, part) in &mut attempt.parts {
                match part {
                    PartPhase::Publishing { next, .. } if next.is_due(now_ms) => {
                        next.due = None;
                        self.actions.push(Action::PublishPart { attempt: *id, key: *key });
                    }
                    PartPhase::Fetching { outputs, next } if next.is_due(now_ms) => {
                        next.due = None;
                        let (attempt, key, outputs) = (*id, *key, outputs.clone());
                        self.actions.push(Action::FetchPart { attempt, key, outputs });
                    }
                    _ => {}
                }
            }
        }
    }
}
