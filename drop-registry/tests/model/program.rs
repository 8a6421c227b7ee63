//! What can happen: the programs of the tasks, and whose turn it is.

use proptest::collection::vec;
use proptest::prelude::*;

/// How many of them there are: spinning mutexes 0 and 1, the sleeping one 2.
pub(crate) const MUTEXES: usize = 3;
/// How many shares and how many boxes one task can have.
pub(crate) const HANDLES: usize = 3;
/// How many slots keep shares.
pub(crate) const SLOTS: usize = 2;

/// What a task does next. What it has no hand free for, or would deadlock for, it passes over or
/// merely tries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Lock(usize),
    Unlock(usize),
    /// Takes the rollback mutex, and adds to one of its two numbers, then to the other.
    Transfer,
    Read,
    StopReading,
    Write,
    StopWriting,
    Acquire,
    GiveBack,
    Box(usize),
    DropBox(usize),
    /// Takes a share out of what a slot keeps.
    Share(usize, usize),
    /// Makes a value of its own, with one share.
    Make(usize),
    /// Clones one share into another place.
    Clone(usize, usize),
    DropShare(usize),
    Put(usize, usize),
    /// Sends a share, or receives one, if there is room, or one.
    Send(usize),
    Receive(usize),
    /// Adds to one of the repair mutex's two numbers, then to the other.
    Add,
    /// Asks for what is made once.
    Once,
    /// Posts one job, and notifies one of those that wait for one.
    Post,
    /// Takes a job, and waits for one if it has nothing that others wait for.
    Take,
    Oblige,
    Meet,
}

/// What happens to the tasks from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// The task executes so many instructions, or fewer if it yields.
    Step(usize, u64),
    /// The task executes until it yields: one operation, or a wait.
    Turn(usize),
    /// The task dies where it stands, and executes nothing any more.
    Die(usize),
    /// The task executes so many operations, then until it stands in a window, and so many
    /// instructions more, and dies: windows are a few instructions among hundreds.
    DieInWindow(usize, usize, u64),
    /// What a dead task held is settled, if it has not been.
    Settle(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What each task does.
    pub(crate) tasks: Vec<Vec<Operation>>,
    pub(crate) events: Vec<Event>,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    let (handle, slot) = (0..HANDLES, 0..SLOTS);
    prop_oneof![
        4 => (0..MUTEXES).prop_map(Op::Lock),
        2 => (0..MUTEXES).prop_map(Op::Unlock),
        2 => Just(Op::Transfer),
        2 => Just(Op::Read),
        1 => Just(Op::StopReading),
        2 => Just(Op::Write),
        1 => Just(Op::StopWriting),
        2 => Just(Op::Acquire),
        1 => Just(Op::GiveBack),
        2 => handle.clone().prop_map(Op::Box),
        2 => handle.clone().prop_map(Op::DropBox),
        3 => (slot.clone(), handle.clone()).prop_map(|(slot, to)| Op::Share(slot, to)),
        2 => handle.clone().prop_map(Op::Make),
        2 => (handle.clone(), handle.clone()).prop_map(|(from, to)| Op::Clone(from, to)),
        3 => handle.clone().prop_map(Op::DropShare),
        2 => (handle.clone(), slot).prop_map(|(from, slot)| Op::Put(from, slot)),
        4 => handle.clone().prop_map(Op::Send),
        2 => handle.prop_map(Op::Receive),
        2 => Just(Op::Add),
        1 => Just(Op::Once),
        4 => Just(Op::Post),
        8 => Just(Op::Take),
        1 => Just(Op::Oblige),
        1 => Just(Op::Meet),
    ]
}

fn event(tasks: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..tasks, 1..120u64).prop_map(|(task, n)| Event::Step(task, n)),
        8 => (0..tasks).prop_map(Event::Turn),
        1 => (0..tasks).prop_map(Event::Die),
        3 => (0..tasks, 0..6usize, 0..4u64)
            .prop_map(|(task, turns, more)| Event::DieInWindow(task, turns, more)),
        2 => (0..tasks).prop_map(Event::Settle),
    ]
}

/// Programs of two to four tasks.
pub(crate) fn any() -> impl Strategy<Value = Program> {
    (2..=4usize).prop_flat_map(|tasks| {
        (vec(vec(operation(), 1..8), tasks), vec(event(tasks), 1..30))
            .prop_map(|(tasks, events)| Program { tasks, events })
    })
}
