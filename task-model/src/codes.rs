//! Numbers for what is stored.

/// Gives the variants of an enum numbers, both ways, from one table.
///
/// What is stored outlives the program that stored it, so a number never changes its meaning, and
/// is never used again; a new variant gets a new one. The compiler sees to it that each variant has
/// one. The last row may be for a variant that has a byte: it has the 256 numbers from the one that
/// is given.
#[doc(hidden)]
#[macro_export]
macro_rules! stored_as {
    ($type:ident { $($variant:ident = $code:literal,)* $(| $other:ident(u8) = $first:literal..=$last:literal,)? }) => {
        impl $type {
            /// The number by which this is stored. It stays the same in all versions.
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$variant => $code,)*
                    $(Self::$other(byte) => $first + byte as u16,)?
                }
            }

            /// What is stored by this [number](Self::code), if anything is.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    $($first..=$last => Some(Self::$other((code - $first) as u8)),)?
                    _ => None,
                }
            }
        }
    };
}
