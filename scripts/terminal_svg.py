"""Draws a recorded terminal session as an SVG: terminal_svg.py SESSION.txt OUT.svg

SESSION.txt is the text as a terminal shows it; SGR escapes for bold, dim and the basic colours are kept.
"""
import html
import re
import sys
import unicodedata

COLOURS = {31: "#f38ba8", 32: "#a6e3a1", 33: "#f9e2af", 34: "#89b4fa", 35: "#cba6f7", 36: "#94e2d5"}
CELL_W, CELL_H, PAD = 8.4, 19, 18


def cells(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def spans(line, style):
    at = 0  # style goes on into the next line, as on a terminal
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            for code in (int(c or 0) for c in part[2:-1].split(";")):
                if code == 0:
                    style.clear()
                elif code == 1:
                    style["font-weight"] = "bold"
                elif code == 2:
                    style["opacity"] = "0.55"
                elif code in COLOURS:
                    style["fill"] = COLOURS[code]
        elif part:
            attributes = "".join(f' {k}="{v}"' for k, v in style.items())
            yield f'<tspan x="{PAD + at * CELL_W:.1f}"{attributes}>{html.escape(part)}</tspan>'
            at += cells(part)


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        lines = f.read().rstrip("\n").split("\n")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    width = PAD * 2 + max(map(cells, plain)) * CELL_W
    height = PAD * 2 + len(lines) * CELL_H
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img" aria-label="terminal session">',
           '<rect width="100%" height="100%" rx="8" fill="#1e1e2e"/>',
           '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" fill="#cdd6f4" xml:space="preserve">']
    style = {}
    for i, line in enumerate(lines):
        out.append(f'<text y="{PAD + (i + 0.75) * CELL_H:.1f}">{"".join(spans(line, style))}</text>')
    out += ["</g>", "</svg>", ""]
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write("\n".join(out))


main()
