//! A mistake in the unwind tables, made on purpose: what is never seen to fail proves nothing.

use anyhow::Context as _;
use gimli::{BaseAddresses, EhFrame, LittleEndian, UnwindSection as _};
use keeper::unwind::LoadedSection;
use validator::leaked;

/// `DW_CFA_offset` of the registers that functions give back (DWARF 5, 7.24; System V psABI for
/// x86-64, figure 3.36): RBX, RBP, R12 to R15.
const OFFSET_OF_SAVED: [u8; 6] = [0x83, 0x86, 0x8c, 0x8d, 0x8e, 0x8f];

/// Where the first push puts a register, in words below the canonical frame address.
const FIRST_PUSH: u8 = 2;

/// A copy of the section in which the function at `address` has saved what it pushed first where
/// it pushed the next.
///
/// # Errors
/// If the function has no entry, or it pushes no register that it is to give back.
pub(super) fn wrong_register(
    eh_frame: LoadedSection<'_>,
    address: u64,
) -> anyhow::Result<LoadedSection<'static>> {
    let section = EhFrame::new(eh_frame.bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(eh_frame.address);
    let entry = section
        .fde_for_address(&bases, address, EhFrame::cie_from_offset)
        .context("no unwind entry of the function to make wrong")?;
    let start = entry.offset();
    let mut bytes = eh_frame.bytes.to_vec();
    let of_entry = bytes.get_mut(start..start + entry.entry_len()).context("a cut entry")?;
    let place = of_entry
        .windows(2)
        .position(|pair| OFFSET_OF_SAVED.contains(&pair[0]) && pair[1] == FIRST_PUSH)
        .context("the function to make wrong saves no register")?;
    of_entry[place + 1] = FIRST_PUSH + 1;
    Ok(leaked(bytes, eh_frame.address))
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

    use super::*;

    #[test]
    fn one_byte_of_one_entry_is_changed() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let file = object::File::parse(&*file).unwrap();
        let section = file.section_by_name(".eh_frame").unwrap();
        let bytes = section.data().unwrap();
        let eh_frame = LoadedSection { bytes, address: section.address() };
        let planted = file
            .symbols()
            .find_map(|symbol| wrong_register(eh_frame, symbol.address()).ok())
            .expect("some function saves a register");
        assert_eq!(planted.address, eh_frame.address);
        let changed: Vec<_> = bytes.iter().zip(planted.bytes).filter(|(a, b)| a != b).collect();
        assert_eq!(changed, [(&2, &3)]);
    }
}
