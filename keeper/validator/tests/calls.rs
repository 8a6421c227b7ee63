//! Whether the walker sees the calls of real code, which a decoder finds forwards.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use keeper::unwind::{EhFrameRules, LoadedSection, RuleSource as _, UnwindTables};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use validator::leaked;

#[test]
fn a_return_address_of_real_code_may_follow_a_call() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&*file).unwrap();
    let section = |name: &str| -> LoadedSection<'static> {
        let section = file.section_by_name(name).unwrap();
        leaked(section.data().unwrap().to_vec(), section.address())
    };
    let text = section(".text");
    let end = text.address + text.bytes.len() as u64;
    let tables =
        UnwindTables::new(section(".eh_frame_hdr"), section(".eh_frame"), text.address..end);
    let rules = EhFrameRules::new(tables.unwrap().with_code(text));

    let (mut calls, mut others, mut mistaken) = (0, 0, 0);
    for symbol in file.symbols() {
        let start = symbol.address();
        if symbol.kind() != SymbolKind::Text || start < text.address || start >= end {
            continue;
        }
        let code = &text.bytes[(start - text.address) as usize..][..symbol.size() as usize];
        for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE) {
            let next = instruction.next_ip();
            if instruction.mnemonic() == Mnemonic::Call {
                assert!(rules.may_follow_call(next), "{instruction:?} before {next:#x}");
                calls += 1;
            } else {
                others += 1;
                mistaken += u64::from(rules.may_follow_call(next));
            }
        }
    }
    println!("calls={calls} others={others} mistaken={mistaken}");
    assert!(calls > 1000);
    assert!(mistaken * 100 < others, "nearly nothing else looks like a call");
}
