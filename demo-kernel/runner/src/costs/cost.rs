//! One figure, as the kernel tells it.

use std::fmt;
use std::str::FromStr;

/// What something costs, under conditions that are numbers, such as `frames=4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cost {
    /// What it is.
    pub(crate) name: String,
    /// By name, in the order in which they were told.
    pub(crate) conditions: Vec<(String, u64)>,
    /// In what it is counted: the last name of the line.
    pub(crate) unit: String,
    /// How many of these.
    pub(crate) amount: u64,
}

/// Why a line is no [`Cost`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CostError {
    /// It has no name, or nothing behind it.
    Incomplete,
    /// This word is not a name, `=` and a whole number.
    Unreadable(String),
}

impl Cost {
    /// So many instructions, without conditions.
    pub(super) fn instructions(name: &str, amount: u64) -> Self {
        let unit = "instructions".to_owned();
        Self { name: name.to_owned(), conditions: vec![], unit, amount }
    }

    /// What stands for this condition.
    pub(crate) fn condition(&self, name: &str) -> Option<u64> {
        self.conditions.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }
}

impl FromStr for Cost {
    type Err = CostError;

    /// Reads `NAME key=value… UNIT=N`.
    fn from_str(line: &str) -> Result<Self, CostError> {
        let mut words = line.split_whitespace();
        let name = words.next().ok_or(CostError::Incomplete)?;
        let pair = |word: &str| {
            let (name, value) = word.split_once('=').filter(|(name, _)| !name.is_empty())?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let mut conditions: Vec<_> = words
            .map(|word| pair(word).ok_or_else(|| CostError::Unreadable(word.to_owned())))
            .collect::<Result<_, _>>()?;
        let (unit, amount) = conditions.pop().ok_or(CostError::Incomplete)?;
        Ok(Self { name: name.to_owned(), conditions, unit, amount })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cost {}", self.name)?;
        for (name, value) in &self.conditions {
            write!(f, " {name}={value}")?;
        }
        write!(f, " {}={}", self.unit, self.amount)
    }
}

impl fmt::Display for CostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("a cost without a name or a number"),
            Self::Unreadable(word) => write!(f, "`{word}` is not a name and a number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_shown_as_it_was_told() {
        let cost: Cost = "exit-to-free resources=4 frames=16 instructions=5022".parse().unwrap();
        assert_eq!((cost.condition("frames"), cost.condition("depth")), (Some(16), None));
        assert_eq!((&*cost.unit, cost.amount), ("instructions", 5022));
        assert_eq!(cost.to_string(), "cost exit-to-free resources=4 frames=16 instructions=5022");
    }

    #[test]
    fn what_is_no_number_is_no_cost() {
        for line in ["", "safepoint"] {
            assert_eq!(line.parse::<Cost>(), Err(CostError::Incomplete), "{line}");
        }
        for word in ["instructions", "instructions=", "=3", "instructions=3.5", "a=b=3"] {
            let error = CostError::Unreadable(word.to_owned());
            assert_eq!(format!("safepoint {word} bytes=1").parse::<Cost>(), Err(error), "{word}");
        }
    }
}
