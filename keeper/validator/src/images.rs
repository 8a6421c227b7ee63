//! The images that a walk can come through: their unwind tables and their symbols.

use std::ops::Range;

use keeper::unwind::{
    CompactRule, CompiledMemory, EhFrameRules, FrameRules, LoadedSection, RuleSource, TablesError,
    UnwindTables, WalkError,
};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

/// Where a function begins and ends, and its name.
type Symbol = (u64, u64, String);

/// One loaded image.
#[derive(Debug)]
pub struct Image {
    name: String,
    /// How far above where it is linked it is loaded.
    bias: u64,
    text: Range<u64>,
    /// Straight from `.eh_frame`, and compiled.
    rules: [EhFrameRules<'static>; 2],
    /// By address.
    symbols: Vec<Symbol>,
}

impl Image {
    /// An image with these tables, whose code lies in `text`, loaded `bias` above where it is
    /// linked.
    ///
    /// # Errors
    /// If the tables cannot be compiled.
    pub fn new(
        name: String,
        tables: UnwindTables<'static>,
        text: Range<u64>,
        bias: u64,
    ) -> Result<Self, TablesError> {
        let memory = CompiledMemory::new(&tables.compiled_size()?);
        let compiled = tables.compile(Box::leak(Box::new(memory)))?;
        let rules = [EhFrameRules::new(tables), EhFrameRules::new(compiled)];
        Ok(Self { name, bias, text, rules, symbols: vec![] })
    }

    /// Takes the functions' names from `file`.
    pub fn name_functions(&mut self, file: &object::File<'_>) {
        let bias = self.bias;
        let of = |symbol: object::Symbol<'_, '_>| -> Option<Symbol> {
            let is_code = symbol.kind() == SymbolKind::Text && symbol.size() > 0;
            let name = symbol.name().ok().filter(|_| is_code)?;
            let name = format!("{:#}", rustc_demangle::demangle(name));
            let start = symbol.address().wrapping_add(bias);
            Some((start, start + symbol.size(), name))
        };
        self.symbols = file.symbols().chain(file.dynamic_symbols()).filter_map(of).collect();
        self.symbols.sort();
    }

    fn function_at(&self, address: u64) -> String {
        let after = self.symbols.partition_point(|(start, ..)| *start <= address);
        match after.checked_sub(1).and_then(|n| self.symbols.get(n)) {
            Some((_, end, name)) if address < *end => format!("{name} [{}]", self.name),
            _ => format!("code without a name [{}]", self.name),
        }
    }
}

/// All images of one process or machine.
#[derive(Debug, Default)]
pub struct Images(Vec<Image>);

impl Images {
    /// Adds an image.
    pub fn push(&mut self, image: Image) {
        self.0.push(image);
    }

    /// The name of the function at `address` and of its image, and the address as in its file.
    pub fn place(&self, address: u64) -> (String, u64) {
        match self.0.iter().find(|image| image.text.contains(&address)) {
            Some(image) => (image.function_at(address), address - image.bias),
            None => ("no image".to_owned(), address),
        }
    }
}

/// The forms that an image's tables have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are in `.eh_frame`.
    EhFrame,
    /// Compiled into compact rules.
    Compiled,
}

/// All images, as one source of rules in one form.
#[derive(Debug)]
pub struct ImagesIn<'i>(&'i mut Images, Form);

impl Images {
    /// The rules of all images in this form.
    pub const fn form(&mut self, form: Form) -> ImagesIn<'_> {
        ImagesIn(self, form)
    }
}

impl ImagesIn<'_> {
    fn find(&mut self, address: u64) -> Option<&mut EhFrameRules<'static>> {
        let image = self.0.0.iter_mut().find(|image| image.text.contains(&address))?;
        Some(&mut image.rules[self.1 as usize])
    }
}

impl RuleSource for ImagesIn<'_> {
    fn compact_rule_at(&mut self, address: u64) -> Option<CompactRule<'_>> {
        self.find(address)?.compact_rule_at(address)
    }

    fn rules_at(&mut self, address: u64) -> Result<FrameRules<'_>, WalkError> {
        self.find(address).ok_or(WalkError::NoFde(address))?.rules_at(address)
    }

    fn text_contains(&self, address: u64) -> bool {
        self.0.0.iter().any(|image| image.text.contains(&address))
    }

    fn may_follow_call(&self, return_address: u64) -> bool {
        let call = return_address.wrapping_sub(1);
        let image = self.0.0.iter().find(|image| image.text.contains(&call));
        image.is_none_or(|image| image.rules[self.1 as usize].may_follow_call(return_address))
    }
}

/// A section of bytes that stay for as long as the process does.
pub fn leaked(bytes: Vec<u8>, address: u64) -> LoadedSection<'static> {
    LoadedSection { bytes: bytes.leak(), address }
}
