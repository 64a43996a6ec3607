//! What the manifests of templates and plugins have in common. They come from strangers: every text is bounded, every path
//! stays below its folder, every address is one that a browser may be shown.

use semver::{Version, VersionReq};

use crate::{FieldErrors, Fields};

/// Longest description, in characters.
pub(crate) const DESCRIPTION: usize = 4_000;

/// Names of templates and plugins: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, 1–100 characters.
pub fn validate_catalog_name(name: &str) -> Result<(), &'static str> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let fits = (1..=100).contains(&name.len()) && plain && !name.starts_with('-') && !name.ends_with('-');
    fits.then_some(()).ok_or("must have 1 to 100 characters out of a-z, 0-9 and -, with no - at either end")
}

/// A range of versions: `>=1.0.0`, `^2.0`, `>=1.2, <2`; a space between two parts means the same as a comma, as in npm.
pub fn parse_version_range(text: &str) -> Result<VersionReq, String> {
    const SAID: &str = "must be a range of versions, such as >=1.0.0, ^2.0 or >=1.2 <2";
    if text.len() > 200 {
        return Err(SAID.to_owned());
    }
    // An operator may stand apart from its number: `>= 1.0`.
    let mut parts: Vec<String> = Vec::new();
    for word in text.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        match parts.last_mut() {
            Some(last) if last.bytes().all(|byte| b"<>=^~".contains(&byte)) => last.push_str(word),
            _ => parts.push(word.to_owned()),
        }
    }
    VersionReq::parse(&parts.join(", ")).map_err(|_| SAID.to_owned())
}

/// A version that may leave its last numbers out: `2` is 2.0.0.
pub fn parse_loose_version(text: &str) -> Result<Version, &'static str> {
    const SAID: &str = "must be a version, such as 1.2.0";
    let text = text.trim().trim_start_matches('v');
    let dots = text.split(['-', '+']).next().unwrap_or_default().matches('.').count();
    let whole = match dots {
        0 if !text.contains(['-', '+']) => format!("{text}.0.0"),
        1 if !text.contains(['-', '+']) => format!("{text}.0"),
        _ => text.to_owned(),
    };
    Version::parse(&whole).map_err(|_| SAID)
}

/// A path below a manifest's folder: no way up, no root, nothing another system would read as one.
pub fn validate_manifest_path(path: &str) -> Result<(), &'static str> {
    const SAID: &str = "must be a path below the manifest's folder, such as assets/icon.svg";
    let fits = (1..=255).contains(&path.len())
        && !path.chars().any(char::is_control)
        && !path.contains(['\\', ':', '?', '#', '%'])
        && relative(path).split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    fits.then_some(()).ok_or(SAID)
}

/// The same path without the `./` it may begin with.
pub(crate) fn relative(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}

/// An address that a page may link to.
pub(crate) fn validate_web_address(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits = text.len() <= 2_048
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && !text
            .chars()
            .any(|letter| letter.is_control() || letter.is_whitespace() || "\"<>\\`".contains(letter));
    fits.then_some(()).ok_or("must be an address that begins with https:// or http://")
}

/// An optional text, empty where it is absent; bounded, and without control characters but for line ends.
pub(crate) fn text(fields: &mut Fields, name: &str, longest: usize) -> String {
    let text: String = fields.optional::<String>(name).unwrap_or_default().trim().to_owned();
    fields.check_length(name, &text, 0..=longest);
    if text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t')) {
        fields.errors().add(name, "must not contain control characters");
    }
    text
}

/// The name that people see: `displayName`, or the name.
pub(crate) fn display_name(fields: &mut Fields, name: Option<&str>) -> String {
    let shown = text(fields, "displayName", 200);
    if shown.is_empty() { name.unwrap_or_default().to_owned() } else { shown }
}

/// A required name.
pub(crate) fn name(fields: &mut Fields) -> Option<String> {
    let name: Option<String> = fields.required("name");
    if let Some(name) = &name {
        fields.errors().check("name", validate_catalog_name(name));
    }
    name
}

/// An optional path.
pub(crate) fn path(errors: &mut FieldErrors, field: &str, path: Option<&String>) {
    if let Some(path) = path {
        errors.check(field, validate_manifest_path(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_cargo_and_npm_write_them() {
        let matches = |range: &str, version: &str| {
            parse_version_range(range).unwrap().matches(&Version::parse(version).unwrap())
        };
        assert!(matches(">=0.2.0", "2.0.0") && !matches(">=2.1", "2.0.0"));
        assert!(matches(">=1.0.0 <2.0.0", "1.9.0") && !matches(">=1.0.0 <2.0.0", "2.0.0"));
        assert!(matches(">= 1.0, < 2", "1.0.0") && matches("^2.0.0", "2.3.0") && matches("*", "9.0.0"));
        for bad in ["", "latest", ">=", "1..2", "a b", &"1,".repeat(300)] {
            assert!(parse_version_range(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_short_version_is_filled_up() {
        let read = |text: &str| parse_loose_version(text).map(|version| version.to_string());
        assert_eq!(read("2").as_deref(), Ok("2.0.0"));
        assert_eq!(read("v2.1").as_deref(), Ok("2.1.0"));
        assert_eq!(read("2.0.0-beta.1").as_deref(), Ok("2.0.0-beta.1"));
        assert!(read("two").is_err() && read("").is_err() && read("1.2.3.4").is_err());
    }

    #[test]
    fn no_path_leaves_its_folder() {
        for good in ["icon.svg", "./assets/icon.png", "a/b/c", "..a/b", "été.svg"] {
            assert_eq!(validate_manifest_path(good), Ok(()), "{good}");
        }
        for bad in
            ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "./", "a\\b", "c:x", "a%2e", "a\nb"]
        {
            assert!(validate_manifest_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_runs_no_script() {
        assert!(validate_web_address("https://example.com/a?b#c").is_ok());
        for bad in [
            "javascript:alert(1)",
            "data:text/html,x",
            "https://",
            "https:///x",
            "https://a b",
            "//x",
            "https://x\"y",
        ] {
            assert!(validate_web_address(bad).is_err(), "{bad}");
        }
    }
}
