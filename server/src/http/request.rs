//! Takes requests apart: query, headers, names. Everything is parsed here, so that handlers see valid values only.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use folkmoot::api::{Durability, Heads, IdempotencyKey, Precondition, ReadOptions, SessionToken, WriteOptions};
use folkmoot::{CollectionName, Database, DocId, Error, ErrorCode, PrincipalId, Result, wire};
use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode_str;
use warp::reply::Response;

use super::Context;
use super::body::Body;
use super::problem::method_not_allowed;

/// How long a caller may make the node wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A request behind the door.
pub(crate) struct Request {
    pub(crate) context: Arc<Context>,
    /// The database as the caller may see it.
    pub(crate) database: Arc<dyn Database>,
    /// Whose limits count; none for the owner.
    pub(crate) principal: Option<PrincipalId>,
    pub(crate) method: Method,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// The parameters of the query string; what no handler takes is an error.
pub(crate) struct Query(Vec<(String, String)>);

/// Parameters that a request may have.
const PARAMETERS_MAX: usize = 32;

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).take(PARAMETERS_MAX + 1);
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// Takes a parameter as text.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(at).1)
    }

    /// Takes and parses a parameter.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`], saying what is expected.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>> {
        match self.take(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(invalid(name, &text, expected)),
            },
        }
    }

    /// Takes a number between 1 and `max`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`].
    pub(crate) fn limit(&mut self, max: usize) -> Result<Option<usize>> {
        let expected = format!("a number from 1 to {max}");
        match self.parsed::<usize>("limit", &expected)? {
            Some(limit) if limit == 0 || limit > max => Err(invalid("limit", &limit.to_string(), &expected)),
            limit => Ok(limit),
        }
    }

    /// Takes a switch: `true` or `false`, off if not given.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`].
    pub(crate) fn switch(&mut self, name: &str) -> Result<bool> {
        Ok(self.parsed(name, "true or false")?.unwrap_or(false))
    }

    /// Takes a duration with a unit.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`].
    pub(crate) fn duration(&mut self, name: &str) -> Result<Option<Duration>> {
        let parsed = self.parsed::<humantime::Duration>(name, "a duration with a unit, as in 30s")?;
        Ok(parsed.map(Duration::from))
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`], naming a parameter that this path does not have.
    pub(crate) fn finish(self, known: &str) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let known = if known.is_empty() { "none".to_owned() } else { known.to_owned() };
                Err(Error::new(
                    ErrorCode::InvalidParameter,
                    format!("the query parameter {} is not known here, or given twice", shown(name)),
                )
                .hint(format!("parameters of this path: {known}")))
            }
        }
    }
}

fn invalid(name: &str, text: &str, expected: &str) -> Error {
    Error::new(ErrorCode::InvalidParameter, format!("the query parameter {name} is {}, not {expected}", shown(text)))
}

/// What a client sent, short enough and harmless to show again.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// Decodes a path segment as the name of a collection.
///
/// # Errors
/// [`ErrorCode::InvalidCollection`].
pub(crate) fn collection_name(segment: &str) -> Result<CollectionName> {
    let name = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Error::new(ErrorCode::InvalidCollection, "the collection name in the path is not UTF-8"))?;
    Ok(name.parse()?)
}

/// Decodes a path segment as a document id.
///
/// # Errors
/// [`ErrorCode::InvalidId`].
pub(crate) fn document_id(segment: &str) -> Result<DocId> {
    let id = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Error::new(ErrorCode::InvalidId, "the document id in the path is not UTF-8"))?;
    Ok(id.parse()?)
}

/// Parses a JSON body into a type.
///
/// # Errors
/// [`ErrorCode::InvalidJson`], saying where.
pub(crate) fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|e| Error::new(ErrorCode::InvalidJson, format!("the body is not as expected: {e}")))
}

impl Request {
    /// Returns a header as text.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidHeader`] if it is given twice or is not visible ASCII.
    pub(crate) fn header(&self, name: impl AsHeader) -> Result<Option<&str>> {
        let mut values = self.headers.get_all(name.name()).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let wrong = |why: &str| Error::new(ErrorCode::InvalidHeader, format!("the header {} {why}", name.name()));
        if values.next().is_some() {
            return Err(wrong("is given twice"));
        }
        value.to_str().map(Some).map_err(|_| wrong("holds other than visible ASCII characters"))
    }

    /// Returns the media type of the body without its parameters.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub(crate) fn media_type(&self) -> Result<Option<&str>> {
        let value = self.header(CONTENT_TYPE)?;
        Ok(value.map(|v| v.split_once(';').map_or(v, |(media_type, _)| media_type).trim()))
    }

    /// Returns the preconditions of the request.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidHeader`], [`ErrorCode::InvalidHeads`].
    pub(crate) fn precondition(&self) -> Result<Precondition> {
        match (self.header(IF_MATCH)?, self.header(IF_NONE_MATCH)?) {
            (None, None) => Ok(Precondition::None),
            (Some("*"), None) => Ok(Precondition::Exists),
            (None, Some("*")) => Ok(Precondition::Absent),
            (Some(tags), None) => Ok(Precondition::HeadsAre(entity_tags(tags, Comparison::Strong)?)),
            (None, Some(tags)) => Ok(Precondition::HeadsAreNot(entity_tags(tags, Comparison::Weak)?)),
            (Some(_), Some(_)) => Err(Error::new(ErrorCode::InvalidHeader, "give If-Match or If-None-Match, not both")),
        }
    }

    fn session(&self) -> Result<Option<SessionToken>> {
        self.header(wire::SESSION)?.map(SessionToken::new).transpose()
    }

    fn timeout(&self) -> Result<Option<Duration>> {
        let Some(text) = self.header(wire::TIMEOUT)? else { return Ok(None) };
        match humantime::parse_duration(text) {
            Ok(timeout) if timeout <= TIMEOUT_MAX => Ok(Some(timeout)),
            Ok(_) | Err(_) => Err(Error::new(
                ErrorCode::InvalidHeader,
                format!("Folkmoot-Timeout is {}, not a duration with a unit up to 5m, as in 5s", shown(text)),
            )),
        }
    }

    /// Returns where a write must be durable.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidDurability`].
    fn durability(&self) -> Result<Durability> {
        self.header(wire::DURABILITY)?.map_or(Ok(Durability::default()), str::parse)
    }

    /// Returns the idempotency key; quotation marks around it (as a structured field has) are taken off.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidIdempotencyKey`].
    pub(crate) fn idempotency_key(&self) -> Result<Option<IdempotencyKey>> {
        let Some(text) = self.header(wire::IDEMPOTENCY_KEY)? else { return Ok(None) };
        let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
        IdempotencyKey::new(inner).map(Some)
    }

    /// Returns how to read.
    ///
    /// # Errors
    /// Of the headers it is made from.
    pub(crate) fn read_options(&self) -> Result<ReadOptions> {
        Ok(ReadOptions { at: None, session: self.session()?, timeout: self.timeout()? })
    }

    /// Returns how to write.
    ///
    /// # Errors
    /// Of the headers it is made from.
    pub(crate) fn write_options(&self) -> Result<WriteOptions> {
        let merge_onto = match self.header(wire::BASE)? {
            None => None,
            Some(text) => match <[Heads; 1]>::try_from(entity_tags(text, Comparison::Strong)?) {
                Ok([heads]) => Some(heads),
                Err(_) => {
                    return Err(Error::new(
                        ErrorCode::InvalidHeader,
                        "Folkmoot-Base names one version, as an entity tag",
                    ));
                }
            },
        };
        Ok(WriteOptions {
            precondition: self.precondition()?,
            merge_onto,
            idempotency_key: self.idempotency_key()?,
            durability: self.durability()?,
            timeout: self.timeout()?,
            session: self.session()?,
        })
    }

    /// Returns what the caller wants in the body of the answer to a write.
    pub(crate) fn preferred_body(&self) -> PreferredBody {
        let preferences = self.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        // RFC 7240: of several the first counts, and what is not understood is passed over.
        preferences
            .flat_map(|value| value.split([',', ';']))
            .find_map(|preference| match preference.trim().to_ascii_lowercase().as_str() {
                "return=minimal" => Some(PreferredBody::Minimal),
                "return=representation" => Some(PreferredBody::Representation),
                _ => None,
            })
            .unwrap_or(PreferredBody::Outcome)
    }

    /// Returns how long the answer may take, and the method, for when it takes longer.
    pub(crate) fn bounds(&self) -> (Duration, Method) {
        (self.context.limits.answer_timeout, self.method.clone())
    }

    /// Returns the refusal of a request that is neither GET nor HEAD.
    pub(crate) fn only_get(&self) -> Option<Response> {
        (self.method != Method::GET && self.method != Method::HEAD).then(|| method_not_allowed("GET, HEAD"))
    }
}

