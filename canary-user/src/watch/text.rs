//! Text by columns of a terminal: cut, filled and wrapped.

use ratatui::text::Span;

/// Exactly `width` columns: cut with an ellipsis, or filled with spaces.
pub fn pad(text: &str, width: usize) -> String {
    let length = columns(text);
    if length <= width {
        return format!("{text}{}", " ".repeat(width - length));
    }
    let mut cut = String::new();
    for c in text.chars() {
        if columns(&format!("{cut}{c}")) + 1 > width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    let length = columns(&cut);
    cut + &" ".repeat(width.saturating_sub(length))
}

/// Lines of whole words of at most `width` columns; a word that is longer is cut where it must.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').flat_map(|word| pieces(word, width)) {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(&word) <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

fn pieces(word: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for c in word.chars() {
        let last = pieces.len() - 1;
        let longer = format!("{}{c}", pieces[last]);
        if columns(&longer) <= width || pieces[last].is_empty() {
            pieces[last] = longer;
        } else {
            pieces.push(c.to_string());
        }
    }
    pieces
}

fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_exact_in_columns_and_not_in_bytes() {
        assert_eq!(pad("µs", 4), "µs  ");
        assert_eq!(pad("turnaround", 6), "turna…");
        assert_eq!(pad("日本語", 4), "日… ", "wide characters take two columns");
        assert_eq!(pad("a", 0), "");
    }

    #[test]
    fn wrapping_keeps_words_whole_unless_they_cannot_be() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a /very/long/path b", 6), ["a", "/very/", "long/p", "ath b"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }
}
