//! What an ID token says, and whether it says it for us, now, in answer to this attempt (OpenID Connect Core, 3.1.3.7).

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// How far a provider's clock may be from ours.
const SKEW: TimeDelta = TimeDelta::seconds(60);
/// How old a token may be: it is fetched the moment it is made.
const OLDEST: TimeDelta = TimeDelta::minutes(10);

/// The claims that matter. Times must be numbers: a text would pass no check.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    pub(crate) sub: String,
    aud: Audience,
    exp: i64,
    iat: i64,
    nonce: Option<String>,
    azp: Option<String>,
    #[serde(flatten)]
    pub(crate) profile: Profile,
}

/// What a person is like; in the token or at the userinfo endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Profile {
    #[serde(default)]
    email: Value,
    #[serde(default)]
    email_verified: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    preferred_username: Value,
    #[serde(default)]
    picture: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn holds(&self, client: &str) -> bool {
        match self {
            Self::One(one) => one == client,
            Self::Many(all) => all.iter().any(|one| one == client),
        }
    }

    fn is_one(&self) -> bool {
        matches!(self, Self::One(_)) || matches!(self, Self::Many(all) if all.len() == 1)
    }
}

/// What a token has to say to be believed.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) is_nonce: &'a (dyn Fn(&str) -> bool + Sync),
    pub(crate) now: DateTime<Utc>,
}

/// Checks signature and claims.
pub(crate) fn verified(
    token: &str,
    header: &Header,
    key: &DecodingKey,
    expected: &Expected<'_>,
) -> Result<Claims> {
    let mut validation = Validation::new(header.alg);
    // The library reads the machine's clock, and passes over what is not there; the checks below do neither.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Claims>(token, key, &validation)
        .map_err(|_| Error::Refused("its token is not signed with its key, or cannot be read"))?
        .claims;
    match complaint(&claims, expected) {
        None => Ok(claims),
        Some(why) => Err(Error::Refused(why)),
    }
}

