//! Quotas: how much a user, a group or an organization may use at one time, and which bound holds somebody back.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    Fields, FromFields, GroupId, NewSession, OrgId, PatchField, Quantity, Resources, UserId,
    text_enum::text_enum, validate_username,
};

text_enum! {
    /// What is counted.
    QuotaResource, "quota resource" {
        /// Active sessions: pending, running, waking, hibernating, terminating.
        Sessions = "sessions",
        /// CPU of active sessions.
        Cpu = "cpu",
        /// Memory of active sessions.
        Memory = "memory",
        /// Persistent homes, one a user and agent, whether or not a session of theirs is active.
        Storage = "storage",
    }
}

text_enum! {
    /// Whose bound it is.
    QuotaOwner, "quota owner" {
        /// A member, in one organization.
        User = "user",
        /// A group: the sum of its members and those of the groups below it, each once.
        Group = "group",
        /// The whole organization.
        Organization = "organization",
    }
}

impl QuotaResource {
    /// An amount as it is written: `5`, `4000m`, `8Gi`.
    pub fn written(self, amount: i64) -> String {
        let amount = u64::try_from(amount).unwrap_or(0);
        match self {
            Self::Sessions => amount.to_string(),
            Self::Cpu => Quantity::from_millis(amount).to_cpu_string(),
            Self::Memory | Self::Storage => Quantity::from_bytes(amount).to_string(),
        }
    }

    fn read(self, text: &str) -> Result<i64, String> {
        if self == Self::Sessions {
            return text.parse().ok().filter(|count| *count >= 0).ok_or_else(|| SESSIONS.to_owned());
        }
        let quantity: Quantity = text.parse().map_err(|error: crate::QuantityError| error.to_string())?;
        let (whole, complaint) = match self {
            Self::Cpu => (quantity.as_millis(), "must be whole millicores"),
            _ => (quantity.as_units(), "must be whole bytes"),
        };
        whole.and_then(|whole| i64::try_from(whole).ok()).ok_or_else(|| complaint.to_owned())
    }
}

const SESSIONS: &str = "must be a whole number, 0 or more";
/// Sessions, CPU, memory and storage, in this order.
pub type FourAmounts = [i64; 4];

/// An amount of each: sessions, millicores, bytes of memory, bytes of storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage(pub FourAmounts);

impl Usage {
    /// One more session with these resources.
    pub fn of_session(resources: Resources) -> Self {
        let signed =
            |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(i64::MAX);
        Self([
            1,
            signed(resources.cpu.as_millis()),
            signed(resources.memory.as_units()),
            signed(resources.storage.as_units()),
        ])
    }

    /// The same without storage.
    #[must_use]
    pub const fn without_storage(self) -> Self {
        Self([self.0[0], self.0[1], self.0[2], 0])
    }

    /// The amount of one of them.
    pub const fn get(self, resource: QuotaResource) -> i64 {
        self.0[resource as usize]
    }
}

/// A bound for each; `None` is unlimited, 0 is none at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaLimits(pub [Option<i64>; 4]);

impl QuotaLimits {
    /// Nothing is bounded.
    pub const UNLIMITED: Self = Self([None; 4]);

    /// The bound of one of them.
    pub const fn get(self, resource: QuotaResource) -> Option<i64> {
        self.0[resource as usize]
    }

    /// Whether nothing is bounded.
    pub fn is_unlimited(self) -> bool {
        self == Self::UNLIMITED
    }

    /// The tighter of both, each by itself.
    #[must_use]
    pub fn tightest(self, other: Self) -> Self {
        let mut both = self;
        for (mine, theirs) in both.0.iter_mut().zip(other.0) {
            *mine = match (*mine, theirs) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        both
    }

    /// The first bound that lies above the other's: where this one is looser.
    pub fn looser_than(self, other: Self) -> Option<QuotaResource> {
        let looser = |resource: &QuotaResource| match (self.get(*resource), other.get(*resource)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(mine), Some(theirs)) => mine > theirs,
        };
        QuotaResource::ALL.iter().copied().find(looser)
    }
}

/// What a member may have who has no quota of their own, as it stands in the settings: `max_sessions = 5`,
/// `max_cpu = "4000m"`, `max_memory = "8Gi"`, `max_storage = "unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultQuota(pub QuotaLimits);

