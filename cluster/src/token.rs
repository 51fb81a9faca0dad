//! Version tokens: how far a shard's journal had come when something was answered. A read that presents one sees at least
//! what the answer rests on, on whichever replica.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The first part of a token's text. A new form gets a new one.
const FORM: &str = "v1";

/// A position in the journal of one shard. Its text is opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionToken {
    pub(crate) shard: u32,
    pub(crate) index: u64,
    /// The journal's mark: tells it from that of another cluster with the same positions.
    pub(crate) mark: u64,
}

/// Why a text is no version token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no version token: pass the text of an answer's token on as it came")]
pub struct TokenError;

impl VersionToken {
    fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.shard.to_be_bytes());
        hasher.update(&self.index.to_be_bytes());
        hasher.update(&self.mark.to_be_bytes());
        hasher.finalize()
    }

    /// Keeps the furthest token of each shard, for callers that collect them.
    pub fn keep(tokens: &mut Vec<Self>, token: Self) {
        match tokens
            .iter_mut()
            .find(|kept| (kept.shard, kept.mark) == (token.shard, token.mark))
        {
            Some(kept) => kept.index = kept.index.max(token.index),
            None => tokens.push(token),
        }
    }
}

impl fmt::Display for VersionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, index, mark } = self;
        write!(f, "{FORM}-{shard:x}-{index:x}-{mark:x}-{:08x}", self.checksum())
    }
}

impl FromStr for VersionToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.split('-');
        if parts.next() != Some(FORM) {
            return Err(TokenError);
        }
        let mut number = || {
            let digits = parts
                .next()
                .filter(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            u64::from_str_radix(digits, 16).ok()
        };
        let (shard, index, mark, checksum) = (number(), number(), number(), number());
        let token = Self {
            shard: shard.and_then(|shard| u32::try_from(shard).ok()).ok_or(TokenError)?,
            index: index.ok_or(TokenError)?,
            mark: mark.ok_or(TokenError)?,
        };
        if parts.next().is_some() || checksum != Some(u64::from(token.checksum())) {
            return Err(TokenError);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(shard: u32, index: u64) -> VersionToken {
        VersionToken {
            shard,
            index,
            mark: 0xfeed,
        }
    }

    #[test]
    fn a_token_reads_back() {
        for token in [token(0, 0), token(u32::MAX, u64::MAX), token(3, 500)] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    /// Callers keep tokens: what they kept must stay readable.
    #[test]
    fn golden_text() {
        assert_eq!(token(3, 500).to_string(), "v1-3-1f4-feed-2c136b57");
    }

    #[test]
    fn a_changed_text_is_no_token() {
        let text = token(3, 500).to_string();
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] = if bytes[place] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(changed.parse::<VersionToken>(), Err(TokenError), "{changed}");
        }
        for text in ["", "v1", "v1-1-1-1", "v1-1-1-1-1-1", "v1-+1-1-1-00000000", "é"] {
            assert_eq!(text.parse::<VersionToken>(), Err(TokenError), "{text}");
        }
    }

    #[test]
    fn the_furthest_of_each_shard_is_kept() {
        let mut tokens = Vec::new();
        for token in [token(1, 5), token(2, 1), token(1, 7), token(1, 6)] {
            VersionToken::keep(&mut tokens, token);
        }
        assert_eq!(tokens, [token(1, 7), token(2, 1)]);
    }
}
