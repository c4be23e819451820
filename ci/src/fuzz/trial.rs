//! Owns trying a target: every file of its corpus, then mutations of them, counted and repeatable.
//! Does not know formats, nor how heap is counted.
//! Invariant: an input that fails is on disk before the failure is told, so that nothing has to be guessed.

use super::mutate::mutate;
use super::Target;
use crate::sim::seeds::Rng;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// An input of the corpus, by its file.
pub struct Seed {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Where the corpus of all targets is.
pub fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The inputs of one target, by name.
///
/// # Errors
/// Where the folder or a file in it cannot be read.
pub fn corpus(target: &Target) -> io::Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    for entry in fs::read_dir(corpus_dir().join(target.name))? {
        let entry = entry?;
        seeds.push(Seed {
            name: entry.file_name().to_string_lossy().into_owned(),
            bytes: fs::read(entry.path())?,
        });
    }
    seeds.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(seeds)
}

/// Runs the target on one input; gives the heap that was in use at once, in bytes.
pub type Measure<'a> = &'a mut dyn FnMut(&Target, &[u8]) -> usize;

/// What a trial did.
#[derive(Default, Debug)]
pub struct Tried {
    pub inputs: u64,
    pub bytes: u64,
    /// Most heap that one input took, with its length.
    pub heap_most: (usize, usize),
}

/// Runs all seeds and then `mutations` of them, and panics at the first input that fails or takes too much heap. The
/// input is left in `evidence` then.
///
/// # Errors
/// Where the corpus cannot be read, or is empty.
pub fn run(
    target: &Target,
    mutations: u64,
    seed: u64,
    evidence: &Path,
    measure: Measure<'_>,
) -> io::Result<Tried> {
    let seeds = corpus(target)?;
    if seeds.is_empty() {
        let what = format!("the corpus of {} is empty", target.name);
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    let mut tried = Tried::default();
    for input in &seeds {
        one(target, &input.bytes, evidence, measure, &mut tried);
    }
    let mut rng = Rng::new(seed);
    for _ in 0..mutations {
        let count = seeds.len() as u64;
        let (from, other) = (rng.below(count) as usize, rng.below(count) as usize);
        let input = mutate(&mut rng, &seeds[from].bytes, &seeds[other].bytes);
        one(target, &input, evidence, measure, &mut tried);
    }
    Ok(tried)
}

fn one(target: &Target, input: &[u8], evidence: &Path, measure: Measure<'_>, tried: &mut Tried) {
    let heap = match panic::catch_unwind(AssertUnwindSafe(|| measure(target, input))) {
        Ok(heap) => heap,
        Err(cause) => {
            eprintln!(
                "{}: failed on {}",
                target.name,
                keep(target, input, evidence)
            );
            panic::resume_unwind(cause);
        }
    };
    tried.inputs += 1;
    tried.bytes += input.len() as u64;
    if heap > tried.heap_most.0 {
        tried.heap_most = (heap, input.len());
    }
    let allowed = target.heap_max(input.len());
    assert!(
        heap <= allowed,
        "{}: {heap} bytes of heap for {} bytes of input, {allowed} are allowed: {}",
        target.name,
        input.len(),
        keep(target, input, evidence)
    );
}

/// Leaves the input in a file and says where.
fn keep(target: &Target, input: &[u8], evidence: &Path) -> String {
    let path = evidence.join(format!("{}-{:08x}", target.name, crc32fast::hash(input)));
    match fs::create_dir_all(evidence).and_then(|()| fs::write(&path, input)) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("an input that cannot be kept ({error}): {input:02x?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOUCHY: Target = Target {
        name: "manifest",
        run: |data| assert!(!data.starts_with(b"{ ") && data.len() != 3, "touched"),
        heap_per_byte: 1,
        heap_fixed: 10,
        mutations: 0,
    };

    fn evidence(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("millrace-fuzz-{name}-{}", std::process::id()))
    }

    #[test]
    fn an_input_that_fails_is_kept_and_told() {
        let dir = evidence("panics");
        let failed = panic::catch_unwind(|| {
            run(&TOUCHY, 100_000, 1, &dir, &mut |target, input| {
                (target.run)(input);
                0
            })
            .expect("a corpus")
        });
        assert!(failed.is_err(), "no mutation has three bytes");
        let kept = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
        let input = fs::read(kept).unwrap();
        assert!(input.len() == 3 || input.starts_with(b"{ "));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_input_that_takes_too_much_heap_is_kept_and_told() {
        let dir = evidence("takes");
        let failed = panic::catch_unwind(|| {
            run(&TOUCHY, 0, 1, &dir, &mut |_, input| input.len() + 11).expect("a corpus")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
