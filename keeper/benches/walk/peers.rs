//! The walkers. Each notes the address of every frame that it finds.

use std::ffi::{CStr, c_int, c_void};
use std::hint::black_box;
use std::ops::Range;

use drop_registry::hosted::Image;
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, MustNotAllocateDuringUnwind, Unwinder};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, ParsedEhFrameHdr,
    RegisterRule, UnwindContext, UnwindSection,
};
use keeper::hosted::library_tables;
use keeper::unwind::{EhFrameRules, ImageRules, Images, UnwindTables, Walk, WalkEnd};
use task_model::{Gpr, StackMemory};

use crate::stack::{Deep, FRAMES};

/// What a walk found, innermost first.
#[derive(Default)]
pub(crate) struct Trace {
    addresses: heapless::Vec<u64, 128>,
}

impl Trace {
    #[inline]
    fn note(&mut self, address: u64) {
        // Too many is found out when traces are compared.
        let _ = self.addresses.push(address);
    }

    /// For those who also tell of what is above the entry.
    fn note_caller(&mut self, address: u64) {
        if address != 0 {
            self.note(address);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.addresses.clear();
    }

    /// The frames of the deep stack: whoever walks from inside has some of its own before them.
    pub(crate) fn deep(&self) -> &[u64] {
        let own = self.frames().saturating_sub(FRAMES);
        &self.addresses[own..]
    }

    pub(crate) fn frames(&self) -> usize {
        self.addresses.len()
    }
}

/// One way to walk.
pub(crate) trait Walker {
    /// Whether it has to be [prepared](Self::prepare) before each walk.
    fn is_prepared(&self) -> bool {
        false
    }

    /// What is not counted as a part of the walk.
    fn prepare(&mut self) {}