fn complaint(claims: &Claims, expected: &Expected<'_>) -> Option<&'static str> {
    let at = |seconds| DateTime::from_timestamp(seconds, 0);
    let (Some(ends), Some(made)) = (at(claims.exp), at(claims.iat)) else {
        return Some("its token has no time of this world");
    };
    let now = expected.now;
    if claims.iss != expected.issuer {
        Some("its token is another issuer's")
    } else if !claims.aud.holds(expected.client_id) {
        Some("its token is for somebody else")
    } else if claims.azp.as_deref().is_some_and(|azp| azp != expected.client_id)
        || (!claims.aud.is_one() && claims.azp.is_none())
    {
        Some("its token was given to somebody else")
    } else if ends + SKEW <= now {
        Some("its token has expired")
    } else if made > now + SKEW || made < now - OLDEST - SKEW {
        Some("its token was not made just now")
    } else if !claims.nonce.as_deref().is_some_and(expected.is_nonce) {
        Some("its token is of another attempt")
    } else if claims.sub.is_empty() || claims.sub.len() > 255 || claims.sub.contains('\0') {
        Some("its token names nobody")
    } else {
        None
    }
}

impl Profile {
    /// The e-mail address, if the provider says that it is theirs: by the word `true`, not by a text that looks so.
    pub(crate) fn verified_email(&self) -> Option<&str> {
        self.email.as_str().filter(|_| self.email_verified == Value::Bool(true))
    }

    /// Whether anything was said of an e-mail address.
    pub(crate) fn tells_email(&self) -> bool {
        self.email.is_string()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_str().filter(|name| !name.trim().is_empty())
    }

    /// What to call the person: their own word for it, else what stands before the `@`.
    pub(crate) fn username(&self) -> Option<&str> {
        let local = |text: &str| text.split('@').next().is_some_and(|part| !part.is_empty());
        let wish = self.preferred_username.as_str().filter(|wish| local(wish));
        let wish = wish.or_else(|| self.email.as_str().filter(|email| local(email)))?;
        wish.split('@').next()
    }

    pub(crate) fn picture(&self) -> Option<&str> {
        self.picture.as_str()
    }

    /// What one document leaves open, out of another one.
    pub(crate) fn or(self, other: Self) -> Self {
        let either = |one: Value, other: Value| if one.is_null() { other } else { one };
        // An address and whether it is verified belong together.
        let (email, email_verified) = if self.email.is_null() {
            (other.email, other.email_verified)
        } else {
            (self.email, self.email_verified)
        };
        Self {
            email,
            email_verified,
            name: either(self.name, other.name),
            preferred_username: either(self.preferred_username, other.preferred_username),
            picture: either(self.picture, other.picture),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn judged(change: impl FnOnce(&mut Value)) -> Option<&'static str> {
        let mut claims = json!({
            "iss": "https://id.example", "sub": "ada", "aud": "tidegate", "exp": NOW + 300, "iat": NOW, "nonce": "n",
        });
        change(&mut claims);
        let claims: Claims = match serde_json::from_value(claims) {
            Ok(claims) => claims,
            Err(_) => return Some("cannot be read"),
        };
        let expected = Expected {
            issuer: "https://id.example",
            client_id: "tidegate",
            is_nonce: &|nonce| nonce == "n",
            now: DateTime::from_timestamp(NOW, 0).unwrap(),
        };
        complaint(&claims, &expected)
    }

    type Change = fn(&mut Value);

    #[test]
    fn a_token_is_for_us_now_and_in_answer_to_this_attempt() {
        assert_eq!(judged(|_| ()), None);
        assert_eq!(judged(|c| c["aud"] = json!(["tidegate"])), None);
        assert_eq!(
            judged(|c| (c["aud"], c["azp"]) = (json!(["other", "tidegate"]), json!("tidegate"))),
            None
        );
        let bad: [(&str, Change); 14] = [
            ("another issuer", |c| c["iss"] = json!("https://id.example/")),
            ("for somebody else", |c| c["aud"] = json!("other")),
            ("for somebody else", |c| c["aud"] = json!([])),
            ("given to somebody else", |c| c["aud"] = json!(["tidegate", "other"])),
            ("given to somebody else", |c| c["azp"] = json!("other")),
            ("expired", |c| c["exp"] = json!(NOW - 60)),
            ("not made just now", |c| c["iat"] = json!(NOW + 61)),
            ("not made just now", |c| c["iat"] = json!(NOW - 3_600)),
            ("of another attempt", |c| c["nonce"] = json!("m")),
            ("of another attempt", |c| c["nonce"] = Value::Null),
            ("nobody", |c| c["sub"] = json!("")),
            ("cannot be read", |c| c["exp"] = json!((NOW + 300).to_string())),
            ("cannot be read", |c| drop(c.as_object_mut().unwrap().remove("exp"))),
            ("cannot be read", |c| c["sub"] = json!(7)),
        ];
        for (complaint, change) in bad {
            let found = judged(change);
            assert!(found.is_some_and(|found| found.contains(complaint)), "{complaint}: {found:?}");
        }
    }

    #[test]
    fn an_address_is_verified_by_the_word_true_alone() {
        let profile = |verified: Value| -> Profile {
            serde_json::from_value(json!({"email": "a@b.example", "email_verified": verified})).unwrap()
        };
        assert_eq!(profile(json!(true)).verified_email(), Some("a@b.example"));
        for word in [json!("true"), json!(1), json!("false"), json!(false), Value::Null] {
            assert_eq!(profile(word).verified_email(), None);
        }
        // Nor does one document's word count for another one's address.
        let (one, other) = (profile(json!(false)), profile(json!(true)));
        assert_eq!(one.or(other).verified_email(), None);
    }

    #[test]
    fn somebody_is_called_what_they_wish_or_what_stands_before_the_at() {
        let called =
            |claims: Value| serde_json::from_value::<Profile>(claims).unwrap().username().map(str::to_owned);
        assert_eq!(called(json!({"preferred_username": "ada", "email": "x@y"})).as_deref(), Some("ada"));
        assert_eq!(called(json!({"preferred_username": "ada@corp.example"})).as_deref(), Some("ada"));
        assert_eq!(called(json!({"email": "lovelace@corp.example"})).as_deref(), Some("lovelace"));
        assert_eq!(called(json!({"preferred_username": 7})), None);
    }
}