impl Default for DefaultQuota {
    fn default() -> Self {
        Self(QuotaLimits([Some(5), Some(4_000), Some(8 << 30), Some(50 << 30)]))
    }
}

impl<'de> Deserialize<'de> for DefaultQuota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            #[serde(rename = "max_sessions")]
            sessions: Option<NumberOrText>,
            #[serde(rename = "max_cpu")]
            cpu: Option<NumberOrText>,
            #[serde(rename = "max_memory")]
            memory: Option<NumberOrText>,
            #[serde(rename = "max_storage")]
            storage: Option<NumberOrText>,
        }
        let written = Written::deserialize(deserializer)?;
        let mut limits = Self::default().0;
        let all = [written.sessions, written.cpu, written.memory, written.storage];
        for ((limit, written), resource) in limits.0.iter_mut().zip(all).zip(QuotaResource::ALL) {
            match written {
                None => {}
                Some(NumberOrText(text)) if text == "unlimited" => *limit = None,
                Some(NumberOrText(text)) => {
                    *limit = Some(resource.read(&text).map_err(|error| {
                        de::Error::custom(format_args!("the default of {resource} {error}, or `unlimited`"))
                    })?);
                }
            }
        }
        Ok(Self(limits))
    }
}

/// Settings come as numbers from a file and as texts from the environment.
struct NumberOrText(String);

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NumberOrText;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, a quantity or `unlimited`")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<NumberOrText, E> {
                Ok(NumberOrText(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<NumberOrText, E> {
                Ok(NumberOrText(value.to_string()))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<NumberOrText, E> {
                Ok(NumberOrText(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One bound with what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded {
    /// Whose it is.
    pub owner: QuotaOwner,
    /// Username, or name of the group or organization.
    pub name: String,
    /// The bounds.
    pub limits: QuotaLimits,
    /// What is used at this moment.
    pub used: Usage,
}

/// The bound that holds a request back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct QuotaBound {
    /// What there is too little of.
    pub resource: QuotaResource,
    /// Whose bound it is.
    pub owner: QuotaOwner,
    /// Username, or name of the group or organization.
    pub name: String,
    /// How much is allowed.
    pub limit: String,
    /// How much is used.
    pub used: String,
    /// How much more was asked for.
    pub requested: String,
}

impl std::fmt::Display for QuotaBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resource, owner, name, limit, used, requested } = self;
        let what = match resource {
            QuotaResource::Sessions => "active sessions".to_owned(),
            other => other.to_string(),
        };
        write!(
            f,
            "the quota of {owner} {name} allows {limit} of {what}: {used} used, {requested} more asked for"
        )
    }
}

/// The most restrictive bound that `wanted` does not fit under: of sessions, CPU, memory and storage the first there is
/// too little of, and of its bounds the one with the least room.
pub fn binding(bounds: &[Bounded], wanted: Usage) -> Option<QuotaBound> {
    QuotaResource::ALL.iter().find_map(|resource| {
        let more = wanted.get(*resource);
        // What asks for nothing of it is not held back by it, however far it is overdrawn.
        let room = |bound: &Bounded| {
            let limit = bound.limits.get(*resource)?;
            let room = limit.saturating_sub(bound.used.get(*resource));
            (more > 0 && more > room).then_some((room, bound.owner, limit))
        };
        let (bound, (_, _, limit)) = bounds
            .iter()
            .filter_map(|bound| room(bound).map(|room| (bound, room)))
            .min_by(|(a, x), (b, y)| x.cmp(y).then_with(|| a.name.cmp(&b.name)))?;
        Some(QuotaBound {
            resource: *resource,
            owner: bound.owner,
            name: bound.name.clone(),
            limit: resource.written(limit),
            used: resource.written(bound.used.get(*resource)),
            requested: resource.written(more),
        })
    })
}

/// A bound of each and what is used of it, under the seed's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct QuotaNumbers {
    /// Active sessions at most; `null` is unlimited.
    pub max_sessions: Option<i64>,
    /// CPU of active sessions at most, for example `4000m`; `null` is unlimited.
    pub max_cpu: Option<String>,
    /// Memory of active sessions at most, for example `8Gi`; `null` is unlimited.
    pub max_memory: Option<String>,
    /// Persistent homes at most, for example `50Gi`; `null` is unlimited.
    pub max_storage: Option<String>,
    /// Active sessions.
    pub used_sessions: i64,
    /// Their CPU.
    pub used_cpu: String,
    /// Their memory.
    pub used_memory: String,
    /// Persistent homes.
    pub used_storage: String,
}

impl QuotaNumbers {
    /// As they are written.
    pub fn new(limits: QuotaLimits, used: Usage) -> Self {
        use QuotaResource::{Cpu, Memory, Sessions, Storage};
        let max = |resource: QuotaResource| limits.get(resource).map(|limit| resource.written(limit));
        let used = |resource: QuotaResource| resource.written(used.get(resource));
        Self {
            max_sessions: limits.get(Sessions),
            max_cpu: max(Cpu),
            max_memory: max(Memory),
            max_storage: max(Storage),
            used_sessions: used(Sessions).parse().unwrap_or(0),
            used_cpu: used(Cpu),
            used_memory: used(Memory),
            used_storage: used(Storage),
        }
    }
}

/// What a member may use in one organization, and uses (seed A, `UserQuota`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct UserQuota {
    /// The organization.
    pub org_id: OrgId,
    /// The member.
    pub user_id: UserId,
    /// Their name.
    pub username: String,
    /// Bounds and usage.
    #[serde(flatten)]
    pub numbers: QuotaNumbers,
    /// When a quota was first set; `null` where the platform's default holds.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

/// What a group may use together, and uses (seed A, `GroupQuota`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct GroupQuota {
    /// The group.
    pub group_id: GroupId,
    /// Bounds and usage.
    #[serde(flatten)]
    pub numbers: QuotaNumbers,
    /// When a quota was first set; `null` where there is none.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

/// What an organization may use, and uses: the tighter of its own quota and of the platform's ceiling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrganizationQuota {
    /// The organization.
    pub org_id: OrgId,
    /// Bounds and usage.
    #[serde(flatten)]
    pub numbers: QuotaNumbers,
    /// What the platform allows it; the organization's own quota lies within.
    pub ceiling: QuotaCeiling,
    /// When a quota was first set; `null` where there is none.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

/// What there is of an organization, and what it uses of what it may (`GET organizations/{id}/usage`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrganizationUsage {
    /// The organization.
    pub org_id: OrgId,
    /// How many members it has.
    pub members: i64,
    /// How many groups.
    pub groups: i64,
    /// Sessions that have not ended, by state; states without any are left out.
    pub sessions: BTreeMap<String, i64>,
    /// Usage and its bounds: the tighter of the organization's quota and the platform's ceiling.
    #[serde(flatten)]
    pub numbers: QuotaNumbers,
}

