//! Straight lines through what was measured.

use std::fmt;

use super::Cost;

/// The line that comes closest to what something costs as one of its conditions changes and the
/// others stay.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    name: String,
    /// The condition that changes.
    per: String,
    /// Those that stay.
    others: Vec<(String, u64)>,
    /// What one more costs.
    slope: f64,
    /// What none would cost.
    intercept: f64,
    /// How far the farthest point is from the line.
    farthest: f64,
}

/// The lines through all `costs` that were measured at three places or more: through two there is
/// always one.
pub(super) fn lines(costs: &[Cost]) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![];
    for cost in costs {
        for (per, _) in &cost.conditions {
            let others: Vec<_> =
                cost.conditions.iter().filter(|(name, _)| name != per).cloned().collect();
            let known =
                |line: &Line| (&line.name, &line.per, &line.others) == (&cost.name, per, &others);
            if lines.iter().any(known) {
                continue;
            }
            let beside = |other: &&Cost| {
                other.name == cost.name
                    && other.conditions.len() == cost.conditions.len()
                    && others.iter().all(|(name, value)| other.condition(name) == Some(*value))
            };
            let points: Vec<_> = costs
                .iter()
                .filter(beside)
                .filter_map(|it| Some((it.condition(per)? as f64, it.amount as f64)))
                .collect();
            if let Some((slope, intercept)) = least_squares(&points) {
                let distance = |(x, y): &(f64, f64)| (y - slope * x - intercept).abs();
                let farthest = points.iter().map(distance).fold(0.0, f64::max);
                let (name, per) = (cost.name.clone(), per.clone());
                lines.push(Line { name, per, others, slope, intercept, farthest });
            }
        }
    }
    lines.sort_by(|a, b| (&a.name, &a.per).cmp(&(&b.name, &b.per)));
    lines
}

/// Slope and intercept of the line with the least sum of squared distances; `None` through fewer
/// than three points, or points at one place.
fn least_squares(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    if points.len() < 3 {
        return None;
    }
    let mean =
        |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x_mean, y_mean) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let together: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let slope = together / spread;
    (spread > 0.0).then_some((slope, y_mean - slope * x_mean))
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cost {} per={}", self.name, self.per)?;
        for (name, value) in &self.others {
            write!(f, " {name}={value}")?;
        }
        let Self { slope, intercept, farthest, .. } = self;
        // Not -0.
        let slope = slope + 0.0;
        write!(f, " slope={slope:.1} intercept={intercept:.0} farthest={farthest:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(lines: &[&str]) -> Vec<Cost> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    #[test]
    fn points_on_a_line_give_that_line() {
        let line = least_squares(&[(1.0, 5.0), (4.0, 11.0), (16.0, 35.0)]).unwrap();
        assert!((line.0 - 2.0).abs() < 1e-9 && (line.1 - 3.0).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn of_points_beside_a_line_the_squares_are_least() {
        // Worked out by hand: means 2 and 14/3, slope 6/2, intercept 14/3 - 6.
        let (slope, intercept) = least_squares(&[(1.0, 2.0), (2.0, 4.0), (3.0, 8.0)]).unwrap();
        assert!((slope - 3.0).abs() < 1e-9 && (intercept + 4.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn there_is_no_line_through_two_points_or_one_place() {
        assert_eq!(least_squares(&[(1.0, 2.0), (2.0, 4.0)]), None);
        assert_eq!(least_squares(&[(1.0, 2.0); 3]), None);
    }

    #[test]
    fn each_condition_has_its_line_at_each_of_the_others() {
        let mut all = costs(&["safepoint instructions=3"]);
        for resources in [1, 4, 16] {
            for frames in [4, 16, 64] {
                let instructions = 100 + 7 * resources + 10 * frames;
                all.extend(costs(&[&format!(
                    "gone resources={resources} frames={frames} instructions={instructions}"
                )]));
            }
        }
        let shown: Vec<_> = lines(&all).iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 6, "{shown:?}");
        assert_eq!(
            shown[0],
            "cost gone per=frames resources=1 slope=10.0 intercept=107 farthest=0"
        );
        assert_eq!(shown[3], "cost gone per=resources frames=4 slope=7.0 intercept=140 farthest=0");
    }

    #[test]
    fn what_is_not_linear_shows() {
        let all = costs(&["a n=1 bytes=1", "a n=2 bytes=4", "a n=3 bytes=9", "a n=4 bytes=16"]);
        assert_eq!(lines(&all)[0].to_string(), "cost a per=n slope=5.0 intercept=-5 farthest=1");
    }
}
