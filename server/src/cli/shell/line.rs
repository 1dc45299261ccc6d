//! What a line of the shell says.

use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, parser::ValueSource};
use folkmoot::CollectionName;

use super::super::args::{Args, Command};
use super::super::failure::Failure;
use super::super::named_collection;

/// Commands that have no place here: they are nodes, work on the directory of one that does not run, or have no need of one.
const OUTSIDE: [&str; 11] =
    ["serve", "init", "join", "repair", "rejoin", "demo", "bench", "bench-bare", "config", "completions", "shell"];
/// Options that say which node is asked, and by whom: what the shell was started with.
const CONNECTION: [&str; 9] = ["url", "token_file", "user", "password_file", "cert", "key", "ca", "data", "session"];
/// What a collection begins with that is named in spite of the one in use. No collection's name and no option begins so.
pub(super) const NAMES_COLLECTION: char = '@';

/// A line that can be carried out.
pub(super) enum Line {
    /// Blank, or a comment.
    Nothing,
    End,
    Use(Option<CollectionName>),
    /// A command, and the collection that it names.
    Command(Box<Args>, Option<CollectionName>),
}

/// A line that cannot.
pub(super) enum Unreadable {
    Line(Failure),
    /// Also if help is asked for.
    Arguments(clap::Error),
}

/// Where in its quoting a line is: what `shell_words` thinks at this place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Quoting {
    #[default]
    Between,
    Comment,
    Word,
    /// Behind a backslash.
    Escaped,
    /// Behind a backslash at the end of a line.
    Continued,
    Single,
    Double,
    DoubleEscaped,
}

impl Quoting {
    /// Goes on over more of the line.
    pub(super) fn feed(&mut self, text: &str) {
        for char in text.chars() {
            *self = match (*self, char) {
                (Self::Comment, '\n') => Self::Between,
                (Self::Comment, _) => Self::Comment,
                (Self::Single, '\'') | (Self::Double, '"') => Self::Word,
                (Self::Single, _) => Self::Single,
                (Self::Double, '\\') => Self::DoubleEscaped,
                (Self::Double | Self::DoubleEscaped, _) => Self::Double,
                (Self::Escaped, '\n') => Self::Continued,
                (Self::Escaped, _) => Self::Word,
                (Self::Between | Self::Continued, '#') => Self::Comment,
                (Self::Between | Self::Word | Self::Continued, '\'') => Self::Single,
                (Self::Between | Self::Word | Self::Continued, '"') => Self::Double,
                (Self::Between | Self::Word | Self::Continued, '\\') => Self::Escaped,
                (Self::Between | Self::Word | Self::Continued, ' ' | '\t' | '\n') => Self::Between,
                (Self::Between | Self::Word | Self::Continued, _) => Self::Word,
            };
        }
    }

    /// Returns whether the next line belongs to this one.
    pub(super) const fn is_open(self) -> bool {
        !matches!(self, Self::Between | Self::Comment | Self::Word)
    }

    /// Returns whether a line is open at its end.
    pub(super) fn is_open_after(line: &str) -> bool {
        let mut quoting = Self::default();
        quoting.feed(line);
        quoting.is_open()
    }
}

/// What lines are made of: the command line's own definition, with what only the shell has.
pub(super) struct Parts(clap::Command);

impl Parts {
    pub(super) fn new() -> Self {
        let mut definition = Args::command().no_binary_name(true).after_help(
            "With a collection in use the commands leave it out, as in `get 1`; `get @people ann` names another one.\n\
             A line goes on in the next one while a quote is open. Lines that begin with # are passed over.",
        );
        for name in OUTSIDE {
            definition = definition.mut_subcommand(name, |command| command.hide(true));
        }
        let collection = Arg::new("collection")
            .help("The collection; none if not given")
            .value_parser(|text: &str| text.parse::<CollectionName>().map_err(|error| error.to_string()));
        let used = clap::Command::new("use").about("Use a collection in all commands that name none").arg(collection);
        let exit = clap::Command::new("exit").visible_alias("quit").about("End the shell");
        let mut definition = definition.subcommand(used).subcommand(exit);
        definition.build();
        Self(definition)
    }

    pub(super) fn definition(&self) -> &clap::Command {
        &self.0
    }

    /// Reads a line.
    pub(super) fn read(&self, line: &str, used: Option<&CollectionName>) -> Result<Line, Unreadable> {
        let words = shell_words::split(line)
            .map_err(|_| Unreadable::Line(Failure::usage("a quote is open at the end of the line")))?;
        if words.is_empty() {
            return Ok(Line::Nothing);
        }
        let words = with_collection(&self.0, words, used);
        let matches = self.0.clone().try_get_matches_from(words).map_err(Unreadable::Arguments)?;
        if let Some(option) = CONNECTION.into_iter().find(|option| is_given(&matches, option)) {
            let option = option.replace('_', "-");
            return Err(Unreadable::Line(Failure::usage(format!(
                "--{option} is given to the shell, not to a command within it: start another shell"
            ))));
        }
        match matches.subcommand() {
            Some(("exit", _)) => return Ok(Line::End),
            Some(("use", inner)) => return Ok(Line::Use(inner.get_one("collection").cloned())),
            Some((name, _)) if OUTSIDE.contains(&name) => {
                return Err(Unreadable::Line(Failure::usage(format!(
                    "`{name}` is no command of the shell, which speaks to a node: run `folkmoot {name}`"
                ))));
            }
            Some(_) | None => {}
        }
        let named = named_collection(&matches);
        let args = Args::from_arg_matches(&matches).map_err(Unreadable::Arguments)?;
        if needs_directory(&args.command) {
            return Err(Unreadable::Line(Failure::usage(
                "this works on files of this machine and not on a node: run it outside of the shell",
            )));
        }
        Ok(Line::Command(Box::new(args), named))
    }
}

