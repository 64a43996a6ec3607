//! What is asked for about users: made, changed, given another password, brought from elsewhere.

use crate::{
    Fields, FromFields, OrgId, OrgRole, PatchField, Provider, Secret, SystemRole, validate_email,
    validate_full_name, validate_password, validate_username,
};

/// Body of `POST users` (seed A, `CreateUserRequest`).
#[derive(Debug, Clone)]
pub struct CreateUserRequest {
    /// 3–32 of `A-Z a-z 0-9 _ -`, unique without regard to case.
    pub username: String,
    /// RFC 5322 addr-spec, unique without regard to case.
    pub email: String,
    /// 1–200 characters.
    pub full_name: String,
    /// For local users, and for no others.
    pub password: Option<Secret<String>>,
    /// Role on the platform. Default `user`.
    pub role: SystemRole,
    /// Local, saml or oidc. Default `local`; who signs in with GitHub is made by signing in.
    pub provider: Provider,
    /// Role in the organization. Default `user`.
    pub org_role: OrgRole,
}

impl FromFields for CreateUserRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username: Option<String> = fields.required("username");
        let email: Option<String> = fields.required("email");
        let full_name: Option<String> = fields.required("fullName");
        let password: Option<String> = fields.optional("password");
        let role = fields.optional("role").unwrap_or(SystemRole::User);
        let provider = fields.optional("provider").unwrap_or(Provider::Local);
        let org_role = fields.optional("orgRole").unwrap_or(OrgRole::User);
        let errors = fields.errors();
        username.as_ref().map(|name| errors.check("username", validate_username(name)));
        email.as_ref().map(|email| errors.check("email", validate_email(email)));
        full_name.as_ref().map(|name| errors.check("fullName", validate_full_name(name)));
        match (provider, &password) {
            (Provider::Local, None) => errors.add("password", "is required for a local user"),
            (Provider::Local, Some(password)) => {
                let name = username.as_deref().unwrap_or_default();
                errors.check("password", validate_password(password, name));
            }
            (Provider::Github, _) => errors.add("provider", "must be local, saml or oidc"),
            (Provider::Saml | Provider::Oidc, Some(_)) => {
                errors.add("password", "is for local users: this one signs in elsewhere");
            }
            (Provider::Saml | Provider::Oidc, None) => {}
        }
        let password = password.map(Secret::new);
        let (username, email, full_name) = (username?, email?, full_name?);
        Some(Self { username, email, full_name, password, role, provider, org_role })
    }
}

/// Body of `PATCH users/{id}` (seed A, `UpdateUserRequest`): what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateUserRequest {
    /// RFC 5322 addr-spec, unique without regard to case.
    pub email: Option<String>,
    /// 1–200 characters.
    pub full_name: Option<String>,
    /// Role on the platform; for operators, as far as their own.
    pub role: Option<SystemRole>,
    /// Whether the user may log in. Off, everything of theirs ends at once.
    pub active: Option<bool>,
    /// Whose account it is; for operators. `null`: nobody's.
    pub home_org_id: PatchField<OrgId>,
    /// The caller's own password in force: whoever has one brings it for another `email` of their own, because a mail to
    /// it may set the password.
    pub current_password: Option<Secret<String>>,
}

impl FromFields for UpdateUserRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let email: Option<String> = not_null(fields, "email");
        let full_name: Option<String> = not_null(fields, "fullName");
        let (role, active) = (not_null(fields, "role"), not_null(fields, "active"));
        let home_org_id = fields.patch("homeOrgId");
        let current_password = not_null::<String>(fields, "currentPassword").map(Secret::new);
        let errors = fields.errors();
        email.as_ref().map(|email| errors.check("email", validate_email(email)));
        full_name.as_ref().map(|name| errors.check("fullName", validate_full_name(name)));
        Some(Self { email, full_name, role, active, home_org_id, current_password })
    }
}

impl UpdateUserRequest {
    /// Whether it changes nothing but what everybody may change of themselves.
    pub fn is_profile(&self) -> bool {
        self.role.is_none() && self.active.is_none() && self.home_org_id == PatchField::Absent
    }
}

/// Body of `POST auth/password`.
#[derive(Debug, Clone)]
pub struct ChangePasswordRequest {
    /// The one in force.
    pub current_password: Secret<String>,
    /// 8–256 characters; checked against the username where that is known.
    pub new_password: Secret<String>,
}

impl FromFields for ChangePasswordRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let current: Option<String> = fields.required("currentPassword");
        let new: Option<String> = fields.required("newPassword");
        if let Some(new) = &new {
            // No password is an empty name.
            fields.errors().check("newPassword", validate_password(new, ""));
        }
        Some(Self { current_password: Secret::new(current?), new_password: Secret::new(new?) })
    }
}

/// Body of `POST auth/password/reset`: whose password was forgotten.
#[derive(Debug, Clone)]
pub struct ResetPasswordRequest {
    /// A username or an e-mail address, in any case. It may be a password that was typed in the wrong place.
    pub username: Secret<String>,
}

/// Longest name or address that is looked for, in bytes; an address has 254 at most.
const LONGEST_SUBJECT: usize = 320;

impl ResetPasswordRequest {
    /// One for this name or address.
    pub fn new(username: &str) -> Result<Self, &'static str> {
        let username = username.trim();
        if username.is_empty() || username.len() > LONGEST_SUBJECT || username.contains('\0') {
            return Err("must be a username or an e-mail address");
        }
        Ok(Self { username: Secret::new(username.to_owned()) })
    }
}

impl FromFields for ResetPasswordRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username: String = fields.required("username")?;
        let read = Self::new(&username);
        fields.errors().check("username", read)
    }
}

