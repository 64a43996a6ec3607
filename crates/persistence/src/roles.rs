//! The roles a DBA sets up once per cluster.

/// What `tidegate-admin roles --sql` prints; run by a superuser, it may be run again.
pub const SQL: &str = include_str!("roles.sql");

/// The login that owns the schema.
pub const MIGRATOR: &str = "tidegate_migrator";
/// The login that serves.
pub const APP: &str = "tidegate_app";
/// The role of each scope, and the owner of the lookups.
pub const SCOPES: [&str; 5] =
    ["tidegate_org", "tidegate_user", "tidegate_hub", "tidegate_platform", "tidegate_lister"];

/// [`SQL`], then the passwords of both logins. Passwords must not hold a quote; the engines' are hexadecimal.
pub fn setup_sql(app_password: &str, migrator_password: &str) -> String {
    format!(
        "{SQL}ALTER ROLE {APP} PASSWORD '{app_password}';\nALTER ROLE {MIGRATOR} PASSWORD '{migrator_password}';\n"
    )
}
