//! Directives whose value is a list: `save` and `client-output-buffer-limit`.

use super::units::parse_memory;

/// `save 900 1 300 10`, or `save ""` for none.
pub fn save(words: &[String]) -> Result<String, String> {
    let words: Vec<&str> = words.iter().flat_map(|w| w.split_ascii_whitespace()).collect();
    if !words.len().is_multiple_of(2) {
        return Err("Invalid save parameters".into());
    }
    for pair in words.chunks_exact(2) {
        let fits = pair[0].parse::<u32>().is_ok_and(|s| s >= 1) && pair[1].parse::<u32>().is_ok();
        if !fits {
            return Err("Invalid save parameters".into());
        }
    }
    Ok(words.join(" "))
}

/// The points of a `save` value: (seconds, changes).
pub fn save_points(value: &str) -> Vec<(u64, u64)> {
    let numbers: Vec<u64> = value.split(' ').filter_map(|n| n.parse().ok()).collect();
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Limits of one class of clients: hard bytes, soft bytes, seconds over the soft ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    pub hard: u64,
    pub soft: u64,
    pub soft_s: u64,
}

const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// Classes that are named replace those of `old`; the others stay.
pub fn output_limits(words: &[String], old: &str) -> Result<String, String> {
    let words: Vec<&str> = words.iter().flat_map(|w| w.split_ascii_whitespace()).collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut limits = parse_output_limits(old);
    for one in words.chunks_exact(4) {
        let class = if one[0].eq_ignore_ascii_case("replica") { "slave" } else { one[0] };
        let at = CLASSES.iter().position(|c| c.eq_ignore_ascii_case(class));
        let at = at.ok_or("Invalid client class specified in buffer limit configuration.")?;
        let number = |word: &str| parse_memory(word).map(|n| n as u64);
        match (number(one[1]), number(one[2]), one[3].parse::<u64>()) {
            (Some(hard), Some(soft), Ok(soft_s)) => limits[at] = OutputLimit { hard, soft, soft_s },
            _ => {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                        .into(),
                );
            }
        }
    }
    let text =
        |(class, l): (&&str, &OutputLimit)| format!("{class} {} {} {}", l.hard, l.soft, l.soft_s);
    Ok(CLASSES.iter().zip(&limits).map(text).collect::<Vec<_>>().join(" "))
}

/// Limits of normal clients, replicas and subscribers.
pub fn parse_output_limits(value: &str) -> [OutputLimit; 3] {
    let words: Vec<&str> = value.split(' ').collect();
    let mut limits = [OutputLimit::default(); 3];
    for one in words.chunks_exact(4) {
        if let Some(at) = CLASSES.iter().position(|c| *c == one[0]) {
            let n = |i: usize| one[i].parse().unwrap_or(0);
            limits[at] = OutputLimit { hard: n(1), soft: n(2), soft_s: n(3) };
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_changes_alone() {
        let old = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        let words = ["pubsub".to_string(), "1mb".into(), "0".into(), "0".into()];
        let new = output_limits(&words, old);
        assert_eq!(
            new.as_deref(),
            Ok("normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 0 0")
        );
        assert!(output_limits(&words[..3], old).is_err());
        assert_eq!(save_points("900 1 300 10"), [(900, 1), (300, 10)]);
    }
}