    /// Walks all of the stack.
    fn walk(&mut self, stack: &Deep<'_>, trace: &mut Trace);
}

/// This crate's.
pub(crate) struct Ours(EhFrameRules<'static>);

impl Ours {
    pub(crate) fn new(tables: UnwindTables<'static>) -> Self {
        Self(EhFrameRules::new(tables))
    }
}

impl Walker for Ours {
    fn walk(&mut self, stack: &Deep<'_>, trace: &mut Trace) {
        let mut walk = Walk::new(stack.task.registers(), &stack.task, &mut self.0);
        let end = walk.run(|frame, _| trace.note(frame.address.address()));
        assert_eq!(end, WalkEnd::Complete);
    }
}

/// This crate's, through all images of this process.
pub(crate) struct OursInImages(&'static Images<'static>);

impl OursInImages {
    pub(crate) fn new(tables: UnwindTables<'static>) -> Self {
        let images = Box::leak(Box::new(Images::new()));
        for library in library_tables() {
            images.add(library).unwrap();
        }
        images.add(tables).unwrap();
        Self(images)
    }
}

impl Walker for OursInImages {
    fn walk(&mut self, stack: &Deep<'_>, trace: &mut Trace) {
        let mut rules = ImageRules::new(self.0);
        let mut walk = Walk::new(stack.task.registers(), &stack.task, &mut rules);
        for frame in &mut walk {
            trace.note(frame.address.address());
        }
        assert_eq!(walk.end(), Some(WalkEnd::Complete));
    }
}

/// framehop, whose cache is warm: or cold, if it gets a new one for each walk.
pub(crate) struct Framehop {
    unwinder: UnwinderX86_64<&'static [u8], MustNotAllocateDuringUnwind>,
    cache: Box<CacheX86_64<MustNotAllocateDuringUnwind>>,
    cold: bool,
}

impl Framehop {
    pub(crate) fn new(sections: &Sections, cold: bool) -> Self {
        let range = |bytes: &[u8]| {
            let start = bytes.as_ptr().addr() as u64;
            start..start + bytes.len() as u64
        };
        // It keeps distances from here, in 32 bits.
        let base = range(sections.eh_frame_hdr).start.min(sections.text.start);
        let info = ExplicitModuleSectionInfo {
            base_svma: base,
            text_svma: Some(sections.text.clone()),
            eh_frame_svma: Some(range(sections.eh_frame)),
            eh_frame: Some(sections.eh_frame),
            eh_frame_hdr_svma: Some(range(sections.eh_frame_hdr)),
            eh_frame_hdr: Some(sections.eh_frame_hdr),
            ..Default::default()
        };
        let mut unwinder = UnwinderX86_64::new();
        unwinder.add_module(Module::new("bench".into(), sections.text.clone(), base, info));
        Self { unwinder, cache: Box::new(CacheX86_64::new_in()), cold }
    }
}

impl Walker for Framehop {
    fn is_prepared(&self) -> bool {
        self.cold
    }

    fn prepare(&mut self) {
        if self.cold {
            *self.cache = CacheX86_64::new_in();
        }
    }

    fn walk(&mut self, stack: &Deep<'_>, trace: &mut Trace) {
        let registers = stack.task.registers();
        let mut read = |address| stack.task.read_u64(address).map_err(|_| ());
        let start = UnwindRegsX86_64::new(registers.rip, registers.rsp(), registers[Gpr::Rbp]);
        let mut frames =
            self.unwinder.iter_frames(registers.rip, start, &mut self.cache, &mut read);
        // It ends with an error at the entry, since that has no return address.
        while let Ok(Some(frame)) = frames.next() {
            trace.note(frame.address());
        }
    }
}

/// gimli: its search in `.eh_frame_hdr`, its rows, and the registers that functions give back.
pub(crate) struct Gimli {
    header: ParsedEhFrameHdr<EndianSlice<'static, LittleEndian>>,
    eh_frame: EhFrame<EndianSlice<'static, LittleEndian>>,
    bases: BaseAddresses,
    context: UnwindContext<usize>,
}

impl Gimli {
    pub(crate) fn new(sections: &Sections) -> Self {
        let bases = BaseAddresses::default()
            .set_eh_frame(sections.eh_frame.as_ptr().addr() as u64)
            .set_eh_frame_hdr(sections.eh_frame_hdr.as_ptr().addr() as u64);
        let header = EhFrameHdr::new(sections.eh_frame_hdr, LittleEndian);
        Self {
            header: header.parse(&bases, 8).unwrap(),
            eh_frame: EhFrame::new(sections.eh_frame, LittleEndian),
            bases,
            context: UnwindContext::new(),
        }
    }
}

impl Walker for Gimli {
    fn walk(&mut self, stack: &Deep<'_>, trace: &mut Trace) {
        let table = self.header.table().unwrap();
        let registers = stack.task.registers();
        let (mut ip, mut lookup) = (registers.rip, registers.rip);
        // By DWARF number.
        let mut values = [0; 16];
        for n in 0..16 {
            values[usize::from(n)] = registers[Gpr::from_dwarf(n).unwrap()];
        }
        loop {
            trace.note(ip);
            let row = table
                .unwind_info_for_address(
                    &self.eh_frame,
                    &self.bases,
                    &mut self.context,
                    lookup,
                    EhFrame::cie_from_offset,
                )
                .unwrap();
            let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { break };
            let cfa = values[usize::from(register.0)].wrapping_add_signed(offset);
            let mut caller = values;
            let mut return_address = None;
            for (register, rule) in row.registers() {
                let RegisterRule::Offset(offset) = rule else { continue };
                let value = stack.task.read_u64(cfa.wrapping_add_signed(*offset)).unwrap();
                match caller.get_mut(usize::from(register.0)) {
                    Some(slot) => *slot = value,
                    None => return_address = Some(value),
                }
            }
            let Some(target) = return_address else { break };
            values = caller;
            values[7] = cfa;
            (ip, lookup) = (target, target - 1);
        }
    }
}

/// The unwinder of the crate `unwinding`, from inside.
pub(crate) struct Unwinding;

impl Walker for Unwinding {
    fn walk(&mut self, _: &Deep<'_>, trace: &mut Trace) {
        extern "C" fn each(
            context: &unwinding::abi::UnwindContext<'_>,
            trace: *mut c_void,
        ) -> unwinding::abi::UnwindReasonCode {
            // SAFETY: below, a trace is passed on that nobody else uses meanwhile.
            let trace = unsafe { &mut *trace.cast::<Trace>() };
            trace.note_caller(unwinding::abi::_Unwind_GetIP(context) as u64);
            unwinding::abi::UnwindReasonCode::NO_REASON
        }
        unwinding::abi::_Unwind_Backtrace(each, (&raw mut *trace).cast());
    }
}

type GetIp = unsafe extern "C" fn(*mut c_void) -> usize;
type Backtrace = unsafe extern "C" fn(Each, *mut c_void) -> c_int;
type Each = extern "C" fn(*mut c_void, *mut c_void) -> c_int;

/// libgcc's unwinder, from inside: as a library, since `unwinding` has the names in this program.
pub(crate) struct Libgcc {
    backtrace: Backtrace,
}

/// Its `_Unwind_GetIP`.
static GET_IP: std::sync::OnceLock<GetIp> = std::sync::OnceLock::new();

impl Libgcc {
    pub(crate) fn new() -> Self {
        // SAFETY: loads a library that std has loaded already, and has no initialiser to run.
        let library = unsafe { libc::dlopen(c"libgcc_s.so.1".as_ptr(), libc::RTLD_NOW) };
        let symbol = |name: &CStr| {
            // SAFETY: `dlopen`'s handle, and a name that ends with 0.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            assert!(!symbol.is_null(), "libgcc_s has {name:?}");
            symbol
        };
        // SAFETY: the functions' types, by the Itanium C++ ABI, section 1.3.
        unsafe {
            GET_IP.get_or_init(|| {
                std::mem::transmute::<*mut c_void, GetIp>(symbol(c"_Unwind_GetIP"))
            });
            let backtrace =
                std::mem::transmute::<*mut c_void, Backtrace>(symbol(c"_Unwind_Backtrace"));
            Self { backtrace }
        }
    }
}

impl Walker for Libgcc {
    fn walk(&mut self, _: &Deep<'_>, trace: &mut Trace) {
        extern "C" fn each(context: *mut c_void, trace: *mut c_void) -> c_int {
            // SAFETY: the context is valid during this call; and as in `Unwinding`.
            let (ip, trace) = unsafe {
                (GET_IP.get().unwrap_unchecked()(context) as u64, &mut *trace.cast::<Trace>())
            };
            trace.note_caller(ip);
            0
        }
        // SAFETY: `each` is made for this argument.
        unsafe { (self.backtrace)(each, (&raw mut *trace).cast()) };
    }
}

/// The chain of frame pointers, unchecked.
pub(crate) struct FramePointers;

impl Walker for FramePointers {
    fn walk(&mut self, stack: &Deep<'_>, trace: &mut Trace) {
        let registers = stack.task.registers();
        trace.note(registers.rip);
        let mut record = std::ptr::with_exposed_provenance::<u64>(registers[Gpr::Rbp] as usize);
        while !record.is_null() {
            // SAFETY: each function of the stack has pushed its caller's rbp below its return
            // address; the entry's was null.
            let [next, address] = unsafe { *record.cast::<[u64; 2]>() };
            trace.note(address);
            record = std::ptr::with_exposed_provenance(next as usize);
        }
        black_box(record);
    }
}

/// This program's unwind sections.
pub(crate) struct Sections {
    text: Range<u64>,
    eh_frame_hdr: &'static [u8],
    eh_frame: &'static [u8],
}

impl Sections {
    pub(crate) fn of_this_program() -> Self {
        let image = Image::running();
        let eh_frame_hdr = image.eh_frame_hdr();
        let address = eh_frame_hdr.as_ptr().expose_provenance() as u64;
        let header = keeper::unwind::LoadedSection { bytes: eh_frame_hdr, address };
        let eh_frame = image.read_only_from(UnwindTables::eh_frame_address(header).unwrap());
        Self { text: image.text(), eh_frame_hdr, eh_frame }
    }
}
