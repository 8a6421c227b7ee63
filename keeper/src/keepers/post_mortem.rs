//! Records for who comes after.

use super::Keepers;
use crate::Report;
#[cfg(feature = "post-mortem")]
use crate::{Platform, post_mortem::Ring};

#[cfg(feature = "post-mortem")]
impl<P: Platform> Keepers<P> {
    /// Has each case that is closed, but by a resume, recorded in `ring`: when the task is settled
    /// and gone, or restarted, or held. If a keeper dies over that, the next one may record it
    /// again.
    #[must_use]
    pub fn with_post_mortem(mut self, ring: &'static Ring) -> Self {
        self.ring = Some(ring);
        self
    }
}

impl<P> Keepers<P> {
    /// Records it, if there is a ring. Nobody else writes as `writer` at the same time.
    #[inline]
    pub(super) fn remember(&self, writer: u8, report: &Report) {
        #[cfg(feature = "post-mortem")]
        if let Some(ring) = self.ring {
            ring.write(writer, report);
        }
        let _ = (writer, report);
    }
}
