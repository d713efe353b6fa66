//! Tables for people: columns as wide as their widest cell, numbers to the right.

use std::io::IsTerminal;

/// A colour of the terminal, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Less important than the rest.
    Faint,
    /// More important than the rest.
    Strong,
}

/// Whether colours are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) colours: bool,
}

impl Style {
    /// Colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>) or the terminal has none.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { colours: stream.is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// The text in a colour, where colours are written.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Good => "32",
            Colour::Bad => "31",
            Colour::Faint => "2",
            Colour::Strong => "1",
        };
        if self.colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    right: bool,
    colour: Option<Colour>,
}

impl Cell {
    /// Text, to the left. Control characters of a peer's text are made visible.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), right: false, colour: None }
    }

    /// A number, to the right.
    pub(crate) fn number(number: impl ToString) -> Self {
        Self { text: number.to_string(), right: true, colour: None }
    }

    /// Text, or a dash if there is none.
    pub(crate) fn option(text: Option<impl ToString>) -> Self {
        text.map_or_else(|| Self::text("-"), |text| Self::text(text.to_string()))
    }

    /// The cell in a colour.
    pub(crate) fn colour(mut self, colour: Colour) -> Self {
        self.colour = Some(colour);
        self
    }
}

/// Text in which no control character reaches the terminal.
pub(crate) fn printable(text: &str) -> String {
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

/// Rows under a header; `empty` is said if there are none.
pub(crate) fn table(header: &[&str], rows: &[Vec<Cell>], style: Style, empty: &str) -> String {
    if rows.is_empty() {
        return format!("{empty}\n");
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.chain(header.get(column).map(|title| title.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let titles = header.iter().enumerate().map(|(column, title)| {
        let right = rows[0].get(column).is_some_and(|cell| cell.right);
        Cell { text: (*title).to_owned(), right, colour: Some(Colour::Faint) }
    });
    let mut text = line(&titles.collect::<Vec<_>>(), &widths, style);
    for row in rows {
        text.push_str(&line(row, &widths, style));
    }
    text
}

fn line(cells: &[Cell], widths: &[usize], style: Style) -> String {
    let mut text = String::new();
    let last = cells.len().saturating_sub(1);
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.text.chars().count()));
        let shown = cell.colour.map_or_else(|| cell.text.clone(), |colour| style.paint(colour, &cell.text));
        let parts = match (cell.right, column == last) {
            (true, _) => [padding, shown],
            (false, false) => [shown, padding],
            (false, true) => [shown, String::new()],
        };
        text.push_str(&parts.concat());
        text.push_str(if column == last { "\n" } else { "  " });
    }
    text
}

/// Names with values, one a line.
pub(crate) fn sheet(rows: &[(&str, String)], style: Style) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let row = |(name, value): &(&str, String)| {
        let name = style.paint(Colour::Faint, &format!("{name:<width$}"));
        format!("{name}  {value}\n")
    };
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colours: false };

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec![Cell::text("web1"), Cell::number(5), Cell::text("up")],
            vec![Cell::text("db"), Cell::number(12345), Cell::option(None::<String>)],
        ];
        let wanted = "NAME  FRAMES  STATE\nweb1       5  up\ndb     12345  -\n";
        assert_eq!(table(&["NAME", "FRAMES", "STATE"], &rows, PLAIN, "no ports"), wanted);
        assert_eq!(table(&["NAME"], &[], PLAIN, "no ports"), "no ports\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let rows = vec![vec![Cell::text("up").colour(Colour::Good), Cell::text("x")]];
        let coloured = table(&["STATE", "B"], &rows, Style { colours: true }, "");
        assert!(coloured.contains("\x1b[32mup\x1b[0m     x\n"), "{coloured:?}");
    }

    #[test]
    fn a_peer_s_text_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn sheets_line_up() {
        assert_eq!(sheet(&[("a", "1".into()), ("long", "2".into())], PLAIN), "a     1\nlong  2\n");
    }
}
