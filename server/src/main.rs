//! The `folkmoot` binary.

fn main() -> std::process::ExitCode {
    folkmoot_server::cli::main().into()
}
