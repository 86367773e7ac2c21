//! Parts of running tasks that other workers prove.

use assay_schedule::{Artifact, AttemptId, Hash, Kind};

use super::{Action, FetchError, Phase, PublishError, Refused, State, Try};
use crate::runner::PartError;

/// Tries at writing a part's result to a disk that refuses it.
const LOCAL_TRIES_MAX: u32 = 3;

/// Where a part stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartPhase {
    /// Its inputs go to the store, for the first time or anew.
    Publishing { next: Try, is_again: bool },
    /// The coordinator is asked for it, again and again, until it is delivered.
    Asking(Try),
    /// Its outputs come from the store.
    Fetching { outputs: Vec<Artifact>, next: Try },
    /// The coordinator is to be told that an output is lost; then it is asked for again.
    Lost { output: u32, next: Try },
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartState {
    pub kind: Kind,
    pub units: u64,
    pub inputs: Vec<Artifact>,
    /// How often it was asked for.
    pub asked: u32,
    pub phase: PartPhase,
}

impl State {
    pub(super) fn part(&mut self, id: AttemptId, key: Hash, kind: Kind, units: u64) -> Result<(), Refused> {
        let parts_max = self.settings.parts_max;
        let attempt = self.get_mut(id)?;
        if attempt.phase != Phase::Running {
            return Err(Refused::Unexpected { attempt: id });
        }
        if attempt.parts.contains_key(&key) {
            // Asked for twice: both get the same answer.
            return Ok(());
        }
        let refusal = if attempt.is_closed {
            Some(PartError::Cancelled)
        } else if attempt.parts.len() >= parts_max {
            Some(PartError::Failed(format!("more than {parts_max} parts at the same time")))
        } else if !kind.is_part() {
            Some(PartError::Failed(format!("{kind} is no part")))
        } else {
            None
        };
        if let Some(error) = refusal {
            self.actions.push(Action::GivePart { attempt: id, key, error: Some(error) });
            return Ok(());
        }
        let phase = PartPhase::Publishing { next: Try::UNDER_WAY, is_again: false };
        attempt.parts.insert(key, PartState { kind, units, inputs: Vec::new(), asked: 0, phase });
        self.actions.push(Action::PublishPart { attempt: id, key, is_again: false });
        Ok(())
    }

    fn part_mut(&mut self, id: AttemptId, key: Hash) -> Result<&mut PartState, Refused> {
        let unknown = Refused::UnknownPart { attempt: id, part: key };
        self.get_mut(id)?.parts.get_mut(&key).ok_or(unknown)
    }

