//! Reading YAML of strangers into JSON: bounded in depth, nodes and what aliases stand for, and every refusal with its line.

use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options};

/// Why a text is not read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) line: Option<u64>,
    pub(crate) reason: String,
}

/// Every document of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, Refused> {
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
        let line = error.location().map(|location| location.line());
        // The first line says what; the others draw it.
        let reason = error.without_snippet().to_string();
        let reason = reason.lines().next().unwrap_or("it is no YAML").to_owned();
        Refused { line, reason }
    })
}

fn options() -> Options {
    let mut options = Options::default();
    options.budget = serde_saphyr::budget! {
        max_events: 50_000,
        max_nodes: 25_000,
        max_aliases: 500,
        max_anchors: 500,
        max_depth: 48,
        max_documents: 100,
    };
    options.alias_limits.max_total_replayed_events = 50_000;
    options.alias_limits.max_replay_stack_depth = 16;
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    // `on`, `yes` and `no` are words in an environment.
    options.strict_booleans = true;
    options.with_snippet = false;
    options
}

/// The line of a field, as far as its text tells: that of its key, inside those above it, from the line `from` on.
pub(crate) fn line_of(text: &str, from: usize, field: &str) -> Option<u64> {
    let mut found = None;
    let mut lines = text.lines().enumerate().skip(from.saturating_sub(1));
    for part in field.split(['.', '[']).filter(|part| part.parse::<usize>().is_err()) {
        let Some((number, _)) = lines.by_ref().find(|(_, line)| names(line, part)) else { break };
        found = Some(number as u64 + 1);
    }
    found
}

/// Whether a line begins with this key, in YAML or in JSON.
fn names(line: &str, key: &str) -> bool {
    let line = line.trim_start_matches([' ', '\t', '-', '{', ',', '"', '\'']);
    line.strip_prefix(key)
        .is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ', '\t']).starts_with(':'))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use serde_json::json;

    use super::*;

    #[test]
    fn documents_become_json() {
        let read =
            documents("kind: Template\nports: [{containerPort: 8080}]\nenv: {ON: yes, N: 1}\n---\na: ~\n")
                .unwrap();
        assert_eq!(
            read,
            [
                json!({"kind": "Template", "ports": [{"containerPort": 8080}], "env": {"ON": "yes", "N": 1}}),
                json!({"a": null}),
            ]
        );
    }

    #[test]
    fn bombs_are_refused_and_not_blown_up() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let inside = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(laughs, "a{level}: &a{level} [{inside}]").unwrap();
        }
        let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
        let wide = format!("a: [{}]", "x, ".repeat(100_000));
        let many = "---\na: 1\n".repeat(10_000);
        let mut block = String::new();
        for depth in 0..400 {
            writeln!(block, "{}a:", " ".repeat(depth)).unwrap();
        }
        for (name, bomb) in
            [("laughs", laughs), ("deep", deep), ("wide", wide), ("many", many), ("block", block)]
        {
            assert!(documents(&bomb).is_err(), "{name}");
        }
    }

    #[test]
    fn refusals_have_their_lines() {
        let refused = documents("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(refused.line.is_some_and(|line| (2..=4).contains(&line)), "{refused:?}");
        let twice = documents("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(twice.line, Some(3), "{twice:?}");
    }

    #[test]
    fn a_fields_line_is_that_of_its_key() {
        let text = "kind: Template\nmetadata:\n  name: x\nspec:\n  ports:\n    - name: web\n      containerPort: 0\n";
        assert_eq!(line_of(text, 1, "ports.0.containerPort"), Some(7));
        assert_eq!(line_of(text, 1, "name"), Some(3));
        assert_eq!(line_of(text, 1, "missing"), None);
        assert_eq!(line_of("{\n  \"name\": \"a\",\n  \"version\": 1\n}", 1, "version"), Some(3));
    }
}
