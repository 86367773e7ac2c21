//! GPUs: which are in service, what takes one out, and how it comes back. The processor is never taken out.

use std::collections::{BTreeMap, BTreeSet};

use assay_schedule::{AttemptId, Hash, Profile, Report};

use super::attempts::NO_DEVICE;
use super::{Action, Lane, Phase, Refused, Settings, State};
use crate::receipt::Outcome;
use crate::runner::{Device, DeviceFault};

/// Tasks that a device fails one after the other, each another one, until it is taken out. One task that fails again and
/// again may itself be the reason.
const TROUBLES_MAX: usize = 3;
/// Times that an attempt is begun again in a new process.
const RESTARTS_MAX: u32 = 1;

/// How a device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Tasks that it has failed since it has finished one, by key.
    troubles: BTreeSet<Hash>,
    /// How often it was looked for or taken out since it has finished a task.
    tries: u32,
    out: Option<Out>,
}

/// A device that is out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Out {
    fault: DeviceFault,
    check: Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// It does not come back.
    Never,
    At(u64),
    UnderWay,
}

/// The device of a slot.
pub(super) fn device_of(settings: &Settings, slot: u32) -> Device {
    let count = settings.devices.len().max(1);
    settings.devices.get(slot as usize % count).copied().unwrap_or_default()
}

pub(super) fn is_in_service(settings: &Settings, health: &BTreeMap<Device, Health>, slot: u32) -> bool {
    health.get(&device_of(settings, slot)).is_none_or(|health| health.out.is_none())
}

impl State {
    /// Slots of devices that are in service.
    pub(super) fn slots(&self) -> u32 {
        let in_service = |slot: &u32| is_in_service(&self.settings, &self.health, *slot);
        (0..self.settings.profile.slots).filter(in_service).count() as u32
    }

    /// What this worker offers now.
    pub(super) fn profile(&self) -> Profile {
        Profile { slots: self.slots(), ..self.settings.profile.clone() }
    }

    /// Whether no task of a kind that this worker does has a place here any more. Then it leaves.
    pub fn is_useless(&self) -> bool {
        let profile = self.profile();
        let has_place =
            |is_controller| if is_controller { profile.controllers > 0 } else { profile.slots > 0 };
        !profile.kinds.iter().any(|kind| has_place(kind.is_controller()))
    }

    /// Devices that are out of service, and why.
    pub fn out(&self) -> impl Iterator<Item = (Device, &DeviceFault)> {
        self.health.iter().filter_map(|(device, health)| Some((*device, &health.out.as_ref()?.fault)))
    }

    pub(super) fn is_out(&self, device: Device) -> bool {
        self.health.get(&device).is_some_and(|health| health.out.is_some())
    }

    pub(super) fn device_worked(&mut self, device: Device) {
        if let Some(health) = self.health.get_mut(&device) {
            health.troubles.clear();
            health.tries = 0;
        }
    }

