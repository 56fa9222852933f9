# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's JSON to the letter: lines and blanks of Jackson, and properties that are rendered once."""

import json
from datetime import UTC, datetime

from ovirtlab.engine.rest import json_form, xml_form
from ovirtlab.engine.rest.documents import Collection, Constant, Entity, Items, Value

FIELDS: dict[str, Value] = {
    "name": 'a "b" \\ \n é',
    "count": 3,
    "share": 0.5,
    "on": True,
    "none": None,
    "since": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    "words": Items("word", ["x", "y"]),
    "nothing": Items("thing", []),
}
SHOWN = """{
  "thing" : [ {
    "name" : "a \\"b\\" \\\\ \\n é",
    "count" : "3",
    "nothing" : { },
    "on" : "true",
    "share" : 0.5,
    "since" : 1767323045678,
    "words" : {
      "word" : [ "x", "y" ]
    },
    "link" : [ {
      "href" : "/things/1/parts",
      "rel" : "parts"
    } ],
    "href" : "/things/1",
    "id" : "1"
  }, {
    "id" : "2"
  } ]
}"""


def test_json_looks_as_the_engines_library_writes_it() -> None:
    things = [Entity("thing", FIELDS, id="1", href="/things/1", links=("parts",)), Entity("thing", id="2")]
    rendered = json_form.render(Collection("things", "thing", things))
    assert rendered.decode() == SHOWN
    assert json.loads(rendered)["thing"][0]["name"] == FIELDS["name"]
    assert json_form.render(Collection("things", "thing", [])) == b"{ }"


def test_constants_are_rendered_like_all_else_at_every_depth() -> None:
    inner = Entity("inner", {"deep": Entity("deep", {"value": 1})})
    for form in (json_form, xml_form):
        for wrap in (lambda entity: entity, lambda entity: Collection("outers", "outer", [entity])):
            plain, constant = (wrap(Entity("outer", {"inner": value})) for value in (inner, Constant(inner)))
            assert form.render(constant) == form.render(plain)
            assert form.render(constant) == form.render(plain)
