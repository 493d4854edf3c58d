//! Charts as pure functions from series to SVG: no script, no inline style, the numbers beside them as text.

mod scale;

use std::fmt::Write as _;

use maud::{Markup, html};

pub(super) use self::scale::{Unit, number};
use self::scale::{drawn, time};
use crate::observe::trail::Line;

/// Height of what is drawn, and width of one stretch, in units of the drawing; it is stretched to its place.
const HEIGHT: f64 = 100.0;
const STEP: f64 = 10.0;
/// Most stretches of one chart; trails are shorter.
const STRETCHES_MAX: usize = 200;
/// Least height of a bar that is not nothing.
const BAR_MIN: f64 = 3.0;

/// Something that is drawn: its name, its class (`c1` .. `c4`, `before`), its values.
#[derive(Debug, Clone)]
pub(super) struct Curve<'a> {
    pub name: &'a str,
    pub class: &'static str,
    pub line: Line,
}

/// How curves are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Each as a line.
    Lines,
    /// On top of each other, as bars.
    Bars,
}

/// A chart with axes, a key and its numbers.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    pub title: &'a str,
    pub unit: Unit,
    pub form: Form,
    /// All of the same length and beginning.
    pub curves: Vec<Curve<'a>>,
    /// What should not be passed, and its name.
    pub goal: Option<(f64, &'a str)>,
}

