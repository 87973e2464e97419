//! Values that an object keeps in one string. The API server parses, checks, copies
//! and writes each value of an object by itself, several times with every write of
//! it: what nobody selects by field costs less as text.

use std::io::Read as _;

use data_encoding::BASE64;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list of JSON texts, a line each, for `#[serde(with)]`: JSON has no line's end of its
/// own. `kubectl get nj NAME -o yaml` shows a line of it as a line.
pub(super) mod lines {
    use super::*;

    pub(in super::super) fn serialize<T: Serialize, S: Serializer>(
        items: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for item in items {
            text.push_str(&serde_json::to_string(item).map_err(S::Error::custom)?);
            text.push('\n');
        }
        to.serialize_str(&text)
    }

    pub(in super::super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let text = String::deserialize(from)?;
        let item = |(place, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|error| D::Error::custom(format!("line {}: {error}", place + 1)))
        };
        text.lines().enumerate().map(item).collect()
    }
}

/// A value that may be absent, and is much: JSON, gzip, base64. To read it:
/// `kubectl get nj NAME -o jsonpath='{.status.facts}' | base64 -d | gunzip`.
pub(super) mod packed {
    use super::*;

    pub(in super::super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(value) = value else { return to.serialize_none() };
        let json = serde_json::to_vec(value).map_err(S::Error::custom)?;
        let mut packed = Vec::new();
        GzEncoder::new(json.as_slice(), Compression::fast())
            .read_to_end(&mut packed)
            .map_err(S::Error::custom)?;
        to.serialize_str(&BASE64.encode(&packed))
    }

    pub(in super::super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let packed = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let mut json = Vec::new();
        // A few bytes can unpack to very many.
        GzDecoder::new(packed.as_slice())
            .take(MOST_UNPACKED)
            .read_to_end(&mut json)
            .map_err(D::Error::custom)?;
        serde_json::from_slice(&json).map(Some).map_err(D::Error::custom)
    }
}

/// More than the bounds of a survey let one be (`domain/facts/bounds`), and than an
/// object of the API server may be.
const MOST_UNPACKED: u64 = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Object {
        #[serde(with = "lines")]
        list: Vec<(u8, String)>,
        #[serde(default, with = "packed")]
        much: Option<Vec<String>>,
    }

    #[test]
    fn what_stands_in_strings_comes_back() {
        let object = Object {
            list: vec![(1, "\"\n".to_owned()), (2, String::new())],
            much: Some(vec!["x".to_owned(); 1_000]),
        };
        let value = serde_json::to_value(&object).expect("plain data");
        assert_eq!(value["list"].as_str().map(|text| text.lines().count()), Some(2));
        assert!(value["much"].as_str().is_some_and(|text| text.len() < 200));
        assert_eq!(serde_json::from_value::<Object>(value).expect("it was just written"), object);
        let without: Object = serde_json::from_value(serde_json::json!({ "list": "" })).expect("an object");
        assert_eq!(without.much, None);
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let bomb = "a".repeat(8 * 1024 * 1024);
        let mut packed = Vec::new();
        GzEncoder::new(bomb.as_bytes(), Compression::fast()).read_to_end(&mut packed).expect("bytes");
        let text = BASE64.encode(&packed);
        assert!(text.len() < 64 * 1024);
        let value = serde_json::json!({ "list": "[1", "much": null });
        let problem = serde_json::from_value::<Object>(value).expect_err("half an item").to_string();
        assert!(problem.contains("line 1"), "{problem}");
        let value = serde_json::json!({ "list": "", "much": text });
        serde_json::from_value::<Object>(value).expect_err("no JSON ends there");
    }
}
