//! What may be the path of a znode (the rules of ZooKeeper's `PathUtils`), and how a
//! name that came from elsewhere becomes one component of such a path.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

/// Why a text is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    Empty,
    NotAbsolute,
    EndsWithSlash,
    EmptyComponent {
        at: usize,
    },
    /// `.` or `..` as a component.
    Relative {
        at: usize,
    },
    /// NUL, a control character, a surrogate, or a character for private use.
    Character {
        at: usize,
    },
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::Empty => f.write_str("a path must not be empty"),
            PathError::NotAbsolute => f.write_str("a path must begin with /"),
            PathError::EndsWithSlash => f.write_str("a path must not end with /"),
            PathError::EmptyComponent { at } => write!(f, "an empty name at byte {at}"),
            PathError::Relative { at } => write!(f, "a relative name at byte {at}"),
            PathError::Character { at } => {
                write!(f, "a character that is not allowed at byte {at}")
            }
        }
    }
}

impl std::error::Error for PathError {}

/// Whether a path is one that a node may have.
pub fn validate(path: &str) -> Result<(), PathError> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(if path.is_empty() {
            PathError::Empty
        } else {
            PathError::NotAbsolute
        });
    };
    if rest.is_empty() {
        return Ok(());
    }
    if rest.ends_with('/') {
        return Err(PathError::EndsWithSlash);
    }
    let mut at = 1;
    for name in rest.split('/') {
        match name {
            "" => return Err(PathError::EmptyComponent { at }),
            "." | ".." => return Err(PathError::Relative { at }),
            _ => {}
        }
        if let Some((i, _)) = name.char_indices().find(|(_, c)| is_forbidden(*c)) {
            return Err(PathError::Character { at: at + i });
        }
        at += name.len() + 1;
    }
    Ok(())
}

/// ZooKeeper looks at UTF-16 units, so that everything beyond U+FFFF is two
/// surrogates to it and is refused with them.
fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
        || c > '\u{ffff}'
}

/// The path of the node above and the name in it: `/a/b` is (`/a`, `b`), `/a` is
/// (`/`, `a`). None for the root and for what is no absolute path.
#[must_use]
pub fn split(path: &str) -> Option<(&str, &str)> {
    let at = path.rfind('/')?;
    let name = &path[at + 1..];
    match (at, name) {
        (_, "") => None,
        (0, name) => Some(("/", name)),
        (at, name) => Some((&path[..at], name)),
    }
}

/// A name from outside (a consumer group's id can be any text) as one component of a
/// path. Most names are that already; in the others, and only there, what a path
/// cannot hold is written as `%` and two hex digits a byte, and so is `%` itself:
/// `a/b` becomes `a%2Fb`. The empty name becomes a single `%`, which nothing else does.
#[must_use]
pub fn component(name: &str) -> Cow<'_, str> {
    match name {
        "" => return Cow::Borrowed("%"),
        "." => return Cow::Borrowed("%2E"),
        ".." => return Cow::Borrowed("%2E%2E"),
        _ => {}
    }
    let escapes = |c: char| c == '/' || c == '%' || is_forbidden(c);
    if !name.contains(escapes) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        if escapes(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(out, "%{byte:02X}").expect("a String takes everything");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_judged_as_zookeeper_judges_them() {
        let table: &[(&str, Result<(), PathError>)] = &[
            ("/", Ok(())),
            ("/a", Ok(())),
            ("/a/b.c/..d/e..", Ok(())),
            ("/ / \u{e9}", Ok(())),
            ("", Err(PathError::Empty)),
            ("a", Err(PathError::NotAbsolute)),
            ("//x", Err(PathError::EmptyComponent { at: 1 })),
            ("/a//b", Err(PathError::EmptyComponent { at: 3 })),
            ("/x/", Err(PathError::EndsWithSlash)),
            ("//", Err(PathError::EndsWithSlash)),
            ("/a/../b", Err(PathError::Relative { at: 3 })),
            ("/.", Err(PathError::Relative { at: 1 })),
            ("/a\0b", Err(PathError::Character { at: 2 })),
            ("/a/\n", Err(PathError::Character { at: 3 })),
            ("/\u{7f}", Err(PathError::Character { at: 1 })),
            ("/\u{f8ff}", Err(PathError::Character { at: 1 })),
            ("/\u{fff0}", Err(PathError::Character { at: 1 })),
            ("/\u{1f600}", Err(PathError::Character { at: 1 })),
        ];
        for (path, want) in table {
            assert_eq!(validate(path), *want, "{path:?}");
        }
    }

    #[test]
    fn split_names_the_parent() {
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/"), None);
        assert_eq!(split("a"), None);
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_component_and_no_two_the_same(a in ".*", b in ".*") {
            let path = format!("/x/{}", component(&a));
            prop_assert_eq!(validate(&path), Ok(()));
            prop_assert_eq!(split(&path).unwrap().0, "/x");
            prop_assert_eq!(a == b, component(&a) == component(&b));
        }
    }
}
