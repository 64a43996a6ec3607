//! Typed ids: one type per noun, so that an agent's id never passes for a session's. UUIDv7, but for the catalog's, which
//! seed A gives as numbers.

/// Declares the id type of one noun.
macro_rules! id {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow))]
        #[cfg_attr(feature = "diesel", diesel(sql_type = diesel::sql_types::Uuid))]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// A new id, ordered by time (UUIDv7, RFC 9562).
            #[expect(clippy::new_without_default, reason = "two defaults would differ; a new id is asked for by name")]
            pub fn new() -> Self {
                #[expect(clippy::disallowed_methods, reason = "the one place where ids are made")]
                Self(uuid::Uuid::now_v7())
            }

            /// The id that a stored or received UUID stands for.
            pub const fn from_uuid(uuid: uuid::Uuid) -> Self { Self(uuid) }

            /// The bare UUID.
            pub const fn as_uuid(self) -> uuid::Uuid { self.0 }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> { text.parse().map(Self) }
        }

        #[cfg(feature = "diesel")]
        impl diesel::serialize::ToSql<diesel::sql_types::Uuid, diesel::pg::Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
                <uuid::Uuid as diesel::serialize::ToSql<diesel::sql_types::Uuid, diesel::pg::Pg>>::to_sql(&self.0, &mut out.reborrow())
            }
        }

        #[cfg(feature = "diesel")]
        impl diesel::deserialize::FromSql<diesel::sql_types::Uuid, diesel::pg::Pg> for $name {
            fn from_sql(bytes: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
                <uuid::Uuid as diesel::deserialize::FromSql<diesel::sql_types::Uuid, diesel::pg::Pg>>::from_sql(bytes).map(Self)
            }
        }
    )+ };
}

id! {
    /// An organization, the one tenant.
    OrgId,
    /// A person or a program with a login of its own.
    UserId,
    /// An agent's row; the name it chose for itself is its [`crate::AgentHandle`].
    AgentId,
    /// A session.
    SessionId,
    /// A command's row; its wire name is `cmd-` followed by this id.
    CommandId,
    /// A login session: what a token and its refresh token hang on.
    LoginSessionId,
    /// An API key.
    ApiKeyId,
    /// A bearer token of a device.
    BearerTokenId,
    /// A device that waits to be let in.
    DeviceCodeId,
    /// A single-use ticket for a stream.
    TicketId,
    /// What a browser was given for a ticket.
    GrantId,
    /// A session that is shared with somebody.
    ShareId,
    /// One line of the audit log.
    AuditId,
    /// An invite into an organization.
    InviteId,
    /// A mail that goes out.
    MailId,
    /// A password that somebody has forgotten.
    PasswordResetId,
    /// An event on its way to a plugin.
    PluginDeliveryId,
    /// A group of an organization's members.
    GroupId,
    /// Somebody in a group.
    GroupMembershipId,
    /// A persistent home.
    HomeId,
    /// One change in a session's history.
    SessionEventId,
    /// An installed application.
    ApplicationId,
    /// What a group may do with an application.
    ApplicationGroupId,
    /// One HTTP request, named in every error answer.
    RequestId,
    /// A registration waiting for its agent's key.
    ClaimId,
    /// A source; its handle may be another one's later.
    SourceId,
    /// A pipe that somebody made at a source.
    PipeId,
    /// What somebody may do with a source.
    SourceGrantId,
    /// A message of a pipe.
    MessageId,
    /// Something that the broker is to be told.
    PipeOperationId,
}

/// Declares the id type of one noun that the wire numbers.
macro_rules! number {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow))]
        #[cfg_attr(feature = "diesel", diesel(sql_type = diesel::sql_types::BigInt))]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(i64);

        impl $name {
            /// The id that a stored or received number stands for.
            pub const fn from_number(number: i64) -> Self { Self(number) }

            /// The bare number.
            pub const fn as_number(self) -> i64 { self.0 }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> { text.parse().map(Self) }
        }

        #[cfg(feature = "diesel")]
        impl diesel::serialize::ToSql<diesel::sql_types::BigInt, diesel::pg::Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
                <i64 as diesel::serialize::ToSql<diesel::sql_types::BigInt, diesel::pg::Pg>>::to_sql(&self.0, &mut out.reborrow())
            }
        }

        #[cfg(feature = "diesel")]
        impl diesel::deserialize::FromSql<diesel::sql_types::BigInt, diesel::pg::Pg> for $name {
            fn from_sql(bytes: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
                <i64 as diesel::deserialize::FromSql<diesel::sql_types::BigInt, diesel::pg::Pg>>::from_sql(bytes).map(Self)
            }
        }
    )+ };
}

number! {
    /// A repository that templates and plugins come from.
    RepositoryId,
    /// A template of the catalog.
    CatalogTemplateId,
    /// A plugin of the catalog.
    CatalogPluginId,
    /// One version of a plugin.
    PluginVersionId,
    /// What somebody thinks of a plugin.
    PluginRatingId,
    /// What somebody thinks of a template.
    TemplateRatingId,
    /// A plugin that is installed.
    InstalledPluginId,
}
