//! Who asks, as a caller says: kept in the record of every command, for the audit. Nothing checks it yet: it is a name and no
//! proof.

use std::{fmt, sync::Arc};

use crate::{
    admission::{Tenant, tenants::TENANT_LEN_MAX},
    entity::{KeyError, key::check},
};

/// The longest name of a caller, in bytes.
pub const CALLER_LEN_MAX: usize = 128;
/// The longest `tenant/caller`, in bytes.
pub(crate) const ASKED_BY_LEN_MAX: usize = TENANT_LEN_MAX + 1 + CALLER_LEN_MAX;

/// Who asks, as they say.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Caller(Option<Arc<str>>);

impl Caller {
    /// A checked name; the empty one is nobody in particular.
    pub fn new(name: &str) -> Result<Self, KeyError> {
        if name.is_empty() {
            return Ok(Self(None));
        }
        check(name, CALLER_LEN_MAX)?;
        Ok(Self(Some(name.into())))
    }

    /// The name; empty for nobody in particular.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// What a record says of who asked: `tenant/caller`, or the one of them that is named.
    pub(crate) fn of(&self, tenant: &Tenant) -> Option<Arc<str>> {
        match (tenant.as_str(), &self.0) {
            ("", caller) => caller.clone(),
            (tenant, None) => Some(tenant.into()),
            (tenant, Some(caller)) => Some(format!("{tenant}/{caller}").into()),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_tenant_and_caller_as_far_as_they_are_known() {
        let said = |tenant: &str, caller: &str| {
            let tenant = Tenant::new(tenant).expect("a tenant");
            let caller = Caller::new(caller).expect("a caller");
            caller.of(&tenant).map(|name| name.to_string())
        };
        assert_eq!(said("", ""), None);
        assert_eq!(said("shop", "").as_deref(), Some("shop"));
        assert_eq!(said("", "ann").as_deref(), Some("ann"));
        assert_eq!(said("shop", "ann").as_deref(), Some("shop/ann"));
        assert!(Caller::new(&"x".repeat(CALLER_LEN_MAX + 1)).is_err());
        assert!(Caller::new("a\nb").is_err());
    }
}
