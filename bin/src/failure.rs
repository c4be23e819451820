//! Owns the one error type that reaches a person: what happened, to what, and what to do.
//! Does not know where it came from or how it is printed beyond plain text.
//! Invariant: a closed pipe on standard output is told apart from every real failure.

use std::fmt;
use std::io;

/// What a subcommand ends in when it does not end well.
#[derive(Debug)]
pub enum Failure {
    /// Whoever read our output has gone (`| head`): not an error, nothing is printed.
    BrokenPipe,
    /// Something a person has to know about.
    Told { what: String, todo: Option<String> },
}

impl Failure {
    /// A failure without advice. `what` says what happened and to what.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure::Told {
            what: what.into(),
            todo: None,
        }
    }

    /// Adds what to do about it.
    pub fn todo(self, advice: impl Into<String>) -> Failure {
        match self {
            Failure::BrokenPipe => Failure::BrokenPipe,
            Failure::Told { what, .. } => Failure::Told {
                what,
                todo: Some(advice.into()),
            },
        }
    }

    /// An error of writing to standard output.
    pub fn output(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::BrokenPipe
        } else {
            Failure::new(format!("cannot write to standard output: {error}"))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::BrokenPipe => f.write_str("the reader of standard output has gone"),
            Failure::Told { what, todo: None } => f.write_str(what),
            Failure::Told {
                what,
                todo: Some(todo),
            } => write!(f, "{what}\n  {todo}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Does something to every name; the first error is told in the end, the others as they come.
pub fn each(
    names: &[String],
    mut act: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut first = None;
    for name in names {
        match act(name) {
            Ok(()) => {}
            Err(Failure::BrokenPipe) => return Err(Failure::BrokenPipe),
            Err(failure) if first.is_some() => eprintln!("millrace: {failure}"),
            Err(failure) => first = Some(failure),
        }
    }
    first.map_or(Ok(()), Err)
}
