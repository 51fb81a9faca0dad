//! The `playhouse` binary.

fn main() -> std::process::ExitCode {
    node::run()
}
