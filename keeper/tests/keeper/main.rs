//! The keeper, on a platform whose tasks are plain data.
#![expect(unsafe_code, reason = "implements the traits that an embedder implements")]

mod fault_path;
mod machine;
mod verdicts;
