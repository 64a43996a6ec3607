//! What is shown at the end: tables for people, JSON for programs.

use std::fs;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{
    args::Args,
    figures::{Figures, Line},
    goals::Goal,
};

/// The machine it ran on.
#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    load: String,
}

#[derive(Serialize)]
struct Document<'a> {
    machine: Machine,
    figures: &'a Figures,
    goals: Vec<Goal>,
}

/// Prints everything to standard output.
pub(crate) fn print(args: &Args, figures: &Figures) -> anyhow::Result<()> {
    let machine = machine();
    if args.json {
        let document = Document { machine, figures, goals: figures.goals() };
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    let Machine { processor, cores, kernel, load } = &machine;
    println!("{processor}, {cores} cores, Linux {kernel}, load at the end {load}");
    println!(
        "{} finished commands before; {} agents; {} HTTP connections; load generator on the same machine\n",
        figures.aged, figures.agents, figures.connections
    );
    if let Some(grown) = &figures.grown {
        println!(
            "the second column: {} finished commands before, {} agents that took sessions or stood by\n",
            grown.aged, grown.agents
        );
    }
    println!("{}\n", measured(figures));
    println!("{}", goals(figures));
    Ok(())
}

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(headings);
    table
}

fn measured(figures: &Figures) -> Table {
    let Some(grown) = &figures.grown else {
        let mut table = table(&["measured", "", ""]);
        for line in figures.lines() {
            table.add_row([line.what, number(line.value), line.unit.to_owned()]);
        }
        align(&mut table, 1);
        return table;
    };
    let rows = format!("{} rows", grown.aged);
    let mut table = table(&["measured", "", rows.as_str(), ""]);
    let mut again = grown.lines();
    for line in figures.lines() {
        let same = |other: &Line| other.what == line.what;
        // What was measured twice under one name stands in the same order in both.
        let other = again.iter().position(same).map(|place| again.remove(place).value);
        table.add_row([
            line.what,
            number(line.value),
            other.map(number).unwrap_or_default(),
            line.unit.to_owned(),
        ]);
    }
    align(&mut table, 1);
    align(&mut table, 2);
    table
}

fn goals(figures: &Figures) -> Table {
    let mut table = table(&["goal", "is", "should be", "met"]);
    for goal in figures.goals() {
        let bound = if goal.at_least { "≥" } else { "≤" };
        table.add_row([
            goal.what,
            format!("{} {}", number(goal.value), goal.unit),
            format!("{bound} {} {}", goal.bound, goal.unit),
            (if goal.met { "yes" } else { "NO" }).to_owned(),
        ]);
    }
    align(&mut table, 1);
    align(&mut table, 2);
    table
}

fn align(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Three digits, and no more of large numbers than are whole.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let name =
        processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    Machine {
        processor: name.map_or("unknown processor", |name| name.1).to_owned(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load: read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_three_digits_or_are_whole() {
        assert_eq!([number(8_400.4), number(31.25), number(0.214)], ["8400", "31.2", "0.21"]);
    }
}
