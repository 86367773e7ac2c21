//! Contracts of the sample chain, assembled here so that no compiler is needed to check them.

use std::collections::BTreeMap;

use alloy_primitives::{b256, keccak256, Address, Bytes, B256, U256};
use revm::bytecode::opcode as op;

/// Storage of the token: `balances[address]` is at `keccak256(address . 0)`, `allowances[owner][spender]` at
/// `keccak256(spender . keccak256(owner . 1))`, the total supply here.
pub(super) const TOTAL_SUPPLY_SLOT: U256 = U256::from_limbs([2, 0, 0, 0]);

const TRANSFER_EVENT: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
const APPROVAL_EVENT: B256 = b256!("8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925");

const TOTAL_SUPPLY: [u8; 4] = [0x18, 0x16, 0x0d, 0xdd];
const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
const TRANSFER: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];
const APPROVE: [u8; 4] = [0x09, 0x5e, 0xa7, 0xb3];
const ALLOWANCE: [u8; 4] = [0xdd, 0x62, 0xed, 0x3e];
const TRANSFER_FROM: [u8; 4] = [0x23, 0xb8, 0x72, 0xdd];

/// Slot of an account's balance.
pub(super) fn balance_slot(account: Address) -> U256 {
    mapping_slot(account, U256::ZERO)
}

/// Slot of what `spender` may spend of `owner`'s.
pub(super) fn allowance_slot(owner: Address, spender: Address) -> U256 {
    mapping_slot(spender, mapping_slot(owner, U256::from(1)))
}

fn mapping_slot(key: Address, base: U256) -> U256 {
    let mut both = [0; 64];
    both[12..32].copy_from_slice(key.as_slice());
    both[32..].copy_from_slice(&base.to_be_bytes::<32>());
    keccak256(both).into()
}

/// Call data of `transfer(to, value)`.
pub(super) fn transfer_call(to: Address, value: U256) -> Bytes {
    call(TRANSFER, &[to.into_word(), value.into()])
}

/// Call data of `approve(spender, value)`.
pub(super) fn approve_call(spender: Address, value: U256) -> Bytes {
    call(APPROVE, &[spender.into_word(), value.into()])
}

/// Call data of `transferFrom(from, to, value)`.
pub(super) fn transfer_from_call(from: Address, to: Address, value: U256) -> Bytes {
    call(TRANSFER_FROM, &[from.into_word(), to.into_word(), value.into()])
}

fn call(selector: [u8; 4], words: &[B256]) -> Bytes {
    let mut data = selector.to_vec();
    words.iter().for_each(|word| data.extend_from_slice(word.as_slice()));
    data.into()
}

/// Code that makes a counter: it starts at `start` and every call adds one to its slot 0.
pub(super) fn counter_init(start: u64) -> Bytes {
    let runtime = [op::PUSH0, op::SLOAD, op::PUSH1, 1, op::ADD, op::PUSH0, op::SSTORE, op::STOP];
    let mut asm = Assembler::default();
    asm.push(&start.to_be_bytes()).op(&[op::PUSH0, op::SSTORE]);
    asm.push(&runtime).op(&[op::PUSH0, op::MSTORE]);
    asm.push(&[8]).push(&[24]).op(&[op::RETURN]);
    asm.assemble()
}

/// Run-time code of an ERC-20 token with a fixed supply: `totalSupply`, `balanceOf`, `transfer`, `approve`, `allowance`
/// and `transferFrom` with their events. Anything else, or more than a balance or an allowance holds, reverts.
pub(super) fn erc20() -> Bytes {
    let mut asm = Assembler::default();
    asm.op(&[op::PUSH0, op::CALLDATALOAD]).push(&[0xe0]).op(&[op::SHR]);
    let entries = [
        (TOTAL_SUPPLY, "totalSupply"),
        (BALANCE_OF, "balanceOf"),
        (TRANSFER, "transfer"),
        (APPROVE, "approve"),
        (ALLOWANCE, "allowance"),
        (TRANSFER_FROM, "transferFrom"),
    ];
    for (selector, label) in entries {
        asm.op(&[op::DUP1]).push(&selector).op(&[op::EQ]).jump_if(label);
    }
    asm.label("fail").op(&[op::PUSH0, op::PUSH0, op::REVERT]);
    asm.label("totalSupply").push(&[2]).op(&[op::SLOAD]).return_word();
    asm.label("balanceOf").argument(0).balance_slot().op(&[op::SLOAD]).return_word();
    asm.label("allowance").argument(1).argument(0).allowance_slot().op(&[op::SLOAD]).return_word();
    asm.label("approve").argument(1).argument(0).op(&[op::CALLER]).allowance_slot().op(&[op::SSTORE]);
    asm.argument(1).op(&[op::PUSH0, op::MSTORE]).argument(0).op(&[op::CALLER]).log_word(APPROVAL_EVENT);
    asm.push(&[1]).return_word();
    asm.label("transfer").argument(1).argument(0).op(&[op::CALLER]).jump("move");
    // slot, allowed, value: fail if allowed < value, store allowed - value.
    asm.label("transferFrom").op(&[op::CALLER]).argument(0).allowance_slot();
    asm.op(&[op::DUP1, op::SLOAD]).argument(2).op(&[op::DUP1, op::DUP3, op::LT]).jump_if("fail");
    asm.op(&[op::SWAP1, op::SUB, op::SWAP1, op::SSTORE]);
    asm.argument(2).argument(1).argument(0);
    // value, to, from: the common end of both transfers.
    asm.label("move").op(&[op::DUP1]).balance_slot().op(&[op::DUP1, op::SLOAD, op::DUP5]);
    asm.op(&[op::DUP1, op::DUP3, op::LT]).jump_if("fail").op(&[op::SWAP1, op::SUB, op::SWAP1, op::SSTORE]);
    asm.op(&[op::DUP2]).balance_slot().op(&[op::DUP1, op::SLOAD, op::DUP5, op::ADD, op::SWAP1, op::SSTORE]);
    asm.op(&[op::DUP3, op::PUSH0, op::MSTORE]).log_word(TRANSFER_EVENT).push(&[1]).return_word();
    asm.assemble()
}

