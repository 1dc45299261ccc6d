//! Entries in the notations that other programs read. Texts in them come from anywhere: what a notation gives a meaning to is escaped.

use std::fmt::Write as _;
use std::str::FromStr;

use serde_json::json;

use super::{AuditClass, AuditDecision, AuditEntry, Error, ErrorCode, Result};

/// A notation of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFormat {
    /// A JSON object a line, as in the API.
    JsonLines,
    /// Open Cybersecurity Schema Framework 1.3, a JSON object a line.
    Ocsf,
    /// ArcSight Common Event Format, an event a line.
    Cef,
    /// RFC 5424, a message a line.
    Syslog,
}

impl FromStr for AuditFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "jsonl" => Ok(Self::JsonLines),
            "ocsf" => Ok(Self::Ocsf),
            "cef" => Ok(Self::Cef),
            "syslog" => Ok(Self::Syslog),
            _ => Err(Error::new(
                ErrorCode::InvalidParameter,
                "the notations of the audit are jsonl, ocsf, cef and syslog",
            )),
        }
    }
}

/// The vendor's identifier in structured data of syslog: an example of RFC 5612, since there is none of our own.
const SYSLOG_ID: &str = "audit@32473";

impl AuditFormat {
    /// Returns an entry as one line, without the line break: no text in it can make another.
    #[must_use]
    pub fn line(self, entry: &AuditEntry) -> String {
        match self {
            Self::JsonLines => unbroken(serde_json::to_string(entry).unwrap_or_default()),
            Self::Ocsf => unbroken(ocsf(entry).to_string()),
            Self::Cef => cef(entry),
            Self::Syslog => syslog(entry),
        }
    }
}

/// What some readers take for the end of a line, though it is no control character.
const SEPARATORS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// Escapes what JSON leaves as it is and some readers of lines do not.
fn unbroken(json: String) -> String {
    if json.contains(SEPARATORS) { json.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029") } else { json }
}

/// Returns the class, category and activity of OCSF.
fn ocsf_class(entry: &AuditEntry) -> (u32, u32, u32) {
    use super::AuditAction as A;
    match entry.action {
        A::Login | A::Authenticate | A::TokenUsed | A::Throttle => (3002, 3, 1),
        A::Logout | A::EndSession => (3002, 3, 2),
        A::AddPrincipal => (3001, 3, 1),
        A::RemovePrincipal => (3001, 3, 6),
        A::SetPassword => (3001, 3, 3),
        A::Grant | A::IssueToken => (3005, 3, 1),
        A::Revoke => (3005, 3, 2),
        A::JoinGroup => (3006, 3, 3),
        A::Configure | A::AddRole | A::Invite | A::Admit => (3004, 3, 1),
        A::DropCollection => (3004, 3, 4),
        A::Create => (6003, 6, 1),
        A::Read | A::List | A::Query | A::Export | A::History | A::Changes => (6003, 6, 2),
        A::Update | A::Release => (6003, 6, 3),
        A::Delete | A::Erase => (6003, 6, 4),
        A::Start => (6002, 6, 3),
        A::Stop => (6002, 6, 4),
        _ => (6003, 6, 99),
    }
}

/// Returns how bad it is, from 0 to 10.
fn severity(entry: &AuditEntry) -> u8 {
    use super::AuditAction as A;
    match (entry.decision, entry.action) {
        (_, A::PeerLogCut | A::PeerLogForked | A::LogCut | A::Damage) => 9,
        (AuditDecision::Denied, _) => 5,
        (AuditDecision::Failed, _) => 4,
        (AuditDecision::Allowed, _) if entry.class == AuditClass::Admin => 3,
        (AuditDecision::Allowed, _) => 1,
    }
}

fn ocsf(entry: &AuditEntry) -> serde_json::Value {
    let (class, category, activity) = ocsf_class(entry);
    let severity = match severity(entry) {
        0..=1 => 1,
        2..=3 => 2,
        4..=6 => 3,
        7..=8 => 4,
        _ => 5,
    };
    let status = if entry.decision == AuditDecision::Allowed { 1 } else { 2 };
    let resources: Vec<_> = entry.documents.iter().map(|doc| json!({"name": doc, "type": "document"})).collect();
    let mut event = json!({
        "class_uid": class,
        "category_uid": category,
        "activity_id": activity,
        "type_uid": class * 100 + activity,
        "severity_id": severity,
        "status_id": status,
        "status_detail": entry.reason,
        "time": entry.time.millis(),
        "start_time": entry.first.millis(),
        "end_time": entry.last.millis(),
        "count": entry.count,
        "message": entry.action.name(),
        "metadata": {
            "version": "1.3.0",
            "uid": entry.id,
            "product": {"name": "Folkmoot", "vendor_name": "Folkmoot", "version": env!("CARGO_PKG_VERSION")},
            "correlation_uid": entry.request,
        },
        "actor": {"user": {
            "uid": entry.principal.map(|id| id.to_string()),
            "name": entry.name,
            "credential_uid": entry.credential.map(|id| id.to_string()),
        }},
        "api": {"operation": entry.action.name(), "service": {"name": "folkmoot"}},
        "device": {"uid": entry.node.to_string(), "type_id": 1},
        "unmapped": {"layer": entry.layer.to_string(), "method": entry.method.name(), "target": entry.target},
    });
    if let Some(members) = event.as_object_mut() {
        if !entry.source.is_empty() {
            members.insert("src_endpoint".to_owned(), json!({"ip": entry.source}));
        }
        if let Some(collection) = &entry.collection {
            members.insert("database".to_owned(), json!({"name": collection, "type_id": 5}));
        }
        if !resources.is_empty() {
            members.insert("resources".to_owned(), resources.into());
        }
    }
    event
}

/// What is in a header of CEF: `\`, `|` and line breaks are escaped or gone.
fn cef_header(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '\\' | '|' => out.extend(['\\', char]),
            char if char.is_control() => out.push(' '),
            char => out.push(char),
        }
    }
    out
}

