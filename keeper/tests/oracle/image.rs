//! The unwind sections of an ELF file.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use keeper::unwind::{LoadedSection, UnwindTables};
use object::{Object, ObjectSection, ObjectSegment, SegmentFlags};

const PF_X: u32 = 1;

pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) text: Range<u64>,
    pub(crate) eh_frame: Vec<u8>,
    pub(crate) eh_frame_address: u64,
    header: Vec<u8>,
    header_address: u64,
}

impl Image {
    pub(crate) fn open(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = |name| {
            let section = file.section_by_name(name).unwrap();
            (section.data().unwrap().to_vec(), section.address())
        };
        let (header, header_address) = section(".eh_frame_hdr");
        let (eh_frame, eh_frame_address) = section(".eh_frame");
        let executable =
            |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.0 & PF_X != 0);
        let text = file.segments().find(|segment| executable(segment.flags())).unwrap();
        Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            text: text.address()..text.address() + text.size(),
            eh_frame,
            eh_frame_address,
            header,
            header_address,
        }
    }

    pub(crate) fn tables(&self) -> UnwindTables<'_> {
        UnwindTables::new(
            LoadedSection { bytes: &self.header, address: self.header_address },
            LoadedSection { bytes: &self.eh_frame, address: self.eh_frame_address },
            self.text.clone(),
        )
        .unwrap()
    }
}

/// The file of this name that is mapped into this process.
pub(crate) fn mapped(name: &str) -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    path.into_iter().find(|path| path.ends_with(name)).unwrap().to_owned()
}

/// The cargo that runs this test.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").expect("cargo says where it is").into()
}

/// The library that has nearly all of the compiler in it, of the same toolchain.
pub(crate) fn compiler() -> PathBuf {
    let lib = cargo().parent().unwrap().join("../lib");
    let mut files = fs::read_dir(lib).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| {
        path.file_name().unwrap().to_string_lossy().starts_with("librustc_driver-")
    };
    files.find(is_it).unwrap()
}