/// Writes byte code with labels. The methods below `push` name the words they take from the stack and leave there.
#[derive(Debug, Default)]
struct Assembler {
    code: Vec<u8>,
    labels: BTreeMap<&'static str, usize>,
    /// Positions of two-byte label references.
    references: Vec<(usize, &'static str)>,
}

impl Assembler {
    fn op(&mut self, opcodes: &[u8]) -> &mut Self {
        self.code.extend_from_slice(opcodes);
        self
    }

    fn push(&mut self, bytes: &[u8]) -> &mut Self {
        self.code.push(op::PUSH0 + bytes.len() as u8);
        self.op(bytes)
    }

    fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.insert(name, self.code.len());
        self.op(&[op::JUMPDEST])
    }

    fn reference(&mut self, name: &'static str) -> &mut Self {
        self.references.push((self.code.len() + 1, name));
        self.push(&[0, 0])
    }

    fn jump(&mut self, name: &'static str) -> &mut Self {
        self.reference(name).op(&[op::JUMP])
    }

    /// condition ->
    fn jump_if(&mut self, name: &'static str) -> &mut Self {
        self.reference(name).op(&[op::JUMPI])
    }

    /// -> the call's argument with this index
    fn argument(&mut self, index: u8) -> &mut Self {
        self.push(&[4 + 32 * index]).op(&[op::CALLDATALOAD])
    }

    /// address -> slot of its balance
    fn balance_slot(&mut self) -> &mut Self {
        self.op(&[op::PUSH0, op::MSTORE, op::PUSH0]).push(&[0x20]).op(&[op::MSTORE]).hash_two_words()
    }

    /// spender, owner -> slot of the allowance
    fn allowance_slot(&mut self) -> &mut Self {
        self.op(&[op::PUSH0, op::MSTORE]).push(&[1]).push(&[0x20]).op(&[op::MSTORE]).hash_two_words();
        self.push(&[0x20]).op(&[op::MSTORE, op::PUSH0, op::MSTORE]).hash_two_words()
    }

    /// -> hash of the first two words of memory
    fn hash_two_words(&mut self) -> &mut Self {
        self.push(&[0x40]).op(&[op::PUSH0, op::KECCAK256])
    }

    /// third topic, second topic -> ; the first word of memory is the event's data
    fn log_word(&mut self, event: B256) -> &mut Self {
        self.push(event.as_slice()).push(&[0x20]).op(&[op::PUSH0, op::LOG3])
    }

    /// word -> ; ends the call with it
    fn return_word(&mut self) -> &mut Self {
        self.op(&[op::PUSH0, op::MSTORE]).push(&[0x20]).op(&[op::PUSH0, op::RETURN])
    }

    fn assemble(&mut self) -> Bytes {
        for (at, name) in &self.references {
            let target = self.labels.get(name).copied().unwrap_or_default() as u16;
            self.code[*at..*at + 2].copy_from_slice(&target.to_be_bytes());
        }
        core::mem::take(&mut self.code).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_events_are_those_of_erc20() {
        let selector = |signature: &str| keccak256(signature)[..4].to_vec();
        assert_eq!(selector("totalSupply()"), TOTAL_SUPPLY);
        assert_eq!(selector("balanceOf(address)"), BALANCE_OF);
        assert_eq!(selector("transfer(address,uint256)"), TRANSFER);
        assert_eq!(selector("approve(address,uint256)"), APPROVE);
        assert_eq!(selector("allowance(address,address)"), ALLOWANCE);
        assert_eq!(selector("transferFrom(address,address,uint256)"), TRANSFER_FROM);
        assert_eq!(keccak256("Transfer(address,address,uint256)"), TRANSFER_EVENT);
        assert_eq!(keccak256("Approval(address,address,uint256)"), APPROVAL_EVENT);
    }

    #[test]
    fn every_label_that_is_used_is_defined() {
        let mut asm = Assembler::default();
        asm.jump("somewhere").label("somewhere");
        assert_eq!(asm.assemble().as_ref(), [op::PUSH0 + 2, 0, 4, op::JUMP, op::JUMPDEST]);
        assert!(!erc20().windows(3).any(|w| w == [op::PUSH0 + 2, 0, 0]));
    }
}
