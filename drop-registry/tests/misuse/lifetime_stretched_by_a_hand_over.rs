//! What is put into a slot or a channel comes out as what that is of, so a borrow does not shorten
//! it.
use drop_registry::hosted::Hosted;
use drop_registry::{Channel, Slot, TrackedBox};

type Boxed<'a> = TrackedBox<&'a u64, Hosted>;

fn slot<'a>(slot: &Slot<Boxed<'static>>, short: Boxed<'a>) {
    let shortened: &Slot<Boxed<'a>> = slot;
    let _ = shortened.put(short);
}

fn channel<'a>(channel: &Channel<Boxed<'static>, 1>, short: Boxed<'a>) {
    let shortened: &Channel<Boxed<'a>, 1> = channel;
    let _ = shortened.try_send(short);
}

fn main() {}