/// A member of the extension of CEF: `\`, `=` and line breaks are escaped.
fn cef_member(out: &mut String, key: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    out.push(' ');
    out.push_str(key);
    out.push('=');
    for char in value.chars() {
        match char {
            '\\' | '=' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            char if char.is_control() || SEPARATORS.contains(&char) => out.push(' '),
            char => out.push(char),
        }
    }
}

/// Returns all about an entry that has a value, by names that CEF knows where it has some.
fn members(entry: &AuditEntry) -> Vec<(&'static str, &'static str, String)> {
    let text = |id: Option<String>| id.unwrap_or_default();
    let documents: Vec<&str> = entry.documents.iter().map(folkmoot_core::id::DocId::as_str).collect();
    vec![
        ("externalId", "id", entry.id.clone()),
        ("rt", "time", entry.time.millis().to_string()),
        ("start", "first", entry.first.millis().to_string()),
        ("end", "last", entry.last.millis().to_string()),
        ("cnt", "count", entry.count.to_string()),
        ("act", "action", entry.action.name().to_owned()),
        ("outcome", "decision", entry.decision.name().to_owned()),
        ("cat", "class", entry.class.name().to_owned()),
        ("suid", "principal", text(entry.principal.map(|id| id.to_string()))),
        ("suser", "name", entry.name.clone()),
        ("src", "source", entry.source.clone()),
        ("dvchost", "node", entry.node.to_string()),
        ("cs1", "collection", text(entry.collection.as_ref().map(ToString::to_string))),
        ("cs2", "documents", documents.join(",")),
        ("cs3", "target", entry.target.clone()),
        ("cs4", "credential", text(entry.credential.map(|id| id.to_string()))),
        ("cs5", "method", entry.method.name().to_owned()),
        ("cs6", "layer", entry.layer.to_string()),
        ("reason", "reason", entry.reason.clone()),
        ("requestContext", "request", entry.request.clone()),
    ]
}

fn cef(entry: &AuditEntry) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(
        "CEF:0|Folkmoot|Folkmoot|{}|{}|{} {}|{}|",
        cef_header(version),
        entry.action.code(),
        cef_header(entry.action.name()),
        cef_header(entry.decision.name()),
        severity(entry)
    );
    let mut extension = String::new();
    for (key, name, value) in members(entry) {
        cef_member(&mut extension, key, &value);
        if key.starts_with("cs") && !value.is_empty() {
            cef_member(&mut extension, &format!("{key}Label"), name);
        }
    }
    out.push_str(extension.trim_start());
    out
}

