//! What waits asleep, and how it is woken. That no death and no preemption loses a wake-up of these
//! is proved by `cargo boundaries`; here is what needs no killing, and a channel with three tasks of
//! which any is killed.

mod channel;
mod condvar;
mod mutex;
mod semaphore;
mod sweep;
mod unpark;
mod wait_queue;
