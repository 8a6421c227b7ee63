//! The images that are mapped in a process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use keeper::unwind::{LoadedSection, UnwindTables};
use nix::unistd::Pid;
use object::LittleEndian;
use object::elf::{FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::{Image, Images, leaked};

type Header = FileHeader64<LittleEndian>;
const ENDIAN: LittleEndian = LittleEndian;

/// All images of the process that have unwind tables.
pub(super) fn images(pid: Pid, memory: &File) -> anyhow::Result<Images> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut images = Images::default();
    for (path, base) in bases(&maps) {
        if let Some(image) = image(path, base, memory).with_context(|| path.to_owned())? {
            images.push(image);
        }
    }
    Ok(images)
}

/// Where each image begins, by its path: `address-address perms offset device inode path`.
fn bases(maps: &str) -> BTreeMap<&str, u64> {
    let mut bases = BTreeMap::new();
    for line in maps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [range, _, offset, _, _, path] = words[..] else { continue };
        let is_image = path.starts_with('/') || path == "[vdso]";
        if let (true, Some((start, _)), "00000000") = (is_image, range.split_once('-'), offset)
            && let Ok(start) = u64::from_str_radix(start, 16)
        {
            bases.entry(path).or_insert(start);
        }
    }
    bases
}

/// The image whose ELF header is mapped at `base`; none if it is no ELF file or has no tables.
fn image(path: &str, base: u64, memory: &File) -> anyhow::Result<Option<Image>> {
    let read = |address: u64, len: u64| {
        let mut bytes = vec![0; len as usize];
        memory.read_exact_at(&mut bytes, address).map(|()| bytes)
    };
    let start = read(base, 0x1000)?;
    let Ok(header) = Header::parse(&*start) else { return Ok(None) };
    let segments = header.program_headers(ENDIAN, &*start)?;
    let loads = || segments.iter().filter(|segment| segment.p_type(ENDIAN) == PT_LOAD);
    let find = |kind| segments.iter().find(|segment| segment.p_type(ENDIAN) == kind);
    let (Some(index), Some(first)) = (find(PT_GNU_EH_FRAME), loads().next()) else {
        return Ok(None);
    };
    // Of a file that is linked to be loaded anywhere, and of one that is not.
    let bias = base.wrapping_sub(first.p_vaddr(ENDIAN) & !0xfff);
    let range = |segment: &ProgramHeader64<LittleEndian>| {
        let start = segment.p_vaddr(ENDIAN).wrapping_add(bias);
        start..start + segment.p_memsz(ENDIAN)
    };
    let section = |range: std::ops::Range<u64>| -> anyhow::Result<LoadedSection<'static>> {
        Ok(leaked(read(range.start, range.end - range.start)?, range.start))
    };
    let index = section(range(index))?;
    let eh_frame = UnwindTables::eh_frame_address(index)?;
    let segment = loads().map(range).find(|range| range.contains(&eh_frame));
    let end = segment.context("no segment has the .eh_frame")?.end;
    let code = loads().find(|segment| segment.p_flags(ENDIAN).contains(PF_X));
    let text = range(code.context("no segment has code")?);
    let tables = UnwindTables::new(index, section(eh_frame..end)?, text.clone())?
        .with_code(section(text.clone())?);

    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut image = Image::new(name, tables, text, bias)?;
    // The vDSO is a whole file in memory.
    let file = fs::read(path).or_else(|_| read(base, 0x2000));
    if let Ok(file) = file
        && let Ok(file) = object::File::parse(&*file)
    {
        image.name_functions(&file);
    }
    Ok(Some(image))
}
