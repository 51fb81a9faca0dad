//! The screen of `top`.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph, Row, Sparkline, Table},
};

use super::view::{Figure, HEADS, View};

/// A figure with its curve takes so much room.
const FIGURE_WIDTH: u16 = 26;
const FIGURE_HEIGHT: u16 = 4;
/// Curves are drawn in eighths of a line; values are scaled to whole numbers for them.
const CURVE_STEPS: f64 = 1_000.0;
const COLUMNS: [Constraint; HEADS.len()] = [
    Constraint::Length(5),
    Constraint::Min(10),
    Constraint::Length(6),
    Constraint::Length(9),
    Constraint::Length(8),
    Constraint::Length(7),
    Constraint::Length(10),
    Constraint::Length(9),
    Constraint::Length(22),
];

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, is_held: bool) {
    let area = frame.area();
    let per_row = usize::from((area.width / FIGURE_WIDTH).max(1));
    let figure_rows = view.figures.len().div_ceil(per_row) as u16;
    let [title, figures, nodes, needs, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(figure_rows * FIGURE_HEIGHT),
        Constraint::Length(view.nodes.len() as u16 + 2),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(header(view, is_held), title);
    for (place, figure) in view.figures.iter().enumerate() {
        let (row, column) = (place / per_row, place % per_row);
        let spot = Rect {
            x: figures.x + column as u16 * FIGURE_WIDTH,
            y: figures.y + row as u16 * FIGURE_HEIGHT,
            width: FIGURE_WIDTH,
            height: FIGURE_HEIGHT,
        };
        draw_figure(frame, figure, spot.intersection(figures));
    }
    draw_nodes(frame, view, nodes);
    draw_needs(frame, view, needs);
    let hints = "q leaves   space holds   the same in a browser: playhouse console";
    frame.render_widget(Paragraph::new(hints).style(Style::new().fg(Color::DarkGray)), keys);
}

fn header(view: &View, is_held: bool) -> Paragraph<'static> {
    let up = view.nodes.iter().filter(|node| node.is_up).count();
    let mut parts = vec![
        Span::styled("playhouse", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {up} of {} nodes up", view.nodes.len())),
    ];
    if is_held {
        parts.push(Span::styled("  held", Style::new().fg(Color::Yellow)));
    }
    if let Some(trouble) = &view.trouble {
        parts.push(Span::styled(
            format!("  {trouble}; trying again"),
            Style::new().fg(Color::Red),
        ));
    }
    Paragraph::new(Line::from(parts))
}

fn draw_figure(frame: &mut Frame<'_>, figure: &Figure, area: Rect) {
    if area.height < FIGURE_HEIGHT {
        return;
    }
    let block = Block::bordered()
        .border_style(Style::new().fg(Color::DarkGray))
        .title(format!(" {} ", figure.title))
        .title_top(Line::from(format!(" {} ", figure.text)).right_aligned());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let shown = figure.curve.len().saturating_sub(usize::from(inner.width));
    let top = figure
        .curve
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    let curve: Vec<u64> = figure.curve[shown..]
        .iter()
        .map(|value| {
            if top > 0.0 && value.is_finite() {
                (value / top * CURVE_STEPS) as u64
            } else {
                0
            }
        })
        .collect();
    let sparkline = Sparkline::default()
        .data(&curve)
        .max(CURVE_STEPS as u64)
        .style(Style::new().fg(Color::Cyan));
    frame.render_widget(sparkline, inner);
}

fn draw_nodes(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let aligned = |at: usize, text: &str| {
        let line = Line::from(text.to_owned());
        if HEADS[at].starts_with('>') {
            line.right_aligned()
        } else {
            line
        }
    };
    let heads = HEADS
        .iter()
        .enumerate()
        .map(|(at, head)| aligned(at, head.trim_start_matches('>')));
    let rows = view.nodes.iter().map(|node| {
        let cells = node.cells.iter().enumerate().map(|(at, cell)| aligned(at, cell));
        let style = if node.is_up {
            Style::new()
        } else {
            Style::new().fg(Color::Red)
        };
        Row::new(cells).style(style)
    });
    let table = Table::new(rows, COLUMNS)
        .header(Row::new(heads).style(Style::new().fg(Color::DarkGray)))
        .column_spacing(1);
    frame.render_widget(table, area);
}

fn draw_needs(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let lines: Vec<Line<'_>> = if view.needs.is_empty() && !view.nodes.is_empty() {
        vec![Line::styled("nothing needs help", Style::new().fg(Color::Green))]
    } else {
        let each = view.needs.iter();
        each.map(|need| Line::styled(format!("! {need}"), Style::new().fg(Color::Yellow)))
            .collect()
    };
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use proto::{
        cluster::v1::{NodeStatus, StatusResponse},
        telemetry::v1::{Series, SeriesResponse},
    };
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn drawn(width: u16, height: u16) -> String {
        let nodes = [true, false].into_iter().zip(1..).map(|(up, id)| NodeStatus {
            id,
            up,
            address: format!("127.0.0.1:700{id}"),
            ..NodeStatus::default()
        });
        let status = StatusResponse {
            nodes: nodes.collect(),
            ..StatusResponse::default()
        };
        let series = SeriesResponse {
            series: vec![Series {
                name: "orders_per_s".to_owned(),
                values: vec![1.0, f64::NAN, 42.0],
                ..Series::default()
            }],
            ..SeriesResponse::default()
        };
        let view = View::of(&status, &series, 0);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is memory");
        terminal.draw(|frame| draw(frame, &view, false)).expect("it is memory");
        terminal.backend().to_string()
    }

    #[test]
    fn a_wide_screen_shows_figures_nodes_and_what_needs_help() {
        let text = drawn(120, 30);
        for part in [
            "1 of 2 nodes up",
            "orders/s",
            "42.0",
            "127.0.0.1:7002",
            "! node 2 does not answer",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn the_smallest_screen_is_drawn_as_far_as_it_goes() {
        for (width, height) in [(1, 1), (20, 5), (40, 10)] {
            drawn(width, height);
        }
    }
}
