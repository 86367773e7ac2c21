//! Attempts: taken, admitted, run, published, sealed; and how the worker leaves.

use std::sync::Arc;

use assay_schedule::{AttemptId, Dispatch, Output, Report, TEXT_BYTES_MAX};

use super::health::{device_of, is_in_service};
use super::{Action, Attempt, FetchError, Lane, Leaving, Phase, PublishError, Refused, State, Try, OVER_MAX};
use crate::receipt::Outcome;
use crate::runner::{Device, DeviceFault, Failure};

/// Tries at writing inputs to a disk that refuses them.
const LOCAL_TRIES_MAX: u32 = 3;
/// Why a task is given back that has nothing to run on.
pub(super) const NO_DEVICE: &str = "no device is left here";

impl State {
    pub(super) fn take(&mut self, dispatch: Dispatch) -> Result<(), Refused> {
        let id = dispatch.attempt;
        if self.attempts.contains_key(&id) || self.over.contains_key(&id) {
            return Err(Refused::Repeated { attempt: id });
        }
        if self.leaving.is_some() {
            return Err(Refused::Leaving { attempt: id });
        }
        let kind = dispatch.stage.kind();
        let (memory, have) = (dispatch.memory_bytes, self.settings.profile.memory_bytes);
        let queue = usize::from(kind.is_controller());
        let is_full = self.waiting[queue].len() >= self.settings.waiting_max;
        self.attempts.insert(id, Attempt::new(Arc::new(dispatch), Phase::Waiting));
        if !self.settings.profile.kinds.contains(&kind) {
            let reason = format!("this worker does not do {kind}");
            self.seal(id, Report::Transient { reason }, Outcome::Failed);
        } else if queue == 0 && self.slots() == 0 {
            self.seal(id, Report::Transient { reason: NO_DEVICE.to_owned() }, Outcome::Failed);
        } else if memory > have {
            self.seal(id, Report::OutOfMemory, Outcome::Failed);
        } else if is_full {
            let reason = "too many tasks wait here".to_owned();
            self.seal(id, Report::Transient { reason }, Outcome::Failed);
        } else {
            self.waiting[queue].push_back(id);
        }
        Ok(())
    }

    /// Starts what fits, first come first served among slots and among controllers.
    pub(super) fn admit(&mut self, _now_ms: u64) {
        if self.leaving.is_some() {
            return;
        }
        for queue in [1, 0] {
            while let Some(id) = self.waiting[queue].front().copied() {
                let memory = self.attempts[&id].dispatch.memory_bytes;
                let free = self.settings.profile.memory_bytes.saturating_sub(self.memory_used);
                let lane = if queue == 1 {
                    (self.controllers < self.settings.profile.controllers).then_some(Lane::Controller)
                } else {
                    self.free_slots.first().copied().map(Lane::Slot)
                };
                let Some(lane) = lane else { break };
                if memory > free {
                    if queue == 0 && self.only_controllers_hold_memory() {
                        // They may be waiting for this very task.
                        self.waiting[queue].pop_front();
                        let reason = "controllers hold the memory that it needs".to_owned();
                        self.seal(id, Report::Transient { reason }, Outcome::Failed);
                        continue;
                    }
                    break;
                }
                self.waiting[queue].pop_front();
                self.occupy(id, lane);
                self.set_phase(id, Phase::Fetching(Try::UNDER_WAY));
                self.actions.push(Action::Fetch { attempt: id });
            }
        }
    }

    fn only_controllers_hold_memory(&self) -> bool {
        let mut holders = self.attempts.values().filter(|attempt| attempt.lane.is_some());
        holders.all(|attempt| attempt.lane == Some(Lane::Controller) && !attempt.is_closed)
    }

    fn occupy(&mut self, id: AttemptId, lane: Lane) {
        match lane {
            Lane::Slot(slot) => {
                self.free_slots.remove(&slot);
            }
            Lane::Controller => self.controllers += 1,
        }
        let attempt = self.attempts.get_mut(&id).expect("the caller found it");
        attempt.lane = Some(lane);
        self.memory_used += attempt.dispatch.memory_bytes;
    }

    fn vacate(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        match attempt.lane.take() {
            Some(Lane::Slot(slot)) if is_in_service(&self.settings, &self.health, slot) => {
                self.free_slots.insert(slot);
            }
            Some(Lane::Slot(_)) => {}
            Some(Lane::Controller) => self.controllers -= 1,
            None => return,
        }
        self.memory_used -= attempt.dispatch.memory_bytes;
    }

