//! Text of a bounded length, for where nothing may be allocated.

use core::fmt;

/// Up to `N` bytes of UTF-8; what does not fit is cut off and marked.
#[derive(Clone, Copy)]
pub(crate) struct BoundedText<const N: usize> {
    bytes: [u8; N],
    length: usize,
    cut: bool,
}

impl<const N: usize> BoundedText<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], length: 0, cut: false }
    }

    /// `message`, formatted.
    pub(crate) fn format(message: fmt::Arguments<'_>) -> Self {
        let mut text = Self::new();
        // Writing to it never fails, so an error is one of the values' own: keep what there is.
        let _ = fmt::write(&mut text, message);
        text
    }

    pub(crate) fn as_str(&self) -> &str {
        // Only whole characters were stored, so this holds; and no panic either way.
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// Whether something did not fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }
}

impl<const N: usize> fmt::Write for BoundedText<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let room = N - self.length;
        let fits = text.floor_char_boundary(room);
        self.cut = fits < text.len();
        self.bytes[self.length..self.length + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        Ok(())
    }
}

impl<const N: usize> fmt::Display for BoundedText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        f.write_str(if self.cut { "…" } else { "" })
    }
}
