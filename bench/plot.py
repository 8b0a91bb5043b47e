"""Plots as SVG.

Horizontal bars: the median of each, a line from the lowest to the highest, and a value to be reached where there is one. Lines over time:
what part of the whole is done.
"""

from xml.sax.saxutils import escape

WIDTH = 880
LABELS = 270
RIGHT = 90
ROW = 26
TOP = 46
COLOURS = {"ours": "#2f5f8f", "other": "#b9c4cd", "limit": "#e0b26b"}


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def bars(title, unit, rows):
    """rows: (label, {"median", "low", "high"}, "ours", "other" or "limit"). Returns the SVG's text."""
    longest = max(row[1]["high"] for row in rows)
    scale = (WIDTH - LABELS - RIGHT) / longest
    height = TOP + ROW * len(rows) + 12
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
             f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
             f'  <text x="16" y="26" font-size="15" font-weight="bold">{escape(title)}</text>',
             f'  <text x="{WIDTH - 16}" y="26" text-anchor="end" fill="#444">{escape(unit)}</text>']
    for i, (label, value, kind) in enumerate(rows):
        y = TOP + ROW * i
        middle = y + ROW / 2 - 2
        low, high = (LABELS + value[end] * scale for end in ("low", "high"))
        parts += [f'  <text x="{LABELS - 10}" y="{y + 15}" text-anchor="end">{escape(label)}</text>',
                  f'  <rect x="{LABELS}" y="{y + 2}" width="{value["median"] * scale:.1f}" height="{ROW - 8}" '
                  f'fill="{COLOURS[kind]}"/>',
                  f'  <path d="M{low:.1f} {middle} H{high:.1f}" stroke="#333" stroke-width="1.2"/>',
                  f'  <text x="{high + 8:.1f}" y="{y + 15}" fill="#444">{number(value["median"])}</text>']
    return "\n".join([*parts, "</svg>", ""])


def lines(title, along, up, series, top="100 %"):
    """series: (label, [(x, part of 1)...], "ours", "other" or "limit"); 1 stands for `top`. Returns the SVG's text."""
    left, right, bottom, height = 60, WIDTH - 130, 300, 340
    longest = max(x for _, points, _ in series for x, _ in points)
    at = lambda x, y: (left + (right - left) * x / longest, bottom - (bottom - TOP) * y)  # noqa: E731
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
             f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
             f'  <text x="16" y="26" font-size="15" font-weight="bold">{escape(title)}</text>',
             f'  <path d="M{left} {TOP} V{bottom} H{right}" fill="none" stroke="#333"/>',
             f'  <text x="{left - 8}" y="{TOP + 5}" text-anchor="end">{escape(top)}</text>',
             f'  <text x="{left - 8}" y="{bottom}" text-anchor="end">0</text>',
             f'  <text x="{right}" y="{bottom + 18}" text-anchor="end">{number(longest)} {escape(along)}</text>',
             f'  <text x="{left + 8}" y="{TOP + 5}" fill="#444">{escape(up)}</text>']
    for i, (label, points, kind) in enumerate(series):
        path = " L".join("{:.1f} {:.1f}".format(*at(x, y)) for x, y in points)
        y = TOP + 20 * i + 12
        parts += [f'  <path d="M{path}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2"/>',
                  f'  <path d="M{right + 12} {y - 4} h20" stroke="{COLOURS[kind]}" stroke-width="3"/>',
                  f'  <text x="{right + 38}" y="{y}">{escape(label)}</text>']
    return "\n".join([*parts, "</svg>", ""])
