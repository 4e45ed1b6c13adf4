"""The picture of quality over CPU seconds, as an SVG that stands alone."""

from collections.abc import Sequence

Line = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 440, 64, 24, 24, 52
_COLOURS = {"by confidence": "#0b6e4f", "at random": "#888888", "oracle": "#c9a227"}


def svg(lines: dict[str, Line], points: dict[str, tuple[float, float]]) -> str:
    """Lines and named points over (CPU milliseconds a request, share answered right)."""
    everything = [point for line in lines.values() for point in line] + list(points.values())
    low_x, high_x = 0.0, max(x for x, _ in everything) * 1.05
    low_y, high_y = min(y for _, y in everything) - 0.01, max(y for _, y in everything) + 0.01

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + (point[0] - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (point[1] - low_y) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        *_axes(low_x, high_x, low_y, high_y, place),
    ]
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS.get(name, "#333333")
        path = " ".join(f"{x},{y}" for x, y in map(place, line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{_WIDTH - 150}" y="{_HEIGHT - _BOTTOM - 60 + 16 * number}" fill="{colour}">{name}</text>')
    for name, point in points.items():
        x, y = place(point)
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#222222"/><text x="{x + 7}" y="{y + 14}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(low_x: float, high_x: float, low_y: float, high_y: float, place) -> list[str]:  # type: ignore[no-untyped-def]
    parts = []
    for step in range(6):
        x = low_x + (high_x - low_x) * step / 5
        y = low_y + (high_y - low_y) * step / 5
        at_x, at_y = place((x, low_y)), place((low_x, y))
        parts.append(f'<text x="{at_x[0]}" y="{at_x[1] + 18}" text-anchor="middle">{x:.2f}</text>')
        parts.append(f'<text x="{at_y[0] - 8}" y="{at_y[1] + 4}" text-anchor="end">{100 * y:.0f} %</text>')
        parts.append(f'<line x1="{at_y[0]}" y1="{at_y[1]}" x2="{_WIDTH - _RIGHT}" y2="{at_y[1]}" stroke="#eeeeee"/>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">CPU milliseconds a request</text>')
    parts.append(f'<text x="{_LEFT}" y="14">answered right</text>')
    return parts
