//! Rust code: the standard library's, and the shapes that the compiler makes of functions.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::hint::black_box;

/// `core::fmt`, with integers, floats, padding, `Debug` of nested values.
pub(super) extern "C" fn formatting() {
    let mut text = String::new();
    let pair = black_box((Some([1.5f32, -0.0]), "a\tb"));
    _ = write!(
        text,
        "{:>8}|{:<+6}|{:^#010x}|{pair:?}",
        black_box(3),
        black_box(-7),
        black_box(255)
    );
    _ = write!(text, "{:#?} {:.3e} {}", black_box(vec![1u8, 2]), black_box(1e300), u128::MAX);
    black_box(text);
}

/// Stable and unstable sorts of several lengths, by value and by key.
pub(super) extern "C" fn sorting() {
    for len in [3, 21, 40] {
        let mut values: Vec<u32> = (0..len).map(|n: u32| n.wrapping_mul(0x9e37_79b9)).collect();
        black_box(&mut values).sort_unstable();
        let mut words: Vec<String> = values.iter().take(22).map(|n| format!("{n:b}")).collect();
        black_box(&mut words).sort();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        black_box((values.binary_search(&7).is_ok(), words));
    }
}

/// B-trees that split and merge; hash maps that grow.
pub(super) extern "C" fn maps() {
    let mut tree = BTreeMap::new();
    for n in 0..24u32 {
        tree.insert(n.wrapping_mul(0x9e37_79b9), n);
    }
    tree.retain(|_, n| *n % 3 != 0);
    let mut table = HashMap::new();
    for (key, value) in tree.range(black_box(1000)..) {
        *table.entry(key % 7).or_insert(0) += value;
    }
    black_box((tree.pop_first(), table.get(&3).copied()));
}

/// Search, splitting, parsing, case.
pub(super) extern "C" fn strings() {
    let text = black_box("one two, three; vier, fünf, 6 and 7.25 ").repeat(2);
    let found = (text.find("fünf"), text.rfind("three"), text.contains("seven eight nine"));
    let numbers: Vec<f64> = text.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let parsed =
        ("-170141183460469231731687303715884105728".parse::<i128>().ok(), "x".parse::<u8>().ok());
    black_box((found, numbers, parsed, text.to_uppercase(), text.replace("e", "ee")));
}

/// 128-bit integers, which are calls into `compiler_builtins`, and floating point.
pub(super) extern "C" fn arithmetic() {
    let (a, b) = black_box((u128::MAX / 3, 0x1_0000_0001_u128 << 40));
    let wide = (a / b, a % b, a.wrapping_mul(b), (a as f64), (1e30 as u128), a.isqrt());
    let x = black_box(0.75f64);
    black_box((wide, x.sin(), x.powf(3.3), x.exp().ln(), black_box(7.0f64) % x, x.mul_add(x, x)));
}

/// Frames of several sizes, more than a page too, which probe the stack.
pub(super) extern "C" fn recursion() {
    fn ackermann(m: u64, n: u64) -> u64 {
        match (m, n) {
            (0, n) => n + 1,
            (m, 0) => ackermann(m - 1, 1),
            (m, n) => ackermann(m - 1, ackermann(m, n - 1)),
        }
    }
    #[inline(never)]
    fn large<const N: usize>(depth: u64) -> u64 {
        let mut room = [depth; N];
        let room = black_box(&mut room);
        if depth == 0 { room[N - 1] } else { large::<N>(depth - 1) + room[0] }
    }
    #[inline(never)]
    fn aligned(value: u64) -> u64 {
        #[repr(align(256))]
        struct Aligned([u64; 40]);
        let mut room = Aligned([value; 40]);
        let room = black_box(&mut room);
        large::<24>(2) + room.0[17]
    }
    black_box((ackermann(2, 3), large::<4>(3), large::<1500>(2), aligned(9)));
}

trait Shape {
    fn area(&self, scale: f64) -> f64;
    fn name(&self) -> String;
}

struct Square(f64);
struct Circle(f64);

impl Shape for Square {
    fn area(&self, scale: f64) -> f64 {
        self.0 * self.0 * scale
    }
    fn name(&self) -> String {
        "square".to_owned()
    }
}

impl Shape for Circle {
    fn area(&self, scale: f64) -> f64 {
        (self.0 * self.0).mul_add(std::f64::consts::PI, scale)
    }
    fn name(&self) -> String {
        format!("circle of {}", self.0)
    }
}

/// Dynamic calls, boxed closures, iterators, destructors, a function pointer as a tail call.
pub(super) extern "C" fn closures() {
    let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Square(2.0)), Box::new(Circle(1.0))];
    let total: f64 = black_box(&shapes).iter().map(|shape| shape.area(2.0)).sum();
    let names: Vec<String> = shapes.iter().map(|shape| shape.name()).collect();
    let mut calls: Vec<Box<dyn FnMut(u64) -> u64>> = vec![];
    for n in 0..3 {
        let mut state = n;
        calls.push(Box::new(move |x| {
            state += x;
            state
        }));
    }
    let sum: u64 = calls.iter_mut().map(|call| black_box(call)(3)).sum();
    black_box((total, names.join(", "), sum));
}

/// A panic that unwinds through frames with destructors, and is caught.
pub(super) extern "C" fn panic() {
    struct Noisy(#[expect(dead_code, reason = "it is dropped, and that is all")] Vec<u8>);
    impl Drop for Noisy {
        fn drop(&mut self) {
            black_box(format!("{}", black_box(1)));
        }
    }
    #[inline(never)]
    fn fails(n: usize) -> usize {
        let noisy = Noisy(vec![1]);
        let values = black_box([1usize, 2]);
        let value = values[n] + usize::from(n == 0);
        drop(noisy);
        value
    }
    std::panic::set_hook(Box::new(|_| {}));
    black_box(std::panic::catch_unwind(|| fails(black_box(1)) + fails(black_box(2))).is_err());
}
