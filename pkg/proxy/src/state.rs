//! What the table holds now, and what has to change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use kube1_client::ObjectKey;
use kube1_network::nft::{Content, Element, Key, NftError, Table};

use crate::rules::{Fragment, base};

type Place = (String, Key);

/// The table as it is in the kernel after the last successful transaction.
pub struct TableState {
    table: Table,
    base: Content,
    services: HashMap<ObjectKey, Fragment>,
    /// Who wants which element. Services may share one, or quarrel about one: then the first by name has it.
    claims: BTreeMap<Place, BTreeMap<ObjectKey, Element>>,
}

impl TableState {
    /// The state before the first transaction.
    pub fn new(table: &str, cluster_cidrs: &[IpNet]) -> Self {
        let table = Table::new(table);
        Self { table, base: base(cluster_cidrs), services: HashMap::new(), claims: BTreeMap::new() }
    }

    /// Makes the table hold exactly these services, in one transaction.
    pub fn replace(&mut self, services: HashMap<ObjectKey, Fragment>) -> Result<(), NftError> {
        self.claims.clear();
        for (key, fragment) in &services {
            claim(&mut self.claims, key, fragment);
        }
        let mut content = self.base.clone();
        for fragment in services.values() {
            content.sets.extend(fragment.own.sets.clone());
            content.chains.extend(fragment.own.chains.clone());
        }
        for ((set, key), owners) in &self.claims {
            let Some(element) = owners.values().next() else { continue };
            content.element(set.clone(), key.clone(), element.clone());
        }
        self.services = services;
        self.table.replace(&content)
    }

    /// Makes the table follow some services' new states, in one transaction that holds the differences only.
    ///
    /// After an error the state is unknown: call [`Self::replace`].
    pub fn update(&mut self, changed: Vec<(ObjectKey, Fragment)>) -> Result<(), NftError> {
        let (mut olds, mut touched) = (Vec::new(), BTreeSet::new());
        for (key, new) in &changed {
            let old = self.services.remove(key).unwrap_or_default();
            touched.extend(old.shared.keys().chain(new.shared.keys()).cloned());
            olds.push(old);
        }
        let before = self.elements(&touched);
        for ((key, new), old) in changed.iter().zip(&olds) {
            for place in old.shared.keys() {
                if let Some(owners) = self.claims.get_mut(place) {
                    owners.remove(key);
                }
            }
            claim(&mut self.claims, key, new);
        }
        let after = self.elements(&touched);
        for place in &touched {
            if self.claims.get(place).is_some_and(BTreeMap::is_empty) {
                self.claims.remove(place);
            }
        }
        let mut changes: Vec<(&Content, &Content)> =
            olds.iter().zip(&changed).map(|(old, (_, new))| (&old.own, &new.own)).collect();
        changes.push((&before, &after));
        self.table.change(&changes)?;
        self.services.extend(changed.into_iter().filter(|(_, new)| *new != Fragment::default()));
        Ok(())
    }

    /// Whether the kernel still has the table: other software may empty the whole ruleset.
    pub fn is_there(&self) -> Result<bool, NftError> {
        self.table.exists()
    }

    fn elements(&self, places: &BTreeSet<Place>) -> Content {
        let mut content = Content::default();
        for place in places {
            if let Some(element) = self.claims.get(place).and_then(|owners| owners.values().next()) {
                content.element(place.0.clone(), place.1.clone(), element.clone());
            }
        }
        content
    }
}

fn claim(claims: &mut BTreeMap<Place, BTreeMap<ObjectKey, Element>>, key: &ObjectKey, fragment: &Fragment) {
    for (place, element) in &fragment.shared {
        claims.entry(place.clone()).or_default().insert(key.clone(), element.clone());
    }
}