/// A member with a quota of their own, on the platform's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ListedQuota {
    /// Name of the organization.
    pub organization: String,
    /// The quota.
    #[serde(flatten)]
    pub quota: UserQuota,
}

/// What the platform allows an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCeiling(pub QuotaLimits);

#[derive(Serialize, Deserialize)]
struct WrittenCeiling {
    #[serde(rename = "maxSessions")]
    sessions: Option<i64>,
    #[serde(rename = "maxCpu")]
    cpu: Option<String>,
    #[serde(rename = "maxMemory")]
    memory: Option<String>,
    #[serde(rename = "maxStorage")]
    storage: Option<String>,
}

impl Serialize for QuotaCeiling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbers = QuotaNumbers::new(self.0, Usage::default());
        WrittenCeiling {
            sessions: numbers.max_sessions,
            cpu: numbers.max_cpu,
            memory: numbers.max_memory,
            storage: numbers.max_storage,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for QuotaCeiling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = WrittenCeiling::deserialize(deserializer)?;
        let read = |resource: QuotaResource, text: Option<String>| {
            text.map(|text| resource.read(&text)).transpose().map_err(de::Error::custom)
        };
        Ok(Self(QuotaLimits([
            written.sessions,
            read(QuotaResource::Cpu, written.cpu)?,
            read(QuotaResource::Memory, written.memory)?,
            read(QuotaResource::Storage, written.storage)?,
        ])))
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for QuotaCeiling {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
        let or_null =
            |kind: Type| ObjectBuilder::new().schema_type(SchemaType::Array(vec![kind, Type::Null]));
        ObjectBuilder::new()
            .property("maxSessions", or_null(Type::Integer))
            .property("maxCpu", or_null(Type::String))
            .property("maxMemory", or_null(Type::String))
            .property("maxStorage", or_null(Type::String))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for QuotaCeiling {}

/// A quota to set (seed A, `SetQuotaRequest`): what is absent stays, `null` is unlimited, 0 is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetQuotaRequest {
    /// Whose, on the admin route alone.
    pub username: Option<String>,
    /// Sessions, CPU, memory and storage.
    pub limits: [PatchField<i64>; 4],
}

impl SetQuotaRequest {
    /// The limits that hold after it, `before` being those until now.
    pub fn over(&self, before: QuotaLimits) -> QuotaLimits {
        let mut after = before;
        for (limit, change) in after.0.iter_mut().zip(&self.limits) {
            match change {
                PatchField::Absent => {}
                PatchField::Clear => *limit = None,
                PatchField::Set(value) => *limit = Some(*value),
            }
        }
        after
    }
}

impl FromFields for SetQuotaRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username: Option<String> = fields.optional("username");
        if let Some(name) = &username {
            fields.errors().check("username", validate_username(name));
        }
        let sessions = match fields.patch::<serde_json::Value>("maxSessions") {
            PatchField::Absent => PatchField::Absent,
            PatchField::Clear => PatchField::Clear,
            PatchField::Set(value) => {
                let count = value.as_i64().filter(|count| *count >= 0).ok_or(SESSIONS);
                fields.errors().check("maxSessions", count).map_or(PatchField::Absent, PatchField::Set)
            }
        };
        let mut quantity = |name, resource: QuotaResource| match fields.patch::<String>(name) {
            PatchField::Absent => PatchField::Absent,
            PatchField::Clear => PatchField::Clear,
            PatchField::Set(text) => {
                fields.errors().check(name, resource.read(&text)).map_or(PatchField::Absent, PatchField::Set)
            }
        };
        let limits = [
            sessions,
            quantity("maxCpu", QuotaResource::Cpu),
            quantity("maxMemory", QuotaResource::Memory),
            quantity("maxStorage", QuotaResource::Storage),
        ];
        Some(Self { username, limits })
    }
}