/// Body of `POST auth/password/new`: another password, for the token of a mail.
#[derive(Debug, Clone)]
pub struct NewPasswordRequest {
    /// What the mail's link brings.
    pub token: Secret<String>,
    /// 8–256 characters; checked against the username where that is known.
    pub new_password: Secret<String>,
}

impl FromFields for NewPasswordRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let token: Option<String> = fields.required("token");
        let new: Option<String> = fields.required("newPassword");
        if let Some(new) = &new {
            // No password is an empty name.
            fields.errors().check("newPassword", validate_password(new, ""));
        }
        Some(Self { token: Secret::new(token?), new_password: Secret::new(new?) })
    }
}

/// One line of an import: a user of another system, with the hash that the other system kept.
#[derive(Debug, Clone)]
pub struct ImportedUser {
    /// 3–32 of `A-Z a-z 0-9 _ -`, unique without regard to case.
    pub username: String,
    /// RFC 5322 addr-spec.
    pub email: Option<String>,
    /// 1–200 characters. Default: the username.
    pub full_name: String,
    /// Role on the platform. Default `user`.
    pub role: SystemRole,
    /// Default `local`.
    pub provider: Provider,
    /// Whether the user may log in. Default yes.
    pub active: bool,
    /// bcrypt or argon2id; its cost is looked at by whoever computes it.
    pub password_hash: Option<Secret<String>>,
    /// Name of the organization that becomes the user's home.
    pub organization: Option<String>,
    /// Role in it. Default `user`.
    pub org_role: OrgRole,
}

impl FromFields for ImportedUser {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username: Option<String> = fields.required("username");
        let email: Option<String> = fields.optional("email");
        let full_name: Option<String> = fields.optional("fullName").or_else(|| username.clone());
        let role = fields.optional("role").unwrap_or(SystemRole::User);
        let provider = fields.optional("provider").unwrap_or(Provider::Local);
        let active = fields.optional("active").unwrap_or(true);
        let password_hash: Option<String> = fields.optional("passwordHash");
        let organization = fields.optional("organization");
        let org_role = fields.optional("orgRole").unwrap_or(OrgRole::User);
        let errors = fields.errors();
        username.as_ref().map(|name| errors.check("username", validate_username(name)));
        email.as_ref().map(|email| errors.check("email", validate_email(email)));
        full_name.as_ref().map(|name| errors.check("fullName", validate_full_name(name)));
        if provider != Provider::Local && password_hash.is_some() {
            errors.add("passwordHash", "is for local users: this one signs in elsewhere");
        }
        if provider == Provider::Github {
            errors.add("provider", "must be local, saml or oidc");
        }
        let (username, full_name) = (username?, full_name?);
        let password_hash = password_hash.map(Secret::new);
        Some(Self {
            username,
            email,
            full_name,
            role,
            provider,
            active,
            password_hash,
            organization,
            org_role,
        })
    }
}

/// A field of a PATCH body that can be changed and not cleared.
fn not_null<T: serde::de::DeserializeOwned>(fields: &mut Fields, name: &str) -> Option<T> {
    match fields.patch(name) {
        PatchField::Absent => None,
        PatchField::Clear => {
            fields.errors().add(name, "cannot be null");
            None
        }
        PatchField::Set(value) => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn complaints<T: FromFields>(body: Value) -> Vec<String> {
        let Err(errors) = T::from_json(body) else { return Vec::new() };
        errors.iter().map(|(field, _)| field.to_owned()).collect()
    }

    #[test]
    fn a_new_user_names_every_bad_field() {
        let bad = json!({"username": "a b", "email": "alice", "fullName": "", "password": "short", "role": "owner",
                         "provider": "ldap", "orgRole": "admin", "isAdmin": true});
        let all = ["email", "fullName", "isAdmin", "orgRole", "password", "provider", "role", "username"];
        assert_eq!(complaints::<CreateUserRequest>(bad), all);
        let required = ["email", "fullName", "password", "username"];
        assert_eq!(complaints::<CreateUserRequest>(json!({})), required);
        let elsewhere = |provider: &str, password: Option<&str>| {
            complaints::<CreateUserRequest>(json!({"username": "alice", "email": "a@example.com",
                "fullName": "Alice", "provider": provider, "password": password}))
        };
        assert_eq!(elsewhere("saml", None), [""; 0]);
        assert_eq!(elsewhere("saml", Some("tidewater gate")), ["password"]);
        assert_eq!(elsewhere("github", None), ["provider"]);
    }

    #[test]
    fn a_change_clears_the_home_alone() {
        let cleared = UpdateUserRequest::from_json(json!({"homeOrgId": null})).unwrap();
        let wanted = UpdateUserRequest { home_org_id: PatchField::Clear, ..Default::default() };
        assert!(cleared == wanted && !cleared.is_profile());
        let nulls =
            json!({"email": null, "fullName": null, "role": null, "active": null, "currentPassword": null});
        let named = ["active", "currentPassword", "email", "fullName", "role"];
        assert_eq!(complaints::<UpdateUserRequest>(nulls), named);
        assert!(UpdateUserRequest::from_json(json!({"email": "a@example.com"})).unwrap().is_profile());
    }

    #[test]
    fn an_import_brings_a_hash_for_local_users_alone() {
        let plain = ImportedUser::from_json(json!({"username": "alice"})).unwrap();
        assert_eq!((plain.full_name.as_str(), plain.role, plain.active), ("alice", SystemRole::User, true));
        let bad =
            json!({"username": "al ice", "email": "x", "provider": "oidc", "passwordHash": "$2b$", "uid": 1});
        assert_eq!(complaints::<ImportedUser>(bad), ["email", "passwordHash", "uid", "username"]);
    }
}