    pub(super) fn part_published(
        &mut self,
        id: AttemptId,
        key: Hash,
        result: Result<Vec<Artifact>, PublishError>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let part = self.part_mut(id, key)?;
        let PartPhase::Publishing { next: Try { tries, due: None }, is_again } = part.phase else {
            return Err(Refused::UnknownPart { attempt: id, part: key });
        };
        match result {
            Ok(inputs) => {
                part.inputs = inputs;
                part.phase = PartPhase::Asking(Try::at(now_ms));
            }
            Err(PublishError::Unavailable | PublishError::Stopped) => {
                let next = self.again(tries, now_ms);
                self.part_mut(id, key)?.phase = PartPhase::Publishing { next, is_again };
            }
            Err(PublishError::Revoked) => self.end_part(id, key, Some(PartError::Cancelled)),
            Err(PublishError::Refused(reason) | PublishError::Local(reason)) => {
                self.end_part(id, key, Some(PartError::Failed(reason)));
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
        let part = self.part_mut(id, key)?;
        if !matches!(part.phase, PartPhase::Asking(_) | PartPhase::Lost { .. }) {
            return Err(Refused::UnknownPart { attempt: id, part: key });
        }
        part.phase = PartPhase::Fetching { outputs: outputs.clone(), next: Try::UNDER_WAY };
        self.actions.push(Action::FetchPart { attempt: id, key, outputs });
        Ok(())
    }

    /// An input of a part is lost: it is published anew.
    pub(super) fn respawn(&mut self, id: AttemptId, key: Hash) -> Result<(), Refused> {
        let part = self.part_mut(id, key)?;
        if !matches!(part.phase, PartPhase::Asking(_) | PartPhase::Lost { .. }) {
            return Err(Refused::UnknownPart { attempt: id, part: key });
        }
        part.phase = PartPhase::Publishing { next: Try::UNDER_WAY, is_again: true };
        self.actions.push(Action::PublishPart { attempt: id, key, is_again: true });
        Ok(())
    }

    pub(super) fn part_fetched(
        &mut self,
        id: AttemptId,
        key: Hash,
        result: Result<(), FetchError>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let part = self.part_mut(id, key)?;
        let PartPhase::Fetching { outputs, next: Try { tries, due: None } } = &part.phase else {
            return Err(Refused::UnknownPart { attempt: id, part: key });
        };
        let (outputs, tries) = (outputs.clone(), *tries);
        match result {
            Ok(()) => self.end_part(id, key, None),
            Err(FetchError::Lost(output)) => part.phase = PartPhase::Lost { output, next: Try::at(now_ms) },
            Err(FetchError::Local(reason)) if tries + 1 >= LOCAL_TRIES_MAX => {
                self.end_part(id, key, Some(PartError::Failed(reason)));
            }
            Err(FetchError::Unavailable | FetchError::Stopped | FetchError::Local(_)) => {
                let next = self.again(tries, now_ms);
                self.part_mut(id, key)?.phase = PartPhase::Fetching { outputs, next };
            }
        }
        Ok(())
    }

    /// Tells a task that waits for parts that none will come.
    pub(super) fn fail_parts(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        for key in std::mem::take(&mut attempt.parts).into_keys() {
            self.actions.push(Action::GivePart { attempt: id, key, error: Some(PartError::Cancelled) });
        }
    }

    /// Forgets the parts of a task that has ended.
    pub(super) fn drop_parts(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.parts.clear();
        }
    }

    fn end_part(&mut self, id: AttemptId, key: Hash, error: Option<PartError>) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.parts.remove(&key);
            self.actions.push(Action::GivePart { attempt: id, key, error });
        }
    }

    /// Begins again what is due.
    pub(super) fn retry_parts(&mut self, now_ms: u64) {
        for (id, attempt) in &mut self.attempts {
            for (key, part) in &mut attempt.parts {
                match &mut part.phase {
                    PartPhase::Publishing { next, is_again } if next.is_due(now_ms) => {
                        next.due = None;
                        let (attempt, key, is_again) = (*id, *key, *is_again);
                        self.actions.push(Action::PublishPart { attempt, key, is_again });
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

    /// These parts have been asked for: again if nothing comes.
    pub(super) fn parts_posted(&mut self, id: AttemptId, keys: &[Hash], now_ms: u64) {
        let (first, max) = (self.settings.times.repeat_ms, self.settings.times.repeat_ms_max);
        for key in keys {
            let asked = match self.part_mut(id, *key) {
                Ok(PartState { phase: PartPhase::Asking(_), asked, .. }) => *asked,
                _ => continue,
            };
            let wait = self.wait(asked, first, max);
            if let Ok(part) = self.part_mut(id, *key) {
                part.asked = asked.saturating_add(1);
                part.phase = PartPhase::Asking(Try { tries: asked, due: Some(now_ms + wait) });
            }
        }
    }

    /// The coordinator knows that an output is lost: it is asked for the part again, later.
    pub(super) fn loss_posted(&mut self, id: AttemptId, key: Hash, now_ms: u64) {
        if let Ok(part) = self.part_mut(id, key) {
            if matches!(part.phase, PartPhase::Lost { .. }) {
                part.phase = PartPhase::Asking(Try::UNDER_WAY);
                self.parts_posted(id, &[key], now_ms);
            }
        }
    }
}