    fn set_phase(&mut self, id: AttemptId, phase: Phase) {
        self.attempts.get_mut(&id).expect("the caller found it").phase = phase;
    }

    pub(super) fn fetched(
        &mut self,
        id: AttemptId,
        result: Result<(), FetchError>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let attempt = self.get(id)?;
        let Phase::Fetching(Try { tries, due: None }) = attempt.phase else {
            return Err(Refused::Unexpected { attempt: id });
        };
        if attempt.is_closed {
            self.forget(id);
            return Ok(());
        }
        match result {
            Ok(()) => match self.device(id) {
                device if self.is_out(device) => self.wait_again(id),
                device => {
                    self.set_phase(id, Phase::Running);
                    self.get_mut(id)?.gpu = Some(device).filter(|device| *device != Device::Cpu);
                    self.actions.push(Action::Run { attempt: id, device });
                }
            },
            Err(FetchError::Lost(input)) => {
                self.seal(id, Report::InputLost { input }, Outcome::Failed);
            }
            Err(FetchError::Local(reason)) if tries + 1 >= LOCAL_TRIES_MAX => {
                self.seal(id, Report::Transient { reason: shorten(reason) }, Outcome::Failed);
            }
            Err(FetchError::Unavailable | FetchError::Stopped | FetchError::Local(_)) => {
                let again = self.again(tries, now_ms);
                self.set_phase(id, Phase::Fetching(again));
            }
        }
        Ok(())
    }

    fn device(&self, id: AttemptId) -> Device {
        match self.attempts[&id].lane {
            Some(Lane::Slot(slot)) => device_of(&self.settings, slot),
            _ => Device::Cpu,
        }
    }

    /// The device of its slot is gone: it takes the next slot that is free. Its inputs stay.
    fn wait_again(&mut self, id: AttemptId) {
        self.vacate(id);
        if self.slots() == 0 {
            self.seal(id, Report::Transient { reason: NO_DEVICE.to_owned() }, Outcome::Failed);
            return;
        }
        self.set_phase(id, Phase::Waiting);
        self.waiting[0].push_front(id);
    }

    pub(super) fn ended(
        &mut self,
        id: AttemptId,
        result: Result<(), Failure>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let attempt = self.get(id)?;
        if attempt.phase != Phase::Running {
            return Err(Refused::Unexpected { attempt: id });
        }
        let (is_closed, device) = (attempt.is_closed, self.device(id));
        self.drop_parts(id);
        match &result {
            Ok(()) => self.device_worked(device),
            Err(Failure::Device(fault)) if self.device_failed(id, fault, now_ms) => return Ok(()),
            Err(_) => {}
        }
        self.vacate(id);
        let transient = |reason: &str| Report::Transient { reason: reason.to_owned() };
        match result {
            _ if is_closed => self.seal(id, transient("taken back"), Outcome::Cancelled),
            Ok(()) => {
                self.set_phase(id, Phase::Publishing(Try::UNDER_WAY));
                self.actions.push(Action::Publish { attempt: id });
            }
            Err(Failure::Transient(reason)) => {
                self.seal(id, Report::Transient { reason: shorten(reason) }, Outcome::Failed);
            }
            Err(Failure::OutOfMemory | Failure::Device(DeviceFault::Allocation)) => {
                self.seal(id, Report::OutOfMemory, Outcome::Failed);
            }
            Err(Failure::Device(fault)) => {
                let reason = shorten(format!("device {device}: {fault}"));
                self.seal(id, Report::Transient { reason }, Outcome::Failed);
            }
            Err(Failure::InputLost(input)) => self.seal(id, Report::InputLost { input }, Outcome::Failed),
            Err(Failure::Permanent(reason)) => {
                self.seal(id, Report::Permanent { reason: shorten(reason) }, Outcome::Failed);
            }
            Err(Failure::Cancelled) if self.is_out(device) => {
                self.seal(id, transient("its device was taken out of service"), Outcome::Failed);
            }
            Err(Failure::Cancelled) => self.seal(id, transient("ended without being asked"), Outcome::Failed),
        }
        Ok(())
    }

