//! Cursors: where the next page of a list begins.
//!
//! A cursor is the sort key of the last row of a page. Clients pass it on and do not look inside,
//! so it may change; pages stay right while rows are added, which offsets do not.

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

use super::extract::Parameters;

/// The key of a page's last row, as text for the client.
///
/// # Errors
/// When the key cannot be written as JSON, which no key of ours does.
pub fn encode<K: Serialize>(key: &K) -> Result<String, Error> {
    let bytes = serde_json::to_vec(key).map_err(|error| Error::internal("writing a cursor", error))?;
    Ok(hex::encode(bytes))
}

/// The key in a cursor; `None` when the text is not a cursor of this list.
#[must_use]
pub fn decode<K: DeserializeOwned>(text: &str) -> Option<K> {
    serde_json::from_slice(&hex::decode(text).ok()?).ok()
}

/// Takes the parameter `cursor`.
///
/// # Errors
/// When it is not a cursor of this list.
pub fn take<K: DeserializeOwned>(parameters: &mut Parameters) -> Result<Option<K>, Error> {
    parameters.take_parsed("cursor", "the `next` of an earlier page of this list", decode)
}

/// How many rows to read for a page of `limit`: one more tells whether there is a next page.
#[must_use]
pub fn limit_plus_one(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// Cuts the rows to a page, and gives the cursor of the next one, if there is one.
///
/// # Errors
/// Those of [`encode`].
pub fn page<R, K: Serialize>(
    mut rows: Vec<R>,
    limit: usize,
    key: impl FnOnce(&R) -> K,
) -> Result<(Vec<R>, Option<String>), Error> {
    let has_next = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_next).map(|last| encode(&key(last))).transpose()?;
    Ok((rows, next))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let key = (DateTime::<Utc>::UNIX_EPOCH, "café / 1".to_owned(), Uuid::from_u128(7));
        let text = encode(&key).expect("it is JSON");
        assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(decode(&text), Some(key));
    }

    #[test]
    fn only_a_page_that_is_not_the_last_has_a_cursor() {
        let (rows, next) = page(vec![1, 2, 3], 2, |&row| row).expect("it is JSON");
        assert_eq!((rows, next.and_then(|next| decode(&next))), (vec![1, 2], Some(2)));
        let (rows, next) = page(vec![1, 2], 2, |&row| row).expect("it is JSON");
        assert_eq!((rows, next), (vec![1, 2], None));
    }

    #[test]
    fn a_foreign_or_damaged_cursor_is_refused() {
        let other = encode(&"a text").expect("it is JSON");
        for text in ["", "zz", "abc", "7", "é0", &other] {
            assert_eq!(decode::<(DateTime<Utc>, Uuid)>(text), None, "{text}");
        }
    }
}
