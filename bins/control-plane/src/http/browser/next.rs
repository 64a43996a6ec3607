//! Where to go after the login: a place of this server and nowhere else.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::LOGIN;

/// Longest path that is gone to.
const LONGEST: usize = 512;

/// The path, if it leads nowhere but to this server: browsers read `//` and `\` as another host, and leave out tabs and
/// line ends before they look.
pub(super) fn local(next: &str) -> Option<&str> {
    let plain = next.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'\\');
    let rooted = next.starts_with('/') && !next.starts_with("//");
    (plain && rooted && next.len() <= LONGEST).then_some(next)
}

/// The login page that leads to a path of ours.
pub(super) fn login_before(path: &str) -> String {
    with_next(LOGIN, path)
}

/// A place of ours that leads to another one afterwards.
pub(super) fn with_next(place: &str, path: &str) -> String {
    format!("{place}?next={}", utf8_percent_encode(path, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_this_server_is_gone_to_and_no_other() {
        for good in ["/home", "/", "/oauth/device/verify?user_code=WDJB-MJHT", "/a//b", "/%2f%2fevil.example"]
        {
            assert_eq!(local(good), Some(good));
        }
        let long = format!("/{}", "a".repeat(512));
        for bad in [
            "",
            "home",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/a\\b",
            "https://evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "/\t/evil.example",
            "\t//evil.example",
            "/\n/evil.example",
            "/\r/evil.example",
            "/a\r\nSet-Cookie: x=y",
            " //evil.example",
            "/ /evil.example",
            "/ä",
            "/\0",
            "@evil.example",
            "?x",
            "#x",
            &long,
        ] {
            assert_eq!(local(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_way_back_is_one_parameter() {
        let place = login_before("/oauth/device/verify?user_code=A&next=//x");
        assert_eq!(place, "/login?next=%2Foauth%2Fdevice%2Fverify%3Fuser%5Fcode%3DA%26next%3D%2F%2Fx");
    }
}
