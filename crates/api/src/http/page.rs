//! Lists in pages: a page begins after the last thing of the page before, found by its key, however deep it lies.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _},
};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of rows that were read one further than `limit`: a row too many says that there is another page,
    /// which begins after the key of this page's last row.
    pub fn cut<K: Serialize>(mut rows: Vec<T>, limit: u16, key: impl FnOnce(&T) -> K) -> Self {
        let more = rows.len() > usize::from(limit);
        rows.truncate(usize::from(limit));
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&key(last)));
        Self {
            items: rows,
            next_cursor,
        }
    }
}

/// Where a page begins: a key that travels through the client as opaque text.
///
/// It is not signed, because it grants nothing: every statement that uses it also names the owner. It is parsed as
/// strictly as any other input.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor<K>(pub K);

/// Longest cursor accepted, in bytes: a name of 200 four-byte characters, twice encoded, and an id.
const BYTES_MAX: usize = 2048;

impl<'de, K: DeserializeOwned> Deserialize<'de> for Cursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(NO_CURSOR))
    }
}

/// What is wrong with a text that no page has given.
pub const NO_CURSOR: &str = "must be the `next_cursor` of a page";

impl<K: DeserializeOwned> Cursor<K> {
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(Self)
    }
}

fn encode<K: Serialize>(key: &K) -> String {
    URL_SAFE_NO_PAD
        .encode(serde_json::to_vec(key).expect("a key holds only numbers, ids and texts"))
}

fn decode<K: DeserializeOwned>(text: &str) -> Option<K> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let key = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    // Postgres has no NUL in its texts: a forged one would end in a failed statement.
    if key.contains("\\u0000") {
        return None;
    }
    serde_json::from_str(&key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_is_the_last_when_no_row_follows() {
        assert_eq!(Page::cut(vec![1, 2], 2, |row| *row).next_cursor, None);
    }

    #[test]
    fn a_row_too_many_becomes_a_cursor_to_the_last_row_shown() {
        let page = Page::cut(vec![1, 2, 3], 2, |row| *row);

        let cursor = page.next_cursor.expect("there is another page");

        assert_eq!((page.items, decode(&cursor)), (vec![1, 2], Some(2)));
    }

    #[test]
    fn what_was_not_made_here_is_no_cursor() {
        let nul = encode(&"a\0b");
        let long = encode(&"a".repeat(BYTES_MAX));
        for forged in ["", "?", "bm90IGpzb24", &nul, &long] {
            assert_eq!(decode::<String>(forged), None, "{forged}");
        }
    }
}
