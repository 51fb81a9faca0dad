//! `playhouse completions`: what a shell needs to complete the words of a command.

use std::{io, process::ExitCode};

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

/// Print what a shell needs to complete the words of a command.
#[derive(Debug, Args)]
#[command(
    after_help = "bash:  playhouse completions bash > ~/.local/share/bash-completion/completions/playhouse\n\
                        zsh:   playhouse completions zsh > ~/.zfunc/_playhouse   (with ~/.zfunc in fpath)\n\
                        fish:  playhouse completions fish > ~/.config/fish/completions/playhouse.fish"
)]
pub(crate) struct Completions {
    /// The shell.
    shell: For,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Prints them for the command line `C`.
    pub(crate) fn run<C: CommandFactory>(&self) -> ExitCode {
        let shell = match self.shell {
            For::Bash => Shell::Bash,
            For::Zsh => Shell::Zsh,
            For::Fish => Shell::Fish,
        };
        let mut text = Vec::new();
        generate(shell, &mut C::command(), "playhouse", &mut text);
        // A reader that has gone away is not an error of the command.
        let _ = io::Write::write_all(&mut io::stdout().lock(), &text);
        ExitCode::SUCCESS
    }
}
