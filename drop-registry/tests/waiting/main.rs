//! What waits asleep, and how it is woken, where that needs no killing: that no death and no
//! preemption loses a wake-up is proved by `cargo boundaries`.

mod condvar;
mod mutex;
mod semaphore;
mod unpark;
mod wait_queue;
