//! What a credential may be used for. A scope never gives a right: it leaves of the owner's rights what it names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{OrgRole, SystemRole, text_enum::text_enum};

text_enum! {
    /// One thing that a credential may be used for.
    Scope, "scope" {
        /// Look at sessions.
        SessionsRead = "sessions:read",
        /// Start, stop and change sessions, and look at them.
        SessionsWrite = "sessions:write",
        /// Open terminals, logs and other streams of sessions.
        Streams = "streams",
        /// Make, list, rotate and revoke API keys, none of them wider than this one.
        Keys = "keys",
        /// Look at the organization, its people, groups and quotas.
        OrgRead = "org:read",
        /// Change the organization, its people, groups and quotas, and look at them.
        OrgWrite = "org:write",
        /// See sources and pipes, and read messages.
        PipesRead = "pipes:read",
        /// Make and change sources and pipes, send messages, and read them.
        PipesWrite = "pipes:write",
        /// Everything that the owner's role in the organization allows.
        Everything = "*",
        /// What the owner may do as operator of the platform, and nothing more inside an organization.
        Admin = "admin",
    }
}

impl Scope {
    /// The scopes that this one brings with it, itself included.
    const fn brings(self) -> &'static [Self] {
        match self {
            Self::SessionsRead => &[Self::SessionsRead],
            Self::SessionsWrite => &[Self::SessionsWrite, Self::SessionsRead],
            Self::Streams => &[Self::Streams],
            Self::Keys => &[Self::Keys],
            Self::OrgRead => &[Self::OrgRead],
            Self::OrgWrite => &[Self::OrgWrite, Self::OrgRead],
            Self::PipesRead => &[Self::PipesRead],
            Self::PipesWrite => &[Self::PipesWrite, Self::PipesRead],
            Self::Everything => &[
                Self::Everything,
                Self::SessionsRead,
                Self::SessionsWrite,
                Self::Streams,
                Self::Keys,
                Self::OrgRead,
                Self::OrgWrite,
                Self::PipesRead,
                Self::PipesWrite,
            ],
            Self::Admin => &[Self::Admin],
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of scopes, as a list of words on the wire.
///
/// ```
/// use tidegate_model::{OrgRole, Scope, Scopes, SystemRole};
///
/// let key: Scopes = [Scope::SessionsWrite, Scope::Keys].into_iter().collect();
/// let owner = Scopes::of_role(OrgRole::User, SystemRole::User);
/// let left = key.within(owner);
/// assert!(left.allow(Scope::SessionsRead) && !left.allow(Scope::Keys));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// What a login with a password is limited to: nothing but its roles.
    pub const UNLIMITED: Self = Self(Scope::Everything.bit() | Scope::Admin.bit());

    /// Whether it names nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes it names, in the order of declaration.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// Whether it is good for `scope`, by name or through one that brings it.
    pub fn allow(self, scope: Scope) -> bool {
        self.whole().0 & scope.bit() != 0
    }

    /// Whether everything that `other` is good for, this is good for too: only then may it mint `other`.
    pub fn cover(self, other: Self) -> bool {
        other.whole().0 & !self.whole().0 == 0
    }

    /// What is left of it inside of `most`.
    #[must_use]
    pub fn within(self, most: Self) -> Self {
        Self(self.whole().0 & most.whole().0)
    }

    /// The most that a member's credential can be good for: data, and the only place where roles and scopes meet.
    pub fn of_role(org: OrgRole, system: SystemRole) -> Self {
        let inside: &[Scope] = match org {
            OrgRole::Admin => &[Scope::Everything],
            OrgRole::Maintainer | OrgRole::User => {
                &[Scope::SessionsWrite, Scope::Streams, Scope::OrgRead, Scope::PipesWrite]
            }
            OrgRole::Viewer => &[Scope::SessionsRead, Scope::OrgRead, Scope::PipesWrite],
        };
        let platform = system.is_operator().then_some(Scope::Admin);
        inside.iter().copied().chain(platform).collect()
    }

    fn whole(self) -> Self {
        self.iter().flat_map(Scope::brings).copied().collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            write!(f, "{}{scope}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

impl FromStr for Scopes {
    type Err = crate::UnknownValue;

    /// Reads words between commas or spaces.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::parse).collect()
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Scope>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Scopes {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::ArrayBuilder::new().items(Scope::schema()).into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Scopes {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(scopes: &[Scope]) -> Scopes {
        scopes.iter().copied().collect()
    }

    fn any_scopes() -> impl Strategy<Value = Scopes> {
        proptest::collection::vec(proptest::sample::select(Scope::ALL), 0..4).prop_map(|all| of(&all))
    }

    #[test]
    fn everything_in_an_organization_is_no_right_on_the_platform() {
        let everything = of(&[Scope::Everything]);
        for scope in Scope::ALL {
            assert_eq!(everything.allow(*scope), *scope != Scope::Admin, "{scope}");
            assert!(Scopes::UNLIMITED.allow(*scope), "{scope}");
        }
        assert!(!of(&[Scope::Admin]).allow(Scope::SessionsRead));
    }

    #[test]
    fn what_writes_reads_too_and_what_reads_writes_nothing() {
        assert!(of(&[Scope::SessionsWrite]).allow(Scope::SessionsRead));
        assert!(!of(&[Scope::SessionsRead]).allow(Scope::SessionsWrite));
        assert!(of(&[Scope::OrgWrite]).cover(of(&[Scope::OrgRead])));
    }

    #[test]
    fn no_role_but_the_admins_covers_everything() {
        for role in OrgRole::ALL {
            let most = Scopes::of_role(*role, SystemRole::User);
            assert_eq!(most.cover(of(&[Scope::Everything])), *role == OrgRole::Admin, "{role}");
            assert_eq!(most.allow(Scope::Keys), *role == OrgRole::Admin, "{role}");
            assert!(!most.allow(Scope::Admin), "{role}");
            assert!(Scopes::of_role(*role, SystemRole::Operator).allow(Scope::Admin), "{role}");
        }
    }

    #[test]
    fn scopes_are_words_on_the_wire() {
        let scopes: Scopes = "streams, sessions:read".parse().unwrap();
        assert_eq!(serde_json::to_string(&scopes).unwrap(), r#"["sessions:read","streams"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(r#"["streams","sessions:read"]"#).unwrap(), scopes);
        assert!("streams,root".parse::<Scopes>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_minted_within_something_is_never_wider(minter in any_scopes(), wanted in any_scopes()) {
            let left = wanted.within(minter);
            prop_assert!(minter.cover(left) && wanted.cover(left));
            for scope in Scope::ALL {
                prop_assert_eq!(left.allow(*scope), minter.allow(*scope) && wanted.allow(*scope));
                prop_assert!(!minter.cover(wanted) || !wanted.allow(*scope) || minter.allow(*scope));
            }
        }
    }
}
