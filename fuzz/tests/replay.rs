//! Every kept input, through its target, without libFuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz_targets::{TARGETS, Target};

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

/// The contents of the files in a directory; none if there is no such directory.
fn inputs(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(directory) else { return vec![] };
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

fn run_all(target: &Target, inputs: &[Vec<u8>]) {
    for input in inputs {
        (target.run)(input);
    }
}

#[test]
fn every_target_bears_its_seeds_and_has_some() {
    for target in TARGETS {
        let seeds = inputs(&directory("seeds").join(target.name));
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for seed in &seeds {
            assert!(seed.len() <= target.max_len, "{}: longer than any input", target.name);
        }
        run_all(target, &seeds);
    }
}

#[test]
fn what_once_failed_does_not_fail_again() {
    for target in TARGETS {
        run_all(target, &inputs(&directory("regressions").join(target.name)));
    }
}

#[test]
fn every_target_bears_no_input_at_all_and_bytes_of_one_value() {
    for target in TARGETS {
        for byte in 0..=u8::MAX {
            for len in [0, 1, 7, 64, target.max_len] {
                (target.run)(&vec![byte; len]);
            }
        }
    }
}

#[test]
fn every_directory_of_inputs_belongs_to_a_target() {
    for kind in ["seeds", "regressions"] {
        for entry in fs::read_dir(directory(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            assert!(TARGETS.iter().any(|t| t.name == name.as_os_str()), "{kind}/{name:?}");
        }
    }
}
