"""Colours can be told from the surface they stand on, in light and in dark."""

import pytest

from dashboards import palette

SIDES = {"light": 0, "dark": 1}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", [*palette.HEALTH, *palette.SERIES])
def test_marks_stand_out_from_the_surface(name, side):
    colour = (palette.HEALTH.get(name) or palette.SERIES[name])[SIDES[side]]
    assert palette.contrast(colour, palette.SURFACE[side]) >= 3


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("text", ["ink", "quiet", "limit", "accent"])
@pytest.mark.parametrize("under", ["surface", "page", "raised"])
def test_text_is_readable(text, under, side):
    colours = palette.NEUTRAL
    assert palette.contrast(colours[text][SIDES[side]], colours[under][SIDES[side]]) >= 4.5


@pytest.mark.parametrize("side", SIDES)
def test_text_on_the_accent_is_readable(side):
    colours = palette.NEUTRAL
    assert palette.contrast(colours["on-accent"][SIDES[side]], colours["accent"][SIDES[side]]) >= 4.5


@pytest.mark.parametrize("side", SIDES)
def test_health_colours_differ_in_lightness_or_hue(side):
    assert len({pair[SIDES[side]] for pair in palette.HEALTH.values()}) == len(palette.HEALTH)


def test_contrast_of_black_on_white_is_21():
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)


def test_css_defines_every_colour_in_all_three_blocks():
    css = palette.css()
    assert css.count("--state-high:") == css.count("--series-current:") == css.count("--ink:") == 3
