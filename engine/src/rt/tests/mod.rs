//! Tests of the runtime seam, on both runtimes.
