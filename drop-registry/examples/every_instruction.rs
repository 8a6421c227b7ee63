//! A task that dies before any instruction of what it does, and a test of what is left, to be
//! copied.
//!
//! `cargo run --release -p drop-registry --example every_instruction` counts the deaths, the same
//! with `test` for `run` tests that there are some.
#![expect(unsafe_code, reason = "makes a machine")]

use drop_registry::RollbackMutex;
use drop_registry::hosted::{Hosted, Machine, Stop};

/// Two accounts, which nobody is to see with something on its way between them.
type Accounts = RollbackMutex<[u64; 2], Hosted>;

fn transfer(accounts: &Accounts, amount: u64) {
    let mut accounts = accounts.lock().expect("there is room in the ledger");
    accounts[0] -= amount;
    accounts[1] += amount;
}

/// Kills a task before its instruction `k`. Returns what the next one finds in the accounts, and
/// whether the first had come to its end by then.
fn die_before(k: u64) -> ([u64; 2], bool) {
    // Leaked, for the task may hold it when it dies.
    let accounts: &'static Accounts = Box::leak(Box::new(Accounts::new([100, 0])));
    // SAFETY: tasks allocate nothing, keep nothing in thread-locals, and the lock is leaked.
    let mut machine = unsafe { Machine::new() };
    let task = machine.spawn(|| transfer(accounts, 10));
    let ended = match machine.run(task, Some(k)) {
        Stop::Finished => true,
        Stop::BudgetSpent => {
            machine.kill(task);
            false
        }
        stop => panic!("{stop:?}"),
    };
    let found: &'static Accounts = Box::leak(Box::new(Accounts::new([0, 0])));
    let next = machine.spawn(|| *found.lock().unwrap() = *accounts.lock().expect("it is free"));
    assert_eq!(machine.run(next, None), Stop::Finished);
    (*found.lock().unwrap(), ended)
}

/// How many deaths left the accounts as they were, and how many after the transfer.
fn count() -> [u64; 2] {
    let mut deaths = [0, 0];
    for k in 0.. {
        match die_before(k) {
            (found, true) => {
                assert_eq!(found, [90, 10]);
                break;
            }
            ([100, 0], _) => deaths[0] += 1,
            ([90, 10], _) => deaths[1] += 1,
            (found, _) => panic!("a death before instruction {k} left {found:?}"),
        }
    }
    deaths
}

fn main() {
    let [before, after] = count();
    println!("{before} deaths left the accounts as they were, {after} came after the transfer");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_anywhere_leaves_both_accounts_as_before_or_as_after() {
        let [before, after] = count();
        assert!(before > 20 && after > 0, "{before}, {after}");
    }
}
