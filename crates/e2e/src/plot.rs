//! Charts in Markdown pages, for benches: GitHub and most editors render them.

/// Formats a Mermaid chart: each line has a value for each point on the x axis.
#[must_use]
pub fn line_chart(title: &str, x: (&str, &[String]), y: &str, lines: &[Vec<f64>]) -> String {
    let (x, places) = x;
    let places = places.iter().map(|place| format!("\"{place}\"")).collect::<Vec<_>>().join(", ");
    let mut chart = format!(
        "```mermaid\nxychart-beta\n    title \"{title}\"\n    x-axis \"{x}\" [{places}]\n    y-axis \"{y}\"\n"
    );
    for values in lines {
        let values: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
        chart.push_str(&format!("    line [{}]\n", values.join(", ")));
    }
    chart.push_str("```\n");
    chart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_axes_and_a_line_for_each_series() {
        let places = ["1".to_owned(), "2".to_owned()];
        let chart = line_chart("growth", ("products", &places), "s", &[vec![1.0, 2.5], vec![0.5, 1.0]]);
        assert!(chart.contains("x-axis \"products\" [\"1\", \"2\"]"), "{chart}");
        assert!(chart.contains("    line [1.000, 2.500]\n    line [0.500, 1.000]\n"), "{chart}");
    }
}
