//! The accounts that a process knows: found without an allocation, bounded in number.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::job::budget::Account;
use crate::job::{EndpointName, Tenant};
use crate::policy::account::{Change, Knowledge, Streak};
use crate::policy::circuit::Circuit;

/// How urgently the others have to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// They know.
    #[default]
    Everything,
    /// There is something newer that leads to the same.
    Old,
    /// They do not know something that matters.
    Nothing,
}

/// What is known of one account.
#[derive(Debug, Default)]
pub struct Entry {
    pub knowledge: Knowledge,
    /// The stored version that is in it; 0 = none.
    pub version: i64,
    pub told: Told,
    /// When it was last written to the store.
    pub told_at: Timestamp,
    pub streak: Streak,
}

impl Entry {
    /// Something was learnt.
    pub fn changed(&mut self, change: Change) {
        let told = match change {
            Change { urgent: true, .. } => Told::Nothing,
            Change { any: true, .. } => Told::Old,
            _ => Told::Everything,
        };
        self.told = self.told.max(told);
    }
}

#[derive(Debug, Default)]
struct OfEndpoint {
    all: Option<Entry>,
    tenants: HashMap<Tenant, Entry>,
    /// Calls failed one after another, those of one tenant (it is this one), or of several.
    failing: Option<(Tenant, bool)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Accounts {
    endpoints: HashMap<EndpointName, OfEndpoint>,
    len: usize,
}

impl Accounts {
    pub fn len(&self) -> usize {
        self.len
    }

    /// What is known of all tenants of an endpoint together, and of one.
    pub fn of(&self, endpoint: &EndpointName, tenant: &Tenant) -> [Option<&Knowledge>; 2] {
        let Some(of) = self.endpoints.get(endpoint) else { return [None, None] };
        [of.all.as_ref(), of.tenants.get(tenant)].map(|entry| entry.map(|entry| &entry.knowledge))
    }

    pub fn get(&self, account: &Account) -> Option<&Entry> {
        let of = self.endpoints.get(&account.endpoint)?;
        account.tenant.as_ref().map_or(of.all.as_ref(), |tenant| of.tenants.get(tenant))
    }

    /// The account's entry, made when it is new; `None` when there are `max` others.
    pub fn entry(&mut self, account: &Account, max: usize) -> Option<&mut Entry> {
        if self.get(account).is_none() {
            if self.len >= max {
                return None;
            }
            self.len += 1;
        }
        let of = self.endpoints.entry(account.endpoint.clone()).or_default();
        Some(match &account.tenant {
            None => of.all.get_or_insert_default(),
            Some(tenant) => of.tenants.entry(tenant.clone()).or_default(),
        })
    }

    /// Notes whether a call of `tenant` worked; answers whether calls of several tenants failed one after another.
    pub fn fails_several(&mut self, endpoint: &Account, tenant: &Tenant, works: bool) -> bool {
        let Some(of) = self.endpoints.get_mut(&endpoint.endpoint) else {
            if !works {
                let failing = Some((tenant.clone(), false));
                self.endpoints.insert(endpoint.endpoint.clone(), OfEndpoint { failing, ..OfEndpoint::default() });
            }
            return false;
        };
        if works {
            of.failing = None;
            return false;
        }
        let (first, several) = of.failing.get_or_insert_with(|| (tenant.clone(), false));
        *several |= first != tenant;
        *several
    }

    /// Whether a success changes nothing for these: no failure before it, no circuit that it could close.
    pub fn all_quiet(&self, owner: &EndpointName, endpoint: &EndpointName, tenant: &Tenant) -> bool {
        let quiet = |entry: &Entry| entry.streak.failures == 0 && entry.knowledge.circuit == Circuit::Closed;
        let of = |endpoint| {
            self.endpoints.get(endpoint).is_none_or(|of| {
                of.failing.is_none() && of.all.as_ref().is_none_or(quiet) && of.tenants.get(tenant).is_none_or(quiet)
            })
        };
        of(owner) && (owner == endpoint || of(endpoint))
    }

    /// The word of the circuit of an endpoint that is shut most.
    pub fn circuit_word(&self, endpoint: &EndpointName) -> &'static str {
        let of = self.endpoints.get(endpoint);
        let all = of.into_iter().flat_map(|of| of.all.iter().chain(of.tenants.values()));
        let words: Vec<&str> = all.map(|entry| entry.knowledge.circuit.word()).collect();
        ["open", "half_open"].into_iter().find(|word| words.contains(word)).unwrap_or("closed")
    }

    pub fn iter(&self) -> impl Iterator<Item = (Account, &Entry)> {
        self.endpoints.iter().flat_map(|(endpoint, of)| {
            let account = |tenant: Option<&Tenant>| Account { endpoint: endpoint.clone(), tenant: tenant.cloned() };
            let all = of.all.iter().map(move |entry| (account(None), entry));
            all.chain(of.tenants.iter().map(move |(tenant, entry)| (account(Some(tenant)), entry)))
        })
    }

    /// Forgets those for which `gone` holds.
    pub fn forget(&mut self, gone: impl Fn(&Entry) -> bool) {
        for of in self.endpoints.values_mut() {
            of.all = of.all.take().filter(|entry| !gone(entry));
            of.tenants.retain(|_, entry| !gone(entry));
        }
        self.len = self.endpoints.values().map(|of| usize::from(of.all.is_some()) + of.tenants.len()).sum();
    }
}