    pub(super) fn published(
        &mut self,
        id: AttemptId,
        result: Result<Vec<Output>, PublishError>,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let attempt = self.get(id)?;
        let Phase::Publishing(Try { tries, due: None }) = attempt.phase else {
            return Err(Refused::Unexpected { attempt: id });
        };
        let taken_back = Report::Transient { reason: "taken back".to_owned() };
        if attempt.is_closed {
            self.seal(id, taken_back, Outcome::Cancelled);
            return Ok(());
        }
        match result {
            Ok(outputs) => self.seal(id, Report::Finished { outputs }, Outcome::Finished),
            Err(PublishError::Revoked) => {
                self.get_mut(id)?.is_closed = true;
                self.seal(id, taken_back, Outcome::Cancelled);
            }
            Err(PublishError::Refused(reason)) => {
                self.seal(id, Report::Permanent { reason: shorten(reason) }, Outcome::Failed);
            }
            Err(PublishError::Local(reason)) if tries + 1 >= LOCAL_TRIES_MAX => {
                self.seal(id, Report::Transient { reason: shorten(reason) }, Outcome::Failed);
            }
            Err(PublishError::Unavailable | PublishError::Stopped | PublishError::Local(_)) => {
                let again = self.again(tries, now_ms);
                self.set_phase(id, Phase::Publishing(again));
            }
        }
        Ok(())
    }

    /// Ends the work on an attempt with a report.
    pub(super) fn seal(&mut self, id: AttemptId, report: Report, outcome: Outcome) {
        self.vacate(id);
        self.set_phase(id, Phase::Sealing { report: report.clone() });
        self.actions.push(Action::Seal { attempt: id, report, outcome });
    }

    pub(super) fn sealed(&mut self, id: AttemptId, now_ms: u64) -> Result<(), Refused> {
        let attempt = self.get_mut(id)?;
        let Phase::Sealing { report } = &attempt.phase else {
            return Err(Refused::Unexpected { attempt: id });
        };
        let report = report.clone();
        attempt.phase = Phase::Reporting { report, next: Try::at(now_ms), posts: 0 };
        Ok(())
    }

    /// Nobody wants the attempt any more: stops what it is at.
    pub(super) fn revoke(&mut self, id: AttemptId) -> Result<(), Refused> {
        let attempt = self.get_mut(id)?;
        if attempt.is_closed {
            return Err(Refused::Repeated { attempt: id });
        }
        attempt.is_closed = true;
        let is_at_work = attempt.is_at_work();
        match &attempt.phase {
            Phase::Waiting | Phase::Fetching(Try { due: Some(_), .. }) => self.forget(id),
            Phase::Publishing(Try { due: Some(_), .. }) => {
                let report = Report::Transient { reason: "taken back".to_owned() };
                self.seal(id, report, Outcome::Cancelled);
            }
            // What it took is in the report that is on its way.
            Phase::Reporting { posts: 1.., .. } => self.forget(id),
            Phase::Fetching(_)
            | Phase::Running
            | Phase::Publishing(_)
            | Phase::Sealing { .. }
            | Phase::Reporting { .. } => {
                if is_at_work {
                    self.actions.push(Action::Stop { attempt: id });
                }
                self.fail_parts(id);
            }
        }
        Ok(())
    }

    /// The leader is done with an attempt.
    pub(super) fn closed(&mut self, id: AttemptId) -> Result<(), Refused> {
        let attempt = self.get(id)?;
        if matches!(attempt.phase, Phase::Reporting { .. }) {
            self.forget(id);
            return Ok(());
        }
        self.revoke(id)
    }

    /// Removes an attempt that nothing works on.
    pub(super) fn forget(&mut self, id: AttemptId) {
        self.vacate(id);
        let gpu = self.attempts.remove(&id).and_then(|attempt| attempt.gpu);
        self.waiting.iter_mut().for_each(|queue| queue.retain(|waiting| *waiting != id));
        self.over.insert(id, gpu);
        if self.over.len() > OVER_MAX {
            self.over.pop_first();
        }
        self.actions.push(Action::Clean { attempt: id });
    }

    /// Begins again what is due.
    pub(super) fn retry(&mut self, now_ms: u64) {
        self.settle(now_ms);
        for (id, attempt) in &mut self.attempts {
            match &mut attempt.phase {
                Phase::Fetching(next) if next.is_due(now_ms) => {
                    next.due = None;
                    self.actions.push(Action::Fetch { attempt: *id });
                }
                Phase::Publishing(next) if next.is_due(now_ms) => {
                    next.due = None;
                    self.actions.push(Action::Publish { attempt: *id });
                }
                _ => {}
            }
        }
    }

