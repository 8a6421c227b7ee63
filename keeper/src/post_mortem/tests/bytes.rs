//! What is read from bytes.

use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::record::Checksum;
use super::super::{DecodeError, HEADER, MOST_WORDS, Record, Ring, header};
use super::arbitrary::{any_report, everything};
use super::{report, slots};

/// The bytes of a record with these words behind its first three, and a checksum that is right.
fn sealed(payload: &[u64]) -> Vec<u8> {
    let header = header(HEADER + payload.len());
    let mut checksum = Checksum::new(header, 1);
    payload.iter().for_each(|word| checksum.add(*word));
    let words = [&[header, 1, checksum.finish().into()], payload].concat();
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn example() -> Vec<u8> {
    let slots = slots(1);
    Ring::new(slots).write(0, &report(7));
    slots[0].read().unwrap().as_bytes().to_vec()
}

/// With another first word, and a checksum that fits.
fn with_header(header: u64) -> Vec<u8> {
    let mut bytes = example();
    bytes[..8].copy_from_slice(&header.to_le_bytes());
    bytes
}

fn error_of(bytes: &[u8]) -> DecodeError {
    Record::from_bytes(bytes).expect_err("it is no record")
}

proptest! {
    #[test]
    fn every_report_comes_back_as_it_was(report in any_report()) {
        let slots = slots(1);
        Ring::new(slots).write(3, &report);
        let record = Record::from_bytes(slots[0].read().unwrap().as_bytes()).unwrap();
        prop_assert_eq!(everything(&record.report().unwrap()), everything(&report));
    }

    #[test]
    fn any_bytes_are_no_record(bytes in any::<Vec<u8>>()) {
        prop_assert!(Record::from_bytes(&bytes).is_err());
    }

    #[test]
    fn any_bytes_behind_a_header_are_no_record(mut bytes in prop::collection::vec(any::<u8>(), 8..5000)) {
        let words = HEADER + bytes.len() % MOST_WORDS;
        bytes[..8].copy_from_slice(&header(words).to_le_bytes());
        prop_assert!(Record::from_bytes(&bytes).is_err());
    }

    /// A record whose checksum is right may say anything; it is read, or refused with a reason.
    #[test]
    fn any_words_behind_a_right_checksum_are_no_panic(
        mut words in prop::collection::vec(prop_oneof![Just(0), 0..16_u64, any::<u64>()], 0..200),
    ) {
        if let Some(counts) = words.get_mut(15) {
            // Else nearly all are refused for their number.
            *counts %= 0x2_0004_0004;
        }
        let record = Record::from_bytes(&sealed(&words)).unwrap();
        match record.report() {
            Ok(report) => prop_assert!(!report.to_string().is_empty()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn a_record_with_a_word_changed_is_refused_or_means_something_else(
        report in any_report(), place in any::<prop::sample::Index>(), word in any::<u64>(),
    ) {
        let slots = slots(1);
        Ring::new(slots).write(0, &report);
        let bytes = slots[0].read().unwrap().as_bytes().to_vec();
        let words = bytes.chunks_exact(8).map(|it| u64::from_le_bytes(it.try_into().unwrap()));
        let mut payload: Vec<u64> = words.skip(HEADER).collect();
        let place = place.index(payload.len());
        payload[place] = word;
        let record = Record::from_bytes(&sealed(&payload)).unwrap();
        let _ = record.report().map(|report| report.to_string());
    }
}

#[test]
fn each_cause_is_named() {
    let bytes = example();
    assert_eq!(error_of(&[]), DecodeError::TooShort { needed: 24, given: 0 });
    let (needed, given) = (bytes.len(), bytes.len() - 1);
    assert_eq!(error_of(&bytes[..given]), DecodeError::TooShort { needed, given });
    assert_eq!(error_of(&with_header(0)), DecodeError::Empty);
    assert_eq!(error_of(&with_header(u64::MAX)), DecodeError::NotARecord([0xff; 4]));
    let next_version = header(needed / 8) + (1 << 32);
    assert_eq!(
        error_of(&with_header(next_version)),
        DecodeError::Version(super::super::VERSION + 1)
    );
    assert_eq!(error_of(&with_header(header(HEADER - 1))), DecodeError::Length(2));
    let too_many = MOST_WORDS as u16 + 1;
    assert_eq!(error_of(&with_header(header(too_many.into()))), DecodeError::Length(too_many));
    let mut flipped = bytes.clone();
    flipped[100] ^= 4;
    assert!(matches!(error_of(&flipped), DecodeError::Checksum { .. }));
    assert_eq!(
        error_of(b"ELF, not a record").to_string(),
        "a record begins with KPMR, this with ELF,"
    );
}

#[test]
fn a_whole_record_with_numbers_of_another_version_is_refused_by_name() {
    let mut words = [0; 35];
    let error = |words: &[u64]| Record::from_bytes(&sealed(words)).unwrap().report().unwrap_err();
    words[1] = 999;
    assert_eq!(error(&words), DecodeError::Unknown { what: "fault", code: 999 });
    words[1] = 0;
    words[5] = 99;
    assert_eq!(error(&words), DecodeError::Unknown { what: "verdict", code: 99 });
    words[5] = 0;
    words[15] = 1;
    assert_eq!(error(&words), DecodeError::Length(38), "it has one frame, and no room for that");
    words[15] = 9 << 32;
    assert_eq!(error(&words), DecodeError::Unknown { what: "number of keepers", code: 9 });
}

/// The checksum is that of zlib, and the first bytes are those of the documentation.
#[test]
fn the_first_words_are_as_documented() {
    let bytes = example();
    assert_eq!(bytes[..8], *b"KPMR\x01\x00\x26\x00");
    assert_eq!(bytes[8..16], 1_u64.to_le_bytes());
    assert_eq!(bytes[24..32], (7_u64 << 32).to_le_bytes());
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let covered = [&bytes[..16], &bytes[24..]].concat();
    assert_eq!(bytes[16..24], u64::from(sum.checksum(&covered)).to_le_bytes());
}
