//! What Tab proposes: commands and options by the definition of the command line, names and ids by the node.

use std::time::Duration;

use folkmoot::api::{Database as _, ListQuery};
use folkmoot::{Client, CollectionName};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use tokio::runtime::Handle;

use super::line::{NAMES_COLLECTION, Parts, Quoting, command_of, takes_collection};

/// How long the node is asked for names: who waits at a prompt would rather have none.
const ASK_TIME_MAX: Duration = Duration::from_millis(1_000);
/// Names shown at once.
const NAMES_MAX: usize = 100;
/// Ids asked for: the page has their documents too.
const IDS_MAX: usize = 25;

/// Asks the node for names.
pub(super) struct Names {
    client: Client,
    handle: Handle,
}

impl Names {
    pub(super) fn new(client: Client, handle: Handle) -> Self {
        Self { client, handle }
    }

    /// Returns what comes in time; failures are none of completion's business.
    fn ask<T>(&self, question: impl Future<Output = folkmoot::Result<T>>) -> Option<T> {
        self.handle.block_on(async { tokio::time::timeout(ASK_TIME_MAX, question).await }).ok()?.ok()
    }

    fn collections(&self, prefix: &str) -> Vec<String> {
        let all = self.ask(self.client.collections()).unwrap_or_default();
        let names = all.into_iter().map(|info| info.name.to_string()).filter(|name| name.starts_with(prefix));
        names.take(NAMES_MAX).collect()
    }

    fn documents(&self, collection: &CollectionName, prefix: &str) -> Vec<String> {
        let query = ListQuery {
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            limit: Some(IDS_MAX),
            ..ListQuery::default()
        };
        let page = self.ask(self.client.list(collection, &query)).unwrap_or_default();
        page.items.into_iter().map(|document| document.id.to_string()).collect()
    }
}

/// What may stand where the cursor is.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// One of these words.
    Words(Vec<String>),
    Collection {
        /// It is named in spite of the one in use.
        marked: bool,
    },
    Document(CollectionName),
    /// Nothing that is known here.
    Unknown,
}

pub(super) struct Completion {
    names: Names,
    parts: Parts,
    used: Option<CollectionName>,
}

impl Completion {
    pub(super) fn new(names: Names) -> Self {
        Self { names, parts: Parts::new(), used: None }
    }

    pub(super) fn use_collection(&mut self, used: Option<CollectionName>) {
        self.used = used;
    }
}

/// Splits what stands before the cursor: whole words, the word begun, and where that begins.
fn split(text: &str) -> (Vec<String>, String, usize) {
    let (mut words, mut word, mut start, mut in_word) = (Vec::new(), String::new(), text.len(), false);
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if quote.is_none() && char.is_ascii_whitespace() {
            if in_word {
                words.push(std::mem::take(&mut word));
            }
            (in_word, start) = (false, text.len());
            continue;
        }
        if !in_word {
            (in_word, start) = (true, at);
        }
        match (quote, char) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => quote = Some(char),
            (None | Some('"'), '\\') => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, char) => word.push(char),
        }
    }
    (words, word, start)
}

fn visible(command: &clap::Command) -> Vec<String> {
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    shown.map(|inner| inner.get_name().to_owned()).collect()
}

