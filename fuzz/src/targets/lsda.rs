//! `.gcc_except_table`: one function's table, read in every way.

use keeper::unwind::{Actions, LoadedSection, Lsda};

use super::image::{HEADER, TEXT};
use crate::Target;
use crate::input::Input;

/// One byte that tells where in the section the table begins, one for the instruction that is
/// looked up, and the section.
pub const LSDA: Target = Target {
    name: "lsda",
    about: "the bytes of .gcc_except_table: a function's call sites and their actions",
    max_len: 512,
    run,
};

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let table = HEADER + u64::from(input.u8());
    let address = TEXT + u64::from(input.u8());
    let section = LoadedSection { bytes: input.0, address: HEADER };
    let Ok(lsda) = Lsda::parse(section, table, TEXT) else { return };

    let mut sites = 0;
    let mut readable = true;
    for site in lsda.call_sites() {
        assert!(readable, "nothing follows an error");
        readable = site.is_ok();
        sites += 1;
        if let Ok(site) = site {
            let actions = lsda.actions(&site);
            assert!(site.landing_pad.is_some() || actions.clone().next().is_none());
            // A ring of actions at every site would make this slow, and find nothing more.
            let tried = if sites <= 4 { actions.count() } else { actions.take(2).count() };
            assert!(tried <= Actions::LIMIT + 1, "a chain without end");
        }
    }
    assert!(sites <= input.0.len() / 4 + 1, "call sites that are not there");

    match lsda.find(address) {
        Ok(Some(site)) => assert!(site.start <= address && address < site.end),
        Ok(None) => {}
        Err(_) => assert!(!readable, "an error that the list does not have"),
    }
}
