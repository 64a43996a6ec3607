//! Names for people who come from elsewhere: as near as possible to what they are called there, and valid here.

/// Candidates with a number before a random ending is taken.
const NUMBERED: usize = 9;
/// Candidates at most.
const CANDIDATES: usize = 16;
const LONGEST_USERNAME: usize = 32;
const LONGEST_ORGANIZATION: usize = 50;
const SHORTEST: usize = 3;

/// Usernames to try one after the other for somebody who is called `wish` elsewhere: the name itself, then `-2` to
/// `-9`, then random endings out of `random`. Each of them is valid.
pub fn username_candidates(wish: &str, random: impl FnMut() -> String) -> impl Iterator<Item = String> {
    let plain = cleaned(wish, "user", LONGEST_USERNAME, |byte| {
        if byte.is_ascii_alphanumeric() || byte == b'_' { byte } else { b'-' }
    });
    candidates(plain, LONGEST_USERNAME, random)
}

/// The same for the name of the first organization of somebody with this username.
pub fn organization_candidates(
    username: &str,
    random: impl FnMut() -> String,
) -> impl Iterator<Item = String> {
    let plain = cleaned(username, "org", LONGEST_ORGANIZATION, |byte| {
        if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
    });
    candidates(plain, LONGEST_ORGANIZATION, random)
}

/// `wish` in letters that are allowed, with no `-` at either end; too short a name is given a word.
fn cleaned(wish: &str, word: &str, longest: usize, letter: impl Fn(u8) -> u8) -> String {
    let letters = wish.chars().map(|c| u8::try_from(c).map_or('-', |byte| char::from(letter(byte))));
    let mut name = String::new();
    for letter in letters {
        // What has no counterpart here leaves one gap, however long it was.
        if letter != '-' || !name.ends_with('-') {
            name.push(letter);
        }
    }
    let name = cut(name.trim_matches('-'), longest);
    match name.len() {
        0 => word.to_owned(),
        1..SHORTEST => format!("{name}-{word}"),
        _ => name.to_owned(),
    }
}

fn candidates(
    plain: String,
    longest: usize,
    mut random: impl FnMut() -> String,
) -> impl Iterator<Item = String> {
    (1..=CANDIDATES).map(move |place| {
        let ending = match place {
            1 => return plain.clone(),
            2..=NUMBERED => format!("-{place}"),
            _ => format!("-{}", random()),
        };
        format!("{}{ending}", cut(&plain, longest.saturating_sub(ending.len())))
    })
}

/// The first `most` letters, all of which are ASCII by now, without a `-` at the end.
fn cut(name: &str, most: usize) -> &str {
    name.get(..most).unwrap_or(name).trim_end_matches('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{validate_org_name, validate_username};

    fn usernames(wish: &str) -> Vec<String> {
        username_candidates(wish, || "0a1b2c3d".to_owned()).collect()
    }

    #[test]
    fn the_name_itself_comes_first_and_numbers_before_chance() {
        let names = usernames("octocat");
        assert_eq!(names[..3], ["octocat", "octocat-2", "octocat-3"]);
        assert_eq!((names[8].as_str(), names[9].as_str()), ("octocat-9", "octocat-0a1b2c3d"));
        assert_eq!(names.len(), CANDIDATES);
    }

    #[test]
    fn a_name_keeps_what_can_be_kept() {
        for (wish, name) in [
            ("ada.lovelace", "ada-lovelace"),
            ("Ada Lovelace", "Ada-Lovelace"),
            ("李", "user"),
            ("al", "al-user"),
            ("--x--", "x-user"),
            ("", "user"),
            ("a  ..  b", "a-b"),
            ("zoë_k", "zo-_k"),
        ] {
            assert_eq!(usernames(wish)[0], name, "{wish}");
        }
        let org = |name: &str| organization_candidates(name, String::new).next().unwrap();
        assert_eq!(org("Ada_Lovelace"), "ada-lovelace");
        assert_eq!(org("___"), "org");
        assert_eq!(org("A_-"), "a-org");
    }

    proptest! {
        #[test]
        fn every_candidate_is_a_name(wish in "\\PC{0,60}", tail in "[0-9a-f]{8}") {
            for name in username_candidates(&wish, || tail.clone()) {
                prop_assert_eq!(validate_username(&name), Ok(()), "{}", name);
                for organization in organization_candidates(&name, || tail.clone()) {
                    prop_assert_eq!(validate_org_name(&organization), Ok(()), "{}", organization);
                }
            }
        }
    }
}
