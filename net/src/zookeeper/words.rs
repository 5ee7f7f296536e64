//! The four-letter words: a connection whose first four bytes are one is answered in
//! text and closed. Tools, probes and dashboards of ZooKeeper's live on them.
//!
//! ```text
//!   ruok isro                   is it there, does it take writes
//!   srvr stat mntr conf envi    words/server.rs: figures, settings
//!   cons dump wchs wchc wchp    words/lists.rs: connections, sessions, watches
//!   srst crst dirs
//! ```
//!
//! A word that the whitelist (`4lw.commands.whitelist`) leaves out is answered with a
//! sentence that says so; what is no word is a frame's length, and none that is allowed.

mod lists;
mod server;

use crate::zookeeper::requests::Turn;
use std::fmt;
use std::str::FromStr;

const WORDS: [Word; 18] = [
    Word::new("conf"),
    Word::new("cons"),
    Word::new("crst"),
    Word::new("dirs"),
    Word::new("dump"),
    Word::new("envi"),
    Word::new("gtmk"),
    Word::new("hash"),
    Word::new("isro"),
    Word::new("mntr"),
    Word::new("ruok"),
    Word::new("srst"),
    Word::new("srvr"),
    Word::new("stat"),
    Word::new("stmk"),
    Word::new("wchc"),
    Word::new("wchp"),
    Word::new("wchs"),
];

/// Those that ask for what there is not here: trace masks of log4j, digests of the tree.
const NEVER: [&str; 3] = ["gtmk", "hash", "stmk"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(&'static str);

impl Word {
    const fn new(word: &'static str) -> Word {
        assert!(word.len() == 4);
        Word(word)
    }
}

/// The word that the bytes begin with.
#[must_use]
pub fn word(bytes: &[u8]) -> Option<Word> {
    let four = bytes.first_chunk::<4>()?;
    WORDS.into_iter().find(|word| word.0.as_bytes() == four)
}

/// "4lw.commands.whitelist": words between commas, `*` for all. `srvr` is always in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whitelist(Vec<Word>);

impl Default for Whitelist {
    /// Those that cost little and tell nothing of a client's data.
    fn default() -> Whitelist {
        "ruok,srvr,stat,mntr,conf,isro,envi"
            .parse()
            .expect("all of them are words")
    }
}

/// A name in the whitelist that is no word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoWord(String);

impl fmt::Display for NoWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<&str> = WORDS.iter().map(|word| word.0).collect();
        write!(
            f,
            "{:?} is no four-letter word; there are * (all) and {}",
            self.0,
            known.join(", ")
        )
    }
}

impl std::error::Error for NoWord {}

impl FromStr for Whitelist {
    type Err = NoWord;

    fn from_str(text: &str) -> Result<Whitelist, NoWord> {
        let mut words = vec![Word("srvr")];
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            if name == "*" {
                words = WORDS.to_vec();
                continue;
            }
            let word = WORDS.into_iter().find(|word| word.0 == name);
            words.push(word.ok_or_else(|| NoWord(name.to_owned()))?);
        }
        Ok(Whitelist(words))
    }
}

impl Whitelist {
    #[must_use]
    pub fn allows(&self, word: Word) -> bool {
        self.0.contains(&word) && !NEVER.contains(&word.0)
    }
}

/// The text that answers a word.
pub(super) fn answer(turn: &mut Turn<'_>, word: Word) -> String {
    let front = turn.out.front;
    front.stats.saw_request();
    if !front.limits.words.allows(word) {
        return format!(
            "{} is not executed because it is not in the whitelist.\n",
            word.0
        );
    }
    if front.is_stopped() {
        // A failed changelog: the log says which file and why.
        return "This ZooKeeper instance is not currently serving requests\n".to_owned();
    }
    match word.0 {
        "ruok" => "imok".to_owned(),
        // There is no read-only mode.
        "isro" => "rw".to_owned(),
        "srvr" => server::srvr(turn, false),
        "stat" => server::srvr(turn, true),
        "mntr" => server::mntr(turn),
        "conf" => server::conf(turn),
        "envi" => server::envi(turn),
        "dirs" => server::dirs(turn),
        "cons" => lists::cons(turn),
        "dump" => lists::dump(turn),
        "wchs" => lists::wchs(turn),
        "wchc" => lists::wchc(turn),
        "wchp" => lists::wchp(turn),
        "srst" => {
            front.stats.reset();
            "Server stats reset.\n".to_owned()
        }
        "crst" => {
            for client in front.all() {
                client.counts.reset();
            }
            "Connection stats reset.\n".to_owned()
        }
        other => unreachable!("{other} is allowed and has no answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whitelist_is_zookeepers() {
        let default = Whitelist::default();
        assert!(default.allows(Word("ruok")) && !default.allows(Word("wchc")));
        let all: Whitelist = "*".parse().unwrap();
        assert!(all.allows(Word("wchc")) && !all.allows(Word("stmk")));
        let none: Whitelist = "".parse().unwrap();
        assert!(none.allows(Word("srvr")) && !none.allows(Word("ruok")));
        let two: Whitelist = " cons , dump".parse().unwrap();
        assert!(two.allows(Word("cons")) && two.allows(Word("dump")));
        assert!(
            "ruok,wat"
                .parse::<Whitelist>()
                .unwrap_err()
                .to_string()
                .contains("\"wat\"")
        );
    }

    #[test]
    fn words_are_known_by_their_first_four_bytes() {
        assert_eq!(word(b"ruok\n"), Some(Word("ruok")));
        assert_eq!(word(b"ruo"), None);
        assert_eq!(word(b"GET "), None);
        assert_eq!(word(&[0, 0, 0, 45]), None);
    }
}