impl Chart<'_> {
    /// The chart; says so where nothing was counted.
    pub fn show(&self) -> Markup {
        let Some(first) = self.curves.first().map(|curve| &curve.line) else { return html! {} };
        let stretches = first.values.len().min(STRETCHES_MAX);
        let known = self.curves.iter().flat_map(|curve| &curve.line.values).any(|value| drawn(*value).is_some());
        let end = self.unit.end(self.most(stretches));
        html! {
            figure.chart {
                figcaption {
                    span.title { (self.title) }
                    @for curve in &self.curves { span.key { span class={ "swatch " (curve.class) } aria-hidden="true" { } " " (curve.name) } }
                    @if let Some((value, name)) = self.goal {
                        span.key { span.swatch.goal aria-hidden="true" { } " " (name) " " (self.unit.shown(value)) }
                    }
                }
                @if known {
                    div.plot {
                        div.ys aria-hidden="true" {
                            span { (self.unit.shown(end)) } span { (self.unit.shown(end / 2.0)) } span { "0" }
                        }
                        (self.drawing(stretches, end))
                        div.xs aria-hidden="true" {
                            @for at in [0, stretches / 2, stretches.saturating_sub(1)] { span { (time(first.at(at), first.width)) } }
                        }
                    }
                    details { summary { "Numbers" } (self.numbers(stretches)) }
                } @else {
                    p.empty { "Nothing was counted in this time." }
                }
            }
        }
    }

    /// The greatest height.
    fn most(&self, stretches: usize) -> f64 {
        let values = |curve: &Curve<'_>, at: usize| curve.line.values.get(at).copied().and_then(drawn).unwrap_or(0.0);
        let heights = (0..stretches).map(|at| {
            let all = self.curves.iter().map(|curve| values(curve, at));
            if self.form == Form::Bars { all.sum() } else { all.fold(0.0, f64::max) }
        });
        heights.chain(self.goal.map(|(value, _)| value)).fold(0.0, f64::max)
    }

    fn drawing(&self, stretches: usize, end: f64) -> Markup {
        let mut below = vec![0.0; stretches];
        let inside = html! {
            path.grid d={ "M0 0H" (units(width(stretches))) "M0 50H" (units(width(stretches))) } {}
            @for curve in &self.curves {
                @match self.form {
                    Form::Lines => path class={ "line " (curve.class) } d=(path(&curve.line, stretches, end)) {},
                    Form::Bars => path class={ "bars " (curve.class) } d=(bars(&curve.line, &mut below, end)) {},
                }
            }
            @if let Some((value, _)) = self.goal { (goal(value, stretches, end)) }
            g.hits {
                @for at in 0..stretches {
                    rect x=(units(x(at))) y="0" width=(STEP) height=(HEIGHT) { title { (self.told(at)) } }
                }
            }
        };
        drawing("drawing", stretches, &self.summary(stretches), &inside)
    }

    /// One stretch in words.
    fn told(&self, at: usize) -> String {
        let mut text = self.curves.first().map(|curve| time(curve.line.at(at), curve.line.width)).unwrap_or_default();
        for curve in &self.curves {
            // a String takes everything
            let _ = write!(text, ", {} {}", curve.name, self.value(curve, at));
        }
        text
    }

    fn value(&self, curve: &Curve<'_>, at: usize) -> String {
        let value = curve.line.values.get(at).copied().and_then(drawn);
        value.map_or("–".to_owned(), |value| self.unit.shown(value))
    }

    fn summary(&self, stretches: usize) -> String {
        let curves = self.curves.iter().map(|curve| summary(curve.name, &curve.line, stretches, self.unit));
        format!("{}. {}", self.title, curves.collect::<Vec<_>>().join(" "))
    }

    fn numbers(&self, stretches: usize) -> Markup {
        html! {
            div.scroll.numbers role="region" tabindex="0" aria-label={ (self.title) ", numbers" } {
                table {
                    thead { tr { th scope="col" { "From (UTC)" } @for curve in &self.curves { th.number scope="col" { (curve.name) } } } }
                    tbody {
                        @for at in (0..stretches).rev() {
                            tr {
                                td { @if let Some(first) = self.curves.first() { (time(first.line.at(at), first.line.width)) } }
                                @for curve in &self.curves { td.number { (self.value(curve, at)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A small line without axes, in a card or a cell, with what should not be passed.
pub(super) fn spark(name: &str, line: &Line, unit: Unit, most: Option<f64>) -> Markup {
    let stretches = line.values.len().min(STRETCHES_MAX);
    let known = line.values.iter().filter_map(|value| drawn(*value));
    let end = unit.end(known.chain(most).fold(0.0, f64::max));
    let inside = html! {
        path.area d=(area(line, stretches, end)) {}
        path.line.c1 d=(path(line, stretches, end)) {}
        @if let Some(most) = most { (goal(most, stretches, end)) }
    };
    drawing("spark", stretches, &summary(name, line, stretches, unit), &inside)
}

/// Small bars without axes, in a cell.
pub(super) fn tiny_bars(name: &str, curves: &[(&'static str, Line)], unit: Unit) -> Markup {
    let Some(first) = curves.first().map(|(_, line)| line) else { return html! {} };
    let stretches = first.values.len().min(STRETCHES_MAX);
    let sum = |at: usize| -> Option<f64> {
        let known: Vec<f64> = curves.iter().filter_map(|(_, line)| drawn(*line.values.get(at)?)).collect();
        (!known.is_empty()).then(|| known.iter().sum())
    };
    let all = Line { values: (0..stretches).map(sum).collect(), ..first.clone() };
    let end = unit.end(all.values.iter().flatten().copied().fold(0.0, f64::max));
    let mut below = vec![0.0; stretches];
    let inside = html! {
        path.grid d={ "M0 100H" (units(width(stretches))) } {}
        @for (class, line) in curves { path class={ "bars " (class) } d=(bars(line, &mut below, end)) {} }
    };
    drawing("tiny", stretches, &summary(name, &all, stretches, unit), &inside)
}

/// A drawing that is stretched to its place; what it shows is told as its name, and on hover.
fn drawing(class: &str, stretches: usize, told: &str, inside: &Markup) -> Markup {
    html! {
        svg class=(class) viewBox={ "0 0 " (units(width(stretches))) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(told) {
            title { (told) }
            (inside)
        }
    }
}

/// A series in a sentence, for those who do not see it.
fn summary(name: &str, line: &Line, stretches: usize, unit: Unit) -> String {
    let known = || line.values.iter().take(stretches).enumerate().filter_map(|(at, value)| Some((at, drawn(*value)?)));
    let Some((last_at, last)) = known().next_back() else { return format!("{name}: nothing was counted.") };
    let most = known().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or((last_at, last));
    let lowest = known().map(|(_, value)| value).fold(f64::INFINITY, f64::min);
    format!(
        "{name}, from {} to {} UTC: last {}, highest {} at {}, lowest {}.",
        time(line.at(0), line.width),
        time(line.at(stretches.saturating_sub(1)), line.width),
        unit.shown(last),
        unit.shown(most.1),
        time(line.at(most.0), line.width),
        unit.shown(lowest),
    )
}

#[expect(clippy::cast_precision_loss, reason = "at most STRETCHES_MAX")]
fn x(at: usize) -> f64 {
    at as f64 * STEP
}

fn width(stretches: usize) -> f64 {
    x(stretches.max(1))
}

fn y(value: f64, end: f64) -> f64 {
    HEIGHT - (value / end).clamp(0.0, 1.0) * HEIGHT
}

/// A coordinate as short as it can be.
fn units(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The middle of each stretch; a gap where nothing is known.
fn runs(line: &Line, stretches: usize, end: f64) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (at, value) in line.values.iter().take(stretches).enumerate() {
        match (drawn(*value), runs.last_mut()) {
            (Some(value), Some(run)) => run.push((x(at) + STEP / 2.0, y(value, end))),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn path(line: &Line, stretches: usize, end: f64) -> String {
    let mut d = String::new();
    for run in runs(line, stretches, end) {
        // one point alone is a short dash: a path of one point is not seen
        let run = if let [(x, y)] = run[..] { vec![(x - STEP / 3.0, y), (x + STEP / 3.0, y)] } else { run };
        for (nth, (x, y)) in run.into_iter().enumerate() {
            let _ = write!(d, "{}{} {}", if nth == 0 { "M" } else { "L" }, units(x), units(y));
        }
    }
    d
}

/// What is below the line.
fn area(line: &Line, stretches: usize, end: f64) -> String {
    let mut d = String::new();
    for run in runs(line, stretches, end).iter().filter(|run| run.len() > 1) {
        let (from, to) = (run[0].0, run[run.len() - 1].0);
        let _ = write!(d, "M{} {HEIGHT}", units(from));
        for (x, y) in run {
            let _ = write!(d, "L{} {}", units(*x), units(*y));
        }
        let _ = write!(d, "L{} {HEIGHT}Z", units(to));
    }
    d
}

/// A bar for each stretch, on what is below it already.
fn bars(line: &Line, below: &mut [f64], end: f64) -> String {
    let mut d = String::new();
    for (at, base) in below.iter_mut().enumerate() {
        let Some(value) = line.values.get(at).copied().and_then(drawn).filter(|value| *value > 0.0) else { continue };
        let height = (value / end * HEIGHT).clamp(BAR_MIN, HEIGHT);
        let top = (HEIGHT - *base - height).max(0.0);
        let _ = write!(
            d,
            "M{} {}h{}v{}h-{}Z",
            units(x(at) + 1.0),
            units(top),
            STEP - 2.0,
            units(HEIGHT - *base - top),
            STEP - 2.0
        );
        *base = HEIGHT - top;
    }
    d
}

fn goal(value: f64, stretches: usize, end: f64) -> Markup {
    html! { path.goal d={ "M0 " (units(y(value, end))) "H" (units(width(stretches))) } {} }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;

    fn line(values: &[Option<f64>]) -> Line {
        Line { start: Timestamp::from_secs(1_800_057_600), width: Duration::from_mins(1), values: values.to_vec() }
    }

    fn chart(form: Form, values: &[&[Option<f64>]]) -> String {
        let curve = |(at, values): (usize, &&[Option<f64>])| Curve {
            name: ["done", "dead"][at],
            class: ["c1", "c2"][at],
            line: line(values),
        };
        let curves = values.iter().enumerate().map(curve).collect();
        Chart { title: "Ends", unit: Unit::Count, form, curves, goal: None }.show().into_string()
    }

    #[test]
    fn nothing_is_no_drawing_but_a_sentence() {
        for values in [&[][..], &[None, None], &[Some(f64::NAN)]] {
            let shown = chart(Form::Lines, &[values]);
            assert!(shown.contains("Nothing was counted") && !shown.contains("<svg"), "{shown}");
            let shown = spark("429s", &line(values), Unit::Count, None).into_string();
            assert!(shown.contains("429s: nothing was counted.") && shown.contains("d=\"\""), "{shown}");
        }
        assert_eq!(chart(Form::Lines, &[]), "");
    }

    #[test]
    fn one_point_is_seen() {
        let shown = chart(Form::Lines, &[&[None, Some(1.0), None]]);
        assert!(shown.contains("class=\"line c1\" d=\"M11.7 0L18.3 0\""), "{shown}");
        assert!(shown.contains("last 1, highest 1 at 00:01, lowest 1."), "{shown}");
        let shown = chart(Form::Bars, &[&[Some(1.0)]]);
        assert!(shown.contains("d=\"M1 0h8v100h-8Z\""), "{shown}");
    }

    #[test]
    fn a_gap_is_not_drawn_over() {
        let d = path(&line(&[Some(0.0), Some(5.0), None, Some(10.0), Some(10.0)]), 5, 10.0);
        assert_eq!(d, "M5 100L15 50M35 0L45 0");
        let d = area(&line(&[Some(0.0), Some(5.0), None, Some(10.0)]), 4, 10.0);
        assert_eq!(d, "M5 100L5 100L15 50L15 100Z", "a point alone has no area");
    }

    #[test]
    fn bars_stand_on_each_other_and_stay_inside() {
        let shown = chart(Form::Bars, &[&[Some(6.0), Some(0.0)], &[Some(4.0), Some(10.0)]]);
        assert!(shown.contains("bars c1\" d=\"M1 40h8v60h-8Z\""), "{shown}");
        assert!(shown.contains("bars c2\" d=\"M1 0h8v40h-8ZM11 0h8v100h-8Z\""), "{shown}");
        assert!(shown.contains("<title>00:00, done 6, dead 4</title>"), "{shown}");
        let shown = tiny_bars("Ended", &[("c1", line(&[Some(1e-9), Some(1.0)]))], Unit::Count).into_string();
        assert!(shown.contains("M1 97h8v3h-8Z"), "what is little is seen: {shown}");
    }

    #[test]
    fn numbers_may_be_huge_negative_or_none() {
        for value in [f64::MAX, 1e300, -5.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            for form in [Form::Lines, Form::Bars] {
                let shown = chart(form, &[&[Some(value), Some(1.0), None], &[None, Some(value), Some(2.0)]]);
                assert!(!shown.contains("NaN") && !shown.contains("inf"), "{value}: {shown}");
                let coordinates = shown.split(" d=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
                for number in
                    coordinates.flat_map(|d| d.split(|c: char| !"0123456789.".contains(c))).filter(|n| !n.is_empty())
                {
                    let number: f64 = number.parse().expect("a number");
                    assert!(number <= HEIGHT, "{value}: {number} is outside: {shown}");
                }
            }
        }
        let many = vec![Some(1.0); 5_000];
        assert!(spark("many", &line(&many), Unit::Count, None).into_string().len() < 5_000, "bounded");
    }

    #[test]
    fn what_is_told_of_a_chart_cannot_be_markup() {
        let hostile = "\"><script>alert(1)</script>";
        let shown = spark(hostile, &line(&[Some(1.0)]), Unit::Count, Some(2.0)).into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert_eq!(shown.matches("&quot;&gt;&lt;script&gt;").count(), 2, "as its name and on hover: {shown}");
    }

    #[test]
    fn everybody_can_have_the_numbers() {
        let shown = chart(Form::Lines, &[&[Some(1.0), Some(2_000.0)], &[None, Some(3.0)]]);
        assert!(shown.contains("<summary>Numbers</summary>"), "{shown}");
        assert!(shown.contains("<td>00:01</td><td class=\"number\">2,000</td><td class=\"number\">3</td>"), "{shown}");
        assert!(shown.contains("<td>00:00</td><td class=\"number\">1</td><td class=\"number\">–</td>"), "{shown}");
        assert!(shown.contains("role=\"img\" aria-label=\"Ends. done, from 00:00 to 00:01 UTC: last 2,000"), "{shown}");
    }
}
