"""One palette for every surface: colours by meaning, never by hand.

Contrast of each against the surface it is drawn on is checked in the tests: 3 to 1 for marks, 4.5 to 1 for text. A
state is never colour alone: the board draws a shape of its own and writes the word.
"""

SURFACE = {"light": "#ffffff", "dark": "#171d20"}
INK = {"light": "#1d2623", "dark": "#e4eae7"}

HEALTH = {
    # health of a machine: (on light, on dark)
    "well": ("#2c8262", "#4fb58f"),
    "low": ("#2f6fbd", "#6ba5ee"),
    "medium": ("#b06000", "#e6a23c"),
    "high": ("#c2332f", "#f0716a"),
    "silent": ("#69746f", "#8f9b96"),
}

SERIES = {
    # one hue per physical quantity, the same on every page
    "vibration_velocity": ("#3566b8", "#79a6f2"),
    "vibration_acceleration": ("#3566b8", "#79a6f2"),
    "temperature": ("#b3541e", "#f0935a"),
    "current": ("#6d4fb3", "#ab92ea"),
    "other": ("#4d6b62", "#93b3a8"),
}

ALTERNATES = (("#0b7a75", "#5cc2bb"), ("#a03d72", "#e08db8"), ("#6b6b12", "#c2c26a"))
"""A machine's second, third and fourth sensor of one kind."""

NEUTRAL = {
    # page, card, text and lines: (light, dark)
    "page": ("#f3f5f3", "#0f1416"),
    "surface": (SURFACE["light"], SURFACE["dark"]),
    "raised": ("#f8faf8", "#1d2528"),
    "ink": (INK["light"], INK["dark"]),
    "quiet": ("#5b6763", "#9aa7a2"),
    "edge": ("#dde3df", "#2a3438"),
    "grid": ("#dfe5e1", "#2b363a"),
    "axis": ("#b3bdb8", "#4a565b"),
    "accent": ("#1f6b58", "#63c3a5"),
    "on-accent": ("#ffffff", "#0b1f19"),
    "limit": ("#8a3b12", "#f0a36c"),
}


def css() -> str:
    """Return the palette as CSS custom properties: light, dark by the system's wish, and either by choice."""
    pairs = {
        **NEUTRAL,
        **{f"state-{name}": pair for name, pair in HEALTH.items()},
        **{f"series-{name}": pair for name, pair in SERIES.items()},
        **{f"series-alternate-{number}": pair for number, pair in enumerate(ALTERNATES, 1)},
    }
    light, dark = ("".join(f"--{name}:{pair[side]};" for name, pair in pairs.items()) for side in (0, 1))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
    )


def colour(name: str) -> str:
    """Return the colour of a health state on dark, the surface of wall boards and of Grafana."""
    return HEALTH[name][1]


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of two colours `#rrggbb` (WCAG 2.1, section 1.4.3)."""
    lighter, darker = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
