//! The table of the results.

/// Whether a smaller or a larger value is better.
#[derive(Clone, Copy)]
pub(crate) enum Better {
    More,
    Less,
}

/// The results of both sides for one kind of work, round by round.
pub(crate) struct Row {
    work: &'static str,
    unit: &'static str,
    better: Better,
    pairs: Vec<(f64, f64)>,
}

impl Row {
    pub(crate) fn new(work: &'static str, unit: &'static str, better: Better) -> Self {
        Self { work, unit, better, pairs: Vec::new() }
    }

    pub(crate) fn push(&mut self, before: f64, after: f64) {
        self.pairs.push((before, after));
    }

    fn print(&self) {
        let before = sorted(self.pairs.iter().map(|(before, _)| *before));
        let after = sorted(self.pairs.iter().map(|(_, after)| *after));
        let ratios = sorted(self.pairs.iter().map(|(before, after)| after / before));
        let better = match self.better {
            Better::More => "more",
            Better::Less => "less",
        };
        let (lowest, highest) = (ratios.first().unwrap_or(&f64::NAN), ratios.last().unwrap_or(&f64::NAN));
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.3} | {lowest:.3} to {highest:.3} | {better} |",
            self.work,
            self.unit,
            median(&before),
            median(&after),
            median(&ratios),
        );
    }
}

pub(crate) fn print(rows: &[Row], products: usize, rounds: usize) {
    println!("## Before and after\n\n{products} products, {rounds} rounds in turns.\n");
    println!("| work | unit | before | after | after ÷ before | lowest to highest | better is |");
    println!("|---|---|---|---|---|---|---|");
    rows.iter().for_each(Row::print);
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
