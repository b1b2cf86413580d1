//! The token that a command over HTTP has to show.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, ensure};
use subtle::ConstantTimeEq as _;

/// Shorter ones can be guessed.
const LEAST_LENGTH: usize = 16;

/// A secret that is compared in a time that does not tell how much of a guess was right.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads the token: the file's text without white space around it.
    ///
    /// # Errors
    /// A file that cannot be read or that everybody can, and a token that is too short or has a space in it.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let how = "make one with: umask 077; openssl rand -hex 32 >FILE";
        let mode = fs::metadata(file).with_context(|| format!("token_file {name}: {how}"))?.permissions().mode();
        ensure!(
            mode & 0o007 == 0,
            "token_file {name} can be used by everybody (mode {:o}): chmod 600 {name}",
            mode & 0o777
        );
        let text = fs::read_to_string(file).with_context(|| format!("read token_file {name}"))?;
        let token = text.trim();
        ensure!(token.len() >= LEAST_LENGTH, "token_file {name}: shorter than {LEAST_LENGTH} characters: {how}");
        ensure!(token.chars().all(|c| c.is_ascii_graphic()), "token_file {name}: not one word of ASCII: {how}");
        Ok(Self(token.to_owned()))
    }

    /// Whether an `Authorization` header shows this token.
    pub fn is_shown_by(&self, authorization: &str) -> bool {
        let Some((scheme, shown)) = authorization.split_once(' ') else { return false };
        // Its length is no secret.
        scheme.eq_ignore_ascii_case("bearer") && bool::from(shown.trim().as_bytes().ct_eq(self.0.as_bytes()))
    }
}
