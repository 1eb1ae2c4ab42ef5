//! Directives in a prompt: `[[sim:read=/x]]`, `[[sim:call=Agent:{"prompt":"..."}]]`, `[[sim:events=40]]`. Finds them and
//! takes them out; what they mean is `compose`'s business.

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    /// Call the tool `name` with `input`, a JSON object as written.
    Call { name: String, input: String },
    /// Read a file with whatever tool is offered.
    Read(String),
    /// Answer this text, as a block of its own.
    Text(String),
    /// Tell the last image seen.
    Image,
    /// What follows is for the turn after the tool results.
    Then,
    /// Anything else: a list for `Behaviour::apply`.
    Behaviour(String),
}

const OPEN: &str = "[[sim:";
const CLOSE: &str = "]]";
/// Directives looked at in one prompt.
const DIRECTIVES_MAX: usize = 64;

/// The directives of `text` in order, and the text without them.
pub(super) fn scan(text: &str) -> (Vec<Directive>, String) {
    let (mut found, mut rest_of_text, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(OPEN).filter(|_| found.len() < DIRECTIVES_MAX) {
        let (before, from) = rest.split_at(at);
        rest_of_text.push_str(before);
        let inner = from.strip_prefix(OPEN).unwrap_or_default();
        let Some((directive, after)) = one(inner) else {
            rest_of_text.push_str(OPEN);
            rest = inner;
            continue;
        };
        found.push(directive);
        rest = after;
    }
    rest_of_text.push_str(rest);
    (found, rest_of_text)
}

/// One directive from behind its opening, and what follows its closing.
fn one(inner: &str) -> Option<(Directive, &str)> {
    if let Some(call) = inner.strip_prefix("call=") {
        return call_of(call);
    }
    let (word, after) = inner.split_once(CLOSE)?;
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let directive = match key {
        "read" => Directive::Read(value.to_owned()),
        "text" => Directive::Text(value.to_owned()),
        "image" => Directive::Image,
        "then" => Directive::Then,
        _ => Directive::Behaviour(word.to_owned()),
    };
    Some((directive, after))
}

/// `NAME]]` or `NAME:{json}]]`. The JSON is read as JSON, so that it may hold `]]`, and directives of its own.
fn call_of(call: &str) -> Option<(Directive, &str)> {
    let name_bytes = call.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))?;
    let (name, rest) = call.split_at(name_bytes);
    if name.is_empty() {
        return None;
    }
    if let Some(after) = rest.strip_prefix(CLOSE) {
        return Some((Directive::Call { name: name.to_owned(), input: "{}".to_owned() }, after));
    }
    let json = rest.strip_prefix(':')?;
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Map<String, serde_json::Value>>();
    values.next()?.ok()?;
    let (input, after) = json.split_at_checked(values.byte_offset())?;
    let after = after.trim_start().strip_prefix(CLOSE)?;
    Some((Directive::Call { name: name.to_owned(), input: input.trim().to_owned() }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_hold_closings_and_directives() {
        let text = r#"go [[sim:call=Agent:{"prompt":"say [[sim:text=a]] {x}"}]] now [[sim:read=/a b]]"#;
        let (found, rest) = scan(text);
        let input = r#"{"prompt":"say [[sim:text=a]] {x}"}"#.to_owned();
        assert_eq!(found, [Directive::Call { name: "Agent".into(), input }, Directive::Read("/a b".into())]);
        assert_eq!(rest, "go  now ");
    }

    #[test]
    fn what_is_not_a_directive_stays_text() {
        for text in ["[[sim:read=/x", "[[sim:call=A:{bad}]]", "[[sim:call=:{}]]x", "plain", "[[sim:call=A:[1]]]"] {
            let (found, rest) = scan(text);
            assert!(found.iter().all(|one| matches!(one, Directive::Behaviour(_))), "{text}: {found:?}");
            assert_eq!(rest, text);
        }
    }

    #[test]
    fn everything_else_is_left_to_the_behaviours() {
        let (found, _) = scan("[[sim:529]][[sim:then]][[sim:events=4,gap_ms=1]]");
        let list = |s: &str| Directive::Behaviour(s.to_owned());
        assert_eq!(found, [list("529"), Directive::Then, list("events=4,gap_ms=1")]);
    }
}
