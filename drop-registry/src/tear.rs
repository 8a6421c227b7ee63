//! What a type promises about a value whose owner died in the middle of a write.
#![expect(unsafe_code, reason = "declares an unsafe marker trait")]

/// A type whose values may be dropped even after a write to them was torn.
///
/// A panic leaves a value valid, because it happens at a call. A task that dies at an arbitrary
/// instruction can leave a value *torn*: a `&[u32]` with the new pointer and the old length is not
/// merely inconsistent, looking at it is undefined behaviour. So the value of a dead task is
/// dropped only if its type promises this; otherwise its memory is quarantined.
///
/// Types without drop glue need no promise: their memory is freed without looking at the value.
/// To *read* a value whose owner died takes more, [`zerocopy::FromBytes`]: validity for every bit
/// pattern.
///
/// # Safety
/// Dropping a value of the type is sound when any number of its fields' single-instruction writes
/// have happened and the rest of an ongoing assignment have not. That holds for a type with one
/// pointer-sized field that owns something, and for structures of such types, whose every
/// assignment is a single store.
///
/// `Send`, because the keeper drops the value, in a task of its own.
pub unsafe trait DropAfterTear: Send {}
