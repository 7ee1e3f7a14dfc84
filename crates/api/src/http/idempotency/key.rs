//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a structured-field string. What is sent
//! without quotes is taken too, as many clients do that.

use http::{HeaderMap, HeaderName, StatusCode};
use utoipa::IntoParams;

use crate::http::ApiError;

/// Names a request, so that it can be sent again.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header in the document, for `params(...)` of a route that takes [`super::Keyed`].
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyKey {
    /// 1 to 255 characters, in quotes or without; the same whenever the same request is sent again. Other users' keys are
    /// others. Answered with 409 while the first is being worked on, with 422 for another request, and else as the first was,
    /// until `Idempotency-Expires`, with `Idempotent-Replayed: true`. 429 and 5xx are not remembered.
    #[param(rename = "idempotency-key", max_length = 255)]
    #[expect(dead_code, reason = "only described")]
    idempotency_key: String,
}

/// The longest key, in characters.
const CHARS_MAX: usize = 255;

/// The key of a request that must have one.
pub fn key_of(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).into_iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(invalid());
    }
    let value = value.to_str().map_err(|_| invalid())?.trim();
    let key = match value.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or_else(invalid)?,
        None => bare(value).ok_or_else(invalid)?.to_owned(),
    };
    match key.len() {
        1..=CHARS_MAX => Ok(key),
        _ => Err(invalid()),
    }
}

/// What follows an opening quote, up to a closing one that ends it all (RFC 9651 section 4.2.5).
fn unquoted(quoted: &str) -> Option<String> {
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(key),
            '\\' => key.push(
                characters
                    .next()
                    .filter(|next| matches!(next, '"' | '\\'))?,
            ),
            plain => key.push(plain),
        }
    }
}

fn bare(value: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';');
    value.bytes().all(is_plain).then_some(value)
}

fn missing() -> ApiError {
    let detail = "send an Idempotency-Key, the same one whenever this request is sent again";
    ApiError::invalid(StatusCode::BAD_REQUEST, "idempotency_key_missing", detail)
}

fn invalid() -> ApiError {
    let detail =
        "an Idempotency-Key is one string of 1 to 255 visible characters, in quotes or without";
    ApiError::invalid(StatusCode::BAD_REQUEST, "idempotency_key_invalid", detail)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(values: &[&str]) -> Result<String, &'static str> {
        let values = values.iter().map(|value| {
            (
                IDEMPOTENCY_KEY,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        });
        key_of(&values.collect()).map_err(|error| error.code())
    }

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        assert_eq!(key(&["\"8e03978e-40d5\""]).unwrap(), "8e03978e-40d5");
        assert_eq!(key(&["8e03978e-40d5"]).unwrap(), "8e03978e-40d5");
        assert_eq!(key(&[r#""a \"b\" \\ c, d""#]).unwrap(), r#"a "b" \ c, d"#);
        assert_eq!(key(&[&"k".repeat(255)]).unwrap().len(), 255);
    }

    #[test]
    fn what_is_no_key_is_refused_and_none_is_another_thing() {
        let long = "k".repeat(256);
        for no_key in [
            "",
            "\"\"",
            "\"",
            "\"open",
            "\"a\"b",
            "\"a\";p=1",
            "a b",
            "a,b",
            "a\"b",
            r#""a\b""#,
            "ключ",
            &long,
        ] {
            assert_eq!(key(&[no_key]), Err("idempotency_key_invalid"), "{no_key}");
        }
        assert_eq!(key(&["a", "b"]), Err("idempotency_key_invalid"));
        assert_eq!(key(&[]), Err("idempotency_key_missing"));
    }
}
