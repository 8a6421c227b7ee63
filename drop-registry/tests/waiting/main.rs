//! Killing at every instruction of everything that waits asleep: each scene is played once for
//! each instruction that each of its tasks executes, and that task is killed there.

mod channel;
mod condvar;
mod mutex;
mod semaphore;
mod sweep;
mod wait_queue;
