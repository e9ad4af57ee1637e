import pytest

from molspectra.reporting.markup import Markup, element, listing, markup, page, paragraph, table


def test_every_text_is_escaped_and_markup_is_not():
    assert paragraph("a < b & c") == "<p>a &lt; b &amp; c</p>"
    assert paragraph(element("b", "<i>")) == "<p><b>&lt;i&gt;</b></p>"
    assert element("a", "x", title='" onload="alert(1)') == '<a title="&quot; onload=&quot;alert(1)">x</a>'
    assert markup(["<", Markup("<br>"), None, ("&",)]) == "&lt;<br>&amp;"


def test_characters_that_html_forbids_are_replaced():
    assert markup("a\x00b\x1b\ud800c\td") == "a\ufffdb\ufffd\ufffdc\td"
    page("\ud800", paragraph("\x00")).encode()


def test_attributes_are_spelt_as_in_html_and_none_leaves_one_out():
    assert element("td", "1", class_="number", aria_label=None, data_x="y") == (
        '<td class="number" data-x="y">1</td>'
    )


def test_no_items_make_no_list():
    assert listing([]) is None
    assert listing(["a"]) == "<ul><li>a</li></ul>"


def test_a_table_has_a_caption_and_headings_for_rows_and_columns():
    made = table("errors", ["start", "MAE"], [["scratch", "1.0"]], numbers=[1])
    assert "<caption>errors</caption>" in made
    assert '<th scope="col">start</th><th scope="col" class="number">MAE</th>' in made
    assert '<th scope="row">scratch</th><td class="number">1.0</td>' in made


@pytest.mark.parametrize("part", ["<!DOCTYPE html>", '<html lang="en">', "viewport", "default-src 'none'"])
def test_a_page_has_its_frame(part):
    assert part in page("title", paragraph("x"))