/// Commands that a client runs in part only.
fn needs_directory(command: &Command) -> bool {
    use super::super::args::{AuditCommand, KeysCommand};
    match command {
        Command::Audit(AuditCommand::Check { .. }) | Command::Keys { command: Some(KeysCommand::Rekey(_)) } => true,
        Command::Key { command } => super::super::key::is_local(command),
        _ => false,
    }
}

fn is_given(matches: &ArgMatches, option: &str) -> bool {
    matches.value_source(option) == Some(ValueSource::CommandLine)
}

/// Returns the command that words are about, and how many of them name it, with what stands before it.
pub(super) fn command_of<'a>(definition: &'a clap::Command, words: &[String]) -> (&'a clap::Command, usize) {
    let before = words.iter().take_while(|word| word.starts_with('-')).count();
    let (mut command, mut count) = (definition, before);
    for word in words.iter().skip(before) {
        let Some(inner) = command.find_subcommand(word) else { break };
        (command, count) = (inner, count + 1);
    }
    (command, count)
}

/// Returns whether a command is about what is in a collection, which it names first. Those about collections themselves name
/// theirs each time.
pub(super) fn takes_collection(command: &clap::Command, words: &[String]) -> bool {
    let own = ["collections", "collection", "use"];
    let is_own = words.iter().find(|word| !word.starts_with('-')).is_some_and(|word| own.contains(&word.as_str()));
    !is_own && command.get_positionals().next().is_some_and(|first| first.get_id() == "collection")
}

/// Puts the collection in use where a command names its collection.
fn with_collection(definition: &clap::Command, mut words: Vec<String>, used: Option<&CollectionName>) -> Vec<String> {
    let (command, at) = command_of(definition, &words);
    if !takes_collection(command, &words) {
        return words;
    }
    match (words.get_mut(at), used) {
        (Some(word), _) if word.starts_with(NAMES_COLLECTION) => {
            word.remove(0);
        }
        (_, Some(used)) => words.insert(at, used.to_string()),
        (_, None) => {}
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, used: Option<&str>) -> Result<Line, String> {
        let used = used.map(|name| name.parse().unwrap());
        Parts::new().read(line, used.as_ref()).map_err(|unreadable| match unreadable {
            Unreadable::Line(failure) => failure.error().unwrap().to_string(),
            Unreadable::Arguments(error) => error.to_string(),
        })
    }

    fn got(line: &str, used: Option<&str>) -> (String, String) {
        match read(line, used) {
            Ok(Line::Command(args, named)) => match args.command {
                Command::Get(get) => {
                    assert_eq!(named.as_ref(), Some(&get.document.collection));
                    (get.document.collection.to_string(), get.document.id.to_string())
                }
                other => panic!("{other:?}"),
            },
            Ok(_) => panic!("{line} is no command"),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn commands_outside_are_commands() {
        let definition = Args::command();
        for name in OUTSIDE {
            assert!(definition.find_subcommand(name).is_some(), "{name}");
        }
        let options: Vec<_> = definition.get_arguments().map(|argument| argument.get_id().to_string()).collect();
        for option in CONNECTION {
            assert!(options.iter().any(|other| other == option), "{option}: {options:?}");
        }
        Parts::new().0.debug_assert();
    }

    #[test]
    fn the_collection_in_use_is_left_out() {
        assert_eq!(got("get cities 1", None), ("cities".into(), "1".into()));
        assert_eq!(got("get 1", Some("cities")), ("cities".into(), "1".into()));
        assert_eq!(got("--json get --meta 1", Some("cities")), ("cities".into(), "1".into()));
        assert_eq!(got("get @people 'ann b'", Some("cities")), ("people".into(), "ann b".into()));
        assert_eq!(got("get @people @ann", None), ("people".into(), "@ann".into()));
        assert!(read("collections show", Some("cities")).is_err());
        assert!(read("get cities 1", Some("cities")).is_err());
    }

    #[test]
    fn what_the_shell_cannot_do_is_said() {
        assert!(read("serve", None).err().unwrap().contains("folkmoot serve"));
        assert!(read("get cities 1 --url http://x", None).err().unwrap().contains("--url"));
        assert!(read("get 'a", None).err().unwrap().contains("quote"));
        assert!(read("gett cities 1", None).err().unwrap().contains("'get'"));
        assert!(matches!(read("  # a comment's quote", None), Ok(Line::Nothing)));
        assert!(matches!(read("", None), Ok(Line::Nothing)));
        assert!(matches!(read("quit", None), Ok(Line::End)));
        assert!(matches!(read("use", None), Ok(Line::Use(None))));
        assert!(read("use Cities", None).is_err());
    }

    #[test]
    fn an_open_quote_goes_on() {
        let lines = [
            "",
            "get a b",
            "put a b '{\"x\":",
            "put a b '{\"x\":\n1}'\n",
            "# it's a comment",
            "get a # it's\n",
            "get a#'b",
            "get \"a\\\"",
            "get \"a\\\"\"",
            "get a\\'",
            "get 'a\\'",
            "get \"a'\"",
            "'",
            "\"",
            "a'b'\"c\"",
        ];
        for line in lines {
            assert_eq!(Quoting::is_open_after(line), shell_words::split(line).is_err(), "{line:?}");
        }
        // So does a backslash at the end of a line.
        assert!(Quoting::is_open_after("get a \\\n") && !Quoting::is_open_after("get a \\\nb\n"));
    }
}
