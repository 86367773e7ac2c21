//! Strikes at weakened builds: one each, at the moment that matters, however fast or slow the machine is.
//!
//! | defect | strike |
//! |---|---|
//! | `settle-twice` | a settlement is posted and not answered yet: all coordinators are killed |
//! | `no-memo` | the news that a part is done is on its way to its controller: the controller is killed |
//! | `no-aof` | a batch is accepted: Redis is killed |
//! | `stale-leader` | the leader sleeps until another one has committed, and wakes |
//! | `no-fence` | what an attempt publishes is held back until the attempt is fenced, and goes through |
//! | `no-checksum` | a byte of everything that is to be read is changed while no worker reads, again and again |
//! | `evict` | a batch is accepted: Redis is full |
//! | `repeat` | the answer to a submission is lost, so that its sender repeats it |
//! | `clock-lease` | one that does not lead starts again with a clock that is ahead by more than a lease |
//! | `accept-all` | none: half of all results are wrong |

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use assay_queue::TaskQueue as _;
use assay_schedule::{Action, AttemptId, Work};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::cluster::Node;
use crate::error::ChaosError;
use crate::faults::Tormentor;
use crate::look::load;
use crate::options::Weakness;
use crate::plan::Target;
use crate::proxy::{Mode, Snare, Trap, Way};

/// How long the moment may take to come.
const MOMENT_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at the stored state.
const LOOK: Duration = Duration::from_millis(100);
/// Rounds of damage, and what lies between them.
const ROUNDS: u64 = 20;
const ROUND: Duration = Duration::from_millis(150);
const FULL_MS: u64 = 1500;
/// More than the leader's lease.
const AHEAD_MS: i64 = 6000;

impl Tormentor {
    /// Strikes a build with a defect where it hurts.
    pub(crate) async fn aim(
        &self,
        weakness: Weakness,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), ChaosError> {
        match tokio::time::timeout(MOMENT_MAX, self.strike(weakness)).await {
            Ok(struck) => {
                struck?;
                tell(&format!("struck where {weakness:?} hurts"));
                self.note("aimed", true);
                Ok(())
            }
            Err(_) => Err(ChaosError::Moment {
                weakness,
                seconds: MOMENT_MAX.as_secs(),
                dir: self.cluster.dir.clone(),
            }),
        }
    }

    async fn strike(&self, weakness: Weakness) -> Result<(), ChaosError> {
        match weakness {
            Weakness::SettleTwice => self.kill_while_settling().await,
            Weakness::NoMemo => self.kill_before_delivery().await,
            Weakness::NoAof => {
                self.accepted().await;
                while !self.kill_redis(0).await? {
                    sleep(PAUSE).await;
                }
                Ok(())
            }
            Weakness::StaleLeader => self.pause_until_deposed().await,
            Weakness::NoFence => self.publish_late().await,
            Weakness::NoChecksum => self.damage_everything().await,
            Weakness::Evict => {
                self.accepted().await;
                while !self.fill(FULL_MS).await? {
                    sleep(PAUSE).await;
                }
                Ok(())
            }
            Weakness::Repeat => {
                let mut caught =
                    self.set_trap(Way::ToRedis, find_submission, Snare::LoseAnswer, is_coordinator);
                caught.recv().await;
                Ok(())
            }
            Weakness::ClockLease => {
                let other = (self.leader().await + 1) % self.coordinators().count();
                let target = Target::Coordinator(u32::try_from(other).unwrap_or(0));
                while !self.kill(target, 0, Some(AHEAD_MS)).await? {
                    sleep(PAUSE).await;
                }
                Ok(())
            }
            Weakness::AcceptAll => Ok(()),
        }
    }

    fn coordinators(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.cluster.nodes.iter().filter(|node| is_coordinator(node.target))
    }

    async fn accepted(&self) {
        while self.cluster.accepted.load(Ordering::SeqCst) == 0 {
            sleep(PAUSE).await;
        }
    }

    async fn leader(&self) -> usize {
        loop {
            if let Some(leader) = self.cluster.client.leader().await {
                return leader;
            }
            sleep(PAUSE).await;
        }
    }

    /// Sets a trap in the proxies of some processes.
    fn set_trap(
        &self,
        way: Way,
        finds: fn(&[u8]) -> Option<u64>,
        snare: Snare,
        is_wanted: fn(Target) -> bool,
    ) -> mpsc::UnboundedReceiver<(usize, u64)> {
        let (sprung, caught) = mpsc::unbounded_channel();
        let trap = Trap { way, finds, snare, is_armed: Arc::new(AtomicBool::new(true)), sprung, proxy: 0 };
        for (proxy, node) in self.cluster.nodes.iter().enumerate().filter(|(_, node)| is_wanted(node.target))
        {
            node.proxy.set_trap(Trap { proxy, ..trap.clone() });
        }
        caught
    }

