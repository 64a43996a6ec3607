//! A body of several parts (RFC 7578), as forms and `curl -F` send it: read whole, cut at its boundary.

use std::collections::BTreeMap;

use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use tidegate_model::FieldErrors;

/// Parts at most.
const PARTS: usize = 16;

/// The boundary, if the body is one of several parts.
pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (kind, rest) = kind.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = rest.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// The parts by their names.
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<BTreeMap<String, &'a [u8]>, FieldErrors> {
    let broken = |why: &str| FieldErrors::one("body", why);
    let (first, next) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let start = if body.starts_with(first.as_bytes()) {
        Some(first.len())
    } else {
        find(body, next.as_bytes()).map(|at| at + next.len())
    };
    let mut rest = start.and_then(|start| body.get(start..)).ok_or_else(|| broken("has no part"))?;
    let mut parts = BTreeMap::new();
    while !rest.starts_with(b"--") {
        let inside =
            rest.strip_prefix(b"\r\n").ok_or_else(|| broken("is not cut into parts as it should be"))?;
        let head =
            find(inside, b"\r\n\r\n").ok_or_else(|| broken("has a part without an end to its head"))?;
        let content = &inside[head + 4..];
        let end = find(content, next.as_bytes()).ok_or_else(|| broken("broke off inside a part"))?;
        let name = name(&inside[..head]).ok_or_else(|| broken("has a part without a name"))?;
        if parts.len() >= PARTS || parts.insert(name.clone(), &content[..end]).is_some() {
            return Err(FieldErrors::one(name, "is given twice, or there are too many parts"));
        }
        rest = &content[end + next.len()..];
    }
    Ok(parts)
}

fn name(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let line = head.lines().find(|line| {
        line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("content-disposition"))
    })?;
    let name = line.split(';').find_map(|part| part.trim().strip_prefix("name="))?;
    let name = name.trim_matches('"');
    let fits = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| name.to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // The first byte is looked for as fast as the machine can, and the rest compared where it is found.
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        let at = from + at;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_at_the_boundary_alone() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"archive\"; filename=\"a.tar\"\r\nContent-Type: a/b\r\n\r\n\x00--x\r\n-\xff\r\n--x\r\ncontent-disposition: form-data; name=\"request\"\r\n\r\n{}\r\n--x--\r\n";
        let parts = parts(body, "x").unwrap();
        assert_eq!(parts["archive"], b"\x00--x\r\n-\xff");
        assert_eq!(parts["request"], b"{}");
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for body in [
            b"".as_slice(),
            b"--y\r\n",
            b"--x",
            b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb",
            b"--x\r\nContent-Disposition: form-data\r\n\r\nb\r\n--x--",
            b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--",
        ] {
            assert!(parts(body, "x").is_err(), "{body:?}");
        }
    }
}
