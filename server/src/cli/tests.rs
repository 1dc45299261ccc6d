//! What the command line takes and refuses.

use clap::Parser as _;
use clap::error::ErrorKind;
use folkmoot::api::Durability;

use super::args::{Args, Command};
use super::*;

fn parse(line: &str) -> Result<Args, ErrorKind> {
    Args::try_parse_from(line.split(' ')).map_err(|e| e.kind())
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory as _;
    Args::command().debug_assert();
}

#[test]
fn names_and_values_are_checked_before_anything_is_sent() {
    let Ok(Args { command: Command::Put(put), .. }) =
        parse("folkmoot put notes a {} --durability majority --timeout 5s")
    else {
        panic!("not parsed");
    };
    assert_eq!((put.document.id.as_str(), put.writing.durability), ("a", Durability::Majority));
    for bad in [
        "folkmoot get Notes a",
        "folkmoot get notes .",
        "folkmoot put notes a {} --durability some",
        "folkmoot put notes a {} --timeout 5",
        "folkmoot put notes a {} --if-match xyz",
        "folkmoot invite --uses 0",
        "folkmoot peers block xyz",
    ] {
        assert_eq!(parse(bad).unwrap_err(), ErrorKind::ValueValidation, "{bad}");
    }
    assert_eq!(parse("folkmoot get notes").unwrap_err(), ErrorKind::MissingRequiredArgument);
    assert_eq!(parse("folkmoot got notes a").unwrap_err(), ErrorKind::InvalidSubcommand);
    assert!(parse("folkmoot changes notes --follow --json").is_ok());
}

#[test]
fn failures_end_with_the_code_of_their_kind() {
    let code = |code| Failure::from(Error::new(code, "")).exit_code().number();
    assert_eq!(code(ErrorCode::DocumentNotFound), 1);
    assert_eq!(code(ErrorCode::Unreachable), 3);
    assert_eq!(code(ErrorCode::Unauthenticated), 4);
    assert_eq!(code(ErrorCode::PreconditionFailed), 5);
    assert_eq!(code(ErrorCode::Damaged), 6);
    assert_eq!(code(ErrorCode::Diverged), 7);
    assert_eq!(Failure::usage("x").exit_code().number(), 2);
}

#[test]
fn without_a_node_it_says_how_to_start_one() {
    let empty = tempfile::tempdir().unwrap();
    let line = format!("folkmoot status --data {}", empty.path().display());
    let find = Find { url: None, token_file: None, ..parse(&line).unwrap().find };
    let failure = connect(&find).unwrap_err();
    assert_eq!(failure.exit_code(), ExitCode::Unreachable);
    assert!(failure.error().unwrap().advice().unwrap().contains("folkmoot serve"));
}
