//! What a fresh document contains, in the order in which its operations are numbered.

use std::borrow::Cow;
use std::collections::VecDeque;

use automerge::{ScalarValue, ScalarValueRef, hydrate};

use crate::document::json::Sink;

/// The containers of a document: the root first, then level by level, each level in the order of the one above. So
/// Automerge numbers the operations when it fills a document.
pub(super) struct Content<'a> {
    pub(super) containers: Vec<Container<'a>>,
}

pub(super) enum Container<'a> {
    /// Entries by key, ascending.
    Map(Vec<(Cow<'a, str>, Item<'a>)>),
    List(Vec<Item<'a>>),
    Text(Cow<'a, str>),
}

/// A value in a container.
pub(super) enum Item<'a> {
    Scalar(ScalarValueRef<'a>),
    /// The next container that nobody named before.
    Container,
}

impl Container<'_> {
    /// Returns how many containers it holds.
    fn below(&self) -> usize {
        let is_container = |item: &&Item<'_>| matches!(item, Item::Container);
        match self {
            Self::Map(entries) => entries.iter().map(|(_, item)| item).filter(is_container).count(),
            Self::List(items) => items.iter().filter(is_container).count(),
            Self::Text(_) => 0,
        }
    }
}

impl<'a> Content<'a> {
    /// Puts a value that Automerge would be filled with into order.
    pub(super) fn of(root: &'a hydrate::Map) -> Self {
        enum Waiting<'a> {
            Map(&'a hydrate::Map),
            List(&'a hydrate::List),
            Text(&'a hydrate::Text),
        }
        let mut queue = VecDeque::from([Waiting::Map(root)]);
        let mut containers = Vec::new();
        let item = |queue: &mut VecDeque<Waiting<'a>>, value: &'a hydrate::Value| {
            queue.push_back(match value {
                hydrate::Value::Scalar(scalar) => return Item::Scalar(borrowed(scalar)),
                hydrate::Value::Map(map) => Waiting::Map(map),
                hydrate::Value::List(list) => Waiting::List(list),
                hydrate::Value::Text(text) => Waiting::Text(text),
            });
            Item::Container
        };
        while let Some(waiting) = queue.pop_front() {
            containers.push(match waiting {
                Waiting::Map(map) => {
                    let mut entries: Vec<_> = map.iter().collect();
                    entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
                    let entries = entries.into_iter();
                    Container::Map(
                        entries
                            .map(|(key, entry)| (Cow::Borrowed(key.as_str()), item(&mut queue, &entry.value)))
                            .collect(),
                    )
                }
                Waiting::List(list) => {
                    Container::List(list.iter().map(|element| item(&mut queue, &element.value)).collect())
                }
                Waiting::Text(text) => Container::Text(Cow::Owned(String::from(text))),
            });
        }
        Self { containers }
    }

    /// Returns the keys of the root.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = match self.containers.first() {
            Some(Container::Map(entries)) => entries.as_slice(),
            Some(Container::List(_) | Container::Text(_)) | None => &[],
        };
        entries.iter().map(|(key, _)| &**key)
    }

    /// Returns whether nothing is in the root.
    pub(super) fn is_empty(&self) -> bool {
        match self.containers.first() {
            Some(Container::Map(entries)) => entries.is_empty(),
            Some(Container::List(_) | Container::Text(_)) | None => true,
        }
    }

    /// Returns how deep the containers nest below the root.
    pub(super) fn depth(&self) -> usize {
        let mut depths = vec![0];
        for (index, container) in self.containers.iter().enumerate() {
            let depth = depths.get(index).copied().unwrap_or_default();
            depths.resize(depths.len() + container.below(), depth + 1);
        }
        depths.last().copied().unwrap_or_default()
    }

    /// Shows the document as JSON does.
    pub(super) fn show(&self, sink: &mut impl Sink) {
        // Where the containers of each container begin.
        let mut first = Vec::with_capacity(self.containers.len());
        let mut next = 1;
        for container in &self.containers {
            first.push(next);
            next += container.below();
        }
        self.show_container(0, &first, sink);
    }

    /// Recurses; what is shown has passed the bound on depth.
    fn show_container(&self, index: usize, first: &[usize], sink: &mut impl Sink) {
        let mut below = first.get(index).copied().unwrap_or(usize::MAX);
        let mut show = |item: &Item<'_>, sink: &mut _| match item {
            Item::Scalar(scalar) => Sink::scalar(sink, scalar),
            Item::Container => {
                self.show_container(below, first, sink);
                below += 1;
            }
        };
        match self.containers.get(index) {
            Some(Container::Map(entries)) => {
                sink.open_map();
                for (key, item) in entries {
                    sink.key(key);
                    show(item, sink);
                }
                sink.close_map();
            }
            Some(Container::List(items)) => {
                sink.open_list();
                items.iter().for_each(|item| show(item, sink));
                sink.close_list();
            }
            Some(Container::Text(text)) => sink.text(text.clone().into_owned()),
            None => sink.null(),
        }
    }
}

/// Returns a value without copying its bytes.
pub(super) fn borrowed(scalar: &ScalarValue) -> ScalarValueRef<'_> {
    match scalar {
        ScalarValue::Bytes(bytes) => ScalarValueRef::Bytes(Cow::Borrowed(bytes)),
        ScalarValue::Str(text) => ScalarValueRef::Str(Cow::Borrowed(text)),
        ScalarValue::Int(int) => ScalarValueRef::Int(*int),
        ScalarValue::Uint(uint) => ScalarValueRef::Uint(*uint),
        ScalarValue::F64(float) => ScalarValueRef::F64(*float),
        ScalarValue::Counter(counter) => ScalarValueRef::Counter(i64::from(counter)),
        ScalarValue::Timestamp(ms) => ScalarValueRef::Timestamp(*ms),
        ScalarValue::Boolean(bool) => ScalarValueRef::Boolean(*bool),
        ScalarValue::Unknown { type_code, bytes } => {
            ScalarValueRef::Unknown { type_code: *type_code, bytes: Cow::Borrowed(bytes) }
        }
        ScalarValue::Null => ScalarValueRef::Null,
    }
}
