//! The requests of the workloads: documents of 200 bytes, and what is done to them.

use bytes::Bytes;
use folkmoot::CollectionName;

use super::args::Workload;
use super::load::Work;
use crate::cli::random::Random;

/// Bytes of a document as JSON.
pub(super) const DOCUMENT_BYTES: usize = 200;
/// Numbers that a field is changed to.
const VALUES: usize = 100_000_000;
/// Of so many operations of the mixed workload one is an update.
const MIXED_UPDATE_OF: usize = 5;

/// Returns a document: five fields, as long as every other.
pub(super) fn document(number: u64) -> String {
    let mut text = format!(
        r#"{{"name":"place {number:012}","country":"NO","population":{},"location":"59.9,10.7","note":""#,
        10_000_000 + number % 10_000_000
    );
    let room = DOCUMENT_BYTES.saturating_sub(text.len() + 2);
    text.extend("a scalar string that makes it as long as a usual one; ".chars().cycle().take(room));
    text.push_str("\"}");
    text
}

/// Returns the id of a document that is there to be read and updated.
pub(super) fn document_id(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:09}")
}

/// What all documents that are there to be read and updated begin with.
pub(super) const STOCK: &str = "stock";

/// Where requests go.
#[derive(Clone)]
pub(super) struct Site {
    /// `host:port`.
    pub(super) authority: String,
    /// Never printed.
    token: String,
    collection: CollectionName,
}

impl Site {
    pub(super) fn new(url: &str, token: &str, collection: &CollectionName) -> Self {
        let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let authority = if authority.contains(':') { authority } else { format!("{authority}:80") };
        Self { authority, token: token.trim().to_owned(), collection: collection.clone() }
    }

    /// Writes a request; `content` is the media type and the body.
    fn write(&self, out: &mut Vec<u8>, method: &str, path: &str, content: Option<(&str, &str)>) {
        let Self { authority, token, collection } = self;
        out.clear();
        let mut add = |text: &str| out.extend_from_slice(text.as_bytes());
        for part in [method, " "] {
            add(part);
        }
        if path.starts_with("/metrics") {
            add(path);
        } else {
            for part in ["/v1/collections/", collection.as_str(), "/docs", path] {
                add(part);
            }
        }
        for part in [" HTTP/1.1\r\nhost: ", authority, "\r\nauthorization: Bearer ", token, "\r\n"] {
            add(part);
        }
        if let Some((media_type, body)) = content {
            let length = body.len().to_string();
            for part in ["content-type: ", media_type, "\r\ncontent-length: ", &length, "\r\n\r\n", body] {
                add(part);
            }
        } else {
            add("\r\n");
        }
    }

    pub(super) fn metrics(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, "GET", "/metrics", None);
        out
    }

    pub(super) fn read(&self, out: &mut Vec<u8>, number: u64) {
        self.write(out, "GET", &format!("/{}", document_id(STOCK, number)), None);
    }

    /// Makes a document with an id of ours.
    pub(super) fn put(&self, out: &mut Vec<u8>, id: &str, number: u64) {
        self.write(out, "PUT", &format!("/{id}"), Some(("application/json", &document(number))));
    }
}

/// One connection's share of a workload.
pub(super) struct Share {
    site: Site,
    workload: Workload,
    documents: usize,
    random: Random,
}

impl Share {
    pub(super) fn new(site: &Site, workload: Workload, documents: usize, seed: u64) -> Self {
        // Seeds that follow each other begin series that have nothing in common.
        Self { site: site.clone(), workload, documents, random: Random::new(Random::new(seed).next()) }
    }

    fn some_document(&mut self) -> u64 {
        self.random.below(self.documents) as u64
    }

    fn read(&mut self, out: &mut Vec<u8>) -> u16 {
        let number = self.some_document();
        self.site.read(out, number);
        200
    }

    fn update(&mut self, out: &mut Vec<u8>) -> u16 {
        let path = format!("/{}", document_id(STOCK, self.some_document()));
        let patch = format!(r#"{{"population":{}}}"#, self.random.below(VALUES));
        self.site.write(out, "PATCH", &path, Some(("application/merge-patch+json", &patch)));
        200
    }

    fn create(&mut self, out: &mut Vec<u8>) -> u16 {
        let document = document(self.random.next() % 1_000_000_000_000);
        self.site.write(out, "POST", "", Some(("application/json", &document)));
        201
    }
}

impl Work for Share {
    fn next(&mut self, request: &mut Vec<u8>) -> u16 {
        match self.workload {
            Workload::Read | Workload::Bare => self.read(request),
            Workload::Update => self.update(request),
            Workload::Mixed if self.random.below(MIXED_UPDATE_OF) == 0 => self.update(request),
            Workload::Mixed => self.read(request),
            Workload::Create
            | Workload::Replicate
            | Workload::CatchUp
            | Workload::Bootstrap
            | Workload::Heal
            | Workload::Feed
            | Workload::Subscribers => self.create(request),
        }
    }
}

/// Returns a document as the body of an edit.
pub(super) fn document_bytes(number: u64) -> Bytes {
    Bytes::from(document(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_json_and_of_one_length() {
        for number in [0, 7, 999_999_999_999] {
            let text = document(number);
            assert_eq!(text.len(), DOCUMENT_BYTES, "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap().as_object().unwrap().len(), 5);
        }
        assert_ne!(document(1), document(2));
    }

    #[test]
    fn requests_are_http() {
        let site = Site::new("http://localhost/", "secret\n", &"bench".parse().unwrap());
        assert_eq!(site.authority, "localhost:80");
        let mut mixed = Share::new(&site, Workload::Mixed, 10, 1);
        let mut methods = Vec::new();
        for _ in 0..1_000 {
            let mut request = Vec::new();
            assert_eq!(mixed.next(&mut request), 200);
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut parsed = httparse::Request::new(&mut headers);
            let head = parsed.parse(&request).unwrap().unwrap();
            assert!(parsed.path.unwrap().starts_with("/v1/collections/bench/docs/stock-00000000"));
            assert!(parsed.headers.iter().any(|header| header.value == b"Bearer secret"));
            let length = parsed.headers.iter().find(|header| header.name == "content-length");
            assert_eq!(
                length.map_or("0".to_owned(), |l| String::from_utf8_lossy(l.value).into_owned()),
                (request.len() - head).to_string()
            );
            methods.push(parsed.method.unwrap().to_owned());
        }
        let updates = methods.iter().filter(|method| *method == "PATCH").count();
        assert!((150..250).contains(&updates), "{updates}");
    }
}