/// What the answer to a write carries (RFC 7240 `Prefer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreferredBody {
    /// What was written.
    Outcome,
    /// Nothing.
    Minimal,
    /// The document as it is now.
    Representation,
}

/// Names of headers, known to `http` or ours.
pub(crate) trait AsHeader {
    fn name(&self) -> &str;
}

impl AsHeader for HeaderName {
    fn name(&self) -> &str {
        self.as_str()
    }
}

impl AsHeader for &'static str {
    fn name(&self) -> &str {
        self
    }
}

/// RFC 9110, 8.8.3.2.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Parses a list of entity tags. A weak one never matches in a strong comparison.
fn entity_tags(text: &str, comparison: Comparison) -> Result<Vec<Heads>> {
    let mut all = Vec::new();
    for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
        let (weak, tag) = tag.strip_prefix("W/").map_or((false, tag), |tag| (true, tag));
        let Some(inner) = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
            return Err(Error::new(ErrorCode::InvalidHeads, format!("{} is no entity tag", shown(tag)))
                .hint("an entity tag stands in quotation marks, as the ETag of an answer does"));
        };
        let heads = inner.parse()?;
        if !weak || comparison == Comparison::Weak {
            all.push(heads);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use folkmoot::ChangeHash;

    use super::*;

    #[test]
    fn entity_tags_are_read_as_the_standard_says() {
        let one = Heads::new(vec![ChangeHash::new([1; 32])]);
        let two = Heads::new(vec![ChangeHash::new([2; 32]), ChangeHash::new([3; 32])]);
        let both = format!("{}, W/{}", one.etag(), two.etag());
        assert_eq!(entity_tags(&both, Comparison::Strong).unwrap(), vec![one.clone()]);
        assert_eq!(entity_tags(&both, Comparison::Weak).unwrap(), vec![one, two]);
        for bad in ["abc", "\"abc\"", "\"", "W/", "\"a\" \"b\""] {
            assert_eq!(entity_tags(bad, Comparison::Weak).unwrap_err().code(), ErrorCode::InvalidHeads, "{bad}");
        }
    }

    #[test]
    fn unknown_and_malformed_parameters_are_errors() {
        let mut query = Query::parse("limit=10&prefix=a%2Fb+c&switch=true");
        assert_eq!(query.limit(10).unwrap(), Some(10));
        assert_eq!(query.take("prefix").as_deref(), Some("a/b c"));
        assert!(query.switch("switch").unwrap());
        assert!(query.finish("").is_ok());
        for bad in ["limit=0", "limit=11", "limit=x", "limit=", "limit=-1"] {
            assert!(Query::parse(bad).limit(10).is_err(), "{bad}");
        }
        assert!(Query::parse("x=1").finish("").is_err());
        let mut twice = Query::parse("limit=1&limit=2");
        twice.limit(10).unwrap();
        assert!(twice.finish("limit").is_err());
    }
}
