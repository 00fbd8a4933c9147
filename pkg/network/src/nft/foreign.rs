//! Chains of other software, in which our rules must have a say: a packet that another table drops is gone.

use std::io;

use super::batch::{Batch, NEW_TABLE, NftError};
use super::content::Content;
use super::rule::Rule;
use crate::nfnl::{NfnlSocket, attributes};

const GET_CHAIN: u16 = NEW_TABLE + 4;
const GET_RULE: u16 = NEW_TABLE + 7;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_USES: u16 = 6;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;

/// A chain in a table of family `ip` or `ip6`, such as the one that holds what `iptables` forwards.
#[derive(Clone, Copy, Debug)]
pub struct ForeignChain {
    pub v6: bool,
    pub table: &'static str,
    pub chain: &'static str,
}

impl ForeignChain {
    fn family(self) -> u8 {
        if self.v6 { 10 } else { 2 }
    }

    /// Puts `rules` before the chain's own, in a chain of our own called `ours`. Does nothing if there is no such chain;
    /// harmless to repeat.
    pub fn precede(self, ours: &str, rules: Vec<Rule>) -> Result<(), NftError> {
        if self.uses(self.chain)?.is_none() {
            return Ok(());
        }
        let (nothing, mut wanted) = (Content::default(), Content::default());
        wanted.chain(ours, rules);
        let (jump, mut batch) = (Rule::new().jump(ours), Batch::of_family(self.family(), self.table));
        batch.change(&[(&nothing, &wanted)]);
        if self.uses(ours)?.unwrap_or_default() == 0 {
            batch.first_rule(self.chain, &jump);
        }
        batch.commit()
    }

    /// Undoes [`Self::precede`].
    pub fn withdraw(self, ours: &str) -> Result<(), NftError> {
        if self.uses(ours)?.is_none() {
            return Ok(());
        }
        let handles = self.rules_that_mention(ours)?;
        let (mut had, nothing) = (Content::default(), Content::default());
        had.chain(ours, Vec::new());
        let mut batch = Batch::of_family(self.family(), self.table);
        handles.into_iter().for_each(|handle| batch.delete_rule(self.chain, handle));
        batch.change(&[(&had, &nothing)]);
        batch.commit()
    }

    /// How many rules lead to a chain; none if there is no such chain.
    fn uses(self, chain: &str) -> Result<Option<u32>, NftError> {
        let mut uses = 0;
        let socket = NfnlSocket::open().map_err(NftError::Socket)?;
        let fill = |out: &mut crate::nfnl::Messages| {
            out.text(CHAIN_TABLE, self.table);
            out.text(CHAIN_NAME, chain);
        };
        let asked = socket.get(GET_CHAIN, self.family(), fill, |object| {
            uses = attributes(object)
                .find_map(|(kind, value)| (kind == CHAIN_USES).then(|| value.try_into().ok()).flatten())
                .map_or(0, u32::from_be_bytes);
        });
        match asked {
            Ok(()) => Ok(Some(uses)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(NftError::Socket(error)),
        }
    }

    fn rules_that_mention(self, chain: &str) -> Result<Vec<u64>, NftError> {
        let name = [chain.as_bytes(), &[0]].concat();
        let mut handles = Vec::new();
        let socket = NfnlSocket::open().map_err(NftError::Socket)?;
        let fill = |out: &mut crate::nfnl::Messages| {
            out.text(1, self.table);
            out.text(2, self.chain);
        };
        let visit = |object: &[u8]| {
            let of = |wanted| attributes(object).find_map(|(kind, value)| (kind == wanted).then_some(value));
            let (Some(handle), Some(exprs)) = (of(RULE_HANDLE), of(RULE_EXPRESSIONS)) else { return };
            if exprs.windows(name.len()).any(|part| part == name) {
                handles.extend(handle.try_into().ok().map(u64::from_be_bytes));
            }
        };
        socket.dump(GET_RULE, self.family(), fill, visit).map_err(NftError::Socket)?;
        Ok(handles)
    }
}
