//! Owns `millrace completions`: completion scripts made from the command tree.
//! Does not know any flag by name.
//! Invariant: what completes is what the parser takes, because both come from one definition.

use crate::failure::Failure;
use clap_complete::Shell;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  millrace completions bash > ~/.local/share/bash-completion/completions/millrace\n  \
    millrace completions zsh > ~/.zfunc/_millrace\n  \
    millrace completions fish > ~/.config/fish/completions/millrace.fish"
)]
pub struct Args {
    /// The shell to complete in
    shell: Shell,
}

pub fn run(args: Args, command: &mut clap::Command) -> Result<(), Failure> {
    // Into memory first: the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "millrace", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script).map_err(Failure::output)
}
