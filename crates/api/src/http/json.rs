//! JSON that strangers send: as deep as allowed, and never quoted in what is said about it.

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::{error::ApiError, extract::excerpt};

/// Counts brackets outside strings before anything is built from them: depth costs stack, and a limit of the parser's
/// own would be its limit, not ours.
pub fn require_shallow(json: &[u8], depth_max: usize) -> Result<(), ApiError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            let detail = format!("JSON may be nested {depth_max} deep");
            return Err(ApiError::invalid(
                StatusCode::BAD_REQUEST,
                "json_too_deep",
                detail,
            ));
        }
    }
    Ok(())
}

/// Reads a value. Broken JSON is 400, JSON of another shape 422.
pub fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json).map_err(|error| {
        let (status, code) = match error.classify() {
            serde_json::error::Category::Data => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_body"),
            _ => (StatusCode::BAD_REQUEST, "malformed_json"),
        };
        ApiError::invalid(status, code, excerpt(&without_value(&error.to_string())))
    })
}

/// A parser's message without the value that it quotes, which may be a password in the wrong place, and without the
/// name of our type. The name of an unknown field stays.
fn without_value(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((found, expected)) if !found.starts_with("unknown field") => {
            let ours = expected
                .strip_prefix("struct ")
                .and_then(|rest| rest.split_once(' '));
            ours.map_or_else(
                || format!("expected {expected}"),
                |(_, place)| format!("expected an object {place}"),
            )
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_but_not_those_in_strings() {
        assert!(require_shallow(br#"{"a":[["]]]]{{{\"[["]]}"#, 3).is_ok());
        assert!(require_shallow(br#"{"a":[[[]]]}"#, 3).is_err());
    }

    #[test]
    fn a_refused_body_is_not_quoted() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted {
            #[serde(rename = "number")]
            _number: u8,
        }
        let table = [
            (r#""canary""#, "expected an object at line 1 column 8"),
            (
                r#"{"number":"canary, expected b"}"#,
                "expected u8 at line 1 column 30",
            ),
            (
                r#"{"canary":1}"#,
                "unknown field `canary`, expected `number` at line 1 column 9",
            ),
        ];

        for (body, told) in table {
            let error = parse::<Wanted>(body.as_bytes()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid request: {told}"),
                "{body}"
            );
        }
    }

    #[test]
    fn broken_json_is_400_and_wrong_json_is_422() {
        assert_eq!(
            parse::<Vec<u8>>(b"[1,").unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            parse::<Vec<u8>>(b"[-1]").unwrap_err().status(),
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
}
