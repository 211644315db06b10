# SPDX-License-Identifier: GPL-2.0-only
"""Two pictures of compare/, as text: what they show is printed beside each mark, and there is no legend."""
import math

COLORS = ["#1f5fa8", "#c4501b", "#3c7a3c", "#7a4fa0", "#555555"]
FONT = "font-family='sans-serif' font-size='12'"


def _text(x, y, text, anchor="start", color="#000000", more=""):
    text = str(text).replace("&", "&amp;").replace("<", "&lt;")
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{color}' {more}>{text}</text>"


def _line(x1, y1, x2, y2, color="#cccccc", more=""):
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{color}' {more}/>"


def _page(width, height, parts):
    return (f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' {FONT}>\n"
            f"<rect width='{width}' height='{height}' fill='#ffffff'/>\n" + "\n".join(parts) + "\n</svg>\n")


def ratios(panels):
    """Bars to the right and left of 1.0. @panels: [(title, [(row, [(column, ratio)])])], one base a panel."""
    left, right, bar, width = 285, 150, 15, 900
    most = max(1.2, max(v for _, rows in panels for _, cells in rows for _, v in cells))
    scale = (width - left - right) / most
    parts, y = [], 20
    for title, rows in panels:
        parts.append(_text(10, y, title, more="font-weight='bold'"))
        top = y = y + 12
        for row, cells in rows:
            parts.append(_text(left - 8, y + bar * len(cells) / 2 + 4, row, "end"))
            for i, (column, value) in enumerate(cells):
                at = y + i * bar
                parts.append(f"<rect x='{left}' y='{at + 1}' width='{value * scale:.1f}' height='{bar - 3}' fill='{COLORS[i]}'/>")
                parts.append(_text(left + value * scale + 5, at + bar - 4, f"{value:.2f}  {column}", color=COLORS[i]))
            y += bar * len(cells) + 7
        one = left + scale
        parts += [_line(one, top, one, y, "#000000", "stroke-dasharray='3,3'"), _text(one, y + 12, "1.0, the base", "middle")]
        y += 44
    return _page(width, y, parts)


def lines(what_x, what_y, lines_, low, high):
    """Lines on a logarithmic scale from @low to @high, each with its name and last value behind it.
    @lines_: {name: [(x, y)]}."""
    left, right, top, bottom, width, height = 60, 250, 44, 50, 900, 430
    most = max(x for points in lines_.values() for x, _ in points)

    def at(x, y):
        share = (math.log10(max(y, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return left + x / most * (width - left - right), height - bottom - share * (height - top - bottom)

    parts = [_text(10, 18, what_y, more="font-weight='bold'"), _text(left, height - 12, what_x)]
    mark = low
    while mark <= high:
        y = at(0, mark)[1]
        parts += [_line(left, y, width - right, y), _text(left - 6, y + 4, f"{mark:g}", "end")]
        mark *= 10
    for x in range(0, int(most) + 1, 2000):
        parts.append(_text(at(x, low)[0], height - bottom + 16, x, "middle"))
    # Lines that are one get their names one below the other.
    taken = []
    for i, (name, points) in enumerate(lines_.items()):
        parts.append(f"<polyline fill='none' stroke='{COLORS[i]}' stroke-width='2' stroke-dasharray='{'none' if i % 2 else '7,3'}' "
                     "points='" + " ".join("{:.1f},{:.1f}".format(*at(*p)) for p in points) + "'/>")
        x, y = at(*points[-1])
        while any(abs(y - t) < 15 for t in taken):
            y += 3
        taken.append(y)
        parts.append(_text(x + 8, y + 4, f"{points[-1][1]:.1f}  {name}", color=COLORS[i]))
    return _page(width, height, parts)
