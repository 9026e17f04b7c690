//! Rules as words: what can be wrong with one, and selectors whose words came apart.

/// Why a rule is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleError {
    Unknown,
    Syntax,
    AllKeys,
    AllChannels,
    NoSuchPassword,
    BadHash,
    WordOfSubcommand,
    NoSuchDatabase,
}

impl RuleError {
    /// The text that clients know.
    pub fn text(self) -> &'static str {
        match self {
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::AllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::AllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
            RuleError::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::NoSuchDatabase => "The provided database ID is out of range",
            RuleError::WordOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        }
    }
}

pub(super) fn lower(word: &[u8]) -> Vec<u8> {
    word.to_ascii_lowercase()
}

/// Puts `(~a` `+get)` together again; the error is the place of a parenthesis that is never closed.
pub fn join_selectors(words: &[&[u8]]) -> Result<Vec<Vec<u8>>, usize> {
    let mut joined: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, word) in words.iter().enumerate() {
        let ends = word.last() == Some(&b')');
        match &mut open {
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
                if ends && let Some((_, selector)) = open.take() {
                    joined.push(selector);
                }
            }
            None if word.first() == Some(&b'(') && !ends => open = Some((at, word.to_vec())),
            None => joined.push(word.to_vec()),
        }
    }
    match open {
        Some((at, _)) => Err(at),
        None => Ok(joined),
    }
}
