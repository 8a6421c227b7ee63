//! A small preemptive kernel in which tasks die, and their keeper puts things right.
//!
//! | module | concern |
//! | --- | --- |
//! | [`boot`], [`command_line`] | from the PVH loader to [`kernel_main`], and what it was told |
//! | [`image`] | where the linked image's parts lie: code, unwind tables, windows |
//! | [`memory`], [`stacks`], [`stack_layout`], [`heap`] | page protection, guarded stacks, the global allocator |
//! | [`modules`] | images that are loaded once the kernel runs |
//! | [`interrupts`] | interrupts off for a while |
//! | [`cpu`], [`descriptors`] | the per-CPU block behind GS, and GDT, TSS and IDT |
//! | [`traps`] | every way out of a task: save all registers, dispatch, restore |
//! | [`tasks`] | the task table and the scheduler |
//! | [`tracked`] | the drop registry's locks and handles, as this kernel uses them |
//! | [`keeping`] | the kernel as its keeper sees it, and the keeper's own task |
//! | [`post_mortem`] | the keepers' records, in memory that survives a warm reset |
//! | [`mod@panic`], [`unwind`] | a Rust panic as a fault of its task; the symbols that tables name |
//! | [`timer`], [`serial`], [`exit`] | the machine's devices |
//! | [`scenarios`] | what the kernel is asked to show |
//!
//! One rule shapes the rest: a task that does not run has all its registers in its record, and
//! nothing but the task itself ever writes on its stack.

#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod bounded_text;
mod command_line;
mod cpu;
mod deadlocks;
mod descriptors;
mod exit;
mod heap;
mod image;
mod interrupts;
mod keeping;
mod memory;
mod memory_functions;
mod modules;
mod panic;
mod post_mortem;
mod scenarios;
mod serial;
mod stack_layout;
mod stacks;
mod tasks;
mod timer;
mod tracked;
mod traps;
mod unwind;

/// Brings the machine up and runs the scenario that the command line names.
///
/// `start_info` is the address that the PVH loader left in `ebx`.
extern "C" fn kernel_main(start_info: u64) -> ! {
    cpu::install();
    serial::init();
    command_line::read(start_info);
    memory::protect_image();
    stacks::map_all();
    modules::map_all();
    descriptors::load();
    timer::start();
    scenarios::spawn_selected();
    tasks::start()
}
