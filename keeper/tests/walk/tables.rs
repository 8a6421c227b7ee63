//! Tables that do not fit together are refused at start-up, with the reason.

use keeper::unwind::{CompactRow, LoadedSection, TablesError, UnwindTables};

use crate::synthetic::{EH_FRAME, ENTRY, HEADER, Image, LEAF, TEXT};

fn image() -> Image {
    Image::new(&[ENTRY, LEAF, LEAF])
}

fn refusal(image: &Image) -> TablesError {
    UnwindTables::new(image.header_section(), image.eh_frame_section(), TEXT..TEXT + 0x1000)
        .unwrap_err()
}

#[test]
fn what_the_linker_made_of_this_binary_is_accepted() {
    assert!(crate::image::tables().function_count() > 100);
    assert_eq!(image().tables().function_count(), 3);
}

#[test]
fn a_missing_or_short_header_is_refused() {
    for length in 0..12 {
        let mut image = image();
        image.header.truncate(length);
        assert_eq!(refusal(&image), TablesError::MissingHeader, "{length} bytes");
    }
}

#[test]
fn an_unknown_version_is_refused() {
    let mut image = image();
    image.header[0] = 2;
    assert_eq!(refusal(&image), TablesError::UnknownVersion(2));
}

#[test]
fn an_unknown_encoding_is_refused() {
    for field in 1..4 {
        let mut image = image();
        image.header[field] = 0x0c;
        assert_eq!(refusal(&image), TablesError::UnsupportedEncoding(0x0c), "field {field}");
    }
}

#[test]
fn a_header_without_a_search_table_is_refused() {
    for field in [2, 3] {
        let mut image = image();
        image.header[field] = 0xff;
        assert_eq!(refusal(&image), TablesError::NoSearchTable);
    }
    let mut image = image();
    image.header[8..12].fill(0);
    assert_eq!(refusal(&image), TablesError::NoSearchTable);
}

#[test]
fn a_table_longer_than_its_section_is_refused() {
    let mut image = image();
    image.header.pop();
    assert_eq!(refusal(&image), TablesError::Truncated(3));
    image.header[8..12].fill(0xff);
    assert_eq!(refusal(&image), TablesError::Truncated(u32::MAX));
}

#[test]
fn the_eh_frame_of_another_image_is_refused() {
    let image = image();
    let there = image.eh_frame_section();
    let moved = LoadedSection { address: there.address + 4, ..there };
    assert_eq!(
        UnwindTables::new(image.header_section(), moved, TEXT..TEXT + 0x1000).unwrap_err(),
        TablesError::WrongEhFrame(there.address)
    );
}

#[test]
fn an_unsorted_table_is_refused() {
    let mut image = image();
    let (first, second) = image.header[12..28].split_at_mut(8);
    first.swap_with_slice(second);
    assert_eq!(refusal(&image), TablesError::Unsorted(1));
}

#[test]
fn an_entry_outside_of_eh_frame_is_refused() {
    let mut after = image();
    after.header[32..36].copy_from_slice(&i32::MAX.to_le_bytes());
    assert_eq!(refusal(&after), TablesError::FdeOutOfRange(2));
    let mut just_after = image();
    let distance = (EH_FRAME + image().eh_frame.len() as u64).wrapping_sub(HEADER) as i32;
    just_after.header[16..20].copy_from_slice(&distance.to_le_bytes());
    assert_eq!(refusal(&just_after), TablesError::FdeOutOfRange(0));
    let mut before = image();
    before.header[16..20].copy_from_slice(&i32::MIN.to_le_bytes());
    assert_eq!(refusal(&before), TablesError::FdeOutOfRange(0));
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is to be refused")]
fn an_empty_text_is_refused() {
    let image = image();
    for text in [TEXT..TEXT, TEXT + 1..TEXT] {
        assert_eq!(
            UnwindTables::new(image.header_section(), image.eh_frame_section(), text).unwrap_err(),
            TablesError::EmptyText
        );
    }
}

#[test]
fn memory_too_small_to_compile_into_is_refused_and_enough_is_enough() {
    let image = image();
    let size = image.tables().compiled_size().unwrap();
    let compile = |rows: usize, buckets: usize| {
        let (mut rows, mut buckets) = (vec![CompactRow::EMPTY; rows], vec![0; buckets]);
        image.tables().compile_into(&mut rows, &mut buckets).err()
    };
    let refusal = TablesError::NoRoom { rows: size.rows, buckets: size.buckets };
    assert_eq!(compile(size.rows, size.buckets), None);
    assert_eq!(compile(size.rows - 1, size.buckets), Some(refusal));
    assert_eq!(compile(size.rows, size.buckets - 1), Some(refusal));
    assert_eq!(compile(0, 0), Some(refusal));
    assert_eq!(size.bytes(), 16 * size.rows + 4 * size.buckets);
}

#[test]
fn a_text_too_large_to_compile_is_refused() {
    let image = image();
    let text = TEXT..TEXT + (1 << 30);
    let tables =
        |text| UnwindTables::new(image.header_section(), image.eh_frame_section(), text).unwrap();
    assert_eq!(tables(text).compiled_size().err(), None);
    let all = tables(0..u64::MAX);
    assert_eq!(all.compiled_size(), Err(TablesError::TextTooLarge(u64::MAX)));
    assert_eq!(all.compile_into(&mut [], &mut []).err(), Some(TablesError::TextTooLarge(u64::MAX)));
}
