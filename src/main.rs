//! Parse, run, exit code.

fn main() -> std::process::ExitCode {
    mailtwin::cli::main().into()
}
