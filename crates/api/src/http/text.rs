//! What text may hold, for `garde`'s `custom(…)`. Postgres refuses a NUL, and other control characters have no business in
//! names: they forge log lines and terminal output.

/// One line: no control characters.
pub fn line(text: &str, _: &()) -> garde::Result {
    refuse(
        text.chars().any(char::is_control),
        "must not contain control characters",
    )
}

/// Several lines: no control characters but line breaks and tabs.
pub fn lines(text: &str, _: &()) -> garde::Result {
    let forbidden = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    refuse(
        text.chars().any(forbidden),
        "must not contain control characters but line breaks and tabs",
    )
}

fn refuse(refused: bool, message: &str) -> garde::Result {
    if refused {
        Err(garde::Error::new(message))
    } else {
        Ok(())
    }
}