/// Finds out what the word begun may be.
fn wanted(definition: &clap::Command, words: &[String], begun: &str, used: Option<&CollectionName>) -> Wanted {
    let (command, count) = command_of(definition, words);
    let rest = words.get(count..).unwrap_or_default();
    let values = |argument: &clap::Arg| {
        let values = argument.get_possible_values();
        let names = values.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name().to_owned());
        names.collect::<Vec<_>>()
    };
    let option = |word: &String| {
        let long = word.strip_prefix("--")?;
        command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(long) && argument.get_action().takes_values())
    };
    if let Some(option) = rest.last().and_then(option) {
        return match values(option) {
            values if values.is_empty() => Wanted::Unknown,
            values => Wanted::Words(values),
        };
    }
    if begun.starts_with('-') {
        // Where the node is and who asks was settled when the shell began.
        let options = command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set() && (!argument.is_global_set() || argument.get_id() == "json"));
        return Wanted::Words(options.filter_map(|option| Some(format!("--{}", option.get_long()?))).collect());
    }
    // Values of options are no arguments of their own.
    let mut given = Vec::new();
    let mut is_value = false;
    for word in rest {
        if !is_value && !word.starts_with('-') {
            given.push(word.as_str());
        }
        is_value = !is_value && option(word).is_some();
    }
    let with_collection = takes_collection(command, words);
    let marked = given.first().copied().unwrap_or(begun).strip_prefix(NAMES_COLLECTION);
    let mut position = given.len();
    if with_collection && marked.is_none() && used.is_some() {
        position += 1;
    }
    let positionals: Vec<_> = command.get_positionals().collect();
    // The last one may take many.
    let takes_many = |last: &&&clap::Arg| last.get_num_args().is_some_and(|count| count.max_values() > 1);
    let argument = match positionals.get(position).or_else(|| positionals.last().filter(takes_many)) {
        Some(argument) => *argument,
        None if given.is_empty() && command.has_subcommands() => return Wanted::Words(visible(command)),
        None => return Wanted::Unknown,
    };
    match argument.get_id().as_str() {
        "collection" => Wanted::Collection { marked: with_collection && marked.is_some() },
        "id" | "ids" if with_collection => {
            let named = match (marked, used) {
                (Some(name), _) => name.parse().ok(),
                (None, Some(used)) => Some(used.clone()),
                (None, None) => given.first().and_then(|name| name.parse().ok()),
            };
            named.map_or(Wanted::Unknown, Wanted::Document)
        }
        _ => match values(argument) {
            values if values.is_empty() => Wanted::Unknown,
            values => Wanted::Words(values),
        },
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (words, begun, start) = split(line.get(..pos).unwrap_or_default());
        let found: Vec<String> = match wanted(self.parts.definition(), &words, &begun, self.used.as_ref()) {
            Wanted::Words(words) => words.into_iter().filter(|word| word.starts_with(&begun)).collect(),
            Wanted::Collection { marked: false } => self.names.collections(&begun),
            Wanted::Collection { marked: true } => {
                let names = self.names.collections(begun.strip_prefix(NAMES_COLLECTION).unwrap_or_default());
                names.into_iter().map(|name| format!("{NAMES_COLLECTION}{name}")).collect()
            }
            Wanted::Document(collection) => self.names.documents(&collection, &begun),
            Wanted::Unknown => Vec::new(),
        };
        let end = if found.len() == 1 { " " } else { "" };
        let pair = |word: String| Pair {
            replacement: format!("{}{end}", shell_words::quote(&word)),
            display: printable(&word),
        };
        Ok((start, found.into_iter().map(pair).collect()))
    }
}

/// Ids are chosen by whoever writes: none may speak to the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

impl Validator for Completion {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let open = Quoting::is_open_after(context.input());
        Ok(if open { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}

impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, used: Option<&str>) -> Wanted {
        let (words, begun, _) = split(text);
        let used = used.map(|name| name.parse().unwrap());
        wanted(Parts::new().definition(), &words, &begun, used.as_ref())
    }

    fn document(collection: &str) -> Wanted {
        Wanted::Document(collection.parse().unwrap())
    }

    #[test]
    fn words_are_split_up_to_the_cursor() {
        assert_eq!(split("get cit"), (vec!["get".to_owned()], "cit".to_owned(), 4));
        assert_eq!(split("get 'a b' "), (vec!["get".to_owned(), "a b".to_owned()], String::new(), 10));
        assert_eq!(split("get 'a b"), (vec!["get".to_owned()], "a b".to_owned(), 4));
        assert_eq!(split(r#"get a\ "b\"c"#), (vec!["get".to_owned()], "a b\"c".to_owned(), 4));
    }

    #[test]
    fn what_is_wanted_depends_on_the_words_before() {
        let Wanted::Words(commands) = at("g", None) else { panic!("no words") };
        assert!(commands.iter().any(|name| name == "get") && commands.iter().any(|name| name == "use"));
        assert!(!commands.iter().any(|name| name == "serve"));
        assert_eq!(at("get ", None), Wanted::Collection { marked: false });
        assert_eq!(at("use ", None), Wanted::Collection { marked: false });
        assert_eq!(at("get cities ", None), document("cities"));
        assert_eq!(at("get --meta ci", Some("cities")), document("cities"));
        assert_eq!(at("get @pe", Some("cities")), Wanted::Collection { marked: true });
        assert_eq!(at("get @people a", Some("cities")), document("people"));
        assert_eq!(at("erase cities a ", None), document("cities"));
        assert_eq!(at("collections show ", Some("cities")), Wanted::Collection { marked: false });
        let Wanted::Words(options) = at("get cities 1 --", None) else { panic!("no words") };
        assert!(
            options.iter().any(|name| name == "--meta") && !options.iter().any(|name| name == "--url"),
            "{options:?}"
        );
        let Wanted::Words(kinds) = at("patch cities 1 {} --kind ", None) else { panic!("no words") };
        assert!(kinds.iter().any(|name| name == "merge"), "{kinds:?}");
        assert_eq!(at("get cities 1 --at ", None), Wanted::Unknown);
    }

    #[test]
    fn ids_cannot_speak_to_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