/// A value in structured data of RFC 5424: `"`, `\` and `]` are escaped, control characters are gone.
fn syslog_value(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '"' | '\\' | ']' => out.extend(['\\', char]),
            char if char.is_control() || SEPARATORS.contains(&char) => out.push(' '),
            char => out.push(char),
        }
    }
    out
}

fn syslog(entry: &AuditEntry) -> String {
    // Facility 13 is log audit; the severities are those of syslog.
    let level = match severity(entry) {
        9.. => 2,
        4..=8 => 4,
        2..=3 => 5,
        0..=1 => 6,
    };
    let mut out =
        format!("<{}>1 {} {} folkmoot - {} [{SYSLOG_ID}", 13 * 8 + level, entry.time, entry.node, entry.action);
    for (_, name, value) in members(entry).into_iter().filter(|(_, _, value)| !value.is_empty()) {
        // Writing to a string does not fail.
        let _ = write!(out, " {name}=\"{}\"", syslog_value(&value));
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::super::{AuditAction, AuditLayer, AuditMethod, Timestamp};
    use super::*;

    /// What somebody would send who wants another entry in the log of somebody else's program.
    const INJECTION: &str = "a\r\n<13>1 - evil\u{2028}| x=y ] \" \\ CEF:0|\0\u{1b}[2J";

    fn entry(text: &str) -> AuditEntry {
        let time = Timestamp::from_millis(1_700_000_000_000);
        AuditEntry {
            id: "0101010101010101-7".to_owned(),
            layer: AuditLayer::Log,
            time,
            node: folkmoot_core::id::AuthorKey::new([1; 32]),
            class: AuditClass::Auth,
            action: AuditAction::Login,
            decision: AuditDecision::Denied,
            count: 3,
            first: time,
            last: time,
            principal: None,
            name: text.to_owned(),
            method: AuditMethod::Password,
            credential: None,
            source: "10.0.0.1".to_owned(),
            collection: Some("notes".parse().unwrap()),
            documents: vec!["a|b=c]\"\\".parse().unwrap()],
            target: text.to_owned(),
            statements: Vec::new(),
            reason: text.to_owned(),
            request: text.to_owned(),
        }
    }

    #[test]
    fn nothing_that_somebody_sent_makes_a_line_or_a_member() {
        for format in [AuditFormat::JsonLines, AuditFormat::Ocsf, AuditFormat::Cef, AuditFormat::Syslog] {
            let line = format.line(&entry(INJECTION));
            let breaks = |char: char| char.is_control() || SEPARATORS.contains(&char);
            assert!(!line.chars().any(breaks), "{format:?}: {line:?}");
        }
        let cef = AuditFormat::Cef.line(&entry(INJECTION));
        let unescaped = |wanted: char| {
            let mut escaped = false;
            let mut count = 0;
            for char in cef.chars() {
                count += usize::from(char == wanted && !escaped);
                escaped = char == '\\' && !escaped;
            }
            count
        };
        // The header's seven bars; in the extension bars mean nothing.
        let header: String = cef.split(" suser=").next().unwrap().to_owned();
        assert_eq!(header.matches('|').count(), 7, "{cef}");
        let plain = AuditFormat::Cef.line(&entry("x"));
        assert_eq!(unescaped('='), plain.matches('=').count() - plain.matches("\\=").count(), "{cef}");
        assert!(cef.contains("a\\r\\n<13>1 - evil | x\\=y ] \" \\\\ CEF:0|"), "{cef}");
        let syslog = AuditFormat::Syslog.line(&entry(INJECTION));
        assert!(syslog.starts_with("<108>1 2023-11-14T22:13:20"), "{syslog}");
        assert!(syslog.contains("x=y \\] \\\" \\\\ CEF"), "{syslog}");
        assert!(syslog.ends_with("\"]"), "{syslog}");
    }

    #[test]
    fn ocsf_has_its_classes() {
        let event = ocsf(&entry("ann"));
        assert_eq!((&event["class_uid"], &event["type_uid"]), (&json!(3002), &json!(300_201)));
        assert_eq!((&event["status_id"], &event["src_endpoint"]["ip"]), (&json!(2), &json!("10.0.0.1")));
        let mut read = entry("ann");
        (read.action, read.class) = (AuditAction::List, AuditClass::Read);
        assert_eq!(ocsf(&read)["type_uid"], json!(600_302));
        assert_eq!(ocsf(&read)["database"]["name"], json!("notes"));
    }
}
