//! What the user sees while waiting: a line that changes on a terminal, one plain line elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Something under way that has no measure.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    show(ProgressBar::new_spinner(), what, "{spinner} {prefix} {msg:.dim}")
}

/// `total` things under way.
pub(crate) fn bar(what: &str, total: usize) -> ProgressBar {
    show(ProgressBar::new(total as u64), what, "{spinner} {prefix} {pos}/{len} {msg:.dim}")
}

/// A bar on a pipe draws nothing, so there the beginning is told and no more.
fn show(bar: ProgressBar, what: &str, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what}");
        return bar;
    }
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    bar.set_style(style);
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
