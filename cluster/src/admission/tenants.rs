//! Tenants: on whose behalf a call is made, and what each of them holds.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::AtomicUsize},
};

use parking_lot::RwLock;

use crate::entity::{KeyError, key::check};

/// The longest name of a tenant, in bytes.
pub(crate) const TENANT_LEN_MAX: usize = 64;
/// Tenants that are told apart at one time; those beyond share one place.
const TENANTS_MAX: usize = 1024;

/// On whose behalf a call is made. Nobody in particular is a tenant too.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Tenant(Option<Arc<str>>);

impl Tenant {
    /// A checked name; the empty one is nobody in particular.
    pub fn new(name: &str) -> Result<Self, KeyError> {
        if name.is_empty() {
            return Ok(Self(None));
        }
        check(name, TENANT_LEN_MAX)?;
        Ok(Self(Some(name.into())))
    }

    /// The name; empty for nobody in particular.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one tenant holds, for each kind of entity.
pub(crate) type Counts = Arc<[AtomicUsize]>;

/// What each tenant holds.
pub(crate) struct Tenants {
    kinds: usize,
    nobody: Counts,
    others: Counts,
    named: RwLock<HashMap<Arc<str>, Counts>>,
}

fn counts(kinds: usize) -> Counts {
    (0..kinds).map(|_| AtomicUsize::new(0)).collect()
}

impl Tenants {
    pub(crate) fn new(kinds: usize) -> Self {
        Self {
            kinds,
            nobody: counts(kinds),
            others: counts(kinds),
            named: RwLock::default(),
        }
    }

    /// The tenant's own counts.
    pub(crate) fn counts_of(&self, tenant: &Tenant) -> Counts {
        let Some(name) = &tenant.0 else {
            return Arc::clone(&self.nobody);
        };
        if let Some(counts) = self.named.read().get(name) {
            return Arc::clone(counts);
        }
        let mut named = self.named.write();
        if named.len() >= TENANTS_MAX {
            // Whoever holds a credit holds its counts; the others need no place.
            named.retain(|_, counts| Arc::strong_count(counts) > 1);
        }
        if named.len() >= TENANTS_MAX && !named.contains_key(name) {
            return Arc::clone(&self.others);
        }
        Arc::clone(named.entry(Arc::clone(name)).or_insert_with(|| counts(self.kinds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_fill_the_memory() {
        let tenants = Tenants::new(2);
        let busy: Vec<_> = (0..TENANTS_MAX)
            .map(|n| tenants.counts_of(&Tenant::new(&format!("busy-{n}")).expect("a tenant")))
            .collect();
        for n in 0..10_000 {
            tenants.counts_of(&Tenant::new(&format!("t{n}")).expect("a tenant"));
        }
        assert_eq!(tenants.named.read().len(), TENANTS_MAX);
        drop(busy);
        tenants.counts_of(&Tenant::new("new").expect("a tenant"));
        assert_eq!(tenants.named.read().len(), 1);
    }

    #[test]
    fn a_name_is_checked_like_an_id() {
        assert!(Tenant::new(&"x".repeat(TENANT_LEN_MAX + 1)).is_err());
        assert!(Tenant::new("a\nb").is_err());
        assert_eq!(
            Tenant::new("").map(|tenant| tenant.as_str().to_owned()),
            Ok(String::new())
        );
    }
}
