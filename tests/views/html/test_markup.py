"""Text stays text: nothing in a name, a value or a number's label becomes markup."""

import json

import pytest

from pipeline.views.html.markup import Html, data, facts, table, tag, text

EVIL = "</script><img src=x onerror='x()'>\"&"


def test_what_is_not_markup_is_escaped_in_content_and_attributes():
    made = tag("p", EVIL, 7, Html("<b>x</b>"), class_=EVIL, aria_label="a", hidden=True, title=None)
    assert made.count("<") == 4 and "<b>x</b>" in made and "&lt;/script&gt;" in made and "7" in made
    assert 'aria-label="a" hidden>' in made and "title" not in made and made.count('"') == 4
    assert text(made) is made


def test_cells_and_captions_are_escaped_and_headers_have_a_scope():
    made = table(EVIL, [EVIL], [[EVIL, EVIL]]) + facts(EVIL, {EVIL: EVIL})
    assert "<img" not in made and made.count('scope="col"') == 3 and made.count('scope="row"') == 2


def test_json_cannot_end_its_element_and_reads_back():
    made = data({EVIL: [1.5, None]}, "chart-data")
    assert made.count("</script>") == 1 and "&" not in made
    assert json.loads(made[made.index(">") + 1 : made.rindex("</script>")]) == {EVIL: [1.5, None]}


def test_json_with_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        data([float("nan")], "x")
