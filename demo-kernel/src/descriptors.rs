//! GDT, TSS and IDT: every vector enters on a stack of the interrupt stack table.
//!
//! A trap therefore never writes on the stack of the task that it interrupts, whatever that
//! task's stack pointer is worth. Vectors that may come while another is handled have a stack of
//! their own (Intel SDM volume 3, 7.14.5 "Interrupt Stack Table").
#![expect(unsafe_code, reason = "loads segment registers and descriptor tables")]

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::{Entry, HandlerFunc};
use x86_64::structures::tss::TaskStateSegment;

use crate::stacks;
use crate::traps::{Vector, stub_address};

/// The slots of the interrupt stack table, counted from 0.
#[derive(Clone, Copy)]
enum TrapStack {
    /// Interrupts and software traps: they come from tasks alone.
    Interrupt,
    /// Exceptions: one in an interrupt handler must find the handler's frames intact.
    Exception,
    DoubleFault,
    NonMaskable,
    Debug,
    MachineCheck,
}

impl TrapStack {
    const COUNT: usize = 6;

    const fn of_vector(vector: u8) -> Self {
        match vector {
            1 => Self::Debug,
            Vector::NON_MASKABLE => Self::NonMaskable,
            Vector::DOUBLE_FAULT => Self::DoubleFault,
            Vector::MACHINE_CHECK => Self::MachineCheck,
            0..32 => Self::Exception,
            _ => Self::Interrupt,
        }
    }
}

/// All 256 entries alike; the crate's own table type has no uniform access to them.
#[repr(C, align(16))]
struct InterruptTable([Entry<HandlerFunc>; 256]);

struct Segments {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

static TSS: Once<TaskStateSegment> = Once::new();
static SEGMENTS: Once<Segments> = Once::new();
static INTERRUPTS: Once<InterruptTable> = Once::new();

/// The selectors that a new task starts with.
pub(crate) fn selectors() -> (SegmentSelector, SegmentSelector) {
    SEGMENTS.get().map_or((SegmentSelector::NULL, SegmentSelector::NULL), |s| (s.code, s.data))
}

/// Builds and loads the tables of the boot CPU.
///
/// # Panics
/// If the stack pool cannot give the trap stacks.
pub(crate) fn load() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        for slot in 0..TrapStack::COUNT {
            let stack = stacks::allocate().expect("the pool has a stack for each trap stack");
            tss.interrupt_stack_table[slot] = VirtAddr::new(stack.bounds().top());
        }
        tss
    });
    let segments = SEGMENTS.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let tss = gdt.append(Descriptor::tss_segment(tss));
        Segments { gdt, code, data, tss }
    });
    segments.gdt.load();
    // SAFETY: the selectors name the entries just loaded, of the kinds that the registers want.
    unsafe {
        CS::set_reg(segments.code);
        SS::set_reg(segments.data);
        DS::set_reg(SegmentSelector::NULL);
        ES::set_reg(SegmentSelector::NULL);
        load_tss(segments.tss);
    }
    let interrupts = INTERRUPTS.call_once(|| {
        let mut table = InterruptTable([const { Entry::missing() }; 256]);
        for (vector, entry) in (0..=u8::MAX).zip(&mut table.0) {
            // SAFETY: the stub expects what the CPU pushes for this vector, and the TSS has the
            // stack. All are interrupt gates: interrupts stay off in a trap.
            unsafe {
                entry
                    .set_handler_addr(VirtAddr::new(stub_address(vector)))
                    .set_stack_index(TrapStack::of_vector(vector) as u16);
            }
        }
        table
    });
    let pointer = DescriptorTablePointer {
        limit: size_of::<InterruptTable>() as u16 - 1,
        base: VirtAddr::from_ptr(interrupts),
    };
    // SAFETY: a complete table in a static.
    unsafe { lidt(&pointer) };
}