    /// Everything of the old session is void; what runs is stopped, and the worker registers anew.
    pub(super) fn session_over(&mut self, session: u64, now_ms: u64) -> Result<(), Refused> {
        if session <= self.settings.session {
            return Err(Refused::OldSession { have: self.settings.session, got: session });
        }
        for id in self.attempts.keys().copied().collect::<Vec<_>>() {
            // Those that are closed already go on ending. Reports of the old session interest nobody.
            let _ = self.revoke(id);
            if self.attempts.get(&id).is_some_and(|attempt| matches!(attempt.phase, Phase::Reporting { .. }))
            {
                self.forget(id);
            }
        }
        self.settings.session = session;
        self.posts.register(now_ms);
        self.actions.push(Action::Session { session });
        Ok(())
    }

    pub(super) fn leave(&mut self, now_ms: u64) {
        let (drain_ms, leave_ms) = (self.settings.times.drain_ms, self.settings.times.leave_ms);
        let drain_ms = if self.leaving.is_some() { 0 } else { drain_ms };
        let drain_until = now_ms + drain_ms;
        let is_drained = self.leaving.is_some_and(|leaving| leaving.is_drained);
        let exit_at = drain_until + leave_ms;
        self.leaving = Some(Leaving { drain_until, exit_at, is_drained, has_left: false });
        for id in std::mem::take(&mut self.waiting).into_iter().flatten() {
            // Not named in heartbeats, and lost with the session: others get them.
            self.forget(id);
        }
    }

    /// Goes on leaving: stops what takes too long, says goodbye, ends.
    pub(super) fn depart(&mut self, now_ms: u64) {
        let Some(leaving) = self.leaving else { return };
        if leaving.has_left || now_ms >= leaving.exit_at {
            self.actions.push(Action::Exit);
            return;
        }
        if !leaving.is_drained && now_ms >= leaving.drain_until {
            self.leaving = Some(Leaving { is_drained: true, ..leaving });
            for id in self.attempts.keys().copied().collect::<Vec<_>>() {
                // Results are still published and reported.
                let attempt = &self.attempts[&id];
                if matches!(attempt.phase, Phase::Fetching(_) | Phase::Running) && !attempt.is_closed {
                    let _ = self.revoke(id);
                }
            }
        }
        let is_silent = |attempt: &Attempt| matches!(attempt.phase, Phase::Reporting { posts: 1.., .. });
        if self.attempts.values().all(is_silent) {
            self.posts.say_goodbye();
        }
    }

    /// Called when the goodbye is in the inbox.
    pub(super) fn left(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.has_left = true;
        }
    }

    /// A result is in the inbox.
    pub(super) fn report_posted(&mut self, id: AttemptId, now_ms: u64) {
        let (first, max) = (self.settings.times.repeat_ms, self.settings.times.repeat_ms_max);
        let Some(Attempt { phase: Phase::Reporting { posts, .. }, .. }) = self.attempts.get(&id) else {
            return;
        };
        let wait = self.wait(*posts, first, max);
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        if let Phase::Reporting { next, posts, .. } = &mut attempt.phase {
            *posts = posts.saturating_add(1);
            *next = Try { tries: *posts, due: Some(now_ms + wait) };
        }
        if attempt.is_closed {
            self.forget(id);
        }
    }

    /// Takes results for settled that the queue has often enough.
    fn settle(&mut self, now_ms: u64) {
        let reports_max = self.settings.reports_max;
        let is_settled = |attempt: &Attempt| match &attempt.phase {
            Phase::Reporting { posts, next, .. } => *posts >= reports_max && next.is_due(now_ms),
            _ => false,
        };
        let settled = self.attempts.iter().filter(|(_, attempt)| is_settled(attempt)).map(|(id, _)| *id);
        settled.collect::<Vec<_>>().into_iter().for_each(|id| self.forget(id));
    }

    /// An idle worker that has heard nothing for long begins anew.
    pub(super) fn renew(&mut self, now_ms: u64) {
        let is_idle = self.attempts.is_empty() && self.leaving.is_none() && self.posts.is_connected();
        if is_idle && self.posts.silence(now_ms) >= self.settings.times.renew_ms {
            let next = self.settings.session + 1;
            // Cannot be refused: it is the next one.
            let _ = self.session_over(next, now_ms);
        }
    }
}

/// Cuts a reason to what the coordinator stores.
pub(super) fn shorten(mut reason: String) -> String {
    let mut at = reason.len().min(TEXT_BYTES_MAX);
    while !reason.is_char_boundary(at) {
        at -= 1;
    }
    reason.truncate(at);
    reason
}