    /// The device of a running attempt has failed it. Whether the attempt has been begun again.
    pub(super) fn device_failed(&mut self, id: AttemptId, fault: &DeviceFault, now_ms: u64) -> bool {
        let attempt = &self.attempts[&id];
        let (key, is_wanted) = (attempt.dispatch.key, !attempt.is_closed && attempt.restarts < RESTARTS_MAX);
        let Some(device) = attempt.gpu else { return false };
        let Some(health) = self.health.get_mut(&device) else { return false };
        let is_over = match fault {
            DeviceFault::Allocation => return false,
            DeviceFault::Sticky(_) | DeviceFault::Hung(_) => {
                health.troubles.insert(key);
                health.troubles.len() >= TROUBLES_MAX
            }
            DeviceFault::Lost(_) | DeviceFault::Wrong(_) => true,
        };
        if is_over {
            self.take_out(device, fault.clone(), Some(id), now_ms);
        }
        if !is_wanted || self.is_out(device) || !matches!(fault, DeviceFault::Sticky(_)) {
            return false;
        }
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.restarts += 1;
        }
        self.actions.push(Action::Run { attempt: id, device });
        true
    }

    /// The leader has found a result wrong.
    pub(super) fn revoke_wrong(&mut self, id: AttemptId, now_ms: u64) -> Result<(), Refused> {
        let here = self.attempts.get(&id).map(|attempt| attempt.gpu);
        let gpu = here.or_else(|| self.over.get(&id).copied()).flatten();
        let revoked = self.revoke(id);
        let Some(device) = gpu else { return revoked };
        let others = (0..self.settings.profile.slots).filter(|slot| {
            device_of(&self.settings, *slot) != device && is_in_service(&self.settings, &self.health, *slot)
        });
        if others.count() > 0 {
            let fault = DeviceFault::Wrong(format!("the result of attempt {id} did not verify"));
            self.take_out(device, fault, None, now_ms);
        }
        Ok(())
    }

    /// Takes a device and its slots out of service. What runs on it, but for `ended`, is stopped.
    fn take_out(&mut self, device: Device, fault: DeviceFault, ended: Option<AttemptId>, now_ms: u64) {
        if self.is_out(device) {
            return;
        }
        let check = match fault {
            DeviceFault::Wrong(_) => Check::Never,
            _ => self.next_check(device, now_ms),
        };
        let Some(health) = self.health.get_mut(&device) else { return };
        health.out = Some(Out { fault: fault.clone(), check });
        self.actions.push(Action::Health { device, fault: Some(fault) });
        self.free_slots.retain(|slot| device_of(&self.settings, *slot) != device);
        for (id, attempt) in &self.attempts {
            let is_on_it = attempt.phase == Phase::Running && attempt.gpu == Some(device);
            if is_on_it && !attempt.is_closed && ended != Some(*id) {
                self.actions.push(Action::Stop { attempt: *id });
            }
        }
        self.posts.change_profile();
        if self.slots() == 0 {
            for id in std::mem::take(&mut self.waiting[0]) {
                self.seal(id, Report::Transient { reason: NO_DEVICE.to_owned() }, Outcome::Failed);
            }
        }
        if self.is_useless() && self.leaving.is_none() {
            self.leave(now_ms);
        }
    }

    fn next_check(&mut self, device: Device, now_ms: u64) -> Check {
        let tries = self.health.get(&device).map_or(0, |health| health.tries);
        let (first, max) = (self.settings.times.check_ms, self.settings.times.check_ms_max);
        let wait = self.wait(tries, first, max);
        if let Some(health) = self.health.get_mut(&device) {
            health.tries = tries.saturating_add(1);
        }
        Check::At(now_ms + wait)
    }

    /// Looks for devices that are out, once nothing of theirs runs any more.
    pub(super) fn check_devices(&mut self, now_ms: u64) {
        if self.leaving.is_some() {
            return;
        }
        let lanes = self.attempts.values().filter_map(|attempt| attempt.lane);
        let busy: BTreeSet<Device> = lanes
            .filter_map(|lane| match lane {
                Lane::Slot(slot) => Some(device_of(&self.settings, slot)),
                Lane::Controller => None,
            })
            .collect();
        for (device, health) in &mut self.health {
            let Some(Out { check, .. }) = &mut health.out else { continue };
            if matches!(check, Check::At(due) if *due <= now_ms) && !busy.contains(device) {
                *check = Check::UnderWay;
                self.actions.push(Action::Check { device: *device });
            }
        }
    }

    pub(super) fn checked(&mut self, device: Device, is_there: bool, now_ms: u64) -> Result<(), Refused> {
        let out = self.health.get(&device).and_then(|health| health.out.as_ref());
        if out.is_none_or(|out| out.check != Check::UnderWay) {
            return Err(Refused::UnknownDevice { device });
        }
        let next = self.next_check(device, now_ms);
        let Some(health) = self.health.get_mut(&device) else { return Ok(()) };
        if let Some(out) = health.out.as_mut().filter(|_| !is_there) {
            out.check = next;
            return Ok(());
        }
        health.out = None;
        health.troubles.clear();
        self.actions.push(Action::Health { device, fault: None });
        // Nothing was on them, or they would not have been looked at.
        let slots = 0..self.settings.profile.slots;
        self.free_slots.extend(slots.filter(|slot| device_of(&self.settings, *slot) == device));
        self.posts.change_profile();
        Ok(())
    }
}