/// Whether a session could be started now (`POST quotas/check`).
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaCheck {
    /// Template, resources and home, as a session would ask for them.
    pub session: NewSession,
    /// For whom, by username; the caller where absent.
    pub user: Option<String>,
}

impl FromFields for QuotaCheck {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let template = fields.optional("template").unwrap_or_else(|| "shell".to_owned());
        let user: Option<String> = fields.optional("user");
        if let Some(name) = &user {
            fields.errors().check("user", validate_username(name));
        }
        let resources = crate::session::read_resources(fields);
        let persistent_home = fields.optional("persistentHome").unwrap_or(false);
        Some(Self { session: NewSession { resources, persistent_home, ..NewSession::of(&template) }, user })
    }
}

/// The answer of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct QuotaVerdict {
    /// Whether the quotas leave room for it.
    pub allowed: bool,
    /// The bound that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<QuotaBound>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn bound(owner: QuotaOwner, name: &str, limits: [Option<i64>; 4], used: FourAmounts) -> Bounded {
        Bounded { owner, name: name.to_owned(), limits: QuotaLimits(limits), used: Usage(used) }
    }

    #[test]
    fn the_bound_with_the_least_room_is_named() {
        let bounds = [
            bound(QuotaOwner::User, "ada", [Some(5), None, None, None], [5, 0, 0, 0]),
            bound(QuotaOwner::Group, "tight", [Some(3), None, None, None], [7, 0, 0, 0]),
            bound(QuotaOwner::Organization, "acme", [None, Some(1_000), None, None], [7, 1_000, 0, 0]),
        ];
        let found = binding(&bounds, Usage([1, 500, 0, 0])).unwrap();
        assert_eq!(
            (found.owner, found.name.as_str(), found.resource),
            (QuotaOwner::Group, "tight", QuotaResource::Sessions)
        );
        let said = "the quota of group tight allows 3 of active sessions: 7 used, 1 more asked for";
        assert_eq!(found.to_string(), said);
        let found = binding(&bounds[2..], Usage([1, 500, 0, 0])).unwrap();
        assert_eq!(
            (found.limit.as_str(), found.used.as_str(), found.requested.as_str()),
            ("1000m", "1000m", "500m")
        );
    }

    #[test]
    fn nothing_of_it_is_never_too_much() {
        let overdrawn = [bound(QuotaOwner::User, "ada", [None, None, None, Some(0)], [0, 0, 0, 9])];
        assert_eq!(binding(&overdrawn, Usage([1, 500, 1 << 29, 0])), None);
        assert!(binding(&overdrawn, Usage([1, 500, 1 << 29, 1])).is_some());
    }

    proptest! {
        #[test]
        fn what_fits_under_every_bound_is_allowed_and_nothing_else(
            limits in prop::array::uniform4(prop::option::of(0..20i64)), used in prop::array::uniform4(0..20i64),
            wanted in prop::array::uniform4(0..20i64),
        ) {
            let fits = (0..4).all(|i| wanted[i] == 0 || limits[i].is_none_or(|limit| used[i] + wanted[i] <= limit));
            let held = binding(&[bound(QuotaOwner::User, "ada", limits, used)], Usage(wanted));
            prop_assert_eq!(held.is_none(), fits);
        }

        #[test]
        fn the_tightest_of_two_is_looser_than_neither(
            a in prop::array::uniform4(prop::option::of(0..9i64)), b in prop::array::uniform4(prop::option::of(0..9i64)),
        ) {
            let both = QuotaLimits(a).tightest(QuotaLimits(b));
            prop_assert_eq!(both.looser_than(QuotaLimits(a)), None);
            prop_assert_eq!(both.looser_than(QuotaLimits(b)), None);
        }
    }

    #[test]
    fn a_quota_names_every_bad_field_and_keeps_what_is_absent() {
        let bad = json!({"maxSessions": -1, "maxCpu": "0.0001", "maxMemory": "lots", "maxStorage": "-1Gi", "max": 1});
        let bad = SetQuotaRequest::from_json(bad).unwrap_err();
        let names: Vec<&str> = bad.iter().map(|(field, _)| field).collect();
        assert_eq!(names, ["max", "maxCpu", "maxMemory", "maxSessions", "maxStorage"]);
        let good = json!({"maxSessions": 0, "maxCpu": "1.5", "maxMemory": null});
        let good = SetQuotaRequest::from_json(good).unwrap();
        let after = good.over(DefaultQuota::default().0);
        assert_eq!(after, QuotaLimits([Some(0), Some(1_500), None, Some(50 << 30)]));
    }

    #[test]
    fn the_default_quota_is_read_as_numbers_quantities_and_unlimited() {
        let read: DefaultQuota =
            serde_json::from_value(json!({"max_sessions": "7", "max_cpu": "unlimited", "max_memory": "1Gi"}))
                .unwrap();
        assert_eq!(read.0, QuotaLimits([Some(7), None, Some(1 << 30), Some(50 << 30)]));
        assert!(serde_json::from_value::<DefaultQuota>(json!({"max_sessions": -1})).is_err());
        assert!(serde_json::from_value::<DefaultQuota>(json!({"sessions": 1})).is_err());
    }

    #[test]
    fn an_answer_writes_quantities_and_null_for_unlimited() {
        let numbers = QuotaNumbers::new(DefaultQuota::default().0, Usage([1, 500, 512 << 20, 0]));
        let wanted = json!({"maxSessions": 5, "maxCpu": "4000m", "maxMemory": "8Gi", "maxStorage": "50Gi",
                            "usedSessions": 1, "usedCpu": "500m", "usedMemory": "512Mi", "usedStorage": "0"});
        assert_eq!(serde_json::to_value(numbers).unwrap(), wanted);
        let ceiling = QuotaCeiling(QuotaLimits([Some(3), None, None, Some(1 << 30)]));
        let written = serde_json::to_value(&ceiling).unwrap();
        assert_eq!(
            written,
            json!({"maxSessions": 3, "maxCpu": null, "maxMemory": null, "maxStorage": "1Gi"})
        );
        assert_eq!(serde_json::from_value::<QuotaCeiling>(written).unwrap(), ceiling);
    }
}
