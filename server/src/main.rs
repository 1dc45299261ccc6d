//! The `folkmoot` binary.

/// Documents and requests are many small pieces of memory that come and go on several threads. The system's allocator took a
/// tenth of the time of a read, more of a write, and ever more as its heap became fragmented: docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    folkmoot_server::cli::main().into()
}
