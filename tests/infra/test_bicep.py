"""The reader of Bicep that the contracts rely on."""

import pytest

from tests.infra.bicep import Expression, Template

TEMPLATE = """
param name string = 'a'
param count int
var port = 5000
resource account 'Microsoft.X/accounts@2025-01-01' = if (count > 0) {
  name: name // a comment
  properties: { 'odata.type': 'it\\'s', flag: true, ports: [port, -1], none: null
    text: '${name}-x', value: string(port) }
}
resource other 'Microsoft.X/accounts@2025-01-01' existing = {
  name: 'other'
}
module each 'each.bicep' = [for item in items: {
  name: item
}]
output secret string = account.listKeys().primary
"""


def test_literals_are_read_and_all_else_stays_text() -> None:
    template = Template(TEMPLATE)
    assert template.resource("Microsoft.X/accounts") == {
        "name": Expression("name"),
        "properties": {
            "odata.type": "it's",
            "flag": True,
            "ports": [Expression("port"), -1],
            "none": None,
            "text": Expression("'${name}-x'"),
            "value": Expression("string(port)"),
        },
    }
    assert template.parameters == {"name": "a", "count": Expression("")}
    assert template.modules["each"].body == {"name": Expression("item")}
    assert template.resources["other"].existing
    assert template.outputs == {"secret": Expression("account.listKeys().primary")}
    assert "listKeys" in template.calls


def test_variables_are_followed() -> None:
    template = Template(TEMPLATE)
    assert template.resolved([Expression("port"), {"a": Expression("string(port)")}]) == [5000, {"a": "5000"}]


def test_what_is_not_bicep_is_refused() -> None:
    with pytest.raises(SyntaxError, match="line 2"):
        Template("param a string\nresource x {")