    async fn kill_while_settling(&self) -> Result<(), ChaosError> {
        while !is_posted(&self.cluster.dir.join("posted")) {
            sleep(PAUSE).await;
        }
        let mut killed = Vec::new();
        for node in self.coordinators() {
            let mut slot = node.wait().await;
            slot.kill();
            killed.push(slot);
        }
        killed.iter_mut().try_for_each(|slot| slot.start())
    }

    async fn kill_before_delivery(&self) -> Result<(), ChaosError> {
        let mut caught = self.set_trap(Way::ToProcess, find_delivery, Snare::Stall, is_worker);
        let Some((node, _)) = caught.recv().await else { return Ok(()) };
        let node = &self.cluster.nodes[node];
        let mut slot = node.wait().await;
        slot.kill();
        node.proxy.set(Mode::Relay);
        slot.start()
    }

    async fn pause_until_deposed(&self) -> Result<(), ChaosError> {
        self.accepted().await;
        let (leader, before) = loop {
            let leader = self.leader().await;
            if let Ok(Some(now)) = self.cluster.queue.leader().await {
                break (leader, now.epoch.0);
            }
        };
        let slot = self.cluster.nodes[leader].wait().await;
        slot.pause(true);
        // Its successor leads, and has said so in the log.
        while load(&self.cluster).await.map_or(0, |state| state.epoch().0) <= before {
            sleep(LOOK).await;
        }
        slot.pause(false);
        Ok(())
    }

    async fn publish_late(&self) -> Result<(), ChaosError> {
        let mut caught = self.set_trap(Way::ToRedis, find_publication, Snare::Stall, is_worker);
        let Some((node, attempt)) = caught.recv().await else { return Ok(()) };
        while !self.is_fenced(AttemptId(attempt)).await {
            sleep(LOOK).await;
        }
        self.cluster.nodes[node].proxy.set(Mode::Relay);
        Ok(())
    }

    /// Whether the schedule has given an attempt up, and all that it had published is let go of.
    async fn is_fenced(&self, attempt: AttemptId) -> bool {
        let Ok(state) = load(&self.cluster).await else { return false };
        let names_it = |action: &Action| matches!(action, Action::Work(Work::Fence { attempts }) if attempts.contains(&attempt));
        state.machine().attempt(attempt).is_none()
            && !state.machine().pending().any(|effect| names_it(&effect.action))
    }

    async fn damage_everything(&self) -> Result<(), ChaosError> {
        self.accepted().await;
        for round in 0..ROUNDS {
            let mut paused = Vec::new();
            for node in self.cluster.nodes.iter().filter(|node| is_worker(node.target)) {
                let slot = node.wait().await;
                slot.pause(true);
                paused.push(slot);
            }
            self.corrupt(u32::MAX, round).await;
            paused.iter().for_each(|slot| slot.pause(false));
            drop(paused);
            sleep(ROUND).await;
        }
        Ok(())
    }
}

fn is_coordinator(target: Target) -> bool {
    matches!(target, Target::Coordinator(_))
}

fn is_worker(target: Target) -> bool {
    matches!(target, Target::Worker(_))
}

fn is_posted(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("batch-"))
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A coordinator posts a submission. The request is text within text.
fn find_submission(bytes: &[u8]) -> Option<u64> {
    position(bytes, br#"{\"submit\":"#).map(|_| 0)
}

/// A worker is told that a part is done.
fn find_delivery(bytes: &[u8]) -> Option<u64> {
    position(bytes, br#"{"deliver":"#).map(|_| 0)
}

/// A worker publishes the first output of an attempt, which this is the number of.
fn find_publication(bytes: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"attempt/";
    let mut rest = bytes;
    while let Some(at) = position(rest, NAME) {
        rest = &rest[at + NAME.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if rest[digits..].starts_with(b"/0\r\n") {
            return std::str::from_utf8(&rest[..digits]).ok()?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_traps_wait_for_is_found() {
        assert_eq!(find_publication(b"$11\r\nattempt/182/0\r\n$64"), Some(182));
        assert_eq!(find_publication(b"attempt/7/2\r\n attempt/8/0\r\n"), Some(8));
        assert_eq!(find_publication(b"attempt/7/01\r\nattempt/"), None);
        assert_eq!(
            find_submission(br#"{"coordinator":"{\"request\":{\"id\":[1,2],\"command\":{\"submit\":{"#),
            Some(0)
        );
        assert_eq!(find_delivery(br#"{"action":{"message":{"deliver":{"worker":1"#), Some(0));
        assert_eq!(find_delivery(br#"{"message":{"dispatch":{}}}"#), None);
    }

    #[test]
    fn each_defect_is_shown_by_a_fault_of_its_own() {
        use clap::ValueEnum as _;
        let mut kinds: Vec<_> =
            Weakness::value_variants().iter().map(|weakness| weakness.shown_by()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, crate::options::FaultKind::value_variants());
    }
}
