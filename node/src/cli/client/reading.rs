//! How new what a command shows must be: `--stale` and `--after`.

use clap::Args;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::api::reading::{READ_AFTER_KEY, READ_KEY, Reading};

/// How new what is shown must be; without any of it as it is now, as its leader says.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How new")]
pub(crate) struct ReadArguments {
    /// It may be so old, for example 500ms or 2s: any node that is no older may answer, also without its leader.
    #[arg(long, value_name = "TIME", value_parser = parse_stale)]
    stale: Option<AsciiMetadataValue>,
    /// At least as new as this version token, of a command's or a read's answer; repeat it or divide by commas.
    #[arg(long, value_name = "TOKEN", value_delimiter = ',', value_parser = parse_token)]
    after: Vec<AsciiMetadataValue>,
}

impl ReadArguments {
    /// Puts it into a call's metadata.
    pub(super) fn tell(&self, metadata: &mut MetadataMap) {
        if let Some(stale) = &self.stale {
            metadata.insert(READ_KEY, stale.clone());
        }
        for token in &self.after {
            metadata.append(READ_AFTER_KEY, token.clone());
        }
    }
}

fn parse_stale(text: &str) -> Result<AsciiMetadataValue, String> {
    let read = format!("stale={text}");
    if Reading::parse(&read, &[]).is_err() {
        return Err("write it as a number with ms or s, at most a day, for example 500ms".to_owned());
    }
    read.parse().map_err(|_| "is not plain ASCII".to_owned())
}

fn parse_token(text: &str) -> Result<AsciiMetadataValue, String> {
    Reading::parse("", &[text.to_owned()]).map_err(|fault| fault.to_string())?;
    text.parse().map_err(|_| "is not plain ASCII".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_tokens_are_checked_before_anything_is_asked() {
        assert_eq!(parse_stale("500ms").expect("a time"), "stale=500ms");
        assert!(parse_stale("soon").is_err());
        assert!(
            parse_token("v1-nonsense")
                .expect_err("no token")
                .contains("version token")
        );
    }
}
